"""Normalisation by speaker: a mode uses what it may know and no more, enrolled clips are in no set, marks stand."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.base import get_base
from mmer_jax import classifiers, evaluate, export, load_predictor, predict, readers
from mmer_jax.data import enrolment, speakers
from mmer_jax.data.enrolment import Enrolment
from mmer_jax.data.folds import SPLITS
from mmer_jax.data.records import Feature, Label, RecordSource, RecordWriter, Schema
from mmer_jax.files import read_arrays, read_json
from mmer_jax.prediction import Clip, exported, model_card, run_exported
from mmer_jax.readers.given import Given
from mmer_jax.results import run_table, runs, statistics
from mmer_jax.run.program import folds_of, load_fold
from mmer_jax.second_stage.by_speaker import by_speaker
from mmer_jax.second_stage.classify import classify, fuse
from mmer_jax.second_stage.folds import read_folds
from mmer_jax.train import train_and_evaluate
from tests.small_run import MeanModel, small_config

NAMES = ('neutral', 'happy', 'sad')
SPEAKERS, CLIPS = 6, 6
OPTIONS = {'folds': 3, 'validation_speakers': 1}
KNOWN = ('enrolled', 'transductive')
MARKS = {
    'enrolled': 'normalised by speaker: enrolled (2 clips of each in no set, labels unknown)',
    'transductive': 'normalised by speaker: transductive',
}


def clips_of(seed=0, *, offset=0.0, changed='', shift=0):
    """Each clip: its columns, label and arrays. `offset`: times the speaker's number, added to all his features;
    `changed`: a speaker whose features are others; `shift`: of the labels."""
    generator = np.random.default_rng(seed)
    for number in range(SPEAKERS * CLIPS):
        who, label = number % SPEAKERS, number // SPEAKERS % 3
        name = f'{who:02d}'
        arrays = {
            'audio': generator.standard_normal((generator.integers(4, 9), 4)),
            'vision': generator.standard_normal(3),
        }
        arrays['audio'] = arrays['audio'] * (1 + who) + label  # speakers differ in deviation too
        arrays = {m: x + (5 if name == changed else 0) * x**2 + offset * (who + 1) for m, x in arrays.items()}
        found = {'id': f'clip_{number:02d}', 'label': (label + shift) % 3}
        yield found | {m: x.astype(np.float32) for m, x in arrays.items()}, {'speaker': name}


def write(directory, *, speakers=True, info=None, features=None, **changes):
    both = {'audio': Feature((None, 4)), 'vision': Feature((3,))}
    with RecordWriter(directory, Schema('voices', features or both, Label('classes', NAMES), info or {})) as writer:
        for record, columns in clips_of(**changes):
            kept = {key: record[key] for key in ('id', 'label', *(features or both))}
            writer.write(kept, **(columns if speakers else {}))
    return directory


@pytest.fixture(scope='module')
def voices(tmp_path_factory):
    """Shard directories: as they are; each speaker with an offset of his own; speaker 01 changed; labels shifted."""
    folder = tmp_path_factory.mktemp('voices')
    changes = {'plain': {}, 'offset': {'offset': 2.0}, 'changed': {'changed': '01'}, 'relabelled': {'shift': 1}}
    return {name: write(folder / name, **options) for name, options in changes.items()}


def config_of(directory, mode='', **changes):
    """The small run, by all or by speaker."""
    by = {'data__normalize_by': 'speaker', 'data__enrolment__mode': mode} if mode else {}
    config = small_config(directory, data__normalize=('audio', 'vision'), seeds=1, epochs=1, **by, **changes)
    config.modalities = ('audio', 'vision')
    config.protocol.name, config.protocol.options = 'leave_speakers_out', ConfigDict(OPTIONS)
    return config


def batches_of(config, number=0):
    """The fold, and {split: {id: arrays of its record as a model is given it}}."""
    source = RecordSource(config.data.directory)
    data = load_fold(config, source, folds_of(config, source)[number])
    found = {}
    for split in SPLITS:
        load = data.whole(split)
        rows = {}
        for step in range(len(load.plan)):
            batch = load(load.plan[step])
            for row in np.flatnonzero(batch['weight']):
                rows[batch['id'][row]] = {m: batch[m][row][batch[f'{m}_mask'][row]] for m in load.modalities}
        found[split] = rows
    return data, found


def assert_same(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name, m in itertools.product(first, ('audio', 'vision')):
        np.testing.assert_allclose(first[name][m], second[name][m], err_msg=f'{name} {m}', **tolerance)


# ---- what each mode uses -------------------------------------------------------------------------------------


def test_strict_is_what_all_is_and_has_no_mark(voices):
    (by_all, first), (strict, second) = (batches_of(config_of(voices['plain'], mode)) for mode in ('', 'strict'))
    for split in SPLITS:
        assert_same(first[split], second[split], rtol=0)
    assert strict.fold.marks == by_all.fold.marks == ()


@pytest.mark.parametrize('mode', ['strict', *KNOWN])
def test_clips_of_a_tested_speaker_change_nothing_of_others(voices, mode):
    (data, first), (_, second) = (batches_of(config_of(voices[name], mode)) for name in ('plain', 'changed'))
    speaker = dict(zip(data.source.manifest['id'], data.source.manifest['speaker'], strict=True))
    assert {speaker[name] for name in first['test']} == {'00', '01'}
    for split in ('train', 'validation'):
        assert_same(first[split], second[split], rtol=0)
    others = [{name: row for name, row in rows['test'].items() if speaker[name] != '01'} for rows in (first, second)]
    assert others[0]
    assert_same(*others, rtol=0)


@pytest.mark.parametrize('mode', ['strict', *KNOWN])
def test_an_offset_of_each_speaker_changes_no_batch_where_he_is_known(voices, mode):
    (_, first), (_, second) = (batches_of(config_of(voices[name], mode)) for name in ('plain', 'offset'))
    if mode == 'strict':
        with pytest.raises(AssertionError):
            assert_same(first['test'], second['test'], atol=0.1)
        return
    for split in SPLITS:
        assert_same(first[split], second[split], atol=2e-5)


def test_transductive_brings_each_speaker_of_a_set_to_mean_0_deviation_1(voices):
    data, found = batches_of(config_of(voices['plain'], 'transductive'))
    speaker = dict(zip(data.source.manifest['id'], data.source.manifest['speaker'], strict=True))
    for split, m in itertools.product(SPLITS, ('audio', 'vision')):
        for who in {speaker[name] for name in found[split]}:
            x_TD = np.concatenate([row[m] for name, row in found[split].items() if speaker[name] == who])
            np.testing.assert_allclose(x_TD.mean(0), 0, atol=1e-5)
            np.testing.assert_allclose(x_TD.std(0), 1, atol=1e-5)


def test_enrolled_training_records_have_mean_0_deviation_1_and_a_speaker_keeps_his_deviation(voices):
    data, found = batches_of(config_of(voices['plain'], 'enrolled'))
    x_TD = np.concatenate([row['audio'] for row in found['train'].values()])
    np.testing.assert_allclose(x_TD.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x_TD.std(0), 1, atol=1e-5)
    assert len({tuple(row) for row in data.statistics['audio'].deviation.tolist()}) == 1


# ---- which clips are enrolled --------------------------------------------------------------------------------


def test_enrolled_clips_are_in_no_set_the_same_in_each_fold_and_chosen_by_the_seed_alone(voices):
    source = RecordSource(voices['plain'])
    taken = []
    for seed in (0, 0, 1):
        config = config_of(voices['plain'], 'enrolled', data__enrolment__seed=seed)
        left = [np.concatenate([getattr(fold, split) for split in SPLITS]) for fold in folds_of(config, source)]
        absent = [np.setdiff1d(np.arange(len(source)), numbers).tolist() for numbers in left]
        assert absent[0] == absent[1] == absent[2]
        taken.append(absent[0])
    assert taken[0] == taken[1] != taken[2]
    who, counts = np.unique(source.manifest['speaker'][taken[0]], return_counts=True)
    assert len(who) == SPEAKERS
    assert set(counts) == {2}


def test_no_label_is_read_unless_a_class_is_asked_for(voices):
    def taken(name, label):
        source = RecordSource(voices[name])
        config = config_of(voices[name], 'enrolled', data__enrolment__label=label)
        fold = folds_of(config, source)[0]
        used = np.concatenate([getattr(fold, split) for split in SPLITS])
        return source, np.setdiff1d(np.arange(len(source)), used), fold

    assert taken('plain', '')[1].tolist() == taken('relabelled', '')[1].tolist()
    source, numbers, fold = taken('plain', 'neutral')
    assert set(source.manifest['label'][numbers]) == {'0'}
    assert fold.marks[-1] == 'normalised by speaker: enrolled (2 clips of each in no set, neutral)'
    assert taken('relabelled', 'neutral')[1].tolist() != numbers.tolist()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'data__enrolment__clips': 7}, "speaker '00' has 6 clips with all features, and 7 are to be enrolled"),
        ({'data__enrolment__clips': 6}, "speaker '00' has no clip left beside the 6 enrolled"),
        ({'data__enrolment__clips': 3, 'data__enrolment__label': 'sad'}, "has 2 clips of class 'sad' with all"),
        ({'data__enrolment__label': 'bored'}, "config.data.enrolment.label 'bored': no class; known: neutral, happy"),
        ({'data__normalize': ()}, 'config.data.normalize is empty'),
    ],
)
def test_what_cannot_be_enrolled_is_one_line(voices, changes, message):
    config = config_of(voices['plain'], 'enrolled')
    with config.unlocked():
        config.update_from_flattened_dict({key.replace('__', '.'): value for key, value in changes.items()})
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        folds_of(config, RecordSource(voices['plain']))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('mode', ['strict', *KNOWN])
def test_records_without_speakers_are_one_line(tmp_path, mode):
    config = config_of(write(tmp_path / 'unknown', speakers=False), mode)
    config.protocol.name, config.protocol.options = 'resubstitution', ConfigDict({})
    with pytest.raises(ValueError, match=r'36 of 36 records have no speaker \(first: clip_00\)'):
        folds_of(config, RecordSource(tmp_path / 'unknown'))


def test_one_clip_has_no_deviation(voices):
    source = RecordSource(voices['plain'])
    (fold, *_) = folds_of(config_of(voices['plain']), source)
    fold = dataclasses.replace(fold, test=fold.test[:1])
    with pytest.raises(ValueError, match="speaker '00' has one clip in the test set"):
        enrolment.enrol([fold], source, Enrolment('transductive'), ('audio',))


@pytest.mark.parametrize(
    'feature', [Feature((None,), 'int32'), Feature((None,)), Feature((None, 8, 8, 3), 'uint8'), Feature((None, 4, 4))]
)
def test_tokens_samples_and_pictures_are_one_line(feature):
    schema = Schema('raw', {'audio': feature}, Label('classes', NAMES))
    with pytest.raises(ValueError, match='audio of raw is .*: tokens, pictures and samples cannot be normalised'):
        enrolment.check_features(schema, ('audio',))


def test_the_default_is_what_runs_did_before_the_key():
    assert enrolment.of_config(get_base('any').data) is None


# ---- a run: marks, evaluation, other data, prediction --------------------------------------------------------


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Files of features, shards of them, and a run of each mode whose models read clips: {mode: workdir}."""
    folder = tmp_path_factory.mktemp('trained')
    (folder / 'features').mkdir()
    reader = Given('audio', 4)
    like = Schema('voices', {}, Label('classes', NAMES))
    with RecordWriter(folder / 'data', readers.schema_of([reader], like)) as writer:
        for record, columns in clips_of():
            np.save(folder / 'features' / f'{record["id"]}.npy', record['audio'])
            (folder / f'{record["id"]}.wav').touch()  # a clip has a file; of this run only its features are read
            writer.write({key: record[key] for key in ('id', 'label', 'audio')}, **columns)
    found = {'folder': folder}
    for mode in ('strict', *KNOWN):
        config = config_of(folder / 'data', mode)
        config.modalities, config.data.normalize, config.name = ('audio',), ('audio',), f'by_{mode}'
        train_and_evaluate(config, folder / mode, model=MeanModel(('audio',)), folds=[0] if mode == 'strict' else None)
        found[mode] = folder / mode
    return found


