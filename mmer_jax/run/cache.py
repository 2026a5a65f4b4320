"""Compiled programs are kept between runs: in the user's cache folder, or where JAX_COMPILATION_CACHE_DIR says.

Those that run for long are kept whole beside jax's own cache (mmer_jax/run/kept.py).
"""

import argparse
import hashlib
import os
import time
from pathlib import Path

LARGEST = 4 << 30  # bytes; what was used longest ago goes first
WORTH_KEEPING = 0.2  # seconds of compilation
WHOLE = 'whole'  # folder of programs that are kept whole
PACKAGE = Path(__file__).parents[1]
BEGUN = time.time()  # before most of the package is imported

_whole: list[Path] = []


def folder() -> Path:
    """JAX_COMPILATION_CACHE_DIR, else mmer_jax/jax in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    named = os.environ.get('JAX_COMPILATION_CACHE_DIR')
    if named:
        return Path(named)
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mmer_jax' / 'jax'


def add_flag(parser: argparse.ArgumentParser) -> None:
    """--no_cache, of every command that compiles; its value goes to keep_programs."""
    where = 'programs are kept in JAX_COMPILATION_CACHE_DIR, or ~/.cache'
    parser.add_argument('--no_cache', action='store_true', help=f'compile anew; {where}')


def whole_programs() -> Path | None:
    """Where programs are kept whole; None where keep_programs was not called, or could not."""
    return _whole[-1] if _whole else None


def sources() -> str:
    """A digest of all Python files of this package; '' where one cannot be read, or is younger than this process.

    What was imported from a file that has changed since then, nobody can tell.
    """
    found = hashlib.sha256()
    try:
        for path in sorted(PACKAGE.rglob('*.py')):
            if not path.name.startswith('.'):  # of editors and file systems
                if path.stat().st_mtime > BEGUN:
                    return ''
                content = path.read_bytes()
                found.update(f'{path.relative_to(PACKAGE)} {len(content)}\n'.encode() + content)
    except OSError:
        return ''
    return found.hexdigest()


def keep_programs(*, keep: bool = True) -> None:
    """Turns jax's persistent cache on for this process, or off. To be called before anything is compiled.

    A folder that cannot be made, as where there is no home, leaves the cache off: it is a convenience.
    """
    import jax  # not before: the help of a command does not wait for it

    _whole.clear()
    jax.config.update('jax_enable_compilation_cache', keep)
    if not keep:
        return
    try:
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        jax.config.update('jax_enable_compilation_cache', False)
        return
    _whole.append(place / WHOLE)
    jax.config.update('jax_compilation_cache_dir', str(place))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', WORTH_KEEPING)
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        jax.config.update('jax_compilation_cache_max_size', LARGEST)


def let_go() -> None:
    """Lets this process go of compiled programs that nobody will call again; what is called is compiled anew.

    jax keeps them after their functions have gone. On CPU each has some hundred memory maps with jaxlib 0.12, and Linux
    allows a process 65,530: XLA crashes at one more.
    """
    import jax

    jax.clear_caches()
