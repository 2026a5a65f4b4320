"""Strict mode for every test: two CPU devices, rank promotion raises, warnings are errors (pyproject.toml)."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# The cache of compiled programs that `make test` names, also for pytest alone: never the one in the user's home.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(Path(__file__).resolve().parents[1] / '.cache' / 'jax'))
# Two workers share two cores: with more threads each, BLAS and torch spend their time waiting for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# Tests compile much and compute little: without LLVM's optimisations they compile three times as fast. Of jaxlib 0.10
# (the flags are others in 0.12) the fusion emitters take a third more; splitting a small module and scheduling it for
# concurrency take a fifth of the rest, and so does what XLA leaves out where it is asked to compile fast. What is
# optimised all the same (tests/double.py) compiles in half the time where loops are not unrolled. Flags that are given
# already (an instruction set: `make test-machines`) stand behind these and win.
os.environ['XLA_FLAGS'] = ' '.join(
    [
        '--xla_backend_optimization_level=0',
        '--xla_llvm_disable_expensive_passes=true',
        '--xla_backend_extra_options=xla_cpu_disable_loop_unrolling=true,xla_cpu_optimize_for_size=true',
        *(
            (
                '--xla_cpu_use_fusion_emitters=false',
                '--xla_cpu_opt_preset=FAST_COMPILE',
                '--xla_cpu_parallel_codegen_split_count=1',
                '--xla_cpu_enable_concurrency_optimized_scheduler=false',
            )
            if version('jaxlib').startswith('0.10.')
            else ()
        ),
        os.environ.get('XLA_FLAGS', ''),
    ]
)

import jax
import numpy as np
import pytest

from mmer_jax.data.records import Feature, Label, RecordWriter, Schema
from mmer_jax.run import cache
from tests import once

# Tracing makes millions of objects that live on; looking through them for circles took a twentieth of the time.
gc.set_threshold(50_000, 20, 20)
jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_numpy_rank_promotion', 'raise')

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / 'shared' / 'data'


def pytest_configure(config):
    # A cache of compiled programs halves the suite where there is one; JAX_COMPILATION_CACHE_DIR names it. The first
    # run in a new clone keeps only what processes of tests compile: writing all of it down is half a minute.
    jax.config.update('jax_enable_compilation_cache', Path(os.environ['JAX_COMPILATION_CACHE_DIR']).is_dir())
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def pytest_collection_finish(session):
    gc.freeze()  # what was imported stays: no look through it for circles any more


def pytest_sessionfinish(session):
    gc.collect()
    gc.freeze()  # pytest would look through all that is left five times more


once.install()
# Tests replace functions of the package, which kept programs do not notice: only tests/test_kept.py, and processes that
# tests start, keep programs whole.
cache.whole_programs = lambda: None


def write_dataset(
    directory,
    *,
    records=40,
    seed=0,
    kind='classes',
    text=(3, 6),
    audio=(5, 9),
    vision=(2, 4),
    speakers=8,
    name='',
    prefix='clip',
):
    """A small trimodal shard directory: 3 + 4 + 5 features, 8 speakers, 4 sessions, an official split."""
    names = {'classes': ('calm', 'happy', 'sad'), 'regression': (), 'binary': ('happy', 'sad')}[kind]
    features = {'text': Feature((None, 3)), 'audio': Feature((None, 4)), 'vision': Feature((None, 5))}
    schema = Schema(name or f'tiny_{kind}', features, Label(kind, names))
    generator = np.random.default_rng(seed)
    with RecordWriter(directory, schema, num_shards=3) as writer:
        for number in range(records):
            arrays = {
                m: generator.standard_normal((generator.integers(low, high + 1), size)).astype(np.float32)
                for m, (low, high), size in (('text', text, 3), ('audio', audio, 4), ('vision', vision, 5))
            }
            label = {
                'classes': lambda: int(generator.integers(3)),
                'regression': lambda: float(generator.uniform(-3, 3)),
                'binary': lambda: generator.integers(2, size=2),
            }[kind]()
            writer.write(
                {'id': f'{prefix}_{number:03d}', 'label': label, **arrays},
                speaker=f'{number % speakers:02d}',
                session=str(number % 4),
                split=('train', 'train', 'validation', 'test')[(number // 8) % 4],
            )
    return directory


@pytest.fixture(scope='module', autouse=True)
def compiled_programs():
    """Kept for the tests of a file."""
    yield
    once.forget_compiled()


@pytest.fixture(scope='module')
def strict_types():
    """Types are mixed nowhere by chance: float32 with an integer or with bfloat16 raises."""
    with jax.numpy_dtype_promotion('strict'):
        yield


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """Shard directory with class labels, shared by tests that only read it."""
    return write_dataset(tmp_path_factory.mktemp('data') / 'tiny')


@pytest.fixture(scope='session')
def tiny_of_kind(tmp_path_factory):
    """Shard directories by kind of label."""
    folder = tmp_path_factory.mktemp('kinds')
    return {kind: write_dataset(folder / kind, kind=kind) for kind in ('classes', 'regression', 'binary')}


@pytest.fixture(scope='session')
def ravdess():
    folder = SHARED_DATA / 'ravdess'
    if not folder.is_dir():
        pytest.skip(f'the real RAVDESS clips are not here ({folder})')
    return folder
