"""Pictures of a trained MFSA: their numbers are the model's own, words and seconds only where known; bad input."""

import csv
import dataclasses
import json
import shutil

import jax
import matplotlib.image
import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.metrics import silhouette_score

from mmer_jax import figures
from mmer_jax.data.batches import MODALITIES
from mmer_jax.data.records import seal
from mmer_jax.files import read_json
from mmer_jax.map_names import MapName
from mmer_jax.models.mfsa import Mfsa
from mmer_jax.models.mica import Mica
from mmer_jax.models.mult import Mult
from mmer_jax.models.pmr import Pmr
from mmer_jax.results import attention_maps, attention_plots, canvas, representations
from mmer_jax.run import finished
from mmer_jax.train import train_and_evaluate
from tests.any_values import quick_runs
from tests.small_run import small_config

MODEL = {  # what is left out here would only take longer to compile
    'name': 'mfsa', 'width': 8, 'num_heads': 2, 'psa_layers': 2, 'hca_layers': 1, 'output_width': 6, 'feed_forward': 8,
    'fusion_feed_forward': 8, 'discriminator_size': 4, 'weighted_attention': 'none', 'grains': ('mixed', 'fine'),
}  # fmt: skip
RECORD = 'clip_030'  # shorter than its batch in both modalities


@pytest.fixture(autouse=True)
def at_100_dpi(monkeypatch):
    """Pictures are counted in pixels here, and drawn sooner."""
    monkeypatch.setattr(canvas, 'DPI', 100)


@pytest.fixture(scope='module')
def workdir(tiny, tmp_path_factory):
    """Two seeds of a tiny MFSA on text and vision."""
    folder = tmp_path_factory.mktemp('runs') / 'mfsa'
    config = small_config(tiny, modalities=('text', 'vision'), epochs=1, data__max_shapes=1, optimizer__name='sgd')
    config.model = ConfigDict(MODEL)
    with quick_runs(train=False):
        train_and_evaluate(config, folder)
    return folder


@pytest.fixture(scope='module')
def run(workdir):
    return finished.open_run(workdir, seed=1)


