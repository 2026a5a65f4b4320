"""Metrics of a whole split: numpy `(predictions, labels) -> dict[str, float]`.

Five kinds of task, in `KINDS`: `classification` (one of C classes), `binary_emotions` (E yes-or-no emotions, IEMOCAP
of the CMU pickles and MOSEI), and for one real number per clip three, of which `metric_kind` takes the one whose
definitions fit the labels: `sentiment` (-3 to 3, MOSI and MOSEI), `polarity` (negative and positive, -1 to 1),
`regression` (any other scale). Every value is a fraction from 0 to 1, except `mae` and `rmse` (in label units), `corr`
and `ccc` (-1 to 1). `floors` gives the same keys for the best constant prediction: on skewed labels a high accuracy may
be no more than that. `names` says what a kind measures, `about` what stands beside a number: title, unit, direction.

A metric is computed once, on the gathered split: a mean over batches is another number for all but `accuracy`
and `mae`. Rows are gathered by the caller, padding rows already removed.

A metric stands in one file: its value in a function, its title, unit and direction in the table above it. `classes` has
those of one of C classes, `real_numbers` and `emotions` those of their labels, `confusion` what several of them share.
"""

from mmer_jax.metrics.calibration import expected_calibration_error
from mmer_jax.metrics.classes import classification
from mmer_jax.metrics.confusion import confusion_matrix, per_class
from mmer_jax.metrics.emotions import binary_emotions
from mmer_jax.metrics.kinds import KINDS, METRICS, about, floors, is_better_high, metric_kind, names, unfit
from mmer_jax.metrics.metric import Kind, Metric, as_json
from mmer_jax.metrics.real_numbers import polarity, regression, sentiment

__all__ = [
    'KINDS',
    'METRICS',
    'Kind',
    'Metric',
    'about',
    'as_json',
    'binary_emotions',
    'classification',
    'confusion_matrix',
    'expected_calibration_error',
    'floors',
    'is_better_high',
    'metric_kind',
    'names',
    'per_class',
    'polarity',
    'regression',
    'sentiment',
    'unfit',
]
