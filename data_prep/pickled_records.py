"""Feature files of any data set: splits with one to three modalities, as padded arrays, as lists, or record by record.

Two layouts, each under the keys train, valid (or dev) and test:

    {'text': (N, T, D), 'audio': ..., 'vision': ..., 'labels': ...}      one array, or a list of arrays, a modality
    [((words, vision, audio), label, segment), ...]                      a list of records, as MAG-BERT and MISA have it

In the second, vision and audio (T, D) have a step for each word. MAG-BERT: Rahman et al. 2020,
https://github.com/WasifurRahman/BERT_multimodal_transformer; MISA has the words themselves as a fourth part, since its
first holds numbers of a vocabulary of its own.
"""

import argparse
import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import pickled_labels, sequences
from data_prep.pickled_labels import Choice
from data_prep.pool import PreparationError
from data_prep.sequences import MODALITIES, Arrays, Split
from mmer_jax.data.records import Feature, Schema
from mmer_jax.media.text import embed, read_glove
from mmer_jax.media.tokens import TextTokenizer
from mmer_jax.pretrained import find_tokenizer

OTHER_NAMES = {'text': ('language',), 'audio': ('acoustic',), 'vision': ('visual', 'video')}
RECORD = '((words, vision, audio), label, segment)'
VIDEO = re.compile(r'(.+?)(?:\$_\$.*|\[.*\]|_\d+)')


