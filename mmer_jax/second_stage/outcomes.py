"""What the classifiers of every fold and seed answered, kept in one results.json and saved after each of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax.files import read_json, write_json
from mmer_jax.second_stage.classify import measure
from mmer_jax.second_stage.folds import FoldFeatures


@dataclasses.dataclass
class Part:
    """One fold with one seed: by combination ('early concat svm') its metrics and the predicted test classes (R,).

    `chosen` is the combination that was chosen within the training records, '' where none was; a row has `settings`
    where those of its classifier were chosen there.
    """

    fold: str
    seed: int
    rows: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    chosen: str = ''

    def add(
        self,
        fold: FoldFeatures,
        name: str,
        predicted: np.ndarray,
        *,
        settings: Mapping[str, Any] | None = None,
        **more: float,
    ) -> None:
        measured = {key: None if np.isnan(value) else value for key, value in measure(predicted, fold).items()}
        self.rows[name] = {'metrics': measured | more, 'predicted': predicted.tolist()}
        if settings is not None:
            self.rows[name]['settings'] = dict(settings)

    def row(self, name: str | None) -> dict[str, Any] | None:
        """The row of a combination, of the chosen one where None; None where there is no such combination."""
        return self.rows.get(self.chosen if name is None else name)


class Results:
    """The parts that are finished, with the job that they belong to; those of another job are refused."""

    def __init__(self, path: Path, job: Mapping[str, Any]):
        self.path, self.job = path, dict(job)
        self.parts: dict[tuple[str, int], Part] = {}
        if path.is_file():
            found = read_json(path)
            if found['job'] != self.job:
                raise ValueError(f'{path} is of another job ({found["job"]}); remove it, or give another --output')
            parts = [Part(**part) for part in found['parts']] if 'parts' in found else read_older(found['rows'])
            self.parts = {(part.fold, part.seed): part for part in parts}

    def save(self, part: Part) -> None:
        """Takes in a part and writes all that there are."""
        self.parts[part.fold, part.seed] = part
        write_json(self.path, {'job': self.job, 'parts': [dataclasses.asdict(part) for part in self.parts.values()]})

    def of(self, folds: Sequence[FoldFeatures], seeds: Sequence[int]) -> list[list[Part]]:
        """The parts, a list of seeds for each fold."""
        return [[self.parts[fold.name, seed] for seed in seeds] for fold in folds]

    def values(
        self, folds: Sequence[FoldFeatures], seeds: Sequence[int], name: str | None, metric: str
    ) -> np.ndarray | None:
        """(folds, seeds) of a combination, of the chosen ones where `name` is None; None where one is not there."""
        rows = [[part.row(name) for part in line] for line in self.of(folds, seeds)]
        if any(row is None for line in rows for row in line):
            return None
        found = [[row['metrics'][metric] for row in line if row is not None] for line in rows]
        return np.array([[np.nan if value is None else value for value in line] for line in found])


def read_older(rows: Mapping[str, Mapping[str, Any]]) -> list[Part]:
    """The parts of a results.json of version 0.1, whose rows have keys 'fold/seed/combination'."""
    parts: dict[tuple[str, int], Part] = {}
    for key, row in rows.items():
        fold, seed, name = key.split('/', 2)
        part = parts.setdefault((fold, int(seed)), Part(fold, int(seed)))
        if name == 'chosen':
            part.chosen = row['detail']
        elif name != 'done':
            part.rows[name] = {'metrics': row['metrics'], 'predicted': row['predicted']}
    return list(parts.values())
