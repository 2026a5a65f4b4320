"""The pages a newcomer reads: their commands parse, their configs load, their links and Python work."""

import ast
import functools
import importlib
import re
import shlex
import subprocess

import pytest

from configs import quickstart
from data_prep import synthetic
from mmer_jax import main as main_command
from mmer_jax.results.table_config import read_table
from mmer_jax.settings import overrides
from mmer_jax.train import train_and_evaluate
from tests.conftest import REPOSITORY
from tests.test_ranges import commands, flags_of, parser_of

PAGES = ['README.md', 'BUILD.md', 'CHANGELOG.md', 'benchmarks/RESULTS.md']
PAGES += sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / 'docs').glob('*.md'))
COMMAND = re.compile(r'python -m ((?:mmer_jax|data_prep|benchmarks)(?:\.\w+)+)')
ENDS = {';', '&', '&&', '|', '||', '>'}  # of a command in a shell line
PACKAGES = 'mmer_jax|data_prep|configs|benchmarks|tests'


@functools.cache
def text_of(page):
    return (REPOSITORY / page).read_text(encoding='utf-8')


def fenced(text, language):
    return re.findall(rf'^```{language}\n(.*?)^```', text, re.M | re.S)


def spans(text):
    """What stands between single backquotes, outside of blocks."""
    return re.findall(r'`([^`\n]+)`', re.sub(r'^```.*?^```|^    .*?$', '', text, flags=re.M | re.S))


def prose(text):
    """The text without code."""
    return re.sub(r'`[^`\n]+`', '', re.sub(r'^```.*?^```', '', text, flags=re.M | re.S))


# ---- commands --------------------------------------------------------------------------------------------------


def shell_lines(text):
    """The lines of the indented blocks, continued ones joined, once for each value of the loops around them."""
    for block in re.findall(r'(?:^    .*\n)+', text, re.M):
        joined = block.replace('\\\n', ' ')
        loops = re.findall(r'for (\w+) in (.*?); do', joined)
        for line in joined.splitlines():
            lines = [line]
            for name, values in loops:
                uses = re.compile(rf'\$\{{{name}\}}|\${name}\b')
                lines = [uses.sub(v, one) for one in lines for v in (values.split() if uses.search(one) else [''])]
            yield from lines


