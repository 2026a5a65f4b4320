"""Batches: planned, covered, padded, masked, sliced, resumed."""

import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from mmer_jax.data import augment, batches
from mmer_jax.data.batches import BatchPlan, LoadBatch, plan_shapes, read_batches
from mmer_jax.data.records import RecordError, RecordSource
from tests.conftest import REPOSITORY

MODALITIES = ('text', 'audio', 'vision')


def make_plan(source, modalities=MODALITIES, max_length=None, **options):
    lengths = batches.record_lengths(source, modalities, max_length or {})
    options = {'batch_size': 6, 'shapes': plan_shapes(lengths, 3), 'records': np.arange(len(source)), **options}
    return BatchPlan(lengths={m: lengths[m][options['records']] for m in lengths}, **options)


def make_loader(source, modalities=MODALITIES, max_length=None, **options):
    fields = {f.name for f in dataclasses.fields(LoadBatch)}
    plan = make_plan(source, modalities, max_length, **{k: v for k, v in options.items() if k not in fields})
    rest = {k: v for k, v in options.items() if k in fields}
    return LoadBatch(source, modalities, plan, **{'statistics': {}, 'max_length': max_length or {}, **rest})


@pytest.fixture(scope='module')
def source(tiny):
    return RecordSource(tiny)


