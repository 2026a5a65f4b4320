"""The smallest difference between two rows that a test would find, so that 'not shown' is not read as 'equal'."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from mmer_jax.metrics import about
from mmer_jax.results.summary import decimals_of, scale_of
from mmer_jax.results.units import Units

LEVEL, POWER = 0.05, 0.80
FEW = {'record': 200, 'speaker': 10}  # fewer make a small test set, which is told


def detectable(drawn: np.ndarray, units: Units) -> float | None:
    """The smallest true difference that a two-sided test at 5 % finds with 80 % power: the standard error times the
    sum of two quantiles, 2.8 for many units (Bloom 1995, Minimum detectable effects).

    drawn: differences (draws,) of a bootstrap over the units; its deviation is the standard error, brought to that of
    n - 1 units. Quantiles are those of Student's t with n - 1 degrees of freedom. None where the runs never differ.
    """
    error = float(np.std(drawn)) * np.sqrt(units.count / (units.count - 1)) if units.count > 1 else 0.0
    freedom = units.count - 1
    return float(error * (stdtrit(freedom, 1 - LEVEL / 2) + stdtrit(freedom, POWER))) if error else None


def smallest_p(units: Units) -> float:
    """The smallest p that swapping these units can give."""
    return min(1.0, 2.0 ** (1 - min(units.count, 1000)))


@dataclasses.dataclass(frozen=True)
class Power:
    """What two rows that were tested on `records` records in these units could show in a metric."""

    metric: str
    rows: tuple[str, ...]
    records: int
    units: Units
    difference: float | None

    def small(self) -> bool:
        return self.records < FEW['record'] or self.units.count < FEW[self.units.what]

    def size(self) -> str:
        of_speakers = f' of {self.units.words()}' if self.units.what == 'speaker' else ''
        return f'{self.records:,} test clips{of_speakers}'

    def amount(self) -> str:
        """'14.2 points', or a number of a metric that is no fraction."""
        number = f'{scale_of(self.metric) * (self.difference or 0.0):.{decimals_of(self.metric)}f}'
        return f'{number} points' if about(self.metric).percent else number


def small_sets(found: Sequence[Power]) -> list[str]:
    """A sentence per small test set and metric: the smallest differences that tests of its pairs of rows would find."""
    sets: dict[tuple[object, ...], list[Power]] = {}
    for one in found:
        if one.small():
            sets.setdefault((one.metric, one.records, one.units.what, one.units.count), []).append(one)
    return [_sentence(powers) for powers in sets.values()]


def _sentence(powers: Sequence[Power]) -> str:
    first, title = powers[0], about(powers[0].metric).title
    if smallest_p(first.units) > LEVEL:
        reason = f'no p is below {smallest_p(first.units):.2g} when so few are swapped'
        return f'{first.size()}: {reason}, so that no difference between two rows can be shown.'
    known = sorted((one for one in powers if one.difference is not None), key=lambda one: one.difference or 0.0)
    if not known:
        return f'{first.size()}: the rows never differ in {title}.'
    least, most = known[0], known[-1]
    between = f'between {" and ".join(least.rows)}'
    if len(known) > 1:
        between += f', and of {most.amount()} between {" and ".join(most.rows)}'
    return (
        f'{first.size()}: a test finds a true difference in {title} of {least.amount()} {between} in 80 % of such sets.'
    )
