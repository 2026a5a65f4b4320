"""Programs kept whole: the same bytes without a trace, found by all that decides them, and gone without harm."""

import copy
import subprocess
import sys
import threading
import time
import types

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from configs.base import get_base
from mmer_jax.data.schema import MODALITIES
from mmer_jax.files import read_json
from mmer_jax.models import build_model
from mmer_jax.run import cache, kept, program, program_files, states
from mmer_jax.run.compiling import Background, ByShape
from mmer_jax.run.kept import HARMLESS, Kept, Watched, kept_of, takes_all
from mmer_jax.train import train_and_evaluate
from tests.small_run import MeanModel, small_config, stopped_at
from tests.test_models import CASES as CASES_OF_MODELS
from tests.test_models import make

MODEL = {'name': 'lf_lstm', 'hidden_size': 4, 'mlp_size': 6}  # its kernels begin orthogonal, by LAPACK
MACHINE = types.SimpleNamespace(id=0, platform='cpu', device_kind='cpu', client=jax.devices()[0].client)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Programs are kept, and compiled by XLA itself: one that jax's cache gives is not kept."""
    monkeypatch.setattr(cache, 'whole_programs', lambda: tmp_path / 'whole')
    before = jax.config.jax_enable_compilation_cache
    jax.config.update('jax_enable_compilation_cache', False)
    compilation_cache.reset_cache()
    yield tmp_path / 'whole'
    jax.config.update('jax_enable_compilation_cache', before)
    compilation_cache.reset_cache()


def found_in(run):
    """What a run wrote that does not tell the time."""
    arrays = {}
    for path in sorted((run / 'predictions').glob('*.npz')):
        with np.load(path) as content:
            arrays |= {f'{path.name} {key}': content[key].tobytes() for key in content.files}
    results = {k: v for k, v in read_json(run / 'results.json').items() if k in ('rows', 'flops_per_example')}
    return {'metrics': (run / 'metrics.jsonl').read_text(), 'results': results, **arrays}


CASES = {'seeds in turns': {}, 'a step in parts': {'accumulate': 2, 'seeds': 1}}


@pytest.mark.parametrize('case', CASES)
def test_a_run_from_kept_programs_has_the_same_bytes_and_traces_nothing(case, folder, tiny, tmp_path, monkeypatch):
    config = small_config(tiny, epochs=1, model=MODEL, data__max_shapes=1, checkpoint_every=1, **CASES[case])
    config.mesh.data = 1
    monkeypatch.setattr(jax, 'device_count', lambda *_: 1)
    train_and_evaluate(config, tmp_path / 'first', folds=[0])
    files = sorted(path.name for path in folder.iterdir())
    programs = 3 + (2 if 'parts' in case else 0)  # initialisation, training step, evaluation
    assert [name.rpartition('.')[2] for name in files].count('program') == programs
    assert [name.rpartition('.')[2] for name in files].count('entry') == 4  # and the shapes of the states

    def never(*_, **__):
        raise AssertionError('traced')

    monkeypatch.setattr(states, 'init_state', never)
    monkeypatch.setattr(Kept, '_compiled', never)
    with stopped_at(2):
        train_and_evaluate(config, tmp_path / 'second', folds=[0])
    train_and_evaluate(config, tmp_path / 'second', folds=[0])  # from its checkpoint
    config.seed, config.log_every, config.name = 5, 3, 'another'
    train_and_evaluate(config, tmp_path / 'third', folds=[0])
    assert sorted(path.name for path in folder.iterdir()) == files
    first = found_in(tmp_path / 'first')
    assert first == found_in(tmp_path / 'second')
    assert first != found_in(tmp_path / 'third'), 'the seed is an argument'


def begin(data):
    """The sum over the parameters that a run begins with."""
    config = small_config(data, epochs=1, model=MODEL, data__max_shapes=1)
    source = program.open_source(config)
    fold = program.load_fold(config, source, program.folds_of(config, source)[0])
    made = program.make_program(config, program.make_model(config, source), fold)
    state = made.init(np.arange(2, dtype=np.int32))
    made.background.forget()
    return sum(float(abs(x).sum()) for x in jax.tree.leaves(state.params))


FRESH = """
import sys, pathlib, jax
jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_numpy_rank_promotion', 'raise')
from mmer_jax.run import cache, program, states
from tests.test_kept import begin
def never(*_): raise AssertionError('traced')
cache.whole_programs, states.init_state = lambda: pathlib.Path(sys.argv[2]), never
print(begin(sys.argv[1]))
"""