@pytest.fixture(scope='module')
def worded(tiny, tmp_path_factory):
    """The data set with a text column that fits all records but the last one of the test split, and with seconds."""
    folder = tmp_path_factory.mktemp('worded') / 'tiny'
    shutil.copytree(tiny, folder)
    with open(folder / 'manifest.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row['text'] = ' '.join(f'$word{n}' for n in range(int(row['length_text'])))
        row |= {'start': '1.5', 'end': '4.5'}
    last = [row for row in rows if row['split'] == 'test'][-1]
    last['text'] += ' more'
    with open(folder / 'manifest.csv', 'w', newline='') as file:
        table = csv.DictWriter(file, rows[0], lineterminator='\n')
        table.writeheader()
        table.writerows(rows)
    assert seal(folder) == []
    return folder


@pytest.fixture(scope='module')
def drawn(run, tmp_path_factory):
    """All maps of all heads of one record."""
    folder = tmp_path_factory.mktemp('drawn')
    keys = ['psa/0/text', 'psa/1/text', 'hca/0/text/mixed', 'hca/0/vision/fine_text']
    files = figures.draw_attention(run, folder, record=RECORD, keys=keys, heads='all')
    with np.load(folder / 'attention.npz') as file:
        return files, dict(file), json.loads((folder / 'attention.json').read_text())


@pytest.fixture(scope='module')
def direct(run):
    """Outputs and masks of one row, by the model itself on a padded batch."""
    load = run.batches(run.fold_data.fold.test)
    number = int(RECORD[-3:])
    place, row = next(
        (n, list(load.plan[n][2]).index(number)) for n in range(len(load.plan)) if number in load.plan[n][2]
    )
    batch = {key: value for key, value in load(load.plan[place]).items() if key != 'id'}
    model = run.model.clone(capture_attention=True)
    outputs = jax.jit(lambda v, b: model.apply(v, b, train=False))(finished.chosen_variables(run), batch)
    masks = {m: batch[f'{m}_mask'][row] for m in ('text', 'vision')}
    assert not masks['text'].all()
    assert not masks['vision'].all()  # both are padded here, so the order of a joined axis shows
    return jax.tree.map(lambda x: np.asarray(x)[row], outputs), masks


def test_maps_are_those_of_the_model_on_a_padded_batch_without_its_padding(drawn, direct, workdir):
    _, arrays, about = drawn
    outputs, masks = direct
    sides = {
        'psa/0/text': (['text'], ['text']),
        'psa/1/text': (['text'], ['text']),
        'hca/0/text/mixed': (['text'], ['text', 'vision']),
        'hca/0/vision/fine_text': (['vision'], ['text']),
    }
    assert set(arrays) == set(sides)
    for key, (targets, sources) in sides.items():
        rows, columns = (np.concatenate([masks[m] for m in side]) for side in (targets, sources))
        expected = outputs['attention'][key][:, rows][:, :, columns]
        np.testing.assert_allclose(arrays[key], expected, atol=1e-5)
        np.testing.assert_allclose(arrays[key].sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(about['run']['prediction'], outputs['prediction'], atol=1e-5)
    with np.load(workdir / 'predictions' / 'test.npz') as file:  # what training itself wrote, of the second seed
        saved = file['prediction'][1, list(file['id']).index(RECORD)]
    np.testing.assert_allclose(about['run']['prediction'], saved, atol=1e-5)


def test_every_map_has_its_picture_and_the_overview_has_them_all(drawn):
    files, arrays, about = drawn
    names = [file.name for file in files]
    assert names == [
        'psa_0_text.png', 'psa_1_text.png', 'hca_0_text_mixed.png', 'hca_0_vision_fine_text.png',
        'overview.png', 'attention.npz', 'attention.json',
    ]  # fmt: skip
    pictures = {file.name: matplotlib.image.imread(file)[..., :3] for file in files[:5]}
    for image in pictures.values():
        assert image.shape[0] > 150
        assert image.shape[1] > 300
        assert 0.02 < (image.min(-1) < 0.9).mean() < 0.9  # neither blank nor covered
    assert pictures['overview.png'].size > max(pictures[name].size for name in names[:4])
    assert set(about['maps']) == set(arrays)
    assert about['maps']['hca/0/text/mixed']['sources'] == ['text', 'vision']


def test_heads_are_reduced(run, drawn, tmp_path):
    every = drawn[1]['psa/1/text']
    for heads, expected in (('mean', every.mean(0)), ('max', every.max(0))):
        figures.draw_attention(run, tmp_path, record=RECORD, keys=['psa/1/text'], heads=heads)
        with np.load(tmp_path / 'attention.npz') as file:
            np.testing.assert_array_equal(file['psa/1/text'], expected)


def test_words_stand_where_the_manifest_has_one_for_each_step(workdir, worded, tmp_path):
    run = finished.open_run(workdir, directory=str(worded))
    test = run.fold_data.source.manifest['id'][run.fold_data.fold.test]
    figures.draw_attention(run, tmp_path, record=RECORD, keys=['hca/0/text/mixed'])
    about = json.loads((tmp_path / 'attention.json').read_text())
    text, vision = about['run']['axes']['text'], about['run']['axes']['vision']
    assert text['words'] == [f'$word{n}' for n in range(text['steps'])]
    assert (vision['words'], vision['unit'], vision['start'], vision['end']) == ([], 's', 0, 3)
    assert '3.00 s' in ' '.join(about['notes'])

    axes, notes = axes_of(run, test[-1])
    count = axes['text'].steps
    assert axes['text'].words == ()
    assert axes['text'].edges == (0.5, count + 0.5)
    assert notes[0].endswith(f'the column text has {count + 1} words, the record {count} steps.')


def axes_of(run, record, glove=None):
    number = figures.find_record(run, 'test', str(record))
    lengths = {m: int(n[0]) for m, n in run.lengths(np.array([number])).items()}
    return attention_maps.axes_of_record(run.fold_data.source, number, lengths, lengths, glove)


def test_words_are_found_by_exact_glove_vectors(run, tmp_path):
    record = next(iter(run.fold_data.source.manifest['id'][run.fold_data.fold.test]))
    axes, notes = axes_of(run, record)
    assert axes['text'].words == ()
    assert 'no column tokens or text or raw_text' in notes[0]
    vectors = run.fold_data.source[figures.find_record(run, 'test', record)]['text']
    words = [f'word{n}' for n in range(len(vectors))]
    path = tmp_path / 'glove.txt'
    lines = [' '.join([word, *(repr(float(x)) for x in row)]) for word, row in zip(words, vectors, strict=True)]
    lines[0] = f'{words[0]} {float(vectors[0, 0])!r} 0.5 0.5'  # another vector with the same first number
    twin = lines[1].replace(words[1], 'twin')  # of two words with one vector the first counts
    path.write_text('\n'.join(['other 0.5 0.5 0.5', *lines, twin]) + '\n')
    found = axes_of(run, record, path)[0]['text'].words
    assert found == ('[1]', *words[1:])
    path.write_text('other 0.5 0.5 0.5 0.5\n')
    with pytest.raises(ValueError, match='vectors of 4 numbers, the text of this data set has 3'):
        axes_of(run, record, path)
    # What a data set appends to the vectors of the file is not compared; a row of zeros is no word.
    path.write_text('zero 0 0\nyes 1.5 2\n')
    assert attention_maps.words_of_vectors(path, np.array([[1.5, 2, 7], [0, 0, 1]])) == ['yes', None]


def test_two_runs_side_by_side_share_a_scale(run, workdir, tmp_path):
    other = finished.open_run(workdir, seed=0)
    figures.draw_attention(run, tmp_path, record=RECORD, keys=['psa/1/text'], compare=other)
    about = json.loads((tmp_path / 'attention.json').read_text())
    assert about['compare/run']['seed'] == 0
    with np.load(tmp_path / 'attention.npz') as file:
        both = dict(file)
    assert set(both) == {'psa/1/text', 'compare/psa/1/text'}
    assert not np.array_equal(both['psa/1/text'], both['compare/psa/1/text'])
    sides = [figures.read_maps(one, 30)[0] for one in (run, other)]
    pair = attention_maps.drawing(sides, ['psa/1/text'], 'mean', contrast=True).pictures['psa/1/text']
    values = np.stack([picture.values for picture in pair])
    assert {picture.span for picture in pair} == {(values.min(), values.max())}
    plain = attention_maps.drawing(sides, ['psa/1/text'], 'mean')  # nearly uniform: drawn with contrast by itself
    assert values.min() > attention_maps.UNIFORM * values.max()
    assert plain.pictures['psa/1/text'][0].span == (values.min(), values.max())
    assert any('psa/1/text is nearly uniform' in note for note in plain.notes)


ALL = {'text': 5, 'audio': 7, 'vision': 3}
SMALL = {'width': 8, 'num_heads': 2, 'capture_attention': True}
KINDS = {
    'mfsa': (Mfsa(MODALITIES, 2, psa_layers=2, hca_layers=2, **SMALL), 3 + 3 + 12),
    'mult': (Mult(MODALITIES, 2, num_layers=2, **SMALL), 6 + 3),
    'left_padded': (Mult(MODALITIES, 2, num_layers=2, left_padded_to=(6, 9, 3), **SMALL), 6 + 3),
    'mica': (Mica(MODALITIES, 2, num_layers=2, **SMALL), 6 + 3),
    'pmr': (Pmr(MODALITIES, 2, num_layers=2, **SMALL), 3 + 3),
}


@pytest.mark.parametrize('kind', KINDS)
def test_keys_of_every_model_say_what_stands_along_their_maps(kind):
    model, drawn_by_default = KINDS[kind]
    batch = {m: np.zeros((1, steps, 4), np.float32) for m, steps in ALL.items()}
    batch |= {f'{m}_mask': np.ones((1, steps), bool) for m, steps in ALL.items()}
    outputs = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), batch, train=False)[0])
    padded = dict(zip(MODALITIES, getattr(model, 'left_padded_to', ()), strict=False))
    attention = {key: np.ones(value.shape[1:]) for key, value in outputs['attention'].items()}
    maps, steps = attention_maps.maps_of_record(attention, MODALITIES, ALL, padded)
    assert steps == ALL
    assert set(maps) == set(attention)
    if not padded:  # then the model's own shape says what the key must mean
        for key, one in maps.items():
            assert attention[key].shape[1:] == tuple(sum(ALL[m] for m in side) for side in (one.targets, one.sources))
    for one in maps.values():
        assert one.values.shape == (2, *(sum(ALL[m] for m in side) for side in (one.targets, one.sources)))
    drawn, left_out = attention_maps.choose_maps(maps)
    assert len(drawn) == drawn_by_default
    assert left_out == []
    assert max(maps[key].name.layer for key in drawn) == max(one.name.layer for one in maps.values())


