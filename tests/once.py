"""What thousands of small programs in one process need not do again, and each did: no value depends on it.

(But for the last bit of those that parameters begin with: tests/in_a_row.py.)

Parameters begin with what each different initialiser gives, compiled once a process; their shapes are looked at once an
initialiser; programs are written into one MLIR context after another, not each into its own; one that was compiled
before, by another run of the same network, is not compiled again; and what is traced has no names for its arguments and
results, which jax looks up for messages of its own (a seventh of the time of a trace).
"""

import functools
import io
import threading

import flax.linen as nn
import jax
import numpy as np
from flax.core.scope import Scope
from jax._src import api_util, compiler, linear_util
from jax._src.interpreters import mlir
from jax._src.lib.mlir import passmanager

from mmer_jax.run import cache, initialise, own_module, states
from mmer_jax.run.initialise import fresh, trace
from tests import in_a_row

PROGRAMS_PER_CONTEXT = 200  # a context keeps every type and constant that was ever written into it
MAPS = 20_000  # memory maps of a process; mmer_jax.run.cache.let_go says how many are too many


class _Thread(threading.local):
    """What each thread has for itself."""

    context, programs = None, 0  # and for how many more it is
    in_full = False


thread = _Thread()
compiled, lock = {}, threading.Lock()  # executables by their programs; runs compile in threads
run_of_package = initialise._run  # for the tests of it


def install():
    nn.Module.init = _by_parts(nn.Module.init)
    initialise._run = _remembered(run_of_package)
    Scope.param = _by_initialiser(Scope.param)
    states.trace, own_module.fingerprint = _in_full(states.trace), _in_full(own_module.fingerprint)
    mlir.make_ir_context = _shared(mlir.make_ir_context)
    compiler.backend_compile_and_load = _compiled(compiler.backend_compile_and_load)
    api_util.fun_signature = lambda function: None
    api_util._non_static_arg_names = lambda *arguments: None  # None: unknown
    linear_util.DebugInfo.set_result_paths = lambda self, results: self._replace(result_paths=None)


def _by_parts(init):
    """nn.Module.init of one key by mmer_jax.run.initialise: equal values (tests/test_initialise.py), half the time.

    Eagerly each operation of the forward pass would be compiled by itself, hundreds in a large model.
    """

    def wrapped(self, rngs, *arguments, **options):
        def is_traced(tree):
            return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))

        if isinstance(rngs, dict) or is_traced((rngs, arguments, options)) or self.scope is not None:
            return init(self, rngs, *arguments, **options)
        if not jax.dtypes.issubdtype(rngs.dtype, jax.dtypes.prng_key):
            return init(self, rngs, *arguments, **options)
        words = jax.random.key_data(rngs)
        if is_traced(words):  # within a jit
            return init(self, rngs, *arguments, **options)
        kind = jax.random.key_impl(rngs)
        seeds = np.asarray(words)[None]

        def by_data(data):
            return init(self, jax.random.wrap_key_data(data, impl=kind), *arguments, **options)

        found = fresh(trace(by_data, seeds[0]), seeds)
        return jax.tree.map(lambda x: jax.device_put(x[0]), found)

    return wrapped


def _remembered(run):
    """initialise._run of the parameters that nobody has asked for yet: a value is that of its program and its path.

    Models of a file share their encoders, folds of a run all they have, and each of them compiled its initialisers.
    Those of any shape are one program (tests/in_a_row.py); the others are left to `run`.
    """
    known = {}

    def made(calls, seeds):
        found, others = {}, []
        for number, call in enumerate(calls):
            try:
                found[number] = in_a_row.values(call, seeds)
            except in_a_row.DependsOnTheShape:
                others.append(number)
        if others:
            found.update(zip(others, run([calls[number] for number in others], seeds), strict=True))
        return [found[number] for number in range(len(calls))]

    def wrapped(calls, seeds):
        keys, missing = [], []
        for program, constants, numbers in calls:
            parts = str(program), seeds.tobytes(), *(np.asarray(x).tobytes() for x in constants)
            columns = zip(*(values.tolist() for values in numbers), strict=True) if numbers else [()]
            keys.append([(*parts, *column) for column in columns])
            new = [member for member, key in enumerate(keys[-1]) if key not in known]
            if new:
                own = [values[new] for values in numbers]
                missing.append(((program, constants, own), [keys[-1][member] for member in new]))
        if missing:
            for (_, names), values_NM in zip(missing, made([call for call, _ in missing], seeds), strict=True):
                known.update(zip(names, values_NM.swapaxes(0, 1).copy(), strict=True))
        return [np.stack([known[key] for key in names], 1) for names in keys]

    return wrapped


