"""Training by two processes of which one is killed: the other has to name it and end, and both go on together.

The child that the campaign kills runs one of them below itself; the other stands beside it and is not killed.
"""

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

from mmer_jax import main
from mmer_jax.run import processes
from tests.campaign.children import end_with, redirect

WAIT = 20  # seconds for the other to come
MOST = 30.0  # seconds in which the other has to end after a kill, or to have waited in vain
TOLD = '.peer.json'  # beside the folder: how the other ended
GOES_ON = re.escape(processes.GO_ON)


def train_two(config: str, killed: int) -> Callable[[], int]:
    """Process `killed` of two ends with the child, the other does not."""

    def work() -> int:
        place = Path.cwd()
        told, output = (place.with_name(f'{place.name}{end}') for end in (TOLD, '.peer.output'))
        told.unlink(missing_ok=True)
        with socket.socket() as one:
            one.bind(('127.0.0.1', 0))
            port = one.getsockname()[1]
        flags = [f'--config={config}', '--workdir=run', f'--coordinator=127.0.0.1:{port}', '--num_processes=2']
        flags.append(f'--wait={WAIT}')
        beside = os.fork()
        if beside == 0:
            with contextlib.suppress(OSError):
                os.setsid()
            status = _ended(_start([*flags, f'--process_id={1 - killed}'], output))
            text = output.read_text(errors='replace')
            told.with_suffix('.new').write_text(json.dumps({'status': status, 'text': text}))
            told.with_suffix('.new').replace(told)
            os._exit(0)
        status = _ended(_start([*flags, f'--process_id={killed}']))
        os.waitpid(beside, 0)
        other = json.loads(told.read_text())
        if other['status']:
            print(f'process {1 - killed} ended with {other["status"]}: {other["text"]}')
        return status or int(other['status'] != 0)

    return work


def _start(flags: list[str], output: Path | None = None) -> int:
    """The command in a child that ends with this process."""
    child = os.fork()
    if child == 0:
        end_with(lambda: _train(flags, output))
    return child


def _train(flags: list[str], output: Path | None) -> int:
    processes._end_with_parent()
    if output is not None:
        redirect(output)
    status = main.main(flags)
    import jax

    jax.distributed.shutdown()  # waits for the other, as at the end of a process that was not forked
    return status


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def other_told(killed: int) -> Callable[[Path], str]:
    """A check right after a kill: '' where the other ended in time, in one line with the number of the killed one."""
    lines = (
        rf'error: process {killed} of 2 was lost \(.*\); {GOES_ON}',
        rf'error: --wait: after {WAIT} s this process .* still waits for process {killed}\b.*',
    )

    def check(place: Path) -> str:
        told, end = place.with_name(f'{place.name}{TOLD}'), time.monotonic() + MOST
        while not told.is_file():
            if time.monotonic() > end:
                return f'process {1 - killed} had not ended after {MOST:.0f} s'
            time.sleep(0.1)
        found = json.loads(told.read_text())
        said = [line for line in found['text'].splitlines() if not line.startswith(('[Gloo]', 'compiling '))]
        if found['status'] == 0 or (found['status'] == 1 and any(re.fullmatch(one, said[-1]) for one in lines if said)):
            return '' if 'Traceback' not in found['text'] and 'stack trace' not in found['text'] else said[0]
        return f'process {1 - killed} ended with {found["status"]}: {" / ".join(said[-3:])}'

    return check
