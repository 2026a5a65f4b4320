"""The paired tests between rows of a table, and what small test sets could show, as blocks of a page."""

from collections.abc import Iterable, Mapping, Sequence

from mmer_jax.metrics import about
from mmer_jax.results.page import Block, Details, Heading, Notes
from mmer_jax.results.power import Power, detectable, small_sets
from mmer_jax.results.run_table import tests_table
from mmer_jax.results.runs import Run, unique
from mmer_jax.results.statistics import Predicted, compare

SMALL = 'What small test sets can show (Bloom 1995; 5 %, two-sided, before correction):'


def test_blocks(runs: Sequence[Run], tested: Mapping[str, Predicted]) -> list[Block]:
    """Paired tests of the first headline metric of each run; the others can be opened. Below them the power of small
    test sets, and the runs that have no partner."""
    blocks: list[Block] = []
    powers: list[Power] = []
    firsts = unique(run.results['headline'][0] for run in runs)
    for metric in unique(metric for run in runs for metric in run.results['headline']):
        members = [run for run in runs if run.name in tested and metric in run.results['headline']]
        found = compare([tested[run.name] for run in members], [run.name for run in members], metric)
        if metric in firsts:
            powers += [one.power for one in found] or alone([tested[run.name] for run in members], metric)
        if found and metric in firsts:
            blocks += [Heading(f'Paired tests: {about(metric).title}'), tests_table(found)]
        elif found:
            blocks.append(Details(f'Paired tests: {about(metric).title}', [tests_table(found)]))
    if small := small_sets(powers):
        blocks.append(Notes(SMALL, small))
    others = [run.name for run in runs if run.name in tested and not _has_partner(tested[run.name], tested.values())]
    if others and len(tested) > 1:
        blocks.append(Notes('Not tested against another run, because no other was tested on the same records:', others))
    return blocks


def alone(tested: Sequence[Predicted], metric: str) -> list[Power]:
    """The power of a row against another as good whose answers are independent of its own: at most what is needed."""
    return [
        Power(
            metric,
            (one.run.name, 'another as good with independent answers'),
            one.size,
            one.units,
            detectable(2**0.5 * one.draws[metric], one.units),
        )
        for one in tested
        if one.interval(metric)
    ]


def _has_partner(one: Predicted, all_of_them: Iterable[Predicted]) -> bool:
    return any(other is not one and other.records == one.records for other in all_of_them)