@pytest.mark.parametrize(
    ('key', 'name', 'sources', 'title'),
    [
        ('psa/4/text', MapName(4, 'text', 'text', 'psa'), ('text',), 'text: self-attention (PSA), layer 5'),
        (
            'psa/0/text',
            MapName(0, 'text', 'text', 'psa'),
            ('text',),
            'text: self-attention (PSA), layer 1, plain softmax',
        ),
        (
            'hca/1/text/mixed',
            MapName(1, 'text', 'common', 'mixed'),
            ('text', 'vision'),
            'text from text + vision: mixed MRU, layer 2',
        ),
        (
            'hca/1/text/coarse',
            MapName(1, 'text', 'others', 'coarse'),
            ('vision',),
            'text from vision: coarse MRU, layer 2',
        ),
        (
            'hca/1/text/fine_vision',
            MapName(1, 'text', 'vision', 'fine'),
            ('vision',),
            'text from vision: fine MRU, layer 2',
        ),
        ('text_from_vision/3', MapName(3, 'text', 'vision', 'cross'), ('vision',), 'text from vision: layer 4'),
        ('text_memory/0', MapName(0, 'text', 'text', 'memory'), ('text',), 'text: memory, layer 1'),
        (
            '12/text_from_common',
            MapName(12, 'text', 'common', 'message'),
            ('text', 'vision'),
            'text from text + vision: layer 13',
        ),
        ('gate/2/text/vision', MapName(2, 'text', 'vision', 'gate'), ('vision',), 'text from vision: gate, layer 3'),
    ],
)
def test_a_key_is_the_name_of_a_map(key, name, sources, title):
    """Keys as older versions wrote them, of every kind, and that of a unit that nobody has listed."""
    assert name.key() == key
    assert MapName.from_key(key) == name
    assert name.sides(('text', 'vision')) == (('text',), sources)
    assert attention_maps.AttentionMap(name, *name.sides(('text', 'vision')), np.ones((1, 1, 1))).title == title