def test_a_process_whose_first_program_is_a_kept_one_finds_lapack(tiny, folder):
    """Without it the process crashes: nothing was lowered that would have made jax look for LAPACK."""
    expected = begin(tiny)
    command = [sys.executable, '-c', FRESH, str(tiny), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) == expected > 0


# ---- what an entry is found by -------------------------------------------------------------------------------


def facts(config=None, model=None, more='', **environment):
    config = get_base('test') if config is None else config
    model = build_model(MODEL, modalities=MODALITIES, num_outputs=1, dtype=np.float32) if model is None else model
    return kept_of(config, model, more, [MACHINE], None)


def flat(config, prefix=''):
    for key, value in config.items():
        if hasattr(value, 'items') and len(value):
            yield from flat(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


OTHER = {bool: lambda x: not x, int: lambda x: x + 1, float: lambda x: x + 0.5, str: lambda x: f'{x}x'}
KEYS = dict(flat(get_base('test')))


def changed(key):
    config, value = copy.deepcopy(get_base('test')), KEYS[key]
    other = {'new': 1.0} if hasattr(value, 'items') else ('new',) if isinstance(value, tuple) else None
    other = OTHER[type(value)](value) if other is None else other
    with config.unlocked():
        config.update_from_flattened_dict({key: other})
    return config


def test_every_key_of_a_config_decides_but_the_harmless_ones(folder):
    own = facts().facts
    assert len(own) == 64
    same = {key for key in KEYS if facts(changed(key)).facts == own}
    assert same == {key for key in KEYS if any(key == one or key.startswith(f'{one}.') for one in HARMLESS)}
    assert facts(copy.deepcopy(get_base('test'))).facts == own


def test_the_model_the_machine_and_the_rest_decide(folder, monkeypatch):
    own = facts()
    wider = build_model({**MODEL, 'mlp_size': 7}, modalities=MODALITIES, num_outputs=1, dtype=np.float32)
    assert facts(model=wider).facts != own.facts
    assert facts(model=wider).machine == own.machine
    assert facts(more='steps 3').facts != own.facts
    with monkeypatch.context() as patch:
        patch.setenv('XLA_FLAGS', '--xla_cpu_enable_fast_math=true')
        assert facts().machine != own.machine
        assert facts().facts != own.facts
    with monkeypatch.context() as patch:
        patch.setattr(cache, 'sources', lambda: 'an edited file')
        assert facts().facts != own.facts
        assert facts().machine == own.machine, 'a program whose text is the same is still the one'
    with monkeypatch.context() as patch:
        patch.setattr(kept, '_processor', lambda: ['another processor'])
        assert facts().machine != own.machine
    with monkeypatch.context() as patch:
        patch.setattr(kept.importlib.metadata, 'version', lambda name: '9.9')
        assert facts().machine != own.machine
    with monkeypatch.context() as patch:
        patch.setattr(cache, 'sources', lambda: '')
        assert facts() == kept.NOTHING, 'a source is younger than the process'
    jax.config.update('jax_default_matmul_precision', 'highest')
    try:
        assert facts().machine != own.machine
    finally:
        jax.config.update('jax_default_matmul_precision', None)
    assert facts() == own


def test_harmless_keys_reach_no_program(folder, tiny, monkeypatch):
    """Those of HARMLESS, changed, give programs of the same text."""

    def texts(config):
        found = []
        monkeypatch.setattr(Kept, '_compiled', lambda self, like, entry, lowered, *_: found.extend(lowered) or lowered)
        source = program.open_source(config)
        data = program.load_fold(config, source, program.folds_of(config, source)[0])
        made = program.make_program(config, program.make_model(config, source), data)
        made.prepare(data, 0)
        while made.background._later:
            made.background._later.popleft()()
        made.background._pool.shutdown()
        assert all(takes_all(one.as_text(), one.in_tree.num_leaves) for one in found)
        return [one.as_text() for one in found]

    config = small_config(tiny, model=MODEL, data__max_shapes=1)
    own = sorted(texts(config))
    assert len(own) == 2  # training step, evaluation
    for key in [key for key in KEYS if any(key == one or key.startswith(f'{one}.') for one in HARMLESS)]:
        if key != 'data.directory':
            other = changed(key).to_dict()
            for part in key.split('.'):
                other = other[part]
            with config.unlocked():
                config.update_from_flattened_dict({key: other})
    assert config.seed != small_config(tiny).seed
    assert sorted(texts(config)) == own
    assert sorted(texts(small_config(tiny, model=MODEL, data__max_shapes=1, optimizer__b1=0.5))) != own


def test_modules_of_ones_own_are_not_kept(folder):
    class Inside(nn.Module):
        def __call__(self, x, mask, *, train):
            return x, mask

    assert facts(model=MeanModel()).facts == ''
    unimodal = build_model(
        {'name': 'unimodal', 'encoder': {'name': 'vector_encoder'}},
        modalities=('text',),
        num_outputs=1,
        dtype='float32',
    )
    assert facts(model=unimodal).facts
    assert facts(model=unimodal.clone(encoder=Inside())).facts == ''


def test_functions_of_ones_own_are_not_kept(folder, monkeypatch):
    def known(module):
        return bool(facts(model=module).facts)

    assert known(nn.Sequential([nn.relu]))
    assert not known(nn.Sequential([nn.relu, lambda x: x * 3]))
    assert not known(nn.Dense(3, kernel_init=nn.initializers.normal(9.0)))
    assert not known(nn.Sequential([square]))
    config = get_base('test')
    config.losses = {'l1': 1.0}
    assert facts(config).facts
    monkeypatch.setitem(kept.LOSSES, 'l1', square)
    assert facts(config).facts == ''


@pytest.mark.parametrize('name', CASES_OF_MODELS)
def test_the_models_of_this_package_are_known(name, folder):
    assert facts(model=make(name, CASES_OF_MODELS[name][1][0])).facts


def test_a_source_that_is_younger_than_the_process_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, 'PACKAGE', tmp_path)
    (tmp_path / 'room').mkdir()
    (tmp_path / 'room' / 'one.py').write_text('a = 1')
    (tmp_path / '.#one.py').symlink_to('of an editor')
    monkeypatch.setattr(cache, 'BEGUN', time.time() + 60)
    before = cache.sources()
    assert len(before) == 64
    (tmp_path / 'room' / 'one.py').write_text('a = 2')
    assert cache.sources() not in ('', before)
    monkeypatch.setattr(cache, 'BEGUN', time.time() - 60)
    assert cache.sources() == ''
    (tmp_path / 'room' / 'one.py').unlink()
    (tmp_path / 'room' / 'lost.py').symlink_to('nowhere')
    assert cache.sources() == ''


