"""Brings the pages that lie outside docs/ into the site, and makes the pages of the API; for mkdocs.yml."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {  # page of the repository -> page of the site
    'README.md': 'index.md',
    'BUILD.md': 'BUILD.md',
    'CHANGELOG.md': 'CHANGELOG.md',
    'benchmarks/RESULTS.md': 'benchmarks/RESULTS.md',
}
API = {  # page of the site -> module, whose public names are shown with their docstrings
    'fusion': 'mmer_jax.fusion',
    'encoders': 'mmer_jax.encoders',
    'models': 'mmer_jax.models',
    'losses': 'mmer_jax.losses',
    'metrics': 'mmer_jax.metrics',
    'layers': 'mmer_jax.layers',
    'records': 'mmer_jax.data.records',
    'schema': 'mmer_jax.data.schema',
    'protocols': 'mmer_jax.data.protocols',
    'finished': 'mmer_jax.run.finished',
    'train': 'mmer_jax.train',
    'evaluate': 'mmer_jax.evaluate',
}
FIELDS = ('fusion', 'encoders', 'models')  # of modules: their fields, which are their config, are shown too
LINK = re.compile(r'(\]\()([^)#\s:]+)([)#])')


def of_site(target: str, page: str) -> str:
    """A link of `page` (its place in the repository) as the site has it, relative to the page's place there."""
    place = (ROOT / page).parent.joinpath(target).resolve().relative_to(ROOT).as_posix()
    place = 'LICENSE.md' if place == 'LICENSE' else OUTSIDE.get(place, place.removeprefix('docs/'))
    up = '../' * OUTSIDE.get(page, page.removeprefix('docs/')).count('/')
    return up + place


def relinked(text: str, page: str) -> str:
    return LINK.sub(lambda found: found[1] + of_site(found[2], page) + found[3], text)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page, place in OUTSIDE.items():
        text = relinked((ROOT / page).read_text(encoding='utf-8'), page)
        files.append(File.generated(config, place, content=text))
    licence = (ROOT / 'LICENSE').read_text(encoding='utf-8')
    files.append(File.generated(config, 'LICENSE.md', content=f'# Licence\n\n```text\n{licence}```\n'))
    for name, module in API.items():
        options = '    options:\n      show_if_no_docstring: true\n' if name in FIELDS else ''
        files.append(File.generated(config, f'api/{name}.md', content=f'# {module}\n\n::: {module}\n{options}'))
    return files


def on_page_markdown(markdown: str, page, config: MkDocsConfig, files: Files) -> str:
    """Links of the pages in docs/ to pages outside it; those of the others were changed when they were brought in.

    On all pages a mean and its deviation stay on one line.
    """
    lies_in_docs = page.file.generated_by is None
    markdown = relinked(markdown, f'docs/{page.file.src_uri}') if lies_in_docs else markdown
    return markdown.replace(' ± ', '\u00a0±\u00a0')
