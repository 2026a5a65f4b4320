"""What a run writes down: exact after a kill, atomic, and readable by TensorBoard."""

import io
import json

import grain
import numpy as np
import pytest

from mmer_jax.files import read_json, read_jsonl, write_json
from mmer_jax.run.writer import Progress, Writer


def rows(*steps):
    return [{'step': s, 'split': 'train', 'seed': 0, 'loss': 1 / s} for s in steps]


def write(workdir, steps, **options):
    with Writer(workdir, tensorboard=False, **options) as log:
        for row in rows(*steps):
            log.write(row)


def test_rows_come_back_with_numpy_scalars_as_numbers(tmp_path):
    with Writer(tmp_path, tensorboard=False) as log:
        log.write({'step': np.int64(3), 'loss': np.float32(0.5), 'note': 'x', 'undefined': None})
        log.timing({'seconds': 1.5})
    assert read_jsonl(tmp_path / 'metrics.jsonl') == [{'step': 3, 'loss': 0.5, 'note': 'x', 'undefined': None}]
    assert read_jsonl(tmp_path / 'timing.jsonl') == [{'seconds': 1.5}]


def test_a_line_is_on_disk_at_once(tmp_path):
    log = Writer(tmp_path, tensorboard=False)
    log.write({'step': 1})
    assert (tmp_path / 'metrics.jsonl').read_bytes() == b'{"step": 1}\n'
    log.close()


@pytest.mark.parametrize('tail', [b'', b'{"step": 9, "lo', b'{"step": 4, "split": "train", "seed": 0, "loss": 0.25}'])
def test_resuming_gives_the_file_of_an_undisturbed_run(tmp_path, tail):
    write(tmp_path / 'whole', range(1, 7))
    write(tmp_path / 'killed', range(1, 5))
    path = tmp_path / 'killed' / 'metrics.jsonl'
    path.write_bytes(path.read_bytes() + tail)
    log = Writer(tmp_path / 'killed', tensorboard=False)
    log.truncate_after(3)
    for row in rows(4, 5, 6):
        log.write(row)
    log.close()
    assert path.read_bytes() == (tmp_path / 'whole' / 'metrics.jsonl').read_bytes()


def test_a_partial_last_line_is_ignored_but_a_broken_middle_is_named(tmp_path):
    path = tmp_path / 'x.jsonl'
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row['step'] for row in read_jsonl(path)] == [1, 2]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match='line 2: not a JSON object'):
        read_jsonl(path)
    with pytest.raises(FileNotFoundError, match='no such file'):
        read_jsonl(tmp_path / 'y.jsonl')


@pytest.mark.parametrize('value', [float('nan'), float('inf'), np.float32('-inf')])
def test_a_number_that_json_lacks_is_refused_by_key(tmp_path, value):
    with Writer(tmp_path, tensorboard=False) as log, pytest.raises(ValueError, match='corr'):
        log.write({'step': 1, 'corr': value})
    with pytest.raises(ValueError, match='corr'):
        write_json(tmp_path / 'x.json', {'rows': [{'corr': value}]})
    assert not (tmp_path / 'x.json').exists()


def test_a_row_needs_its_step(tmp_path):
    with Writer(tmp_path, tensorboard=False) as log, pytest.raises(ValueError, match="'step' is None"):
        log.write({'loss': 1.0})


def test_other_processes_write_nothing(tmp_path):
    write(tmp_path / 'other', [1], active=False)
    assert not (tmp_path / 'other').exists()


def test_tensorboard_files_are_tfrecords_with_the_scalars(tmp_path):
    with Writer(tmp_path) as log:
        for row in rows(1, 2):
            log.write(row)
    (file,) = (tmp_path / 'tensorboard' / 'seed_0').glob('events.*')
    events = list(grain.experimental.TFRecordIterDataset(str(file)))
    assert sum(b'train/loss' in event for event in events) == 2


def test_json_is_replaced_whole_and_numpy_converted(tmp_path):
    path = tmp_path / 'x.json'
    write_json(path, {'a': np.arange(3), 'b': np.float64(0.1)})
    assert read_json(path) == {'a': [0, 1, 2], 'b': 0.1}
    with pytest.raises(TypeError):
        write_json(path, {'a': object()})
    assert json.loads(path.read_text())['b'] == 0.1
    assert [p.name for p in tmp_path.iterdir()] == ['x.json']
    path.write_text('{')
    with pytest.raises(ValueError, match='not valid JSON'):
        read_json(path)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_counts_rate_and_time_left_from_this_process(tmp_path):
    """Resumed at step 100 of 200; 10 steps of 16 examples in 5 s: 2 steps/s, 32 examples/s, 45 s left."""
    clock, stream = iter([0.0, 5.0]), Terminal()
    progress = Progress(200, stream=stream, clock=lambda: next(clock))
    progress.update(100, epoch=3, examples=16, loss=0.5)
    progress.update(110, examples=160, loss=0.25)
    last = stream.getvalue().split('\r')[-1]
    for part in ('step 110/200', '55.0 %', 'epoch 3', '2.00 steps/s', '32 examples/s', '0:00:45 left', 'loss 0.25'):
        assert part in last
    progress.close()
    assert stream.getvalue().endswith('\n')


def test_progress_in_a_log_file_is_a_line_now_and_then():
    times, stream = iter([0.0, 10.0, 29.0, 31.0]), io.StringIO()
    with Progress(9, stream=stream, clock=lambda: next(times)) as progress:
        for step in range(1, 5):
            progress.update(step)
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ['1/9', '4/9']
    assert '\r' not in stream.getvalue()