# ---- files ---------------------------------------------------------------------------------------------------


def programs_of(function, *, name='square', number=3.0, machine='here'):
    x = jax.ShapeDtypeStruct((2,), np.float32)
    lowered = []

    def lower():
        lowered.append(jax.jit(function).lower(x))
        return lowered, {'number': number}

    found = Kept('facts', machine, tuple(jax.devices()[:1])).programs(name, x, lower)
    return found, lowered


def square(x):
    return x * x


def test_a_program_of_the_same_text_is_one_file(folder):
    first, lowered = programs_of(square)
    (program,), more = first()
    assert (more, len(lowered)) == ({'number': 3.0}, 1)
    again, lowered = programs_of(square)
    (loaded,), more = again()
    assert (more, lowered) == ({'number': 3.0}, [])
    np.testing.assert_array_equal(loaded(np.float32([2, 3])), [4, 9])
    np.testing.assert_array_equal(program(np.float32([2, 3])), [4, 9])
    entries, files = list(folder.glob('*.entry')), list(folder.glob('*.program'))
    assert (len(entries), len(files)) == (1, 1)
    entries[0].rename(folder / 'of_another_config.entry')  # what it names is there: it is loaded, not compiled
    other, lowered = programs_of(square)
    before = files[0].stat().st_ino
    (loaded,), _ = other()
    assert len(lowered) == 1
    np.testing.assert_array_equal(loaded(np.float32([2, 3])), [4, 9])
    assert [path.stat().st_ino for path in folder.glob('*.program')] == [before]
    programs_of(lambda x: x + x)[0]()[0]  # the facts and the name are those of the first: they are to tell
    assert len(list(folder.glob('*.program'))) == 1
    programs_of(lambda x: x + x, name='twice')[0]()
    assert len(list(folder.glob('*.program'))) == 2


def test_a_program_that_leaves_arguments_out_is_not_taken_for_another_one(folder):
    """Of both the text is the same: jax drops what is not used, and notes beside the text which ones are."""
    x = jax.ShapeDtypeStruct((2,), np.float32)
    one, other = (jax.jit(f).lower(x, x) for f in (lambda a, b: a * 2, lambda a, b: b * 2))
    assert one.as_text() == other.as_text()
    values = np.float32([1, 1]), np.float32([5, 5])
    for number, (lowered, expected) in enumerate([(one, 2), (other, 10)]):
        kept_one = Kept(f'facts {number}', 'here', tuple(jax.devices()[:1]))
        for _ in range(2):
            (program,), _ = kept_one.programs('twice', x, lambda lowered=lowered: ([lowered], None))()
            np.testing.assert_array_equal(program(*values), [expected] * 2)
    assert len(list(folder.glob('*.program'))) == 2


