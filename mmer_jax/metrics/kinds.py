"""The kinds of metrics by name, and what holds for all of them: which kind fits, floors, names, titles, directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmer_jax.metrics import classes, emotions, real_numbers
from mmer_jax.metrics.calibration import ECE
from mmer_jax.metrics.metric import Kind, Metric

KINDS: dict[str, Kind] = {  # of those that measure one kind of label, the first one that fits is taken
    'classification': classes.CLASSIFICATION,
    'sentiment': real_numbers.SENTIMENT,
    'polarity': real_numbers.POLARITY,
    'regression': real_numbers.REGRESSION,
    'binary_emotions': emotions.BINARY_EMOTIONS,
}
METRICS = {name: kind.measure for name, kind in KINDS.items()}
LOSS = {'loss': Metric('loss', percent=False, lower_is_better=True)}  # of every kind, measured by the model's own
WHOLE = LOSS | ECE | {name: metric for kind in KINDS.values() for name, metric in kind.whole.items()}
EACH = {name: metric for kind in KINDS.values() for name, metric in kind.each.items()}


def kind_named(kind: str) -> Kind:
    """The kind of that name; ValueError lists those there are."""
    if kind not in KINDS:
        raise ValueError(f'no metrics of kind {kind!r}: expected one of {", ".join(KINDS)}')
    return KINDS[kind]


def metric_kind(label_kind: str, labels: np.ndarray) -> str:
    """The key of `KINDS` whose definitions fit all labels of a data set; `label_kind` is a schema's.

    'classes' and 'binary' have one each. Of 'regression' the labels (R,) decide, all of them, not those of one split:
    `sentiment` where they lie within -3..3, have both signs, and go beyond -1..1; `polarity` where they have both signs
    and stay within -1..1; `regression` else, such as for ratings from 1 to 5.
    """
    fitting = [name for name, kind in KINDS.items() if kind.labels == label_kind and kind.fits(labels)]
    if not fitting:
        known = ', '.join(dict.fromkeys(kind.labels for kind in KINDS.values()))
        raise ValueError(f'no metrics for labels of kind {label_kind!r}: expected one of {known}')
    return fitting[0]


def unfit(kind: str, labels: np.ndarray) -> str:
    """Why a metric of another kind than `kind` is not measured on labels of real numbers; '' for other kinds."""
    if kind not in ('polarity', 'regression'):
        return ''
    low, high = float(np.min(labels)), float(np.max(labels))
    return (
        f'; the labels go from {low:g} to {high:g}: Acc-7 and Acc-5 are defined for labels from -3 to 3, Acc-2 and F1 '
        'for negative and positive ones'
    )


def floors(kind: str, labels: np.ndarray, names: Sequence[str] | None = None) -> dict[str, float]:
    """The metrics, with the same keys, of the best constant prediction for `labels`.

    A constant is the majority class, at a tie the lowest (for `binary_emotions` the majority of each emotion; at a tie
    both score the same). For real numbers each key has its own best constant: the median for `mae`, the mean for
    `rmse`, the majority sign or class for the others; `corr` and `ccc` are 0. The constant is chosen on these very
    labels, so it is never lower (for `mae` and `rmse` never higher) than one chosen on training labels: a model below
    it has not shown that it learnt anything.

    `labels` as in `METRICS[kind]`. Without `names`, `classification` takes the highest label as the last class;
    pass `names` where the last classes may be absent. Raises ValueError as the metrics do, and on an unknown kind.
    """
    return kind_named(kind).floors(labels, names)


def names(kind: str, classes: Sequence[str] = ()) -> list[str]:
    """What a kind measures, in the order of its results; `classes` are the names of the classes or emotions."""
    return kind_named(kind).names(classes)


def about(name: str) -> Metric:
    """Title, unit and direction of a metric, within 'validation/mae' too; a fraction of that name where it is unknown.

    That of one class or emotion ('recall_happy') is titled by its name.
    """
    leaf = name.rpartition('/')[2]
    if leaf in WHOLE:
        return WHOLE[leaf]
    base = next((metric for key, metric in EACH.items() if leaf.startswith(f'{key}_')), Metric(leaf))
    return base._replace(title=leaf)


def is_better_high(name: str) -> bool:
    """Whether a higher value is better: all but `mae`, `rmse` and `loss`, within `validation/mae` too."""
    leaf = name.rpartition('/')[2]
    low = [key for key, metric in (WHOLE | EACH).items() if metric.lower_is_better]
    return not any(leaf == key or leaf.startswith(f'{key}_') or leaf.endswith(f'_{key}') for key in low)
