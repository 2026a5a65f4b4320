"""A finished run tested on all of another directory: what is measured, and what is refused."""

import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mmer_jax import evaluate, extract
from mmer_jax.data import leakage, other_data
from mmer_jax.data.records import Feature, Label, RecordSource, RecordWriter, Schema
from mmer_jax.files import read_json
from mmer_jax.run import finished
from mmer_jax.run.program import FoldData
from mmer_jax.train import train_and_evaluate
from tests.small_run import small_config

NAMES = ('calm', 'happy', 'sad')


def write(directory, clips, *, name='tiny_classes', names=NAMES, audio=4, steps=(2, 8), info=None, kind='classes'):
    """A directory like that of conftest.py with the clips given, {id: speaker}."""
    features = {'text': Feature((None, 3)), 'audio': Feature((None, audio)), 'vision': Feature((None, 5))}
    generator = np.random.default_rng(5)
    schema = Schema(name, features, Label(kind, names if kind == 'classes' else ()), info or {})
    with RecordWriter(directory, schema) as writer:
        for number, (clip, speaker) in enumerate(clips.items()):
            arrays = {
                m: generator.standard_normal((generator.integers(*steps), size)).astype(np.float32)
                for m, size in (('text', 3), ('audio', audio), ('vision', 5))
            }
            writer.write({'id': clip, 'label': number % 3, **arrays}, speaker=speaker)
    return directory


def new_clips(count, speakers=2):
    return {f'new_{number}': f'new{number % speakers}' for number in range(count)}


def config_of(directory, **changes):
    changes = {'protocol__name': 'leave_speakers_out', 'epochs': 1, 'data__normalize': ('audio',), **changes}
    config = small_config(directory, **changes)
    config.protocol.options = ConfigDict({'folds': 2, 'validation_speakers': 1})
    config.model = ConfigDict(
        {'name': 'unimodal', 'encoder': {'name': 'vector_encoder', 'sizes': (4,), 'dropout': 0.0}}
    )
    config.modalities = ('audio',)
    return config


