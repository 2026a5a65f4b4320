"""Fresh variables, without compiling an initialiser per parameter.

Tracing a module's `init` gives one long program: for each parameter a key made of the seed and of the parameter's
path, then its initialiser. MulT has 603 parameters and 21 different initialisers of a shape. So the program is cut into
the part of each parameter, the parts that differ in nothing but the number that stands for the path are put together,
and each different part is compiled once and run in a loop over its parameters and the seeds. The forward pass, which
`init` traces too, is in no part. The values are those of `init` itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

Tree = Any
INLINED = ('checkpoint', 'remat', 'remat2')  # a block that is recomputed: its parameters are made inside the call
# A loop that runs once or some hundred times is not worth LLVM's optimisations.
CHEAP = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}


class Part(NamedTuple):
    """The computation of one output: a program of the seed and of `numbers`, the small constants taken out of it."""

    program: core.Jaxpr
    constants: tuple[Any, ...]
    numbers: tuple[np.ndarray, ...]


class Traced(NamedTuple):
    """An `init` as a program, and the shapes of what it gives."""

    program: core.ClosedJaxpr
    shapes: Tree


def trace(init: Callable[[Any], Tree], seed: Any) -> Traced:
    """init: one seed (an int32 scalar, or a key's data) -> a tree of arrays. It is traced once and never run whole."""
    return Traced(*jax.make_jaxpr(init, return_shape=True)(seed))


class Recipe(NamedTuple):
    """What the program of an `init` needs beside the seeds, and where its results go."""

    shapes: Tree
    numbers: list[list[np.ndarray]]  # of each of its results
    places: list[list[int]]  # among the leaves of `shapes`


def fresh(traced: Traced, seeds: np.ndarray) -> Tree:
    """What the traced `init` gives for each of `seeds` (N, ...), its arrays with a leading seed axis, as numpy."""
    calls, recipe = _parts(traced)
    return _placed(recipe, _run(calls, np.asarray(seeds)))


def lowered(traced: Traced, seeds: int) -> tuple[Any, Recipe]:
    """The program of `fresh` for so many seeds (each an int32 scalar), not compiled yet, and its recipe."""
    calls, recipe = _parts(traced)
    with jax.default_device(device()):
        shape = jax.ShapeDtypeStruct((seeds,), np.int32)
        return _program(calls).lower(shape, recipe.numbers), recipe


def fresh_by(program: Callable[..., Any], recipe: Recipe, seeds: np.ndarray) -> Tree:
    """What `fresh` gives, by the compiled program of `lowered`."""
    return _placed(recipe, [np.asarray(values) for values in program(np.asarray(seeds, np.int32), recipe.numbers)])


def device() -> jax.Device:
    """The host's CPU where jax has it, so that an accelerator compiles none of this."""
    try:
        return jax.local_devices(backend='cpu')[0]
    except RuntimeError:  # JAX_PLATFORMS names an accelerator alone
        return jax.local_devices()[0]


def options_on(place: jax.Device) -> dict[str, Any] | None:
    """XLA's, of this program."""
    return CHEAP if place.platform == 'cpu' else None


def _parts(traced: Traced) -> tuple[list[Any], Recipe]:
    """The different parts of an `init`, each with its constants and the numbers of its members."""
    closed = traced.program
    eqns, outs = _inlined(closed.jaxpr)
    makers = {var: eqn for eqn in eqns for var in eqn.outvars}
    constants = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    groups: dict[str, list[tuple[int, Part]]] = {}
    for place, out in enumerate(outs):
        part = _part(out, closed.jaxpr, makers, constants)
        groups.setdefault(str(part.program), []).append((place, part))
    calls, placed = [], []
    for members in groups.values():
        programs = [part for _, part in members]
        numbers = [np.array([part.numbers[n] for part in programs]) for n in range(len(programs[0].numbers))]
        calls.append((programs[0].program, programs[0].constants, numbers))
        placed.append([place for place, _ in members])
    return calls, Recipe(traced.shapes, [numbers for _, _, numbers in calls], placed)


def _placed(recipe: Recipe, values: list[np.ndarray]) -> Tree:
    leaves, treedef = jax.tree.flatten(recipe.shapes)
    found: list[Any] = [None] * len(leaves)
    for places, values_NM in zip(recipe.places, values, strict=True):
        for number, place in enumerate(places):
            # Of a part without numbers, a constant or what the seed alone gives, all members are the same.
            found[place] = values_NM[:, number if values_NM.shape[1] > 1 else 0]
    return jax.tree.unflatten(treedef, found)


def _run(calls: list[tuple[core.Jaxpr, tuple, list[np.ndarray]]], seeds: np.ndarray) -> list[np.ndarray]:
    """Each part's program over all seeds and all its members: (N, M, ...) each."""
    with jax.default_device(device()):
        results = _program(calls)(seeds, [numbers for _, _, numbers in calls])
    return [np.asarray(values) for values in results]


def _program(calls: list[tuple[core.Jaxpr, tuple, list[np.ndarray]]]) -> Any:
    """(seeds, numbers of each part) -> what each gives, one after another: under vmap, orthogonal initialisers are
    batched QR decompositions, which never return with jaxlib 0.10.2 on two cores (mended in 0.12).
    """

    def run(seeds, all_numbers):
        results = []
        for (program, constants, _), numbers in zip(calls, all_numbers, strict=True):
            members = len(numbers[0]) if numbers else 1
            pairs = [jnp.repeat(seeds, members, axis=0), *(jnp.tile(values, len(seeds)) for values in numbers)]
            values = jax.lax.map(
                lambda one, program=program, constants=constants: jax.core.eval_jaxpr(program, constants, *one)[0],
                tuple(pairs),
            )
            results.append(values.reshape(len(seeds), members, *values.shape[1:]))
        return results

    return jax.jit(run, keep_unused=True, compiler_options=options_on(device()))


def _inlined(jaxpr: core.Jaxpr) -> tuple[list[core.JaxprEqn], list[Any]]:
    """The equations in order, those of recomputed blocks in place of the call, and the outputs."""
    found: list[core.JaxprEqn] = []
    renamed: dict[core.Var, Any] = {}

    def name(atom):
        return atom if isinstance(atom, core.Literal) else renamed.get(atom, atom)

    def walk(eqns):
        for eqn in eqns:
            invars = [name(atom) for atom in eqn.invars]
            if eqn.primitive.name not in INLINED:
                found.append(eqn.replace(invars=invars))
                continue
            inner = eqn.params['jaxpr']
            inner, consts = (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, ())
            assert not consts, 'a recomputed block closes over arrays'
            renamed.update(zip(inner.invars, invars, strict=True))
            walk(inner.eqns)
            renamed.update({out: name(own) for out, own in zip(eqn.outvars, inner.outvars, strict=True)})

    walk(jaxpr.eqns)
    return found, [name(atom) for atom in jaxpr.outvars]


def _part(out: Any, whole: core.Jaxpr, makers: dict, constants: dict) -> Part:
    """What computes one output, and nothing else."""
    order: list[core.JaxprEqn] = []
    seen: set[int] = set()

    def visit(atom):
        if isinstance(atom, core.Literal) or atom not in makers or id(makers[atom]) in seen:
            return
        eqn = makers[atom]
        seen.add(id(eqn))
        for one in eqn.invars:
            visit(one)
        order.append(eqn)

    visit(out)
    numbers, taken, eqns = [], [], []
    for eqn in order:
        invars: list[Any] = []
        for atom in eqn.invars:
            aval: Any = atom.aval
            if isinstance(atom, core.Literal) and not aval.shape and aval.dtype == np.uint32:
                invars.append(core.Var(aval))
                taken.append(invars[-1])
                numbers.append(np.asarray(atom.val))
            else:
                invars.append(atom)
        eqns.append(eqn.replace(invars=invars))
    atoms = [out, *(atom for eqn in eqns for atom in eqn.invars)]  # out: itself a number, of a parameter that begins so
    used = {atom for atom in atoms if not isinstance(atom, core.Literal)}
    own = [var for var in constants if var in used]
    names = whole.debug_info.with_unknown_names()  # those of the arguments and results are other ones
    program = core.Jaxpr(own, [*whole.invars, *taken], [out], eqns, debug_info=names)
    return Part(program, tuple(constants[var] for var in own), tuple(numbers))
