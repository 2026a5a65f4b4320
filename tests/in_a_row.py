"""The program of an initialiser for any number of elements in a row, whatever their shape and its scale.

What an initialiser gives at a place depends on the number of that place and on nothing else about the shape: random
bits are those of the place (`jax_threefry_partitionable`), and all behind them works element by element. So one program
gives the values of every shape of a kind of initialiser, where `mmer_jax.run.initialise` compiles one for each.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

OF_KEYS = ('random_seed', 'random_wrap', 'random_unwrap', 'random_fold_in')
ELEMENT_BY_ELEMENT = (
    'add', 'sub', 'mul', 'div', 'max', 'min', 'sqrt', 'erf', 'erf_inv', 'nextafter', 'shift_right_logical', 'or',
    'bitcast_convert_type', 'convert_element_type', 'stop_gradient',
)  # fmt: skip
FILLING = ('broadcast_in_dim', 'random_bits')  # their parameters say the shape
SMALLEST = 64


class DependsOnTheShape(Exception):
    """So it has to be compiled for each: an orthogonal matrix, an array that the module closes over."""


def steps_of(program):
    """(steps, literals, result) of a jaxpr; a step: primitive, parameters, places of what it takes, fills the shape.

    A place is ('input' | 'literal' | 'step', number). DependsOnTheShape where it does.
    """
    (out,) = program.outvars
    whole, steps, literals, places = out.aval.shape, [], [], {}

    def place(atom):
        if not isinstance(atom, core.Literal):
            return places[atom]
        literals.append(np.asarray(atom.val, atom.aval.dtype))
        return 'literal', len(literals) - 1

    def walk(jaxpr, inputs):
        if jaxpr.constvars:
            raise DependsOnTheShape
        places.update(zip(jaxpr.invars, inputs, strict=True))
        for eqn in jaxpr.eqns:
            name, taken = eqn.primitive.name, tuple(place(atom) for atom in eqn.invars)
            if name == 'jit':
                if eqn.params['jaxpr'].consts:
                    raise DependsOnTheShape
                places.update(zip(eqn.outvars, walk(eqn.params['jaxpr'].jaxpr, taken), strict=True))
                continue
            shape = eqn.outvars[0].aval.shape
            known = name in (*OF_KEYS, *ELEMENT_BY_ELEMENT, *FILLING)
            if not known or (shape != whole and any(size != 1 for size in shape)):
                raise DependsOnTheShape
            fixed = {key: x for key, x in eqn.params.items() if key not in ('shape', 'broadcast_dimensions')}
            steps.append((eqn.primitive, tuple(sorted(fixed.items())), taken, shape == whole))
            places[eqn.outvars[0]] = 'step', len(steps) - 1
        return [place(atom) for atom in jaxpr.outvars]

    (result,) = walk(program, [('input', number) for number in range(len(program.invars))])
    return tuple(steps), literals, result


@functools.cache
def compiled(steps, result, size):
    """(inputs, literals) -> `size` elements."""

    def run(inputs, literals):
        found = {'input': inputs, 'literal': literals, 'step': []}
        for primitive, fixed, taken, fills in steps:
            values = [found[kind][number] for kind, number in taken]
            shape = (size,) if fills else ()
            if primitive.name == 'broadcast_in_dim':
                value = jnp.broadcast_to(values[0], shape)
            elif primitive.name == 'random_bits':
                value = primitive.bind(*values, **dict(fixed), shape=shape)
            elif primitive.name in OF_KEYS:
                value = primitive.bind(*values, **dict(fixed))
            else:
                value = primitive.bind(*(jnp.broadcast_to(x, shape) for x in values), **dict(fixed))
            found['step'].append(value)
        kind, number = result
        return jnp.broadcast_to(found[kind][number], (size,))

    return jax.jit(run, keep_unused=True)


def values(call, seeds):
    """What mmer_jax.run.initialise._run gives for one call: (N, M, ...). DependsOnTheShape where it does."""
    program, constants, numbers = call
    if constants or not jax.config.jax_threefry_partitionable:
        raise DependsOnTheShape
    steps, literals, result = steps_of(program)
    aval = program.outvars[0].aval
    count, size = int(np.prod(aval.shape)), SMALLEST
    while size < count:
        size *= 4
    run = compiled(steps, result, size)
    members = list(zip(*numbers, strict=True)) if numbers else [()]
    found = [[np.asarray(run((seed, *member), literals))[:count] for member in members] for seed in seeds]
    return np.stack([np.stack(row) for row in found]).reshape(len(seeds), len(members), *aval.shape)