@pytest.fixture(scope='module')
def workdir(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp('other') / 'run'
    train_and_evaluate(config_of(tiny), folder)
    return folder


@pytest.fixture(scope='module')
def new(tmp_path_factory):
    """Eleven clips of two new speakers, whom no protocol of the run could split."""
    return write(tmp_path_factory.mktemp('new') / 'new', new_clips(11))


def predicted(workdir, directory, fold, seed):
    """{id: prediction} of each record by itself, from the stored variables and statistics."""
    run = finished.open_run(workdir, fold=fold, seed=seed)
    variables, source = finished.chosen_variables(run), RecordSource(directory)
    mean, deviation = run.fold_data.statistics['audio']
    apply = jax.jit(lambda batch: run.model.apply(variables, batch, train=False)['prediction'])
    found = {}
    for number in range(len(source)):
        x = ((source[number]['audio'] - mean) / deviation)[None]
        x = np.pad(x, ((0, 0), (0, 9 - x.shape[1]), (0, 0))).astype(np.float32)
        mask = np.arange(9)[None] < len(source[number]['audio'])
        found[source[number]['id']] = np.asarray(apply({'audio': x, 'audio_mask': mask})[0])
    return found


def test_every_fold_and_seed_is_tested_on_all_records(workdir, new, tmp_path, capsys):
    out = tmp_path / 'out'
    assert evaluate.main([str(workdir), '--data', str(new), '--output', str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == 'protocol other data: tiny_classes, 11 records'
    assert [line.split(', loss')[0] for line in said[1:]] == [
        *(f'fold fold_{k}, seed {s}' for k in (0, 1) for s in (0, 1)), 'fold mean of 4'
    ]  # fmt: skip
    results = read_json(out / 'results.json')
    assert results['protocol'] == 'other data: tiny_classes'
    assert [(row['fold'], row['seed'], row['marks'], row['counts']) for row in results['rows']] == [
        (f'fold_{k}', s, [], {'test': 11}) for k in (0, 1) for s in (0, 1)
    ]
    for fold in (0, 1):
        with np.load(out / f'fold_{fold}' / 'predictions' / 'test.npz') as file:
            assert file['id'].tolist() == RecordSource(new).manifest['id'].tolist()
            for n, seed in enumerate(file['seed']):
                expected = predicted(workdir, new, fold, int(seed))
                rows = np.stack([expected[name] for name in file['id']])
                np.testing.assert_allclose(file['prediction'][n], rows, atol=1e-5)
                accuracy = (rows.argmax(1) == file['label']).mean()
                (row,) = [r for r in results['rows'] if (r['fold'], r['seed']) == (f'fold_{fold}', seed)]
                assert row['test']['accuracy'] == pytest.approx(accuracy)
    mean = np.mean([row['test']['accuracy'] for row in results['rows']])
    assert f'accuracy {mean:.4f}' in said[-1]
    assert evaluate.main([str(workdir), '--data', str(new), '--output', str(workdir)]) == 1  # the run itself
    assert 'exists and was not made by this command' in capsys.readouterr().err


def test_one_record_is_enough_for_a_fold_or_the_whole(workdir, tmp_path, capsys):
    one = write(tmp_path / 'one', {'only': 'new'}, steps=(20, 21))  # longer than any that was trained on
    for folder in (workdir, workdir / 'fold_1'):
        assert evaluate.main([str(folder), '--data', str(one)]) == 0
        assert 'other data: tiny_classes, 1 records' in capsys.readouterr().out
    rows = evaluate.evaluate_checkpoint(workdir / 'fold_1', directory=str(one))
    assert [row['seed'] for row in rows] == [0, 1]
    with pytest.raises(ValueError, match="is tested as a whole: it has no split 'train'"):
        evaluate.evaluate_checkpoint(workdir / 'fold_1', directory=str(one), split='train')


class Flat(nn.Module):
    """Its parameters depend on the length that batches are padded to."""

    @nn.compact
    def __call__(self, batch, *, train):
        return {'prediction': nn.Dense(3)(batch['audio'].reshape(len(batch['audio']), -1))}


def test_a_model_of_one_length_is_given_it(tiny, tmp_path):
    """Also where all new records are shorter than the longest that was trained on."""
    train_and_evaluate(config_of(tiny, seeds=1, data__max_shapes=1), tmp_path / 'run', model=Flat(), folds=[0])
    short = write(tmp_path / 'short', new_clips(4), steps=(2, 3))
    (row,) = evaluate.evaluate_checkpoint(tmp_path / 'run' / 'fold_0', directory=str(short), model=Flat())
    assert 0 <= row['accuracy'] <= 1
    run = finished.open_run(tmp_path / 'run', directory=str(short), model=Flat())
    assert run.fold_data.loaders['test'].plan.shapes == [{'audio': 9}]


def seen_clips(workdir, fold=0):
    """A record and a speaker that fold 0's model was trained on, and a record that only its epoch was chosen on."""
    data, manifest = finished.open_run(workdir, fold=fold).fold_data, None
    manifest = data.source.manifest
    train, validation = data.fold.train[0], data.fold.validation[0]
    return str(manifest['id'][train]), str(manifest['speaker'][train]), str(manifest['id'][validation])


def test_what_was_trained_or_selected_on_is_refused_or_left_out(workdir, tmp_path, capsys):
    record, speaker, validated = seen_clips(workdir)
    clips = {record: 'new0', 'of_a_known_speaker': speaker, validated: 'new1', **new_clips(5)}
    mixed = write(tmp_path / 'mixed', clips)
    command = [str(workdir / 'fold_0'), '--data', str(mixed)]
    assert evaluate.main(command) == 1
    assert (
        f'{mixed}: fold fold_0 would test 2 records and 1 speakers that its model was trained on '
        f'(first: {min(record, validated)}), or selected on'
    ) in capsys.readouterr().err
    assert evaluate.main([*command, '--leave_out_seen', '--output', str(tmp_path / 'out')]) == 0
    said = capsys.readouterr().out
    assert 'protocol other data: tiny_classes, 5 records' in said
    assert 'note: 3 of 8 records left out: seen in training' in said
    with np.load(tmp_path / 'out' / 'predictions' / 'test.npz') as file:
        assert file['id'].tolist() == list(new_clips(5))
    only = write(tmp_path / 'only', {record: speaker})
    with pytest.raises(ValueError, match='nothing is left for fold fold_0 to test'):
        evaluate.evaluate_checkpoint(workdir / 'fold_0', directory=str(only), leave_out=True)
    with pytest.raises(ValueError, match=r'would test 1 speakers that its model was trained on \(first: '):
        speakers = write(tmp_path / 'speakers', {'another': speaker})
        evaluate.evaluate_checkpoint(workdir / 'fold_0', directory=str(speakers))
    unknown = write(tmp_path / 'unknown', {'nobody': ''})
    assert evaluate.main([str(workdir), '--data', str(unknown)]) == 0
    assert 'note: 1 records of unknown speakers, who may have been trained on' in capsys.readouterr().out


def test_all_of_the_runs_own_data_is_the_rest(workdir, tiny, capsys):
    assert evaluate.main([str(workdir), '--data', str(tiny), '--all']) == 1
    assert 'that its model was trained on' in capsys.readouterr().err
    rows = evaluate.evaluate_checkpoint(workdir / 'fold_0', directory=str(tiny), every=True, leave_out=True)
    expected = [row for row in read_json(workdir / 'results.json')['rows'] if row['fold'] == 'fold_0']
    assert [row['accuracy'] for row in rows] == pytest.approx([row['test']['accuracy'] for row in expected])
    for options in (['--all'], ['--leave_out_seen'], ['--output', 'x']):
        with pytest.raises(SystemExit):
            evaluate.main([str(workdir), *options])


def test_names_of_another_corpus_mean_nothing_and_are_marked(workdir, tmp_path, capsys):
    record, speaker, _ = seen_clips(workdir)
    foreign = write(tmp_path / 'foreign', {record: speaker, **new_clips(3)}, name='ravdess_mine')
    assert evaluate.main([str(workdir), '--data', str(foreign)]) == 0
    said = capsys.readouterr().out
    assert 'protocol other data: ravdess_mine, 4 records' in said
    assert 'names of records or speakers also occur in the training data, which are of another corpus' in said
    assert other_data.same_corpus('ravdess_mfcc', 'ravdess_frames')
    assert not other_data.same_corpus('ravdess', 'crema_d')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'audio': 6}, r'audio has shape \[None, 6\] of float32, the run was trained on \[None, 4\] of float32'),
        ({'names': ('happy', 'calm', 'sad')}, r'has labels classes happy, calm, sad, the run classes calm, happy, sad'),
        ({'kind': 'regression'}, r'has labels regression, the run classes calm, happy, sad'),
    ],
)
def test_data_that_are_not_like_the_runs_are_refused(workdir, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate.evaluate_other(workdir, directory=str(write(tmp_path / 'data', new_clips(3), **changes)))


def test_another_preparation_is_refused_or_marked(tiny, tmp_path, capsys):
    info = {'made_by': 'mine', 'sample_rate': 16000, 'mfcc': {'bins': [1, 2]}, 'vision': {'size': 64}}
    own = write(tmp_path / 'own', {f'clip_{n}': f'{n % 8}' for n in range(24)}, info=info)
    train_and_evaluate(config_of(own, seeds=1), tmp_path / 'run')
    for changed, said in (
        ({'sample_rate': 8000}, 'sample_rate 8000, the run 16000'),
        ({'mfcc': {'bins': [1, 3]}}, 'mfcc '),
    ):
        other = write(tmp_path / said.split()[0], new_clips(3), info={**info, **changed})
        assert evaluate.main([str(tmp_path / 'run'), '--data', str(other)]) == 1
        assert f'was prepared in another way ({said}' in capsys.readouterr().err
        assert evaluate.main([str(tmp_path / 'run'), '--data', str(other), '--other_preparation']) == 0
        assert f'note: prepared in another way: {said}' in capsys.readouterr().out
    for name, changed in (('unused', {'vision': None}), ('maker', {'made_by': 'yours'})):
        other = write(tmp_path / name, new_clips(3), info={**info, **changed})
        assert evaluate.main([str(tmp_path / 'run'), '--data', str(other)]) == 0
        assert ('note: prepared in another way: made by yours, the run by mine' in capsys.readouterr().out) == (
            name == 'maker'
        )


def test_without_the_runs_own_data_another_corpus_is_compared_with_what_the_run_wrote_down(tmp_path):
    own = write(tmp_path / 'own', {f'clip_{n}': f'{n % 8}' for n in range(24)})
    train_and_evaluate(config_of(own, seeds=1), tmp_path / 'run')
    shutil.rmtree(own)
    foreign = write(tmp_path / 'foreign', new_clips(3), name='another')
    assert len(evaluate.evaluate_other(tmp_path / 'run', directory=str(foreign))['rows']) == 2
    wider = write(tmp_path / 'wider', new_clips(3), name='another', audio=6)
    with pytest.raises(ValueError, match='the run was trained on'):
        evaluate.evaluate_other(tmp_path / 'run', directory=str(wider))
    same = write(tmp_path / 'same', new_clips(3))
    with pytest.raises(ValueError, match='whether they were trained on is unknown'):
        evaluate.evaluate_other(tmp_path / 'run', directory=str(same))
    path = tmp_path / 'run' / 'fold_0' / 'results.json'
    path.write_text(json.dumps({k: v for k, v in read_json(path).items() if k != 'inputs'}))  # of an older version
    with pytest.raises(ValueError, match='cannot be read'):
        evaluate.evaluate_other(tmp_path / 'run', directory=str(foreign))


def test_features_of_new_speakers_may_be_split_by_any_protocol(workdir, new, tmp_path):
    assert extract.main([str(workdir), '--output', str(tmp_path / 'out'), '--data', str(new), '--seed', '1']) == 0
    for fold in (0, 1):
        source = RecordSource(tmp_path / 'out' / f'fold_{fold}')
        assert source.manifest['id'].tolist() == RecordSource(new).manifest['id'].tolist()
        assert set(source.manifest['split']) == {'test'}
        expected = predicted(workdir, new, fold, 1)
        for number in range(len(source)):
            record = source[number]
            np.testing.assert_allclose(record['prediction'], expected[record['id']], atol=1e-5)
        assert leakage.trained_split(source) is None
    record, speaker, _ = seen_clips(workdir)
    mixed = write(tmp_path / 'mixed', {record: speaker, 'new': 'new'})
    command = [str(workdir), '--output', str(tmp_path / 'rest'), '--data', str(mixed), '--fold', '0']
    assert extract.main(command) == 1
    assert extract.main([*command, '--leave_out_seen']) == 0
    assert RecordSource(tmp_path / 'rest' / 'fold_0').manifest['id'].tolist() == ['new']


@pytest.mark.parametrize(
    ('labels', 'of_run', 'expected'),
    [
        ([1.0], 'sentiment', 'sentiment'),  # one positive clip of a scale from -3 to 3
        ([1.0, 4.0], 'sentiment', 'regression'),
        ([-0.5, 0.5], 'regression', 'regression'),
        ([-0.5, 2.0], 'polarity', 'sentiment'),
    ],
)
def test_real_labels_keep_the_metrics_of_the_run_where_they_fit(tmp_path, labels, of_run, expected):
    schema = Schema('rated', {'audio': Feature((2,))}, Label('regression'))
    with RecordWriter(tmp_path / 'data', schema) as writer:
        for number, label in enumerate(labels):
            writer.write({'id': f'{number}', 'label': label, 'audio': np.ones(2, np.float32)})
    (tmp_path / 'results.json').write_text(json.dumps({'metrics': of_run}))
    fold_data = FoldData(RecordSource(tmp_path / 'data'), None, {}, {})
    run = finished.Run(tmp_path, tmp_path, None, fold_data, None, seed=0, model_name='', other=True)
    assert evaluate._kind(run) == expected