class Ragged:
    """Rows (T_i, D) of different lengths, used like an array (N, longest T, D); a slice is padded behind with zeros."""

    dtype = np.dtype(np.float64)
    ndim = 3

    def __init__(self, rows: Sequence[np.ndarray], where: str):
        self.rows = rows
        for number, row in enumerate(rows):
            found = np.shape(row)
            fits = isinstance(row, np.ndarray) and row.ndim == 2 and row.dtype.kind in 'fiu'
            if not fits or found[1] != np.shape(rows[0])[1]:
                what = f'shape {found}' if isinstance(row, np.ndarray) else type(row).__name__
                raise PreparationError(
                    f'{where}: record {number} has {what}, expected numbers (steps, features), as all'
                )
        self.lengths = np.array([len(row) for row in rows], np.int64)
        self.shape = (len(rows), int(self.lengths.max()), rows[0].shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        rows = self.rows[part]
        block = np.zeros((len(rows), max((len(row) for row in rows), default=0), self.shape[2]))
        for place, row in zip(block, rows, strict=True):
            place[: len(row)] = row
        return block

    def spans(self, start: int, count: int) -> np.ndarray:
        """(count, 2): first step and the one after the last of the rows from `start` on."""
        stops = self.lengths[start : start + count]
        return np.stack([np.zeros_like(stops), stops], 1)


class Texts:
    """What becomes of the words: only the manifest column, token ids of a model, or one GloVe vector a word."""

    def __init__(self, *, glove: Path | None = None, tokenizer: str = '', words: Sequence[Sequence[str]] = ()):
        if glove and tokenizer:
            raise PreparationError('--glove and --tokenizer: one text feature at a time; leave one of them out')
        self.read: Callable[[Sequence[str]], np.ndarray] | None = None
        self.unknown = self.total = 0
        if tokenizer:
            tokenize = TextTokenizer(find_tokenizer(tokenizer))
            self.feature = Feature((None,), 'int32', description=f'token ids of {Path(tokenizer).name}', optional=True)
            self.read = lambda found: tokenize(' '.join(found)) if found else np.zeros(0, np.int32)
            self.info = {'tokenizer': Path(tokenizer).name}
        elif glove:
            vectors = read_glove(glove, {word for found in words for word in found})
            if not len(vectors):
                raise PreparationError(
                    f'{glove} has a vector for none of the words; expected vectors of their language'
                )
            note = 'one GloVe vector a word, zero where the word has none'
            self.feature = Feature((None, vectors.size), description=note, optional=True)
            self.info = {'glove': glove.name}

            def look_up(found: Sequence[str]) -> np.ndarray:
                text = embed(list(found), vectors, keep_pauses=True)  # a step for each word, as vision and audio have
                self.unknown, self.total = self.unknown + len(text.unknown), self.total + len(found)
                return text.array

            self.read = look_up

    def notes(self) -> list[str]:
        return [f'note: {self.unknown} of {self.total} words have no vector'] if self.total else []


# ---- a split of arrays ---------------------------------------------------------------------------------------


def find_modalities(parts: Mapping[str, Mapping], where: str) -> dict[str, str]:
    """{modality: its key}, those that every split has; PreparationError where there are none or splits differ."""
    found: dict[str, dict[str, str]] = {}
    for split, part in parts.items():
        keys = {m: next((key for key in (m, *OTHER_NAMES[m]) if key in part), '') for m in MODALITIES}
        found[split] = {m: key for m, key in keys.items() if key}
    first = next(iter(found.values()))
    if not first or any(set(keys) != set(first) for keys in found.values()):
        listed = '; '.join(f'{split}: {", ".join(sorted(map(str, part)))}' for split, part in parts.items())
        raise PreparationError(f'{where}: expected text, audio or vision, the same in every split; found {listed}')
    return first


def take_arrays(part: Mapping, keys: Mapping[str, str], where: str) -> dict[str, Any]:
    """{modality: array (N, T, D) or Ragged} of one N above 0; (N, D) is one step a record."""
    arrays: dict[str, Any] = {}
    for m, key in keys.items():
        array = part[key]
        if isinstance(array, (list, tuple)) and len(array):
            array = Ragged(array, f'{where}, {key!r}')
        elif isinstance(array, np.ndarray) and array.ndim == 2:
            array = array[:, None]
        arrays[m] = array
    return sequences.take_arrays(arrays, where)


def are_aligned(arrays: Mapping[str, Any]) -> bool:
    """Whether padded arrays have a step for each of the others; lists have their true lengths, which say it."""
    padded = all(isinstance(array, np.ndarray) for array in arrays.values())
    return padded and len(arrays) > 1 and len({array.shape[1] for array in arrays.values()}) == 1


def padding_spans(arrays: Mapping[str, Any], padded: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """Split.spans: those of lists by their lengths, those of arrays by `padded`; common ones where they are aligned."""
    aligned = are_aligned(arrays)

    def spans(block: Arrays, start: int) -> Arrays:
        found = {
            m: own.spans(start, len(array)) if isinstance(own := arrays[m], Ragged) else padded(array)
            for m, array in block.items()
        }
        return sequences.common(found) if aligned else found

    return spans


# ---- a split of records --------------------------------------------------------------------------------------


def is_list_of_records(content: Any) -> bool:
    """Whether the splits are lists (or tuples) of records."""
    return isinstance(content, dict) and any(
        isinstance(content.get(split), (list, tuple)) for split in ('train', 'test')
    )


def read_records(content: dict, source: Path, options: 'Options') -> tuple[list[Split], Texts, list[str]]:
    """(splits with vision, audio and, where asked for, text; what makes the text; notes) of a file of lists."""
    splits, texts, notes = [], [], []
    for key, part in sequences.take_lists(content, source).items():
        where, name = f'{source}, split {key!r}', sequences.SPLITS[key]
        records = [_take_record(record, number, where) for number, record in enumerate(part)]
        words = [_take_words(features, f'{where}, record {n}, words') for n, (features, _, _) in enumerate(records)]
        found = {'audio': 2, 'vision': 1, **({'text': 0} if options.glove or options.tokenizer else {})}
        places = {m: place for m, place in options.keep(found, where).items() if m != 'text'}
        if not places:
            raise PreparationError(f'{where}: --modalities text alone; expected audio or vision with it')
        arrays: dict[str, Any] = {
            m: Ragged([r[0][place] for r in records], f'{where}, {m}') for m, place in places.items()
        }
        labels = pickled_labels.read(
            [label for _, label, _ in records], options.labels, len(records), f'{where}, labels'
        )
        ids = ['' if segment is None else sequences.to_text(segment) for _, _, segment in records]
        columns = [{'speaker': video_of(one), 'text': ' '.join(said)} for one, said in zip(ids, words, strict=True)]
        spans = padding_spans(arrays, sequences.right_padded)
        splits.append(Split(name, arrays, spans, labels, ids, columns))
        texts.append(words)
        rows = next(iter(arrays.values())).rows
        if wrong := sum(bool(said) and len(said) != len(row) for said, row in zip(words, rows, strict=True)):
            notes.append(f'note: {name}: {wrong} records have another number of words than of steps')
    said = [words for part in texts for words in part]
    if not any(said):
        numbers = 'the words are numbers of a vocabulary that is not in the file (word pieces of a model, for instance)'
        if options.glove or options.tokenizer:
            raise PreparationError(f'{source}: {numbers}; leave --glove and --tokenizer out')
        notes.append(f'note: {numbers}: the records have no text')
    made = Texts(glove=options.glove, tokenizer=options.tokenizer, words=said)
    if made.read is not None and (not options.modalities or 'text' in options.modalities):
        for split, words in zip(splits, texts, strict=True):
            split.extra = functools.partial(_text_of, made.read, words)
    return splits, made, notes


def _text_of(read: Callable[[Sequence[str]], np.ndarray], words: Sequence[Sequence[str]], number: int) -> Arrays:
    return {'text': read(words[number])}


def _take_record(record: Any, number: int, where: str) -> tuple[Any, Any, Any]:
    """(features, label, segment or None); PreparationError says what the record is."""
    whole = isinstance(record, (list, tuple)) and len(record) in (2, 3)
    if not whole or not isinstance(record[0], (list, tuple)) or len(record[0]) not in (3, 4):
        raise PreparationError(f'{where}: record {number} is {sequences.describe(record)}, expected {RECORD}')
    return record[0], record[1], record[2] if len(record) == 3 else None


def _take_words(features: Sequence[Any], where: str) -> list[str]:
    """The words of a record, [] where they are numbers."""
    words = features[3] if len(features) == 4 else features[0]
    if isinstance(words, np.ndarray):
        words = words.ravel().tolist()
    if isinstance(words, str):
        words = words.split()
    if not isinstance(words, (list, tuple)):
        raise PreparationError(f'{where}: found {type(words).__name__}, expected a list of words')
    return [sequences.to_text(word) for word in words] if all(isinstance(w, (str, bytes)) for w in words) else []


def video_of(name: str) -> str:
    """What stands before the number of a segment: 'vid' of 'vid[3]', 'vid_3', 'vid$_$3'; '' where there is none."""
    match = VIDEO.fullmatch(name)
    return match.group(1) if match else ''


def make_schema(
    name: str,
    splits: Sequence[Split],
    options: 'Options',
    sizes: Mapping[str, int],
    info: Mapping[str, Any],
    text: Texts | None = None,
) -> Schema:
    """The schema of a data set that no reader knows."""
    note = 'features as in the file'
    features = {m: Feature((None, size), description=f'{m} {note}', optional=True) for m, size in sizes.items()}
    if text is not None and text.read is not None:
        features, info = {'text': text.feature, **features}, {**info, **text.info}
    return Schema(name, features, pickled_labels.schema_label(options.labels, splits[0].labels[0]), dict(info))


# ---- the flags -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user says of a file; all empty: what its reader knows of the data set."""

    labels: Choice = dataclasses.field(default_factory=Choice)
    modalities: tuple[str, ...] = ()
    glove: Path | None = None
    tokenizer: str = ''

    def __bool__(self) -> bool:
        return bool(self.labels or self.modalities or self.glove or self.tokenizer)

    def keep(self, found: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Those of the modalities found that are asked for; PreparationError where one is not there."""
        wanted = self.modalities or tuple(found)
        if missing := [m for m in wanted if m not in found]:
            raise PreparationError(f'{where}: --modalities {missing[0]}, but the file has {", ".join(found)}')
        return {m: found[m] for m in found if m in wanted}


NO_OPTIONS = Options()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of Options."""
    pickled_labels.add_arguments(parser)
    add = parser.add_argument
    add(
        '--modalities',
        default='',
        help='those of text, audio and vision to take, by commas; all of the file by default',
    )
    add('--glove', type=Path, help='word vectors as text, for a file that holds the words themselves')
    add('--tokenizer', default='', help='folder of converted weights: token ids of that model for such words')


def of_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """{'options': Options} of parsed flags; PreparationError where they contradict one another."""
    names = tuple(name.strip() for name in arguments.modalities.split(',')) if arguments.modalities else ()
    if len(set(names)) < len(names) or not set(names) <= set(MODALITIES):
        raise PreparationError(
            f'--modalities {arguments.modalities}: expected some of {", ".join(MODALITIES)}, each once'
        )
    labels = pickled_labels.of_arguments(arguments)
    return {'options': Options(labels, names, arguments.glove, arguments.tokenizer)}
