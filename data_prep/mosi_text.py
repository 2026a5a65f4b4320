"""The text of CMU-MOSI's records (data_prep/mosi.py): word vectors with indicators, or token ids with context."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import csd
from data_prep.pool import PreparationError
from mmer_jax.data.records import Feature, Label, Schema
from mmer_jax.media.text import WordVectors, embed, is_pause, read_glove
from mmer_jax.media.tokens import TextTokenizer
from mmer_jax.pretrained import find_tokenizer
from mmer_jax.readers.words import tokenize

WORDS, GLOVE = 'CMU_MOSI_ModifiedTimestampedWords.csd', 'glove.subset.300d.txt'
TEXT_SIZE, AUDIO_SIZE = 300, 73
LEAST_COUNT = 2  # of a word in the training split, to get a dimension of its own


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of transcripts.csv: the segment, counted from 0 as in the SDK, and the sign of its sentiment."""

    video: str
    number: int
    text: str
    video_number: int
    positive: bool

    @property
    def id(self) -> str:
        return f'{self.video}[{self.number}]'


Labels = dict[str, tuple[float, float, float]]  # of each segment: sentiment, start, end in seconds
Reader = Callable[[Line], tuple[np.ndarray, list[str], list[str]]]  # -> array, words, those that are unknown


def make_schema(
    text_size: int = TEXT_SIZE,
    *,
    words: str = 'transcripts',
    glove: str = GLOVE,
    indicators: tuple[str, ...] = (),
    tokenizer: str = '',
    context: int = 0,
) -> Schema:
    """The schema of the records; `indicators` are the words that have a dimension of their own behind the vectors.

    With `tokenizer`, the name of a model, the text is its token ids; with `context` segments before it, ids and types.
    """
    audio = Feature((AUDIO_SIZE,), description='one vector of acoustic values an utterance (bc-LSTM)', optional=True)
    info: dict[str, Any] = {'dataset': 'mosi', 'made_by': 'data_prep.mosi', 'words': words}
    if tokenizer:
        what = f', and types: 1 of the {context} segments before' if context else ''
        shape: tuple[int | None, ...] = (None, 2) if context else (None,)
        text = Feature(shape, 'int32', description=f'token ids of {tokenizer}{what}', optional=True)
        info |= {'tokenizer': tokenizer, **({'context': context} if context else {})}
        return Schema('mosi_tokens', {'text': text, 'audio': audio}, Label('regression'), info)
    description = 'one GloVe vector a word, zero where the word has none'
    if indicators:
        description += f'; then {len(indicators)} indicators of training words'
    features = {
        'text': Feature((None, text_size + len(indicators)), description=description, optional=True),
        'audio': audio,
    }
    info |= {'glove': glove, 'indicators': indicators}
    return Schema('mosi_text_audio', features, Label('regression'), info)


def timed_words(path: Path, labels: Labels) -> dict[str, list[str]]:
    """{segment id: its words by time, without the pauses; [] where it has none}."""
    words: dict[str, list[str]] = {}
    with csd.Sequence(path) as sequence:
        for video in dict.fromkeys(identity.rsplit('[', 1)[0] for identity in labels):
            if video not in sequence:
                continue
            tokens, intervals = sequence.read(video)
            for identity, (_, start, end) in labels.items():
                if identity.rsplit('[', 1)[0] == video:
                    found = csd.segment(tokens, intervals, start, end)[0].tolist()
                    words[identity] = [token for token in found if not is_pause(token)]
    return words


def indicator_words(training: list[list[str]], vectors: WordVectors, which: str) -> dict[str, int]:
    """{word: its dimension} of the words that the training segments say LEAST_COUNT times or more.

    which: 'frequent' for all of them, 'unknown' for those without a vector, 'none'.
    """
    if which == 'none':
        return {}
    counts = Counter(
        token for found in training for token in found if which == 'frequent' or vectors.row(token) is None
    )
    return {word: n for n, word in enumerate(sorted(w for w, count in counts.items() if count >= LEAST_COUNT))}


def indicator_rows(tokens: list[str], indicators: dict[str, int]) -> np.ndarray:
    """(T, len(indicators)) float32, 1 where a token has a dimension of its own."""
    rows = np.zeros((len(tokens), len(indicators)), np.float32)
    for place, token in enumerate(tokens):
        if token in indicators:
            rows[place, indicators[token]] = 1
    return rows


def texts_before(labels: Labels, lines: dict[str, Line], context: int) -> dict[str, str]:
    """{segment id: what was said in up to `context` segments of its video that begin before it, in order of time}."""
    videos: dict[str, list[str]] = {}
    for identity in sorted(labels, key=lambda name: labels[name][1]):
        videos.setdefault(lines[identity].video, []).append(identity)
    return {
        identity: ' '.join(lines[other].text for other in order[max(place - context, 0) : place])
        for order in videos.values()
        for place, identity in enumerate(order)
    }


def token_reader(tokenizer: str, context: int, before: dict[str, str]) -> tuple[Schema, int, Reader]:
    """(schema, 0, line -> (ids (T,) or with types (T, 2), tokens, those unknown to the model))."""
    tokenize_text = TextTokenizer(find_tokenizer(tokenizer))

    def segment(line: Line) -> tuple[np.ndarray, list[str], list[str]]:
        array = tokenize_text.with_context(line.text, before[line.id]) if context else tokenize_text(line.text)
        ids = array[:, 0] if context else array
        tokens = tokenize_text.tokens(ids)
        return array, tokens, [token for token, i in zip(tokens, ids, strict=True) if i == tokenize_text.unknown_id]

    return make_schema(tokenizer=Path(tokenizer).name, context=context), 0, segment


def vector_reader(
    source: Path,
    lines: list[Line],
    labels: Labels,
    folds: dict[str, str],
    glove: Path,
    *,
    words: str,
    indicators: str,
) -> tuple[Schema, int, Reader]:
    """(schema, segments with timed words, line -> (vectors and indicators (T, D), words, those without a vector))."""
    timed = timed_words(source / WORDS, labels) if words == 'csd' else {}
    tokens = {line.id: timed.get(line.id) or tokenize(line.text) for line in lines}
    vectors = read_glove(glove, {token for found in tokens.values() for token in found})
    if not len(vectors):
        raise PreparationError(f'{glove} has a vector for none of the words; expected English word vectors')
    training = [tokens[line.id] for line in lines if folds.get(line.video) == 'train']
    dimensions = indicator_words(training, vectors, indicators)

    def segment(line: Line) -> tuple[np.ndarray, list[str], list[str]]:
        text = embed(tokens[line.id], vectors)
        own = indicator_rows([tokens[line.id][place] for place in text.kept], dimensions)
        return np.concatenate([text.array, own], 1), tokens[line.id], text.unknown

    schema = make_schema(vectors.size, words=words, glove=glove.name, indicators=tuple(dimensions))
    return schema, sum(map(bool, timed.values())), segment
