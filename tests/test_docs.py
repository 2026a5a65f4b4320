"""The pages a newcomer reads: their links work, their commands exist, nothing names one machine."""

import importlib.util
import re
import subprocess

import pytest

from tests.conftest import REPOSITORY

PAGES = sorted(p.relative_to(REPOSITORY).as_posix() for p in REPOSITORY.glob('*.md')) + ['benchmarks/RESULTS.md']


@pytest.mark.parametrize('page', PAGES)
def test_relative_links_lead_somewhere(page):
    path = REPOSITORY / page
    for target in re.findall(r'\]\(([^)#\s]+)[^)]*\)', path.read_text()):
        if not target.startswith(('http://', 'https://')):
            assert (path.parent / target).exists(), f'{page} links to {target}'


@pytest.mark.parametrize('page', PAGES)
def test_commands_name_modules_and_configs_that_exist(page):
    text = (REPOSITORY / page).read_text()
    for module in set(re.findall(r'python -m ((?:mmer_jax|data_prep|benchmarks)[\w.]*)', text)) - {'data_prep.'}:
        assert importlib.util.find_spec(module.rstrip('.')), f'{page}: python -m {module}'
    for config in set(re.findall(r'configs/(\w+)\.py', text)):
        assert (REPOSITORY / f'configs/{config}.py').is_file(), f'{page}: configs/{config}.py'


def test_no_path_or_address_of_one_machine_is_committed():
    files = subprocess.run(
        ['git', 'ls-files'], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    pattern = re.compile(r'(?<![\w.])/(?:wor' + r'k|root|home)/|--(?:extra-)?index-url (?!-o)|://[^\s/]*pypi')
    found = []
    for name in files:
        if name.endswith(('.py', '.md', '.toml', '.txt', 'Makefile', '.ci/run')):
            found += [(name, m.group(0)) for m in pattern.finditer((REPOSITORY / name).read_text())]
    assert found == []
