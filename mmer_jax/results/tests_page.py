"""The paired tests between rows of a table, and what small test sets could show, as blocks of a page."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from mmer_jax.metrics import about
from mmer_jax.results.page import Block, Details, Heading, Notes, Text
from mmer_jax.results.power import Power, detectable, small_sets
from mmer_jax.results.run_table import tests_table
from mmer_jax.results.runs import Run, unique
from mmer_jax.results.statistics import EXPLANATION, Predicted, compare, read_all

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


def of_table(
    runs: Mapping[str, Run], metrics: Sequence[str], *, tests: bool
) -> tuple[Mapping[str, Predicted], list[Block]]:
    """The test predictions of a table's rows by label, and what stands below it of its columns `metrics`.

    Without `tests` no predictions, and only the power of small test sets, in the first column.
    """
    named = [
        dataclasses.replace(
            run,
            results={**run.results, 'config': label, 'variant': '', 'headline': list(metrics)},
            show_folder=False,
        )
        for label, run in runs.items()
    ]
    if not named or not metrics:
        return {}, []
    tested = read_all(named)
    if tests:
        return tested, [Text(EXPLANATION), *test_blocks(named, tested)] if tested else []
    small = small_sets(_first_against_others(list(tested.values()), metrics[0]))
    return {}, [Notes(SMALL, small)] if small else []


def _first_against_others(tested: Sequence[Predicted], metric: str) -> list[Power]:
    """The power of each small test set: of its first row against each other one."""
    groups: dict[tuple[bytes, ...], list[Predicted]] = {}
    for one in tested:
        if Power(metric, (), one.size, one.units, None).small() and one.interval(metric):
            groups.setdefault(one.records, []).append(one)
    found = []
    for first, *others in groups.values():
        for one in others:
            needed = detectable(first.draws[metric] - one.draws[metric], first.units)
            found.append(Power(metric, (first.run.name, one.run.name), first.size, first.units, needed))
        found += [] if others else alone([first], metric)
    return found


def _has_partner(one: Predicted, all_of_them: Iterable[Predicted]) -> bool:
    return any(other is not one and other.records == one.records for other in all_of_them)
