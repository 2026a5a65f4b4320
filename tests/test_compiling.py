"""Programs by shape in the background, the cache of compiled programs, and the time to the first step."""

import io
import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mmer_jax.files import read_jsonl
from mmer_jax.run import cache, compiling
from mmer_jax.run.compiling import Background, ByShape
from mmer_jax.run.first_step import PARTS, FirstStep
from mmer_jax.run.writer import Progress
from mmer_jax.train import train_and_evaluate
from tests.small_run import MeanModel, small_config


def batch(steps):
    return {
        'audio': jax.numpy.zeros((4, steps, 2)),
        'audio_mask': jax.numpy.ones((4, steps), bool),
        'weight': jax.numpy.ones(4),
    }


def test_a_program_is_compiled_once_per_shape_and_called_with_what_it_was_compiled_for():
    asked = []

    def compile_for(shapes):
        asked.append(shapes['audio'].shape)
        return lambda: lambda state, batch: (state + 1, shapes['audio'].shape == batch['audio'].shape)

    step = ByShape('the step', compile_for, Background())
    for steps in (3, 5, 3, 5, 3):
        assert step(1, batch(steps)) == (2, True)
    assert sorted(asked) == [(4, 3, 2), (4, 5, 2)]


def test_others_compile_while_one_is_used_and_waiting_is_told(monkeypatch):
    monkeypatch.setattr(compiling, 'TICK', 0.01)
    may_end, begun, told = threading.Event(), threading.Event(), []

    def compile_for(shapes):
        def compile_it():
            if shapes['audio'].shape[1] == 9:
                begun.set()
                assert may_end.wait(20)
            return lambda state, batch: shapes['audio'].shape[1]

        return compile_it

    monkeypatch.setattr(compiling.os, 'cpu_count', lambda: 4)
    background = Background()
    step = ByShape('the step', compile_for, background)
    step.prepare(batch(9))
    assert begun.wait(20)
    assert step(0, batch(3)) == 3  # although the other one is still compiling

    lowered = []
    background.later(lambda: lowered.append(threading.current_thread()))  # by whoever waits, in its own thread

    def listen(name, seconds):
        told.append((name, seconds))
        may_end.set()

    background.listener = listen
    assert step(0, batch(9)) == 9
    assert lowered == [threading.current_thread()]
    assert told[0][0] == 'the step for 4 x audio 9'
    assert 0 < told[0][1] <= background.waited


@pytest.mark.parametrize(('cores', 'beside'), [(2, 0), (4, 1)])
def test_with_few_cores_the_first_program_is_compiled_alone(monkeypatch, cores, beside):
    monkeypatch.setattr(compiling, 'TICK', 0.01)
    monkeypatch.setattr(compiling.os, 'cpu_count', lambda: cores)
    may_end, lowered, then = threading.Event(), [], []

    def compile_for(shapes):
        def compile_it():
            assert may_end.wait(20)
            return lambda state, batch: shapes['audio'].shape[1]

        return compile_it

    def listen(name, seconds):
        then.append(len(lowered))
        may_end.set()

    background = Background()
    background.listener = listen
    step = ByShape('the step', compile_for, background)
    background.later(lambda: lowered.append('of the first wait'))
    assert step(0, batch(9)) == 9
    assert then[0] == beside
    may_end.clear()
    assert step(0, batch(3)) == 3
    assert lowered == ['of the first wait']


def test_what_was_forgotten_before_it_began_is_compiled_when_it_is_called(monkeypatch):
    monkeypatch.setattr(compiling, 'SIDE_BY_SIDE', 1)
    may_end, begun = threading.Event(), threading.Event()

    def compile_for(shapes):
        def compile_it():
            begun.set()
            assert may_end.wait(20)
            return lambda state, batch: shapes['audio'].shape[1]

        return compile_it

    background = Background()
    step = ByShape('the step', compile_for, background)
    first, second = step.prepare(batch(9)), step.prepare(batch(3))
    assert begun.wait(20)
    background.forget()
    may_end.set()
    assert second.cancelled()
    assert (step(0, batch(9)), step(0, batch(3))) == (9, 3)
    assert first.result() is not None