def words(line):
    """The words of the command at the head of a shell line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found = list(lexer)
    return found[: next((n for n, word in enumerate(found) if word in ENDS), len(found))]


def commands_of(page):
    """(module, words of its command line, whether it is spelt out) of every command that a page shows."""
    for lines, in_block in ((shell_lines(text_of(page)), True), (spans(text_of(page)), False)):
        for line in lines:
            for found in COMMAND.finditer(line):
                argv = tuple(words(line[found.start() :])[3:])
                yield found[1], argv, '...' not in argv and (in_block or bool(argv))


SHOWN = sorted({(page, *command) for page in PAGES for command in commands_of(page)})


def parse(module, argv):
    """Parses a command line as the command itself does; ValueError or SystemExit where it is wrong."""
    if module is main_command:
        rest, changes = overrides.split_arguments(argv)
        arguments = module.parse([word for word in rest if word != '--help'])
        module.check_processes(arguments)
        if arguments.config:
            module.read_config(arguments.config, changes)
        return arguments
    return (module.parse if hasattr(module, 'parse') else module.parse_arguments)(list(argv))


def imported(name):
    """The module of a command; skipped where it needs the torch that is not there."""
    module = importlib.util.find_spec(name) and (f'{name}.__main__' if name.endswith('convert_weights') else name)
    assert module, f'there is no {name}'
    if name.startswith('benchmarks.'):
        pytest.importorskip('torch')
    return importlib.import_module(module)


@pytest.mark.parametrize(
    ('page', 'name', 'argv', 'whole'), SHOWN, ids=lambda value: value if isinstance(value, str) else ''
)
def test_a_command_is_one(page, name, argv, whole, monkeypatch, capsys):
    monkeypatch.setenv('MMER_PRETRAINED', 'weights')
    module = imported(name)
    if not whole:
        known = {flag for action in flags_of(parser_of(module.__name__, monkeypatch)) for flag in action.option_strings}
        assert {word.partition('=')[0] for word in argv if word.startswith('--')} <= known, page
        return
    try:
        arguments = parse(module, argv)
    except SystemExit:
        pytest.fail(f'{page}: python -m {name} {shlex.join(argv)}: {capsys.readouterr().err}')
    if name == 'mmer_jax.table':
        check_table(arguments)


def check_table(arguments):
    table = read_table(arguments.table)
    rows = {key: row for row in table.rows for key in (row.label, row.slug)}
    chosen = [rows[label.strip()] for label in arguments.rows.split(',')] if arguments.rows else table.rows
    for setting in arguments.settings:
        key, _, value = setting.partition('=')
        for row in chosen:
            if row.config:
                overrides.apply(overrides.load_config(row.config), [(key, value)])


def test_the_page_of_commands_has_them_all():
    listed = re.findall(r'^\| `(\w+\.[\w.]+)` \|', text_of('docs/commands.md'), re.M)
    assert sorted(listed) == sorted({name.removesuffix('.__main__') for name in commands()} | {'mmer_jax.main'})
    shown = {name for page, name, _, whole in SHOWN if page == 'docs/commands.md' and whole}
    assert shown >= set(listed), 'a command without an example'


SECTIONS = re.findall(r'^### ([\w.]+)\n(.*?)(?=^##)', text_of('docs/commands.md'), re.M | re.S)


@pytest.mark.parametrize(('name', 'section'), SECTIONS, ids=[name for name, _ in SECTIONS])
def test_flags_of_the_page_of_commands_are_those_of_the_command(name, section, monkeypatch):
    parser = (
        main_command.make_parser()
        if name == 'mmer_jax.main'
        else parser_of(f'{name}.__main__' if name.endswith('convert_weights') else name, monkeypatch)
    )
    known = {flag for action in flags_of(parser) for flag in action.option_strings}
    named = {span.split()[0].partition('=')[0] for span in spans(section) if span.startswith('--')}
    assert {flag for flag in named if not flag.startswith('--config.')} <= known


# ---- configs, files, links -------------------------------------------------------------------------------------


def test_configs_and_tables_that_are_named_load():
    named = {found for page in PAGES for found in re.findall(r'configs/\w[\w/]*\.py(?::\w+)?', text_of(page))}
    assert any(name.startswith('configs/tables/') for name in named)
    for name in named:
        path = REPOSITORY / name.partition(':')[0]
        assert path.is_file(), name
        if name.startswith('configs/tables/'):
            read_table(name)
        elif 'def get_config' in path.read_text():
            overrides.load_config(name)


@pytest.mark.parametrize('page', PAGES)
def test_files_that_are_named_exist(page):
    pattern = re.compile(rf'(?:{PACKAGES})/[\w/]+\.(?:py|md)')
    assert [
        name for span in spans(text_of(page)) for name in pattern.findall(span) if not (REPOSITORY / name).is_file()
    ] == []


def anchors(page):
    """The anchors of a page's headings, as far as a repository's pages and the site of `make docs` agree on them."""
    found = set()
    for heading in re.findall(r'^#+ (.*)$', re.sub(r'^```.*?^```', '', text_of(page), flags=re.M | re.S), re.M):
        kept = re.sub(r'[^\w\s-]', '', heading.replace('`', '')).lower()
        in_repository, on_site = re.sub(r'\s', '-', kept), re.sub(r'[-\s]+', '-', kept.strip())
        found |= {in_repository} & {on_site}
    return found


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    path = REPOSITORY / page
    for target, anchor in re.findall(r'\]\(([^)#\s]*)(?:#([^)\s]*))?\)', prose(text_of(page))):
        if target.startswith(('http://', 'https://')):
            continue
        place = (path.parent / target).resolve() if target else path
        assert place.is_file(), f'{page} links to {target}'
        if anchor:
            assert anchor in anchors(place.relative_to(REPOSITORY).as_posix()), f'{page} links to {target}#{anchor}'


def test_every_page_is_on_the_site():
    nav = (REPOSITORY / 'mkdocs.yml').read_text().partition('\nnav:')[2]
    hooks = ast.parse((REPOSITORY / 'docs/hooks.py').read_text())
    outside = next(
        ast.literal_eval(node.value)
        for node in hooks.body
        if isinstance(node, ast.Assign) and node.targets[0].id == 'OUTSIDE'
    )
    for page in PAGES:
        assert f': {outside.get(page, page.removeprefix("docs/"))}\n' in nav, page


# ---- Python ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('page', [page for page in PAGES if fenced(text_of(page), 'python')])
def test_python_compiles(page):
    for block in fenced(text_of(page), 'python'):
        compile(block, page, 'exec')


def runnable(page):
    return re.findall(r'^<!-- runnable[^\n]*-->\n\n```python\n(.*?)^```', text_of(page), re.M | re.S)


def run(page, capsys):
    """The runnable blocks of a page, one after the other; returns what they print."""
    names = {}
    for block in runnable(page):
        exec(compile(block, page, 'exec'), names)
    return capsys.readouterr().out


def test_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    synthetic.write_like('synthetic', tmp_path / 'data/synthetic', records=80)
    config = quickstart.get_config('smoke')
    config.data.directory, config.epochs = 'data/synthetic', 1
    train_and_evaluate(config, 'runs/quickstart')
    capsys.readouterr()
    lines = run('README.md', capsys).splitlines()
    assert len(lines) == 5
    assert all(re.fullmatch(r"\S+ \{'negative': '\d+%', 'positive': '\d+%'\}", line) for line in lines)


def test_python_of_your_own_data_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(runnable('docs/own_data.md')) == 5
    assert 'where the best constant answer has 0.5' in run('docs/own_data.md', capsys)
    assert (tmp_path / 'runs/own_model/results.json').is_file()


# ---- what no page may hold -------------------------------------------------------------------------------------


def test_no_path_or_address_of_one_machine_is_committed():
    files = subprocess.run(
        ['git', 'ls-files'], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    pattern = re.compile(r'(?<![\w.])/(?:wor' + r'k|root|home)/|--(?:extra-)?index-url (?!-o)|://[^\s/]*pypi')
    found = []
    for name in files:
        if name.endswith(('.py', '.md', '.toml', '.txt', '.yml', 'Makefile', '.ci/run')):
            found += [(name, m.group(0)) for m in pattern.finditer((REPOSITORY / name).read_text())]
    assert found == []
