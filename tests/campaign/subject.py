"""A reader as the fuzz sees it: how its valid files are made, changed and read."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmer_jax.settings import command
from tests.campaign.mutations import Generator, Outside

Change = Callable[[bytes, Generator, Outside], bytes]
Special = Callable[[Path, Generator, Outside], None]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A kind of file and its reader.

    files: names below the folder of which one is changed, by one of `changes`; special: instead, in a third of the
    inputs, a change that needs the whole folder; after: what makes the folder consistent again (sums, indices).
    has_sum: the format has a checksum, so that other content may not be accepted. mistakes: what its command tells in
    one line; anything else is a traceback. The line names one of the files, or the folder.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    files: Sequence[str]
    changes: Sequence[Change]
    special: Sequence[Special] = ()
    after: Callable[[Path], None] | None = None
    has_sum: bool = False
    mistakes: tuple[type[Exception], ...] = command.MISTAKES

    def change(self, folder: Path, generator: Generator, outside: Outside) -> None:
        if self.special and generator.integers(3) == 0:
            self.special[int(generator.integers(len(self.special)))](folder, generator, outside)
        else:
            path = folder / self.files[int(generator.integers(len(self.files)))]
            change = self.changes[int(generator.integers(len(self.changes)))]
            path.write_bytes(change(path.read_bytes(), generator, outside))
        if self.after is not None:
            self.after(folder)

    def named(self, folder: Path) -> list[str]:
        """What an error may name: a file of the folder, or a record of it."""
        files = [path.name for path in folder.rglob('*')] + [Path(name).name for name in self.files]
        return [*files, f'{folder}, record ', f'{folder}: record ']