MODEL = MeanModel(('audio',))


def test_marks_stand_in_results_report_and_files_and_rows_that_differ_are_not_compared(trained):
    found, _ = runs.find_runs([trained[mode] for mode in KNOWN])
    table = run_table.main_table(found)
    for run, row in zip(found, table.rows, strict=True):
        mode = run.folder.name
        assert all(MARKS[mode] in one['marks'] for one in run.results['rows'])
        assert f'⚠ {MARKS[mode]}' in row[-1]
        assert MARKS[mode] in run_table.identity(run)['marks']
        assert f'{runs.OF_KNOWN}{MARKS[mode]}.' in ' '.join(run_table.notes([run], []).points)
        assert runs.NOT_HONEST not in ' '.join(run_table.notes([run], []).points)
    one = statistics.read_predicted(found[1])
    other = dataclasses.replace(one, run=dataclasses.replace(found[1], results=marked_otherwise(found[1].results)))
    assert statistics.compare([one, one], ['a', 'b'], 'accuracy')
    assert not statistics.compare([one, other], ['a', 'b'], 'accuracy')
    assert read_json(trained['strict'] / 'fold_0' / 'results.json')['rows'][0]['marks'] == []


def marked_otherwise(results):
    return {**results, 'rows': [{**row, 'marks': []} for row in results['rows']]}


