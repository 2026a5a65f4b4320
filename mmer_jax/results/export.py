"""Runs for other programs: every fold and seed of every run as a pandas table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmer_jax.results.choice import shown
from mmer_jax.results.run_table import fold_rows
from mmer_jax.results.runs import Run, find_runs


def to_pandas(runs: Sequence[str | Path | Run] | str | Path) -> Any:
    """A pandas.DataFrame with a row per run, fold and seed: names, metrics, and the config as columns 'config.<key>'.

    runs: workdirs, folders that hold some, or what find_runs returned. Metrics are fractions, as in rows.csv. Lists of
    a config are texts ('text, audio'). A run that cannot be read is left out, as in a report; `.attrs['not_shown']`
    says why.

    Raises:
        ImportError: pandas is not installed.
        ReportError: there is no run.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError('to_pandas needs pandas, which is not installed: pip install pandas') from error
    given = [runs] if isinstance(runs, str | Path) else list(runs)
    paths = [one for one in given if not isinstance(one, Run)]
    found, faults = find_runs(paths) if paths else ([], [])
    rows = []
    for run in [*found, *(one for one in given if isinstance(one, Run))]:
        config = {f'config.{key}': shown(v) if isinstance(v, list) else v for key, v in run.config.items()}
        rows += [{**row, **config} for row in fold_rows(run)]
    frame = pandas.DataFrame(rows)
    frame.attrs['not_shown'] = faults
    return frame