def test_what_is_no_key_is_refused():
    for key in ('audio_to_video', 'psa/text/4', 'text_from_audio/-1', 'psa/4/text\n'):
        with pytest.raises(ValueError, match='is no name of an attention map, such as psa/{layer}/{target}'):
            MapName.from_key(key)


def test_left_padding_is_cut_on_the_left():
    attention = {'text_from_audio/0': np.arange(2 * 4 * 5).reshape(2, 4, 5)}
    lengths, padded = {'text': 3, 'audio': 2}, {'text': 4, 'audio': 5}
    maps, _ = attention_maps.maps_of_record(attention, ('text', 'audio'), lengths, padded)
    np.testing.assert_array_equal(maps['text_from_audio/0'].values, attention['text_from_audio/0'][:, 1:, 3:])


def test_counterparts_across_models_and_maps_that_say_nothing():
    def one(key, sources=3):
        name = MapName.from_key(key)
        return attention_maps.AttentionMap(name, *name.sides(('text', 'vision')), np.full((1, 2, sources), 1 / sources))

    mult = {key: one(key) for key in ('text_from_vision/0', 'text_from_vision/3', 'text_memory/0')}
    found = attention_maps.counterpart(one('hca/1/text/fine_vision'), mult)
    assert found is not None
    assert found.key == 'text_from_vision/3'
    assert attention_maps.counterpart(one('hca/1/vision/fine_text'), mult) is None
    single = {key: one(key, 1 if key == 'hca/0/text/coarse' else 3) for key in ('hca/0/text/coarse', 'psa/0/text')}
    assert attention_maps.choose_maps(single) == (['psa/0/text'], ['hca/0/text/coarse'])
    assert attention_maps.choose_maps(single, ['hca/0/text/coarse']) == (['hca/0/text/coarse'], [])


