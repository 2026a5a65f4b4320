"""Symbolic links in a folder of somebody else's are followed within that folder only, unless the user asks for more."""

import os
from pathlib import Path

FOLLOW = 'MMER_FOLLOW_LINKS'  # of the environment: any text but '' and '0' follows links wherever they lead
OUT = f'a symbolic link out of the source folder ({FOLLOW}=1 follows it)'


def leads_out(path: Path, source: str | os.PathLike) -> bool:
    """Whether what is read at `path`, below `source`, lies outside `source`, and the user did not ask to follow."""
    if os.environ.get(FOLLOW, '0') not in ('', '0'):
        return False
    root, real = Path(source).resolve(), path.resolve()
    return real != root and root not in real.parents
