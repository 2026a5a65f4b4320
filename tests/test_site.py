"""The site of README, docs/ and the API is built without a warning, as `make docs` does."""

import os
import subprocess
import sys

from tests.conftest import REPOSITORY


def test_the_site_is_built_without_a_warning(tmp_path):
    """mkdocs --strict: every page is in the menu, every link and every module of the API is found."""
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path / 'site')]
    environment = {**os.environ, 'NO_MKDOCS_2_WARNING': '1'}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / 'site' / 'index.html').read_text()
    assert 'python -m mmer_jax.main' in page
    assert (tmp_path / 'site' / 'search' / 'search_index.json').stat().st_size > 1e5