def _in_full(function):
    """What a run traces is left alone: what its module computes is remembered with it, also by other processes."""

    def wrapped(*arguments, **options):
        before, thread.in_full = thread.in_full, True
        try:
            return function(*arguments, **options)
        finally:
            thread.in_full = before

    return wrapped


def _by_initialiser(param):
    """Scope.param without a trace of the initialiser for each parameter.

    In `init` it becomes a program of its own, traced once. In `apply` flax traces it for nothing but the shape that the
    parameter has to have; a parameter of another shape is left to flax, which raises.
    """
    programs, shapes = {}, {}

    def wrapped(self, name, init_fn, *arguments, unbox=True, **options):
        by_flax = functools.partial(param, self, name, init_fn, *arguments, unbox=unbox, **options)
        try:
            key = _made_of(init_fn), arguments, tuple(sorted(options.items()))
            hash(key)
        except TypeError:
            return by_flax()
        if not self.has_variable('params', name):
            if thread.in_full:
                return by_flax()
            if key not in programs:
                programs[key] = jax.jit(lambda rng: init_fn(rng, *arguments, **options))
            return param(self, name, programs[key], unbox=unbox)
        if key not in shapes:
            shapes[key] = jax.eval_shape(lambda: init_fn(jax.random.key(0), *arguments, **options))
        value = self.get_variable('params', name)
        if getattr(value, 'shape', None) != getattr(shapes[key], 'shape', ()):
            return by_flax()
        self.reserve(name, 'params')
        return value

    return wrapped


def _made_of(function):
    """What a function is made of: initialisers are closures, made anew wherever one is named."""
    if isinstance(function, functools.partial):
        return _made_of(function.func), function.args, tuple(sorted(function.keywords.items()))
    if not hasattr(function, '__code__'):
        return function
    cells = (cell.cell_contents for cell in function.__closure__ or ())
    inner = tuple(_made_of(cell) if hasattr(cell, '__code__') else cell for cell in cells)
    return function.__code__, inner, function.__defaults__, tuple(sorted((function.__kwdefaults__ or {}).items()))


def _shared(make):
    """The context of a thread, for some programs; one is made in the time that a small program takes to compile."""

    def wrapped():
        if not thread.programs:
            thread.context, thread.programs = make(), PROGRAMS_PER_CONTEXT
        thread.programs -= 1
        return thread.context

    return wrapped


def _compiled(compile_and_load):
    """The executable of a program with the same text; jax knows that it has one only by the function it came from."""

    def wrapped(backend, module, devices, options, host_callbacks):
        # With its cache jax writes what it compiled, and the same twice crashes (jaxlib 0.12). A callback in a program
        # is the address of an object.
        if jax.config.jax_enable_compilation_cache or host_callbacks or b'callback' in (text := _text(module)):
            return compile_and_load(backend, module, devices, options, host_callbacks)
        key = id(backend), text, tuple(device.id for device in devices), options.SerializeAsString()
        with lock:
            found = compiled.get(key)
        if found is None:
            found = compile_and_load(backend, module, devices, options, host_callbacks)
            with lock:
                compiled[key] = found
        return found

    return wrapped


def forget_compiled():
    """After each file of tests, for those of a file compile the same programs."""
    with lock:
        compiled.clear()
    if _maps() > MAPS:
        cache.let_go()


def _maps():
    """The memory maps of this process, 0 where there is no Linux to say."""
    try:
        with open('/proc/self/maps', 'rb') as file:
            return sum(1 for _ in file)
    except FileNotFoundError:
        return 0


def _text(module):
    """A program without the places in the code that it came from."""
    with module.context:
        copy = module.operation.clone()
        passmanager.PassManager.parse('builtin.module(strip-debuginfo)').run(copy)
        text = io.BytesIO()
        copy.write_bytecode(text)
    return text.getvalue()
