"""How near each float comparison came to its tolerance: python -m pytest -p tests.margins [--margin 0.3] ...

A comparison that holds by a hair here fails on another processor. The plugin measures every np.testing.assert_allclose
of the suite and lists, at the end, the tests whose largest error was above a share of what was allowed. `make
test-machines` runs with it. Comparisons that allow no error at all are left out: they are equal or they are not.
"""

import contextlib
import os

import numpy as np
import pytest

WORST: dict[str, tuple[float, str]] = {}
ORIGINAL = np.testing.assert_allclose


def share_of_tolerance(actual, desired, rtol, atol) -> float:
    """Largest |actual - desired| / (atol + rtol |desired|); 0 where shapes do not fit or nothing is allowed."""
    with contextlib.suppress(TypeError, ValueError):
        a, b = np.broadcast_arrays(np.asarray(actual, np.float64), np.asarray(desired, np.float64))
        allowed = atol + rtol * np.abs(b)
        known = np.isfinite(a) & np.isfinite(b) & (allowed > 0)
        if known.any():
            return float((np.abs(a - b)[known] / allowed[known]).max())
    return 0.0


def measured(actual, desired, rtol=1e-7, atol=0, **options):
    if atol > 0 or rtol > 1e-7:
        share = share_of_tolerance(actual, desired, rtol, atol)
        test = os.environ.get('PYTEST_CURRENT_TEST', '').split(' ')[0]
        if share > WORST.get(test, (0.0, ''))[0]:
            WORST[test] = share, f'rtol {rtol:.2g} atol {float(np.max(atol)):.2g}'
    return ORIGINAL(actual, desired, rtol=rtol, atol=atol, **options)


def pytest_addoption(parser):
    parser.addoption('--margin', type=float, default=0.3, help='list tests whose error was above this share (0.3)')


def pytest_configure(config):
    np.testing.assert_allclose = measured


def pytest_unconfigure(config):
    np.testing.assert_allclose = ORIGINAL


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    WORST.update(getattr(node, 'workeroutput', {}).get('margins', {}))


def pytest_sessionfinish(session):
    if hasattr(session.config, 'workeroutput'):  # a worker of pytest-xdist tells the process that started it
        session.config.workeroutput['margins'] = WORST


def pytest_terminal_summary(terminalreporter, config):
    near = sorted(((share, name, how) for name, (share, how) in WORST.items()), reverse=True)
    near = [row for row in near if row[0] > config.getoption('margin')]
    terminalreporter.section(
        f'{len(near)} tests came nearer to a tolerance than {config.getoption("margin"):.0%} of it'
    )
    for share, name, how in near:
        terminalreporter.write_line(f'{share:6.0%} of {how:28s} {name}')
