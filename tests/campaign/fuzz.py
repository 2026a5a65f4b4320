"""Damaged and hostile files, each read by its reader in a child with limits.

python -m tests.campaign fuzz --seed 0 --inputs 3000
"""

import contextlib
import dataclasses
import hashlib
import shutil
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign import children, report
from tests.campaign.mutations import SECRET, Outside
from tests.campaign.readers import SUBJECTS
from tests.campaign.subject import Subject

SLOW = (
    'config.json of weights',
    'results.json of a run',
    'results.json of a run, without a sum',
    'metrics.jsonl, predictions of a run',
)  # not in the short part
CHUNK = 25  # inputs of one child, and of a reader per round
COLUMNS = (
    'kind of input', 'tried', 'one line', 'unharmed', 'other content', 'other content against a sum', 'tracebacks',
    'without the file', 'hangs', 'above 1 GB', 'reads outside', 'executions',
)  # fmt: skip
FAULTS = COLUMNS[5:]


@dataclasses.dataclass
class Case:
    """The inputs of one reader: its valid files, what they hold, and what came of each input."""

    subject: Subject
    valid: Path
    content: str = ''
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    next: int = 0


def fuzz(
    folder: Path,
    *,
    seed: int,
    inputs: int,
    minutes: float,
    short: bool = False,
    keep: Path | None = None,
    names: Sequence[str] = (),
) -> tuple[str, list[str]]:
    """(the table, one line for each fault); inputs are shared evenly, until the time is over."""
    outside, watch = Outside(folder / 'outside'), children.Watch()
    chosen = [one for one in SUBJECTS if (one.name in names if names else not short or one.name not in SLOW)]
    cases = [_prepare(subject, folder) for subject in chosen]
    end, faults = time.monotonic() + 60 * minutes, []
    share = -(-inputs // len(cases))
    while time.monotonic() < end and any(case.next < share for case in cases):
        for case in cases:
            numbers = list(range(case.next, min(case.next + CHUNK, share)))
            case.next += len(numbers)
            for number, answer in children.answers(_reader(case, folder, outside, watch, seed, keep), numbers):
                kind, why = (answer['kind'], answer['why']) if 'kind' in answer else judge(case.subject, answer)
                case.counts[kind] += 1
                if kind in FAULTS:
                    faults.append(f'{case.subject.name}, input {number} of seed {seed}: {kind}: {why}')
                    report.say(faults[-1])
                    if 'died' in answer and keep is not None:
                        _keep(folder / 'case', keep, case.subject, number)
    rows = [{**dict.fromkeys(COLUMNS[1:], 0), **case.counts, COLUMNS[0]: _title(case)} for case in cases]
    for row in rows:
        row['tried'] = sum(row[name] for name in COLUMNS[2:])
    return report.table(COLUMNS, rows), faults


def _title(case: Case) -> str:
    return case.subject.name + (' (has a sum)' if case.subject.has_sum else '')


def _prepare(subject: Subject, folder: Path) -> Case:
    valid = folder / 'valid' / subject.name.replace(' ', '_').replace(',', '')
    valid.mkdir(parents=True)
    subject.make(valid)
    return Case(subject, valid)


def _reader(case: Case, folder: Path, outside: Outside, watch: children.Watch, seed: int, keep: Path | None) -> Any:
    subject = case.subject

    def read_one(number: int) -> dict[str, Any]:
        place = folder / 'case'
        if not case.content:  # in the child: what reads may start what does not survive a fork
            _fresh(case.valid, place)
            case.content = digest(subject.read(place))
        _fresh(case.valid, place)
        subject.change(place, np.random.default_rng([seed, zlib.crc32(subject.name.encode()), number]), outside)
        found: dict[str, Any] = {}
        watch.start(place, outside.folder)
        try:
            content = subject.read(place)
            found = {'same': digest(content) == case.content, 'secret': SECRET in _text(content)}
        except Exception as error:
            found = _describe(error, subject, place)
        found |= watch.stop()
        if outside.canary.exists():
            outside.canary.unlink()
            found['ran'] = found['ran'] or ['the canary is there']
        kind, why = judge(subject, found)
        if kind in FAULTS and keep is not None:
            _keep(place, keep, subject, number)
        return {'kind': kind, 'why': why}

    return read_one


def _keep(place: Path, keep: Path, subject: Subject, number: int) -> None:
    shutil.copytree(place, keep / f'{subject.name.replace("/", "_")} {number}', dirs_exist_ok=True)


def _fresh(valid: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(valid, place)


def _describe(error: Exception, subject: Subject, place: Path) -> dict[str, Any]:
    from mmer_jax.settings.command import one_line

    told, told_raw = one_line(error), str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return {
        'error': f'{type(error).__name__}: {told[:200]}',
        'at': f'{Path(last.filename).name}:{last.lineno}',
        'expected': isinstance(error, subject.mistakes),
        'named': any(name in told_raw for name in subject.named(place)),
        'secret': SECRET in told_raw,
    }


def judge(subject: Subject, answer: Mapping[str, Any]) -> tuple[str, str]:
    """(the column of an answer, why)."""
    if 'died' in answer:
        return ('hangs' if answer['died'].startswith('hang') else 'tracebacks'), answer['died']
    if answer['ran']:
        return 'executions', str(answer['ran'])
    if answer['opened'] or answer.get('secret'):
        return 'reads outside', str(answer['opened'] or 'its content was returned')
    if answer['seconds'] > children.MOST_CPU:
        return 'hangs', f'{answer["seconds"]:.0f} s'
    if answer['bytes'] > children.MOST_MEMORY:
        return 'above 1 GB', f'{answer["bytes"] >> 20} MB'
    if 'error' in answer:
        if not answer['expected']:
            return 'tracebacks', f'{answer["error"]} ({answer["at"]})'
        return ('one line', '') if answer['named'] else ('without the file', f'{answer["error"]} ({answer["at"]})')
    if answer['same']:
        return 'unharmed', ''
    return ('other content against a sum' if subject.has_sum else 'other content'), 'accepted'


# ---- content -------------------------------------------------------------------------------------------------


def digest(content: Any) -> str:
    """SHA-256 of nested dictionaries, sequences, arrays, text and numbers."""
    found = hashlib.sha256()
    _add(content, found)
    return found.hexdigest()


def _add(value: Any, found: Any) -> None:
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            found.update(repr(key).encode(errors='replace'))
            _add(value[key], found)
    elif isinstance(value, (list, tuple)):
        found.update(f'[{len(value)}'.encode())
        for item in value:
            _add(item, found)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        found.update(f'{value.dtype}{value.shape}'.encode())
        found.update(np.ascontiguousarray(value).tobytes())
    else:
        found.update(repr(value).encode(errors='replace'))


def _text(content: Any) -> str:
    """All text in some content, for the search of the secret."""
    with contextlib.suppress(RecursionError):
        if isinstance(content, Mapping):
            return ' '.join(f'{_text(key)} {_text(value)}' for key, value in content.items())
        if isinstance(content, (list, tuple)) and len(content) < 10_000:
            return ' '.join(map(_text, content))
        if isinstance(content, np.ndarray):
            if content.dtype.kind in 'US':
                return ' '.join(map(_text, content.ravel().tolist()))
            return content.tobytes().decode('latin-1')
        if isinstance(content, bytes):
            return content.decode('latin-1')
    return str(content)
