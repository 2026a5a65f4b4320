"""Functions of arrays that JAX takes as one operation.

Differentiating a program, JAX cuts it into what is known before and what is not, and into what changes in a loop and
what does not: a function that is jitted by itself is cut too, into other parts at each place where it is used. The
program then holds it many times, and what is cheap to make again, such as the numbers of elements, lies in memory
instead. A `whole` function is never cut; a program holds it once per shape and calls it. It has no derivative of its
own: it is what `jax.custom_vjp` is written with.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import batching, mlir


def whole(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """function(*arrays, **fixed) -> a sequence of arrays, as one operation that gives a tuple; fixed: hashable."""
    primitive = core.Primitive(function.__name__.strip('_'))
    primitive.multiple_results = True

    def run(*arrays, **fixed):
        return list(function(*arrays, **fixed))

    @functools.cache
    def shapes(kinds, fixed):
        arrays = (jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in kinds)
        found = jax.eval_shape(functools.partial(run, **dict(fixed)), *arrays)
        return [jax.core.ShapedArray(x.shape, x.dtype) for x in found]

    @functools.cache
    def compiled(fixed):
        return jax.jit(functools.partial(run, **dict(fixed)))

    def abstract(*arrays, **fixed):
        return shapes(tuple((x.shape, x.dtype) for x in arrays), tuple(sorted(fixed.items())))

    def over_axis(arrays, axes, /, **fixed):
        found = jax.vmap(functools.partial(run, **fixed), in_axes=tuple(axes))(*arrays)
        return found, [0] * len(found)

    primitive.def_impl(lambda *arrays, **fixed: compiled(tuple(sorted(fixed.items())))(*arrays))
    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = over_axis
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=True), inline=False)

    @functools.wraps(function)
    def bind(*arrays, **fixed):
        return tuple(primitive.bind(*arrays, **fixed))

    return bind


def recomputed(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """As `whole`, and with a derivative: the backward pass, one operation too, computes the function again.

    Nothing but its arrays is kept for that. Arrays of integers and bools have no gradient.
    """

    def backward(*arrays, number_given, **fixed):
        given, gradients = arrays[:number_given], arrays[number_given:]
        moving = [n for n, x in enumerate(given) if jnp.issubdtype(x.dtype, jnp.floating)]

        def of_moving(*values):
            filled = dict(enumerate(given)) | dict(zip(moving, values, strict=True))
            return list(function(*filled.values(), **fixed))

        return jax.vjp(of_moving, *(given[n] for n in moving))[1](list(gradients))

    backward.__name__ = f'{function.__name__}_backward'
    forward, back = whole(function), whole(backward)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def call(fixed, *arrays):
        return forward(*arrays, **dict(fixed))

    def call_backward(fixed, arrays, gradients):
        found = iter(back(*arrays, *gradients, number_given=len(arrays), **dict(fixed)))
        floating = [jnp.issubdtype(x.dtype, jnp.floating) for x in arrays]
        return tuple(next(found) if moves else None for moves in floating)

    call.defvjp(lambda fixed, *arrays: (call(fixed, *arrays), arrays), call_backward)

    @functools.wraps(function)
    def bind(*arrays, **fixed):
        return call(tuple(sorted(fixed.items())), *arrays)

    return bind
