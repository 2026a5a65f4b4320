"""What a failed download leaves in place of a file: one table for every reader."""

import os
from pathlib import Path
from typing import NamedTuple

from mmer_jax.media import MediaError

HEAD = 512  # bytes that `find_failure` wants to see


class Failure(NamedTuple):
    """What lies there instead of the file, and what to do; str() is both with an article."""

    reason: str
    detail: str

    def __str__(self) -> str:
        article = 'an' if self.reason[0] in 'HX' else 'a'
        return f'{article} {self.reason}; {self.detail}'


POINTER = Failure('git-LFS pointer', "the file itself was not downloaded: run 'git lfs pull' in its folder")
PAGE = Failure('HTML page', 'what was saved is a web page, not the file: download it again from its direct address')
ANSWER = Failure('XML page', "what was saved is a server's answer, not the file: download it again")
FAILURES = (
    (b'version https://git-lfs', POINTER),
    (b'<!doctype', PAGE),
    (b'<html', PAGE),
    (b'<head', PAGE),
    (b'<?xml', ANSWER),
    (b'pk\x03\x04', Failure('zip archive', 'unpack it first')),
    (b'\x1f\x8b', Failure('gzip file', 'unpack it first')),
)


def find_failure(head: bytes, *, but: str = '') -> Failure | None:
    """What a file with these first bytes is instead of itself, or None; `but`: a reason that is none here.

    Text may begin with a byte-order mark, white space, and letters of any case.
    """
    begins = head.removeprefix(b'\xef\xbb\xbf').lstrip().lower()
    for beginning, failure in FAILURES:
        if failure.reason != but and begins.startswith(beginning):
            return failure
    return None


def check_download(path: str | os.PathLike, expected: str, *, but: str = '') -> None:
    """MediaError where a file is missing, empty, a folder, or what a failed download leaves in its place."""
    path = Path(path)
    if not path.exists():
        raise MediaError(path, 'no such file', f'expected {expected}')
    if path.is_dir():
        raise MediaError(path, 'a folder', f'expected {expected}')
    try:
        with open(path, 'rb') as file:
            head = file.read(HEAD)
    except OSError as error:
        raise MediaError(path, 'cannot be opened', str(error.strerror)) from error
    if not head:
        raise MediaError(path, 'empty file', f'0 bytes, expected {expected}; copy or download it again')
    failure = find_failure(head, but=but)
    if failure:
        raise MediaError(path, failure.reason, f'expected {expected}; {failure.detail}')