def test_an_error_of_the_compiler_reaches_the_caller():
    def compile_for(shapes):
        def compile_it():
            raise ValueError('no such shape')

        return compile_it

    step = ByShape('the step', compile_for, Background())
    for _ in range(2):
        with pytest.raises(ValueError, match='no such shape'):
            step(0, batch(3))


def test_what_is_compiled_is_shown_once_in_an_interval():
    stream, now = io.StringIO(), [0.0]
    with Progress(10, stream=stream, clock=lambda: now[0]) as progress:
        for now[0] in (0.0, 1.0, 29.0, 31.0):
            progress.wait('the step', now[0])
    assert stream.getvalue().splitlines() == ['compiling the step: 0 s so far', 'compiling the step: 31 s so far']


def test_the_time_to_the_first_step_is_written_and_told(tiny, tmp_path, monkeypatch):
    ended, lowered = [], []

    class Clocked(FirstStep):
        def end(self, seconds, waited):
            lowered.append(self.compilation)
            super().end(seconds, waited)
            ended.append(time.perf_counter())

    first = Clocked(imports=1.5)
    for module in ('train', 'run.loop'):
        monkeypatch.setattr(f'mmer_jax.{module}.FIRST', first)
    begun = time.perf_counter()
    train_and_evaluate(small_config(tiny, epochs=1, seeds=1), tmp_path, MeanModel(), folds=[0])
    row = next(row for row in read_jsonl(tmp_path / 'timing.jsonl') if 'first_step' in row)
    assert set(row) == {'first_step', *PARTS}
    assert row['first_step'] == 1
    assert row['imports'] == 1.5
    assert all(row[name] > 0 for name in PARTS)
    assert lowered[0] > 0
    assert sum(row[name] for name in PARTS) - 1.5 == pytest.approx(ended[0] - begun, abs=0.05), 'nothing is left out'
    assert first.line().startswith(f'first step after {sum(row[name] for name in PARTS):.1f} s: imports 1.5, data ')


def test_what_is_being_kept_is_waited_for_and_may_come_at_any_time():
    background, may_end, begun, done = Background(), threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        assert may_end.wait(20)
        done.append('slow')

    background.write(slow)
    assert begun.wait(20)
    forgetting = threading.Thread(target=background.forget)
    forgetting.start()
    forgetting.join(0.05)
    assert forgetting.is_alive()
    background.write(lambda: done.append('meanwhile'))
    may_end.set()
    forgetting.join(20)
    assert 'slow' in done
    background.forget()
    assert sorted(done) == ['meanwhile', 'slow']


def test_what_was_waited_for_is_compilation_and_no_step():
    first = FirstStep(compilation=2.0)
    first.begin()
    first.end(5.0, 3.0)
    assert (first.compilation, first.step, first.done) == (5.0, 2.0, True)


def test_where_nobody_says_that_it_begins_the_rest_is_counted_from_its_making():
    """A search has its own loop; the clock itself counts from when the machine was started."""
    first = FirstStep()
    first.end(0.0, 0.0)
    assert 0 <= first.data < 1


def test_programs_are_kept_in_the_users_cache_folder(tmp_path, monkeypatch):
    found = {}
    monkeypatch.setattr(jax, 'config', SimpleNamespace(update=lambda name, value: found.update({name: value})))
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    cache.keep_programs()
    assert found['jax_enable_compilation_cache'] is True
    assert found['jax_compilation_cache_dir'] == str(tmp_path / 'mmer_jax' / 'jax')
    assert (tmp_path / 'mmer_jax' / 'jax').is_dir()
    assert found['jax_compilation_cache_max_size'] == cache.LARGEST
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'own'))
    cache.keep_programs()
    assert found['jax_compilation_cache_dir'] == str(tmp_path / 'own')
    cache.keep_programs(keep=False)
    assert found['jax_enable_compilation_cache'] is False
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'file' / 'below'))
    cache.keep_programs()  # a run without its cache is better than none
    assert found['jax_enable_compilation_cache'] is False


def test_shapes_are_those_of_all_processes():
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    host = {'audio': np.zeros((3, 5, 2), np.uint8), 'id': np.zeros(3, object)}
    assert {key: (x.shape, x.dtype) for key, x in compiling.shapes_of(host, place, 2).items()} == {
        'audio': ((6, 5, 2), np.uint8)
    }