@pytest.mark.parametrize('mode', KNOWN)
def test_evaluation_again_gives_the_numbers_of_training(trained, mode):
    rows = evaluate.evaluate_checkpoint(trained[mode], model=MODEL)
    for row, one in zip(rows, read_json(trained[mode] / 'results.json')['rows'], strict=True):
        assert row['accuracy'] == one['test']['accuracy']
        assert row['loss'] == pytest.approx(one['test']['loss'], abs=1e-6)


@pytest.mark.parametrize('mode', KNOWN)
def test_other_speakers_are_normalised_by_their_own_clips(trained, tmp_path, mode):
    features = {'audio': Given('audio', 4).feature()}
    info = RecordSource(trained['folder'] / 'data').schema.info
    losses = []
    for name, offset in (('plain', 0.0), ('offset', 3.0)):
        with RecordWriter(tmp_path / name, Schema('others', features, Label('classes', NAMES), info)) as writer:
            for record, columns in clips_of(seed=7, offset=offset):
                kept = {key: record[key] for key in ('label', 'audio')}
                writer.write({**kept, 'id': f'new_{record["id"]}'}, speaker=f'new_{columns["speaker"]}')
        options = {'directory': tmp_path / name, 'model': MODEL, 'fold': 0}
        (row,) = evaluate.evaluate_other(trained[mode], **options)['rows']
        assert MARKS[mode] in row['marks']
        assert row['counts']['test'] == SPEAKERS * (CLIPS - 2 if mode == 'enrolled' else CLIPS)
        losses.append(row['test']['loss'])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize('mode', KNOWN)