@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize('batch_size', [1, 4, 7, 64])
def test_an_epoch_holds_every_record_once(source, shuffle, batch_size):
    plan = make_plan(source, batch_size=batch_size, shuffle=shuffle, epochs=3)
    for epoch in range(3):
        found = np.concatenate([numbers for _, numbers in plan.epoch(epoch)])
        assert sorted(found) == list(range(len(source)))
        assert len(plan.epoch(epoch)) == plan.batches_per_epoch == -(-len(source) // batch_size)
        short = [len(numbers) for _, numbers in plan.epoch(epoch) if len(numbers) < batch_size]
        assert len(short) <= 1


def test_records_fit_the_shape_of_their_batch(source):
    plan = make_plan(source, shuffle=True)
    lengths = plan.lengths
    for bucket, numbers in plan.epoch(0):
        for m in MODALITIES:
            assert lengths[m][numbers].max() <= plan.shapes[bucket][m]


def test_shuffling_depends_on_seed_and_epoch_only(source):
    def order(**options):
        epoch = options.pop('epoch', 0)
        return np.concatenate([n for _, n in make_plan(source, shuffle=True, **options).epoch(epoch)]).tolist()

    assert order(seed=1) == order(seed=1, epochs=5)
    assert order(seed=1) != order(seed=2)
    assert order(seed=1) != order(seed=1, epoch=1)


@pytest.mark.parametrize('max_shapes', [1, 2, 6])
def test_shapes_are_few_nested_and_cover_everything(max_shapes):
    generator = np.random.default_rng(0)
    lengths = {'text': generator.integers(3, 40, 500), 'audio': generator.integers(50, 400, 500)}
    shapes = plan_shapes(lengths, max_shapes)
    assert 1 <= len(shapes) <= max_shapes
    assert shapes[-1] == {m: lengths[m].max() for m in lengths}
    for small, large in itertools.pairwise(shapes):
        assert all(small[m] <= large[m] for m in lengths)


def test_the_plan_of_shapes_is_optimal_on_a_small_case():
    """Lengths 1 1 1 9 9 10 in two shapes: cutting behind the ones wastes only 2; brute force agrees."""
    lengths = np.array([9, 1, 10, 1, 9, 1])
    shapes = plan_shapes({'audio': lengths}, 2)
    assert [s['audio'] for s in shapes] == [1, 10]
    ordered = np.sort(lengths)
    costs = {cut: cut * ordered[cut - 1] + (6 - cut) * ordered[-1] for cut in range(1, 6)}
    assert min(costs, key=costs.get) == 3


def test_padding_waste_on_the_true_lengths_of_ravdess(ravdess):
    """Issue: at most 15 % waste with at most 6 shapes. Frames of 512 samples at 44,100 Hz of each whole clip."""
    import soundfile

    files = sorted(ravdess.glob('Audio_Speech_Actors_01-24/Actor_*/*.flac'))
    frames = np.array([1 + int(soundfile.info(f).duration * 44100) // 512 for f in files])
    assert len(frames) == 1200
    shapes = plan_shapes({'audio': frames}, 6)
    plan = BatchPlan(np.arange(1200), {'audio': frames}, shapes, batch_size=16, shuffle=True)
    assert len(shapes) <= 6
    assert plan.padding_waste() <= 0.15
    one_shape = BatchPlan(np.arange(1200), {'audio': frames}, plan_shapes({'audio': frames}, 1), batch_size=16)
    assert plan.padding_waste() < one_shape.padding_waste() / 3


def test_padding_waste_by_hand():
    """Lengths 2, 4 and one filling row at shape 4, batch 3: 6 of 12 positions are used."""
    plan = BatchPlan(np.arange(2), {'audio': np.array([2, 4])}, [{'audio': 4}], batch_size=3)
    assert plan.padding_waste() == 0.5


@pytest.mark.parametrize('modalities', [('audio',), ('text', 'vision'), MODALITIES])
def test_batches_pad_right_mask_and_fill_with_weight_zero(source, modalities):
    load = make_loader(source, modalities, batch_size=7)
    seen = 0
    for step, batch in enumerate(read_batches(load)):
        _, bucket, numbers = load.plan[step]
        assert set(batch) == {'label', 'weight', 'id', *modalities, *(f'{m}_mask' for m in modalities)}
        assert batch['weight'].tolist() == [1] * len(numbers) + [0] * (7 - len(numbers))
        for row, number in enumerate(numbers):
            record = source[number]
            assert batch['id'][row] == record['id']
            assert batch['label'][row] == record['label']
            for m in modalities:
                steps = len(record[m])
                np.testing.assert_array_equal(batch[m][row, :steps], record[m])
                assert not batch[m][row, steps:].any()
                assert batch[f'{m}_mask'][row].tolist() == [True] * steps + [False] * (
                    load.plan.shapes[bucket][m] - steps
                )
        for m in modalities:
            assert not batch[f'{m}_mask'][len(numbers) :].any()
        seen += len(numbers)
    assert seen == len(source)


def equal(a, b):
    return set(a) == set(b) and all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('start', [1, 7, 13])
def test_resuming_continues_exactly(source, start):
    load = make_loader(source, shuffle=True, seed=3, epochs=2, augmentations=(augment.gaussian_noise('audio', 0.1),))
    whole = list(read_batches(load))
    rest = list(read_batches(load, start=start))
    assert len(whole) == len(load.plan) == 14
    assert len(rest) == 14 - start
    assert all(equal(a, b) for a, b in zip(whole[start:], rest, strict=True))
    assert list(read_batches(load, start=14)) == []


def test_processes_read_disjoint_rows_that_make_up_the_whole(source):
    whole = list(read_batches(make_loader(source, shuffle=True)))
    parts = [list(read_batches(make_loader(source, shuffle=True, process_index=p, process_count=2))) for p in (0, 1)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert equal(batch, {key: np.concatenate([first[key], second[key]]) for key in batch})


def test_threads_and_prefetch_do_not_change_the_order(source):
    load = make_loader(source, shuffle=True)
    assert all(
        equal(a, b)
        for a, b in zip(read_batches(load, threads=1, prefetch=1), read_batches(load, threads=8), strict=True)
    )


def test_cutting_and_normalising(source):
    numbers = np.arange(20)
    statistics = batches.feature_statistics(source, numbers, ('audio',))
    rows = np.concatenate([source[int(n)]['audio'] for n in numbers])
    np.testing.assert_allclose(statistics['audio'][0], rows.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics['audio'][1], rows.std(0), rtol=1e-5)
    load = make_loader(source, ('audio',), {'audio': 4}, statistics=statistics)
    batch = next(iter(read_batches(load)))
    assert batch['audio'].shape[1] <= 4
    number = int(load.plan[0][2][0])
    expected = (source[number]['audio'][:4] - rows.mean(0)) / rows.std(0)
    np.testing.assert_allclose(batch['audio'][0, : len(expected)], expected, rtol=1e-4, atol=1e-5)


def test_a_feature_that_does_not_vary_is_only_centred(tmp_path):
    from mmer_jax.data.records import Feature, Label, RecordWriter, Schema

    with RecordWriter(tmp_path / 'x', Schema('x', {'vision': Feature((2,))}, Label('regression'))) as writer:
        for n in range(4):
            writer.write({'id': str(n), 'label': 0.5, 'vision': np.array([3, n], np.float32)})
    mean, deviation = batches.feature_statistics(RecordSource(tmp_path / 'x'), np.arange(4), ('vision',))['vision']
    np.testing.assert_allclose(mean, [3, 1.5])
    np.testing.assert_allclose(deviation, [1, np.std([0, 1, 2, 3])])
    load = make_loader(RecordSource(tmp_path / 'x'), ('vision',), batch_size=4)
    assert next(iter(read_batches(load)))['vision'].shape == (4, 1, 2)  # a vector is a sequence of one step


@pytest.fixture(scope='module')
def partly_missing(tmp_path_factory):
    """12 records with text, and audio of one step a word; records 3, 7 and 11 (the longest) lack the audio, 5 the text
    and both of its pictures; 0 lacks the vector."""
    from mmer_jax.data.records import Feature, Label, RecordWriter, Schema

    features = {
        'text': Feature((None, 2), optional=True),
        'audio': Feature((None, 3), optional=True),
        'vision': Feature((4,), optional=True),
    }
    folder = tmp_path_factory.mktemp('missing') / 'x'
    generator = np.random.default_rng(0)
    with RecordWriter(folder, Schema('x', features, Label('regression')), num_shards=2) as writer:
        for n in range(12):
            arrays = {'text': generator.normal(size=(n + 1, 2)), 'audio': generator.normal(size=(n + 1, 3)) + 5}
            arrays['vision'] = np.ones(4)
            record = {m: array.astype(np.float32) for m, array in arrays.items()}
            record |= {'audio': None} if n in (3, 7, 11) else {}
            record |= {'text': None} if n == 5 else {}
            record |= {'vision': None} if n == 0 else {}
            writer.write({'id': str(n), 'label': float(n), **record})
    return RecordSource(folder)


@pytest.mark.parametrize('max_shapes', [1, 3])
def test_a_missing_modality_is_masked_and_its_record_kept(partly_missing, max_shapes):
    lengths = batches.record_lengths(partly_missing, MODALITIES, {})
    load = make_loader(partly_missing, shapes=plan_shapes(lengths, max_shapes), batch_size=4)
    seen = {}
    for batch in read_batches(load):
        assert batch['text'].shape[:2] == batch['audio'].shape[:2]  # words and their sound keep one number of steps
        for row, name in enumerate(batch['id']):
            if not name:
                continue
            seen[int(name)] = {m: int(batch[f'{m}_mask'][row].sum()) for m in MODALITIES}
            assert batch['weight'][row] == 1
            for m in MODALITIES:
                assert batch[m][row][~batch[f'{m}_mask'][row]].any() == False  # noqa: E712
    assert seen == {
        n: {'text': (n + 1) * (n != 5), 'audio': (n + 1) * (n not in (3, 7, 11)), 'vision': int(n != 0)}
        for n in range(12)
    }


def test_a_shape_has_a_step_of_what_every_record_lacks():
    assert plan_shapes({'audio': np.zeros(3, np.int64)}, 1) == [{'audio': 1}]
    shapes = plan_shapes({'text': np.array([2, 3, 9, 9]), 'audio': np.array([0, 0, 40, 50])}, 2)
    assert shapes == [{'text': 3, 'audio': 1}, {'text': 9, 'audio': 50}]


def test_statistics_are_those_of_the_records_that_have_the_modality(partly_missing):
    mean, _ = batches.feature_statistics(partly_missing, np.arange(12), ('audio',))['audio']
    rows = np.concatenate([partly_missing[n]['audio'] for n in range(12)])
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5)
    load = make_loader(partly_missing, ('audio',), statistics={'audio': (mean, mean)}, batch_size=12)
    batch = next(iter(read_batches(load)))
    assert not batch['audio'][~batch['audio_mask']].any()  # not minus the mean
    with pytest.raises(ValueError, match='audio is missing in all 3 training records; take it out of'):
        batches.feature_statistics(partly_missing, np.array([3, 7, 11]), ('audio',))


@pytest.mark.parametrize('name', ['gaussian_noise', 'random_crop', 'time_mask', 'frequency_mask'])
def test_augmentations_leave_a_missing_modality_missing(partly_missing, name):
    options = {'gaussian_noise': {'scale': 1.0}, 'random_crop': {'steps': 3}, 'time_mask': {'steps': 3}}
    options |= {'frequency_mask': {'bins': 1}}
    change = augment.make_augmentations([(name, {'modality': 'audio', **options[name]})])
    load = make_loader(partly_missing, ('audio',), augmentations=change, batch_size=12)
    batch = next(iter(read_batches(load)))
    assert [int(name) for name, mask in zip(batch['id'], batch['audio_mask'], strict=True) if not mask.any()] == [
        3,
        7,
        11,
    ]


def test_an_augmentation_that_lengthens_is_refused(source):
    load = make_loader(source, ('audio',), augmentations=(lambda r, g: {**r, 'audio': np.tile(r['audio'], (3, 1))},))
    with pytest.raises(ValueError, match='may shorten a sequence, not lengthen it'):
        list(read_batches(load))


@pytest.mark.parametrize('wrong', [('speech',), (), ('audio', 'audio'), ('audio', 'video')])
def test_wrong_modalities_are_refused(source, wrong):
    with pytest.raises(ValueError, match=r"has \('text', 'audio', 'vision'\)"):
        batches.check_modalities(wrong, source.schema)


def test_nan_in_a_shard_that_others_wrote_is_refused(tmp_path, monkeypatch):
    """The writer refuses NaN; a shard written by another tool is caught when it is read, with file and record."""
    from mmer_jax.data import schema as schema_module
    from mmer_jax.data.records import Feature, Label, RecordWriter, Schema

    with monkeypatch.context() as patch:
        patch.setattr(schema_module, 'check_array', lambda *_: None)
        with RecordWriter(
            tmp_path / 'x', Schema('x', {'audio': Feature((None, 2))}, Label('classes', ('a', 'b')))
        ) as w:
            w.write({'id': 'fine', 'label': 0, 'audio': np.ones((2, 2), np.float32)})
            w.write({'id': 'broken', 'label': 1, 'audio': np.array([[1, np.nan]], np.float32)})
    load = make_loader(RecordSource(tmp_path / 'x'), ('audio',), batch_size=2)
    with pytest.raises(RecordError, match=r"record 1 \('broken'\), feature 'audio' has 1 NaN"):
        list(read_batches(load))


def test_corrupt_records_reach_the_caller_through_the_reading_threads(tiny, tmp_path):
    import shutil

    copy = shutil.copytree(tiny, tmp_path / 'copy')
    path = copy / 'data-00000-of-00003.tfrecord'
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(RecordError, match='CRC'):
        list(read_batches(make_loader(RecordSource(copy))))


def test_worker_processes_give_the_same_batches(source):
    """Where nobody has parsed flags, as in a script or a notebook; whoever parses them later still can."""
    from absl import flags

    flags.FLAGS.unparse_flags()
    load = make_loader(source, shuffle=True)
    assert all(equal(a, b) for a, b in zip(read_batches(load), read_batches(load, workers=1), strict=True))
    assert flags.FLAGS.is_parsed()
    assert flags.FLAGS(['script', 'rest']) == ['script', 'rest']


def test_a_script_without_a_main_guard_is_told_of_it(tiny, tmp_path):
    """Each worker runs the script again, which must not train there."""
    script = tmp_path / 'script.py'
    script.write_text(
        f'from tests.small_run import MeanModel, small_config, train_and_evaluate\n'
        f'config = small_config({str(tiny)!r}, epochs=1, seeds=1, data__workers=1)\n'
        f'train_and_evaluate(config, {str(tmp_path / "run")!r}, model=MeanModel())\n'
    )
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert 'put what trains under "if __name__ == \'__main__\':", or set data.workers to 0' in done.stderr
