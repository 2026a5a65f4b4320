"""What a command may replace: what this toolkit wrote, as its content shows, and nothing else.

A path given with --output can be anything: the folder of the recordings, a home, a device. Every refusal is a
FileExistsError of one line that names what was found, raised before anything is written.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmer_jax.files import atomic, locks

MADE_BY = 'mmer_jax'  # in the field Software of pictures
PICTURES = {  # format of a picture -> what one of ours holds near one of its ends
    'png': b'Software\0' + MADE_BY.encode(),
    'svg': b'<dc:title>' + MADE_BY.encode() + b'</dc:title>',
    'pdf': b'/Creator (' + MADE_BY.encode() + b')',
}
PICTURE = PICTURES['png']
FEATURES, MANIFEST = 'features.json', 'manifest.csv'
TFDS_INFO, TFDS_NAMES = OF_TFDS = 'dataset_info.json', 'label.labels.txt'  # what TensorFlow Datasets reads
SHARD = re.compile(r'data-\d{5}-of-\d{5}\.tfrecord')
MENDED = re.compile(  # killed on the way
    r'\.(features\.json|dataset_info\.json|label\.labels\.txt|data-\d{5}-of-\d{5}\.index\.npy)\.[0-9a-f]+\.tmp'
)
Mark = bytes | tuple[bytes, ...]  # what a file holds; of a tuple one of them
ENDS = 1 << 20  # bytes at each end of a file in which its marks are looked for
SHOWN = 3  # names in a refusal
ELSEWHERE = 'choose another output'


def check_shards(directory: str | os.PathLike, *, overwrite: bool, sources: Iterable[str | os.PathLike] = ()) -> None:
    """FileExistsError where a shard directory may not be written: `directory` exists and `overwrite` is False, or it
    is anything but a shard directory of this toolkit with nothing else in it, or an empty folder.

    Never replaced: a symbolic link, a mount, what holds the current folder, the home or one of `sources`, and what lies
    in one of them.
    """
    path = Path(directory)
    if not os.path.lexists(path):
        return
    fault = _place(path) or _content(path)
    if fault:
        raise FileExistsError(f'{path} {fault}: it is not replaced; {ELSEWHERE}')
    if not overwrite:
        locks.clear(atomic.lock_of(path))  # of a writer that was killed when all was written
        raise FileExistsError(f'{path} exists; {ELSEWHERE} or pass --overwrite to replace it')
    own = path.resolve()
    for source in map(Path, sources):
        there = source.resolve()
        if own == there or own in there.parents:
            raise FileExistsError(f'{path} is or holds the source {source}: it is not replaced; {ELSEWHERE}')
        if there in own.parents:
            raise FileExistsError(f'{path} lies in the source {source}: it is not replaced; {ELSEWHERE}')


def _place(path: Path) -> str:
    """Why whatever lies at this place may not be replaced; '' where it may."""
    if path.is_symlink():
        return f'is a symbolic link to {os.readlink(path)}'
    if not path.is_dir():
        return 'is a file' if path.is_file() else 'is neither a folder nor a file'
    if os.path.ismount(path):
        return 'is the root of a mounted file system'
    own = path.resolve()
    for what, place in (('the current folder', Path.cwd()), ('a home', Path(os.path.expanduser('~')))):
        if own == place.resolve() or own in place.resolve().parents:
            return f'is or holds {what}'
    return ''


def _content(path: Path) -> str:
    """Why the content of a folder is not only a shard directory of this toolkit; '' where it is, or is nothing."""
    names = sorted(os.listdir(path))
    if not names:
        return ''
    if FEATURES not in names:
        return f'is no shard directory (no {FEATURES} in it): it holds {_listed(names)}'
    own = _shard_files(path / FEATURES)
    if own is None:
        return f'is no shard directory: its {FEATURES} says something else'
    own |= {name for name in names if MENDED.fullmatch(name)}
    foreign = [name for name in names if name not in own or not (path / name).is_file() or (path / name).is_symlink()]
    return f'is a shard directory that also holds {_listed(foreign)}' if foreign else ''


def _shard_files(features: Path) -> set[str] | None:
    """The names of all files of the shard directory that a features.json describes; None where it is another file."""
    try:
        content = json.loads(features.read_text(encoding='utf-8'))
        shards = [shard['file'] for shard in content['shards']]
        known = {'format', 'name', 'features', 'label', 'records'} <= set(content)
        of_tfds = set(content.get('files', ())) & set(OF_TFDS)  # others by these names are somebody else's
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not known or not shards or not all(isinstance(shard, str) and SHARD.fullmatch(shard) for shard in shards):
        return None
    return {FEATURES, MANIFEST, *of_tfds, *shards, *(str(Path(shard).with_suffix('.index.npy')) for shard in shards)}


def _listed(names: Sequence[str]) -> str:
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more


def remove_shards(folder: Path) -> None:
    """Removes a shard directory, whole or half written, file by file; what else lies in it stays, and so the folder."""
    for path in folder.iterdir():
        name = path.name.removesuffix('.index.npy') + ('.tfrecord' if path.name.endswith('.index.npy') else '')
        if name in (FEATURES, MANIFEST, *OF_TFDS) or SHARD.fullmatch(name) or MENDED.fullmatch(name):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def check_file(path: str | os.PathLike, *marks: Mark) -> None:
    """FileExistsError where something lies at `path` that is no file with all `marks` near its beginning or its end."""
    path = Path(path)
    if not os.path.lexists(path):
        return
    if path.exists() and not path.is_file():
        what = 'a folder' if path.is_dir() else 'neither a folder nor a file'
        raise FileExistsError(f'{path} is {what}: it is not replaced; {ELSEWHERE}')
    if not path.exists():
        raise FileExistsError(f'{path} is a symbolic link to {os.readlink(path)}, which is not there; {ELSEWHERE}')
    with open(path, 'rb') as file:
        content = file.read(ENDS)
        file.seek(max(0, path.stat().st_size - ENDS))
        content += file.read(ENDS)
    if not all(any(one in content for one in (mark if isinstance(mark, tuple) else (mark,))) for mark in marks):
        raise FileExistsError(
            f'{path} exists and was not made by this command: it is not replaced; {ELSEWHERE}, or move it away'
        )


# Files of the commands that write several into a folder, and what each holds near its beginning or its end.
REPORT_FILES: dict[str, Mark] = {
    'report.md': (b' modalities | parameters |', b'Each value is of validation, at the epoch that validation chose'),
    'results.csv': b'run,workdir,protocol',
    'rows.csv': b'run,workdir,protocol',
    'report.html': b'Made by mmer_jax.report',
    'report.tex': b'% Tables made by mmer_jax',
    **{f'comparison_*.{kind}': mark for kind, mark in PICTURES.items()},
}
TABLE_FILES = {
    'table.md': b'Made, and to be continued or made again, by',
    'table.csv': b'label,group,state',
    'table.tex': b'% Tables made by mmer_jax',
    **{f'bars.{kind}': mark for kind, mark in PICTURES.items()},
}
CLASSIFIER_FILES = {
    'results.json': b'"job"',
    'tables.md': b'Own model: the ',
    'rows.csv': b'fold,seed,combination',
    'tables.tex': b'% Tables made by mmer_jax',
    **{f'confusion.{kind}': mark for kind, mark in PICTURES.items()},
    **{f'pca_*.{kind}': mark for kind, mark in PICTURES.items()},
}
ATTENTION_FILES = {'attention.json': b'"maps"'}


def check_folder(folder: str | os.PathLike, marks: Mapping[str, Mark]) -> Path:
    """The folder to write files into; FileExistsError where it is none, or holds one by such a name without its mark.

    `marks`: {name or pattern of names: what the file holds}.
    """
    folder = Path(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise FileExistsError(f'{folder} is no folder; {ELSEWHERE}')
    for pattern, mark in marks.items():
        for path in sorted(folder.glob(pattern)):
            check_file(path, mark)
    return folder


def check_beside(path: Path, maker: Path) -> None:
    """FileExistsError where `path` is there without `maker`, the file of ours that is written together with it."""
    if os.path.lexists(path) and not maker.exists():
        check_file(path, b'\0no file of this command')


def check_ablation(folder: str | os.PathLike) -> None:
    """FileExistsError where a folder holds the files of a run, and not those of an earlier test without modalities."""
    folder = Path(folder)
    check_folder(folder, {'results.json': b'without'})
    if (folder / 'config.json').exists() and not (folder / 'results.json').exists():
        raise FileExistsError(f'{folder} holds a config.json and no results.json: an unfinished run; {ELSEWHERE}')