def test_a_modality_without_steps_has_no_part_in_a_picture(tmp_path):
    lengths = {'text': 2, 'vision': 0}
    maps, steps = attention_maps.maps_of_record(
        {'hca/0/text/mixed': np.full((2, 2, 2), 0.5), 'hca/0/vision/fine_text': np.ones((2, 0, 2))},
        ('text', 'vision'),
        lengths,
    )
    axes = {m: attention_plots.Axis(m, count, (), 0.5, count + 0.5) for m, count in steps.items()}
    drawing = attention_maps.drawing([attention_maps.Side('', 'run', maps, axes)], (), 'mean')
    assert list(drawing.pictures) == ['hca/0/text/mixed']
    assert [axis.modality for axis in drawing.pictures['hca/0/text/mixed'][0].sources] == ['text']
    attention_plots.attention_page(drawing.pictures['hca/0/text/mixed'], tmp_path / 'x.png', 'record')
    assert matplotlib.image.imread(tmp_path / 'x.png').size > 0
    with pytest.raises(ValueError, match='no attention map hca/0/vision/fine_text'):
        attention_maps.choose_maps(maps, ['hca/0/vision/fine_text'])


def test_the_record_drawn_by_default_is_long_and_well_predicted(run, workdir):
    with np.load(workdir / 'predictions' / 'test.npz') as file:
        logits, label, ids = file['prediction'][1], file['label'], file['id']
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    manifest, numbers = run.fold_data.source.manifest, run.fold_data.fold.test
    lengths = dict(zip(manifest['id'][numbers], manifest['length_text'][numbers], strict=True))
    middle = np.median(list(lengths.values()))
    long = [n for n, name in enumerate(ids) if lengths[name] >= middle]
    best = max(long, key=lambda n: probability[n, label[n]])
    assert manifest['id'][figures.find_record(run, 'test')] == ids[best]


def test_representations_are_the_models_and_the_silhouette_is_sklearns(direct, workdir, tmp_path, capsys):
    path = tmp_path / 'figure.png'
    command = ['representations', str(workdir), str(workdir), '--method', 'pca', '--seed', '1', '--output', str(path)]
    assert figures.main(command) == 0
    printed = capsys.readouterr().out
    with np.load(tmp_path / 'figure.npz') as file:
        found = dict(file)
    with np.load(workdir / 'predictions' / 'test.npz') as file:
        assert found['0/id'].tolist() == file['id'].tolist()
        np.testing.assert_allclose(found['0/prediction'], file['prediction'][1], atol=1e-5)
    for key in ('specific', 'agnostic'):
        vectors = found[f'0/{key}']
        assert vectors.shape == (len(found['0/id']), 2, 6)
        labels = [m for _ in vectors for m in ('text', 'vision')]
        assert f'{key} {silhouette_score(vectors.reshape(-1, 6), labels):.3f}' in printed
    row = found['0/id'].tolist().index(RECORD)
    for key in ('specific', 'agnostic', 'prediction'):
        np.testing.assert_allclose(found[f'0/{key}'][row], direct[0][key], atol=1e-5)
    assert min(matplotlib.image.imread(path).shape[:2]) > 300
    np.testing.assert_array_equal(found['0/points'], found['1/points'])  # the same run again


