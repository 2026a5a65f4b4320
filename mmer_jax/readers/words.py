"""The words of a clip: token ids of a pretrained model, or one word vector per word."""

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np

from mmer_jax.data.schema import Feature
from mmer_jax.media import MediaError
from mmer_jax.media.text import WordVectors, embed, read_glove
from mmer_jax.media.tokens import TextTokenizer
from mmer_jax.readers.clip import Clip, Reading

NO_TEXT = 'no text'


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Token ids (T,) int32 of the tokenizer of a folder of converted weights, `max_length` of them at most."""

    tokenizer: str
    max_length: int = 512

    modality = 'text'

    def check(self) -> None:
        _tokenizer(self.tokenizer, self.max_length)

    def feature(self) -> Feature:
        name = Path(self.tokenizer).name
        return Feature((None,), 'int32', description=f'token ids of {name}', optional=True)

    def read(self, clip: Clip) -> Reading:
        if not (clip.text or '').strip():
            return Reading(None, missing=NO_TEXT)
        return Reading(_tokenizer(self.tokenizer, self.max_length)(str(clip.text)), {'text': clip.text})


@dataclasses.dataclass(frozen=True)
class WordVectorsOf:
    """One vector (T, size) per word, from a file in GloVe's text format; zero where a word has none.

    A text of unknown words alone is missing. `size` is that of the file's vectors, 0 until `with_size` has read it.
    """

    vectors: str
    size: int = 0

    modality = 'text'

    def check(self) -> None:
        if self.with_size().size != self.size:
            raise MediaError(
                self.vectors, 'word vectors of another size', f'found {self.with_size().size}, expected {self.size}'
            )

    def with_size(self) -> 'WordVectorsOf':
        return dataclasses.replace(self, size=read_glove(self.vectors, ()).size)

    def feature(self) -> Feature:
        description = f'one vector per word of {Path(self.vectors).name}, zero where it has none'
        return Feature((None, self.size), description=description, optional=True)

    def read(self, clip: Clip) -> Reading:
        tokens = tokenize(clip.text or '')
        if not tokens:
            return Reading(None, missing=NO_TEXT)
        found = embed(tokens, _all_vectors(self.vectors))
        columns = {'text': clip.text, 'words': len(tokens), 'unknown_words': len(found.unknown)}
        if len(found.unknown) == len(tokens):
            return Reading(None, columns, 'no known word')
        return Reading(found.array, columns)


def tokenize(text: str) -> list[str]:
    """Text -> lower-case words: letters, digits and apostrophes."""
    return re.findall(r"(?:[^\W_]|')+", text.lower().replace('\u2019', "'"))


@functools.lru_cache(maxsize=2)
def _tokenizer(name: str, max_length: int) -> TextTokenizer:
    from mmer_jax import pretrained  # with flax and jax, for which sound and pictures do not wait

    return TextTokenizer(pretrained.find_tokenizer(name), max_length=max_length)


@functools.lru_cache(maxsize=1)
def _all_vectors(path: str) -> WordVectors:
    """Every vector of the file: which words come is not known before. glove.840B.300d takes 2.6 GB."""
    found = read_glove(path)
    return WordVectors(found.rows, np.asarray(found.array, np.float32))