def test_prediction_with_enrolment_is_evaluation_from_shards(trained, mode):
    source, folder = RecordSource(trained['folder'] / 'data'), trained['folder'] / 'features'
    tested = read_arrays(trained[mode] / 'fold_1' / 'predictions' / 'test.npz', ['prediction', 'id'])
    speaker = dict(zip(source.manifest['id'], source.manifest['speaker'], strict=True))
    clip = {name: Clip(name, None, given={'audio': folder / f'{name}.npy'}) for name in speaker}
    for who in {speaker[name] for name in tested['id']}:
        ids = [name for name in tested['id'] if speaker[name] == who]
        of_speaker = [name for name in speaker if speaker[name] == who]
        enrol = [name for name in of_speaker if name not in ids] if mode == 'enrolled' else ids
        assert len(enrol) == (2 if mode == 'enrolled' else CLIPS)
        predictor = load_predictor(trained[mode], fold=1, model=MODEL, enrol=[clip[name] for name in enrol])
        found = [list(row.scores.values()) for row in predictor.predict([clip[name] for name in ids])]
        wanted = tested['prediction'][0][np.isin(tested['id'], ids)]
        wanted = np.exp(wanted) / np.exp(wanted).sum(-1, keepdims=True)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_an_export_is_for_the_speaker_whose_clips_were_enrolled_and_says_so(trained, tmp_path):
    features = trained['folder'] / 'features'
    names = [f'clip_{n:02d}' for n in (0, 6, 12)]
    clips = [Clip(name, None, given={'audio': features / f'{name}.npy'}) for name in names]
    predictor = load_predictor(trained['enrolled'], fold=1, model=MODEL, enrol=iter(clips[:2]))
    run = runs.read_run(trained['enrolled'])
    folder, _ = exported.write(tmp_path / 'model', predictor, lambda program: model_card.write(predictor, program, run))
    found = run_exported.load(folder)({'audio': np.load(features / f'{names[2]}.npy')})
    (wanted,) = predictor.predict(clips[2:])
    np.testing.assert_allclose(list(found.values()), list(wanted.scores.values()), atol=1e-5)
    assert read_json(folder / 'preprocess.json')['enrolled_clips_of_one_speaker'] == 2
    assert 'for one speaker alone: features are normalised by 2 clips of that' in (folder / 'README.md').read_text()