DAMAGE = {
    'cut': lambda path: path.write_bytes(path.read_bytes()[:-7]),
    'changed': lambda path: path.write_bytes(b'x' + path.read_bytes()[1:]),
    'empty': lambda path: path.write_bytes(b''),
    'away': lambda path: path.unlink(),
}


@pytest.mark.parametrize('damage', DAMAGE)
@pytest.mark.parametrize('kind', ['program', 'entry'])
def test_what_is_damaged_is_made_anew(kind, damage, folder):
    programs_of(square)[0]()
    (path,) = folder.glob(f'*.{kind}')
    DAMAGE[damage](path)
    made = []

    def lower_for(batch):
        found, lowered = programs_of(square)
        made.append(lowered)

        def compiled():
            (one,), _ = found()
            return lambda state, _: one(state)

        return compiled

    def step():
        batch = {'weight': jax.numpy.ones(2), 'text_mask': jax.numpy.ones((2, 1), bool)}
        return ByShape('the step', lower_for, Background())(np.float32([2, 3]), batch)

    np.testing.assert_array_equal(step(), [4, 9])
    # A program that is there and damaged is known to be so when it is loaded; what else is, when it is looked for.
    assert [len(lowered) for lowered in made] == ([0, 1] if kind == 'program' and damage != 'away' else [1])
    made.clear()
    np.testing.assert_array_equal(step(), [4, 9])
    assert made == [[]], 'kept again, and loaded'


def test_a_step_whose_kept_program_is_gone_is_lowered(folder):
    asked = []

    def lower_for(batch):
        asked.append(batch)

        def load():
            if len(asked) == 1:
                raise program_files.Gone('of another machine')
            return lambda state, batch: state + 1

        return load

    step = ByShape('the step', lower_for, Background())
    batch = {'weight': jax.numpy.ones(2), 'text_mask': jax.numpy.ones((2, 1), bool)}
    assert step(1, batch) == 2
    assert len(asked) == 2


def test_what_jaxs_cache_gave_is_not_kept(folder, monkeypatch):
    """XLA's CPU programs lose functions when they are loaded, serialised and loaded again."""
    lowered = jax.jit(square).lower(jax.ShapeDtypeStruct((2,), np.float32))
    compiled = lowered.compile()

    class FromCache:
        in_tree, out_tree, as_text = lowered.in_tree, lowered.out_tree, lowered.as_text

        def compile(self):
            jax.monitoring.record_event(kept.HIT)
            return compiled

    found = Kept('facts', 'here', tuple(jax.devices()[:1])).programs('square', (), lambda: ([FromCache()], None))
    assert found() == ([compiled], None)
    assert list(folder.glob('*')) == []


def test_only_the_thread_that_compiles_is_watched():
    with Watched() as watch:
        other = threading.Thread(target=jax.monitoring.record_event, args=(kept.HIT,))
        other.start()
        other.join()
        assert not watch.hit
        jax.monitoring.record_event('/jax/another/event')
        assert not watch.hit
        jax.monitoring.record_event(kept.HIT)
        assert watch.hit
    jax.monitoring.record_event(kept.HIT)


def test_what_was_lowered_while_a_source_changed_is_not_kept(folder, monkeypatch):
    found, _ = programs_of(square)
    monkeypatch.setattr(cache, 'sources', lambda: '')
    found()
    assert list(folder.glob('*')) == []


def test_what_cannot_be_serialised_is_not_kept(folder, monkeypatch):
    def refuse(program):
        raise ValueError('Compilation does not support serialization')

    monkeypatch.setattr(program_files.serialize_executable, 'serialize', refuse)
    (one,), _ = programs_of(square)[0]()
    np.testing.assert_array_equal(one(np.float32([2, 3])), [4, 9])
    assert list(folder.glob('*')) == []


def test_the_oldest_files_make_room(folder, monkeypatch):
    for number, name in enumerate(('first', 'second', 'third')):
        programs_of(lambda x, number=number: x + number, name=name)[0]()
    sizes = [path.stat().st_size for path in folder.glob('*.program')]
    programs_of(lambda x: x + 0, name='first')[0]()  # used again: the second is the oldest now
    monkeypatch.setattr(program_files, 'LARGEST', 3 * max(sizes) + 10)
    programs_of(lambda x: x + 7, name='fourth')[0]()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3 * max(sizes) + 1000
    assert programs_of(lambda x: x + 0, name='first')[1] == []
    assert programs_of(lambda x: x + 1, name='second')[1] != []
