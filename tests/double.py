"""Comparisons in float64: what float32 rounds away differs from processor to processor, and can decide a result.

Near the kink of a ReLU, among equal values of a max pooling and in the batch statistics of a few values two correct
float32 programs take different sides, and their gradients then differ by any amount. In float64 they do not get that
near, so a tolerance says how exact the formula is and not on which machine the test ran.
"""

import functools

import jax
import numpy as np

# Stored and converted numbers are float32, and a module may form its last means in it: half a unit in the last place
# is 6e-8 of a value. Ten of them, on the scale of the largest value, is what two correct programs may differ by.
TOLERANCE = 6e-7
# XLA on CPU has no library for float64 convolutions: without LLVM's optimisations (tests/conftest.py) their loops take
# minutes. Compiler options for programs that are mostly 3-D convolutions.
OPTIMISED = {'xla_backend_optimization_level': 1}


def widened(tree):
    """The arrays of a tree as numpy, float32 ones as float64."""

    def wide(x):
        x = np.asarray(x)
        return x.astype(np.float64) if x.dtype == np.float32 else x

    return jax.tree.map(wide, tree)


def in_float64(function):
    """function(*arrays) in float64: float32 arrays are widened on their way in; results are numpy arrays.

    A module computes in float64 only if its `dtype` says so. A jitted function must be its own for this: the same one
    called without would be compiled for float32 beside it, which is right but is compiled twice.
    """

    @functools.wraps(function)
    def called(*arguments):
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, function(*widened(arguments)))

    return called


def assert_near(found, expected, name='', tolerance=TOLERANCE):
    """Largest difference below `tolerance` times the largest expected value."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)
