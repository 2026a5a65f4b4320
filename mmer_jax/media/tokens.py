"""Text -> the token ids of a pretrained model, by the tokenizer files that came with its weights."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmer_jax.media import MediaError

FILES = ('tokenizer.json', 'vocab.txt', 'vocab.json')


class TextTokenizer:
    """The tokenizer of a folder of weights, converted ones or those of Hugging Face.

    tokenizer('so good') -> int32 (T,), with the model's own first and last token and without padding. Longer text than
    `max_length` tokens is cut at its end, the last token kept. MediaError names the folder and what it lacks.
    """

    def __init__(self, folder: str | os.PathLike, *, max_length: int = 512):
        folder = Path(folder)
        if not any((folder / name).is_file() for name in FILES):
            raise MediaError(folder, 'no tokenizer files', f'expected one of {", ".join(FILES)} beside the weights')
        from transformers import AutoTokenizer  # seconds to import

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the library raises whatever its readers do: KeyError, OSError, ValueError ...
            raise MediaError(folder, 'its tokenizer cannot be read', f'{type(error).__name__}: {error}') from error
        self.folder, self.max_length = folder, max_length
        self.unknown_id: int | None = self._tokenizer.unk_token_id

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: str) -> np.ndarray:
        found = self._tokenizer(text, truncation=True, max_length=self.max_length)
        return np.array(found['input_ids'], np.int32)

    def tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The token of each id."""
        return list(self._tokenizer.convert_ids_to_tokens(np.asarray(ids).tolist()))