def test_correlation_of_specific_and_agnostic_vectors():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((400, 2, 6)).astype(np.float32)
    turn = np.linalg.qr(generator.standard_normal((6, 6)))[0].astype(np.float32)
    assert representations.correlation(x, 3 * x @ turn + 1) == pytest.approx(1, abs=1e-5)
    assert representations.correlation(x, generator.standard_normal(x.shape)) < 0.05
    half = np.concatenate([x[:, :1], generator.standard_normal((400, 1, 6))], 1)
    assert representations.correlation(x, half) == pytest.approx(0.5, abs=0.05)
    assert representations.correlation(x, np.ones_like(x)) == 0


def test_embeddings_are_seeded_and_silhouettes_undefined_for_one_modality():
    generator = np.random.default_rng(0)
    found = {key: generator.standard_normal((6, 2, 4)).astype(np.float32) for key in figures.REPRESENTATIONS}
    both = np.stack(list(found.values()))
    first, second = (representations.embed(both, 'tsne')[0] for _ in range(2))
    assert first.shape == (2, 6, 2, 2)
    np.testing.assert_array_equal(first, second)
    assert representations.separation(found['specific'][:, :1]) is None
    apart = np.stack([found['specific'][:, 0], found['specific'][:, 0] + 100], 1)
    assert representations.separation(apart) > 0.9
    with pytest.raises(ValueError, match='expected one of tsne, pca'):
        representations.embed(both, 'umap')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--record', 'clip_999'], "no record 'clip_999'; some of its records: clip_024"),
        (['--record', 'clip_000'], "no record 'clip_000'; it is in split train"),
        (['--maps', 'psa/7/text'], 'no attention map psa/7/text; this model has, for this record, psa/0/text, psa/1'),
        (['--seed', '5'], 'has no seed 5; it has 0, 1'),
        (['--fold', '3'], 'has no fold 3; it has 0'),
        (['--split', 'train'], 'name one with --record'),
        (['--data', 'nowhere'], 'shard directory nowhere is missing'),
    ],
)
def test_bad_options_are_named(workdir, capsys, options, message):
    assert figures.main(['attention', str(workdir), *options]) == 1
    assert message in capsys.readouterr().err


def test_bad_workdirs_are_named(workdir, tmp_path, capsys):
    def error(folder, command='attention'):
        assert figures.main([command, str(folder)]) == 1
        return capsys.readouterr().err

    assert 'is no workdir' in error(tmp_path / 'nothing')
    assert 'is no fold of the run' in error(workdir / 'predictions')
    bare = tmp_path / 'bare'
    bare.mkdir()
    config = read_json(workdir / 'config.json')
    (bare / 'config.json').write_text(json.dumps(config))
    assert 'is unfinished' in error(bare)
    shutil.copy(workdir / 'statistics.npz', bare)
    (bare / 'results.json').write_text('{}')
    (bare / 'config.json').write_text(json.dumps(config | {'model': {'name': 'lf_lstm'}}))
    message = error(bare)
    assert "model 'lf_lstm' has no attention maps; " in message
    assert 'mfsa' in message
    assert "'lf_lstm' has no specific and no agnostic vectors" in error(bare, 'representations')


def test_a_map_that_does_not_fit_its_axes_is_not_drawn(tmp_path):
    axis = attention_plots.Axis('text', 2, ('a', 'b'))
    with pytest.raises(ValueError, match=r'shape \(2, 3\), its axes have \(2, 2\) steps'):
        attention_plots.Picture('map', '', np.zeros((2, 3)), (axis,), (axis,))
    with pytest.raises(ValueError, match='no attention map to draw'):
        attention_plots.attention_page([], tmp_path / 'x.png', '')
    long = dataclasses.replace(axis, words=('a', 'incomprehensibilities'))
    assert long.shown == ['a', 'incomprehensibili…']
