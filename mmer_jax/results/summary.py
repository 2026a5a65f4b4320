"""Means and deviations of runs, and how a number is written: what reports and tables share. numpy only."""

import dataclasses

import numpy as np

from mmer_jax.metrics import about, is_better_high


@dataclasses.dataclass(frozen=True)
class Summary:
    """mean, deviation (None for none), and what the deviation is over ('seeds', 'folds' or '')."""

    mean: float
    deviation: float | None
    over: str


def summarise(values: np.ndarray) -> Summary:
    """(folds, seeds) -> mean and standard deviation over the seeds, each the mean of its folds, or over the folds of a
    single seed; where a number is undefined it is left out."""
    folds, seeds = values.shape
    if seeds > 1:
        return over('seeds', np.array([over('folds', by_fold).mean for by_fold in values.T]))
    return over('folds' if folds > 1 else '', values[:, 0])


def over(what: str, values: np.ndarray) -> Summary:
    """(N,) -> mean and standard deviation (n - 1) of those that are defined, over `what`."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return Summary(np.nan, None, '')
    if len(defined) == 1:
        return Summary(float(defined[0]), None, '')
    return Summary(float(defined.mean()), float(defined.std(ddof=1)), what)


def finite_mean(values: np.ndarray) -> float | None:
    """Mean of the finite values; None where there are none."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def is_plain(metric: str) -> bool:
    """Whether a metric is shown as it is, not in percent."""
    return not about(metric).percent


def scale_of(metric: str) -> float:
    """What a metric's value is multiplied with to be shown."""
    return 1.0 if is_plain(metric) else 100.0


def unit_of(metric: str) -> str:
    """What stands behind a metric's title."""
    return '' if is_plain(metric) else ', %'


def column_title(metric: str, title: str = '') -> str:
    """Title of a metric's column (its own where none is given), with its unit and ↓ where lower is better."""
    direction = '' if is_better_high(metric) else ' ↓'
    split = metric.rpartition('/')[0]
    return f'{title or " ".join(filter(None, (split, about(metric).title)))}{unit_of(metric)}{direction}'


def decimals_of(metric: str) -> int:
    return 3 if is_plain(metric) else 1


def format_number(metric: str, value: float | None) -> str:
    """A fraction in percent with one decimal, a plain metric with three, – for none."""
    if value is None or not np.isfinite(value):
        return '–'
    return f'{scale_of(metric) * value:.{decimals_of(metric)}f}'


def format_summary(metric: str, summary: Summary) -> str:
    """Mean ± deviation."""
    text = format_number(metric, summary.mean)
    if not np.isfinite(summary.mean):
        return text
    if summary.deviation is not None:
        text += f' ± {format_number(metric, summary.deviation)}'
    return text + (' (over folds)' if summary.over == 'folds' else '')
