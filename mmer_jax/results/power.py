"""The smallest difference between two rows that a test would find, so that 'not shown' is not read as 'equal'."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

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
    return float(error * (stats.t.ppf(1 - LEVEL / 2, freedom) + stats.t.ppf(POWER, freedom))) if error else None


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

    def words(self) -> str:
        size = f'{self.records:,} test clips'
        size += f' of {self.units.words()}' if self.units.what == 'speaker' else ''
        if smallest_p(self.units) > LEVEL:
            least = f'no p is below {smallest_p(self.units):.2g} when so few are swapped'
            return f'{size}: {least}, so that no difference between two rows can be shown.'
        title, pair = about(self.metric).title, ' and '.join(self.rows)
        if self.difference is None:
            return f'{size}: {pair} never differ in {title}.'
        percent = about(self.metric).percent
        number = f'{scale_of(self.metric) * self.difference:.{decimals_of(self.metric)}f}'
        amount = f'{number} points of {title}' if percent else f'{number} ({title})'
        return f'{size}: a test between {pair} finds a true difference of {amount} in {POWER:.0%} of such sets.'


def small_sets(found: Sequence[Power]) -> list[str]:
    """A sentence per small test set, of the pair of rows that needs the smallest difference; each set once."""
    kept: dict[tuple[object, ...], Power] = {}
    for one in found:
        key = one.metric, one.records, one.units.what, one.units.count
        best = kept.get(key)
        if one.small() and (best is None or (one.difference or np.inf) < (best.difference or np.inf)):
            kept[key] = one
    return [one.words() for one in kept.values()]