def test_what_prediction_needs_is_one_line(trained):
    folder = trained['folder']
    clips = [Clip(f'clip_{n:02d}', None, given={'audio': folder / 'features' / f'clip_{n:02d}.npy'}) for n in (0, 6)]
    with pytest.raises(
        ValueError, match='was trained with normalised by speaker: enrolled .*: give 2 or more clips of'
    ):
        load_predictor(trained['enrolled'], model=MODEL)
    with pytest.raises(ValueError, match='1 of 1 clips to enrol have audio, expected 2 or more'):
        load_predictor(trained['transductive'], model=MODEL, enrol=clips[:1])
    with pytest.raises(ValueError, match='was not trained with clips of the speaker: leave --enrol out'):
        load_predictor(trained['strict'], fold=0, model=MODEL, enrol=clips)
    with pytest.raises(ValueError, match='the clip to enrol is missing'):
        load_predictor(trained['enrolled'], model=MODEL, enrol=[folder / 'gone.wav'])
    assert load_predictor(trained['strict'], fold=0, model=MODEL).predict(clips[:1])


def test_commands_take_clips_to_enrol(trained, monkeypatch, capsys):
    asked: list[list[str]] = []

    def stop(workdir, *, enrol, **options):
        asked.append([clip.given['audio'].stem for clip in enrol])
        raise ValueError('stop')

    monkeypatch.setattr('mmer_jax.prediction.load_predictor', stop)
    folder, run = trained['folder'], str(trained['enrolled'])
    files = [str(folder / f'clip_{n:02d}.wav') for n in (0, 6, 12)]
    features = ['--features', f'audio={folder / "features"}']
    assert predict.main([run, files[0], *features, '--enrol', *files[1:]]) == 1
    assert export.main([run, '--output', str(folder / 'model'), *features, '--enrol', *files[1:]]) == 1
    assert asked == [['clip_06', 'clip_12']] * 2
    with pytest.raises(SystemExit, match='2'):
        export.main([run, '--output', str(folder / 'model'), *features])
    assert '--features are of the clips to enrol: give --enrol, or leave them out' in capsys.readouterr().err


