"""What is seen of a gradient: which parameters learn nothing to speak of, and whether the pass is computed again."""

import re

import jax
import numpy as np
from jax.extend import core

from mmer_jax.run.initialise import INLINED

SHARE = 1e-4


def faint(gradient, share=SHARE):
    """Names of the arrays whose gradient has a root mean square below `share` of the median array's.

    'Not exactly 0' would not do: what a softmax or a normalisation cancels still has gradients of the size of rounding.
    """
    size = {
        '/'.join(key.key for key in path): float(np.sqrt(np.square(np.asarray(leaf, np.float64)).mean()))
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
    }
    limit = share * float(np.median(list(size.values())))
    assert limit > 0, 'most gradients are 0'
    return sorted(name for name, value in size.items() if not value >= limit)


def check_faint(gradient, expected, share=SHARE):
    """All are finite; the faint ones are those that match a pattern of `expected`, and no pattern is idle."""
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)), 'a gradient is not finite'
    names = ['/'.join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(gradient)]
    matched = {pattern: {name for name in names if re.search(pattern, name)} for pattern in expected}
    idle = [pattern for pattern, found in matched.items() if not found]
    assert idle == [], f'no parameter matches {idle}'
    found, stated = faint(gradient, share), sorted(set().union(*matched.values()))
    assert found == stated, f'faint are {found}, stated is {stated}'


def recomputes(jaxpr):
    """Whether a program, or one inside it, computes a forward pass again for the gradient (jax.checkpoint)."""
    return any(
        eqn.primitive.name in INLINED or any(recomputes(inner) for inner in core.jaxprs_in_params(eqn.params))
        for eqn in getattr(jaxpr, 'jaxpr', jaxpr).eqns
    )
