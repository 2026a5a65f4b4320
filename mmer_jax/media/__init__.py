"""Raw media (sound, video, text) -> numpy arrays. The same code serves data_prep and predict."""

import os


class MediaError(ValueError):
    """One media file cannot be used. str() is '<path>: <reason>; <detail>'.

    `reason` is a short phrase without names or numbers, so that many faults can be grouped by it; `detail` has
    what was found, what was expected and what to do.
    """

    def __init__(self, path: str | os.PathLike, reason: str, detail: str = ''):
        super().__init__(os.fspath(path), reason, detail)  # all three in args: the error survives pickling
        self.path, self.reason, self.detail = os.fspath(path), reason, detail

    def __str__(self) -> str:
        return f'{self.path}: {self.reason}' + (f'; {self.detail}' if self.detail else '')