def test_a_run_of_another_mode_is_not_gone_on_with(trained):
    config = config_of(trained['folder'] / 'data', 'transductive')
    config.modalities, config.data.normalize, config.name = ('audio',), ('audio',), 'by_enrolled'
    with pytest.raises(ValueError, match='data.enrolment.mode'):
        train_and_evaluate(config, trained['enrolled'], model=MODEL)


# ---- the second stage ----------------------------------------------------------------------------------------


def vectors(directory, **changes):
    return write(directory, features={'vision': Feature((3,))}, **changes)


def folds_by(directory, known):
    folds, _ = read_folds({'vision': directory}, 'leave_speakers_out', OPTIONS)
    return [by_speaker(fold, known) for fold in folds]


@pytest.mark.parametrize('mode', KNOWN)
def test_an_offset_of_each_speaker_changes_no_prediction_of_the_second_stage(voices, tmp_path, mode):
    answers = []
    for name, offset in (('plain', 0.0), ('offset', 2.0)):
        fold = folds_by(vectors(tmp_path / name, offset=offset), Enrolment(mode))[0]
        assert MARKS[mode] in fold.marks
        answers.append((fuse([fold.features['vision']], fold.train, 'concat'), fold))
    np.testing.assert_allclose(answers[0][0], answers[1][0], atol=1e-4)
    first, second = (classify(x, fold, 'svm', 0) for x, fold in answers)
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize('mode', ['strict', *KNOWN])
def test_both_stages_normalise_and_enrol_alike(voices, tmp_path, mode):
    known, directory = Enrolment(mode), vectors(tmp_path / 'plain')
    config = config_of(directory, mode)
    config.modalities, config.data.normalize = ('vision',), ('vision',)
    source, fold = RecordSource(directory), folds_by(directory, known)[0]
    (one, *_) = folds_of(config, source)
    for name, numbers in (('train', np.union1d(one.train, one.validation)), ('test', one.test)):
        assert sorted(source.manifest['id'][numbers]) == sorted(fold.ids[getattr(fold, name)])
    rows = fold.train & ~fold.validation
    x, places = fold.features['vision'][rows], {name: n for n, name in enumerate(source.manifest['id'])}
    statistics = speakers.placed(speakers.fold_statistics(source, one, ('vision',), known), source, one)['vision']
    raw = np.stack([source[places[name]]['vision'] for name in fold.ids[rows]])
    of = [statistics if mode == 'strict' else statistics.of(places[name]) for name in fold.ids[rows]]
    mine = (raw - np.stack([mean for mean, _ in of])) / np.stack([deviation for _, deviation in of])
    np.testing.assert_allclose(mine, (x - x.mean(0)) / x.std(0), atol=1e-4)


def test_the_command_marks_its_tables_and_rows_and_goes_on_in_its_own_mode_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(classifiers, 'draw', lambda *arguments: [])
    directory, output = vectors(tmp_path / 'data'), tmp_path / 'out'
    flags = [f'--features=vision={directory}', f'--output={output}', '--protocol=leave_speakers_out']
    flags += [
        '--protocol_options={"folds": 3, "validation_speakers": 1}',
        '--classifiers=svm',
        '--normalize_by=speaker',
    ]
    assert classifiers.main([*flags, '--enrolment=transductive']) == 0
    text = (output / 'tables.md').read_text()
    titles = [line for line in text.splitlines() if line.startswith('**Table')]
    assert titles
    assert all(MARKS['transductive'] in title for title in titles)
    assert f'{runs.OF_KNOWN}{MARKS["transductive"]}.' in text
    header, *rows = (output / 'rows.csv').read_text().splitlines()
    assert header.endswith(',marks')
    assert all(row.endswith(MARKS['transductive']) for row in rows)
    assert read_json(output / 'results.json')['job']['marks'] == [MARKS['transductive']]
    assert classifiers.main([*flags, '--enrolment=enrolled']) == 1
    assert 'is of another job' in capsys.readouterr().err
