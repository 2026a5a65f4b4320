"""The HTML page and the LaTeX tables: one file that needs nothing, and no text of a user that is anything but text."""

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from mmer_jax import report
from mmer_jax.metrics import METRICS, floors
from mmer_jax.results import canvas, html_style, latex, page, run_page, statistics
from mmer_jax.results import html as html_page
from mmer_jax.results.page import Code, Details, Group, Heading, Notes, Picture, Table, Text
from mmer_jax.results.runs import find_runs
from tests.finished_runs import CLASSES, classification_run, damage, sentiment_run

TAGS = {
    *('html', 'head', 'meta', 'title', 'style', 'body', 'main', 'footer', 'script', 'nav', 'h1', 'h2', 'h3', 'p', 'a'),
    *('ul', 'li', 'div', 'span', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'button', 'figure', 'img', 'figcaption'),
    *('details', 'summary', 'pre', 'code'),
}
HOSTILE = """</script><script>alert("1")</script><img src=x onerror='x()'>&amp;$\\x{_}^~#%|"[b](http://a.b)\n=1+1"""
BROWSER = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


class Parsed(html.parser.HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ('meta', 'img'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else '', data))

    def all_of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """A report of three runs: a plain one, a leaky one, and one whose every text is hostile."""
    folder = tmp_path_factory.mktemp('runs')
    for name, marks in (('plain', ()), ('leaky', ('selected on test',)), ('hostile', (HOSTILE,))):
        run = classification_run(folder / name, marks, config=name)
        (run / 'config.json').write_text(json.dumps({'optimizer': {'learning_rate': len(name)}, 'note': HOSTILE}))
    hostile = folder / 'hostile'
    for place in (hostile, hostile / 'fold_0', hostile / 'fold_1'):
        names = [f'{HOSTILE}{n}' for n in range(3)]
        published = {'accuracy': 0.5, 'dataset': 'corpus', 'source': HOSTILE}
        damage(place, class_names=names, config=HOSTILE, published=published, provenance={'git': {HOSTILE: HOSTILE}})
    for fold in ('fold_0', 'fold_1'):
        path = hostile / fold / 'predictions' / 'test.npz'
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **{**arrays, 'id': np.array([f'{HOSTILE}{n}' for n in range(4)])})
    before, canvas.DPI = canvas.DPI, 60
    try:
        path = report.write_report([folder], folder / 'out', page=True, tex=True)
    finally:
        canvas.DPI = before
    assert path.name == 'report.html'
    return path


@pytest.fixture(scope='module')
def parsed(written):
    return Parsed(written.read_text())


def test_nothing_is_loaded_from_elsewhere(written, parsed):
    assert {tag for tag, _ in parsed.elements} <= TAGS
    sources = [value for _, attrs in parsed.elements for key, value in attrs.items() if key in ('src', 'href')]
    assert len(parsed.all_of('img')) == 7
    assert all(source.startswith(('data:image/png;base64,', '#')) for source in sources)
    assert not re.search(r'url\(|@import|expression', html_style.STYLE)
    assert not re.search(r'fetch|import|XMLHttp|innerHTML|eval', html_style.SCRIPT)
    (policy,) = [a['content'] for a in parsed.all_of('meta') if a.get('http-equiv') == 'Content-Security-Policy']
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "'unsafe-inline'" not in policy


def test_hostile_texts_are_texts(written, parsed):
    assert len(parsed.all_of('script')) == 1
    assert not [key for _, attrs in parsed.elements for key in attrs if key.startswith('on') or key == 'style']
    texts = [text for where, text in parsed.texts if where not in ('script', 'style')]
    for where in ('h2', 'th', 'li', 'code', 'td', 'figcaption', 'span'):
        found = [text for place, text in parsed.texts if place == where]
        assert any('</script><script>alert(' in text for text in found), where
    assert sum(HOSTILE in text for text in texts) > 10
    names = {a['id'] for _, a in parsed.elements if 'id' in a}
    assert {a['href'][1:] for a in parsed.all_of('a')} == names


def test_hostile_texts_in_markdown_and_csv(written):
    text = (written.parent / 'report.md').read_text()
    assert '<script' not in text
    assert '<img' not in text
    (row,) = [line for line in text.splitlines() if line.startswith('| &lt;/script') and 'leave_speakers_out' in line]
    assert len(re.findall(r'(?<!\\)\|', row)) == 11
    assert page.csv_text([{'a': '=1+1', 'b': '-0.5', 'c': -0.5, 'd': '@x'}]).splitlines()[1] == "'=1+1,-0.5,-0.5,'@x"


def test_the_page_shows_what_the_report_has(parsed):
    texts = [text for _, text in parsed.texts]
    assert '60.0 ± 10.0\n' in ''.join(texts) or any(text.startswith('60.0 ± 10.0') for text in texts)
    assert 'Paired tests: accuracy' in texts
    assert any('selected on test' in text for text in texts)
    assert any('git.' in text for text in texts)
    openers = [a for a in parsed.all_of('button') if a.get('class') == 'open']
    assert len(openers) == 3
    assert all(a['aria-expanded'] == 'false' for a in openers)
    assert 'The test clips it got most wrong' in texts


def test_a_page_by_hand(tmp_path):
    canvas.save(canvas.new_figure(2, 1), tmp_path / 'a.svg')
    canvas.save(canvas.new_figure(2, 1), tmp_path / 'b.png')
    table = Table(['', 'mae ↓'], [Group('g'), ['<a>', '1,000.5 ± 2'], ['b', '–']], inner={1: Table(['x'], [['y']])})
    blocks = [
        Heading('T', 1), table, Text('one\ntwo\n\nthree'), Notes('n', ['⚠ mark']), Code('<c>'), Heading('Part'),
        Details('d', [Picture('p', 'a.svg'), Picture('q', 'b.png')]), Heading('Part'),
    ]  # fmt: skip
    text = html_page.html(blocks, 'T & U', tmp_path)
    for expected in (
        '<title>T &amp; U</title>',
        '<tbody class="group"><tr class="group"><th colspan="2" scope="colgroup">g</th></tr></tbody>',
        '<td class="n" data-key="1000.5">1,000.5 ± 2</td>',
        '<tr class="inner"><td colspan="2"><table>',
        '<p>one two</p><p>three</p>',
        '<li class="mark">⚠ mark</li>',
        '<h2 id="1-part">Part</h2>',
        '<h2 id="2-part">Part</h2>',
        '<a href="#2-part">Part</a>',
        'alt="p" width="192" src="data:image/svg+xml;base64,',
        'alt="q" width="192" src="data:image/png;base64,',
        '<pre><code>&lt;c&gt;</code></pre>',
    ):
        assert expected in text, expected
    Parsed(text)
    with pytest.raises(ValueError, match=r'c\.pdf: a page shows pictures as png or svg'):
        html_page.html([Picture('p', 'c.pdf')], 'T', tmp_path)


def test_a_number_is_what_a_cell_begins_with():
    cells = {
        '60.0 ± 1': 60.0,
        '34,024': 34024.0,
        '-0.5 to 1': -0.5,
        '−3': -3.0,
        '2 x 3': 2.0,
        '+.5': 0.5,
        '1e-3': 0.001,
    }
    assert {cell: page.number_of(cell) for cell in cells} == cells
    assert [page.number_of(cell) for cell in ('–', '', 'a 1', '3D', '1.2.3', None)] == [None] * 6


def test_latex_by_hand():
    table = Table(['run', 'acc, %'], [Group('a_b'), ['x & y', '60.0 ± 1.0'], ['[z]', '–']])
    assert latex.tabular(table) == (
        '\\begin{tabular}{lr}\n\\toprule\nrun & acc, \\% \\\\\n\\midrule\n'
        '\\multicolumn{2}{l}{\\textbf{a\\_b}} \\\\\n'
        'x \\& y & 60.0 $\\pm$ 1.0 \\\\\n{[z]} & -- \\\\\n\\bottomrule\n\\end{tabular}'
    )


def test_hostile_texts_in_latex(written):
    """After what is escaped is taken away, nothing special is left but what the tables themselves are made of."""
    special = latex.escape(HOSTILE)
    left = re.sub(r'\\text\w+\{\}|\\[{}$&#_%]', '', special)
    assert not set('\\{}$&#_%~^<>|"\n') & set(left)
    text = (written.parent / 'report.tex').read_text()
    for body in re.findall(r'\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}', text, re.DOTALL):
        columns, lines = len(body[0]), body[1].splitlines()
        rows = [line for line in lines if line.endswith(r'\\') and 'multicolumn' not in line]
        assert rows
        assert {len(re.findall(r'(?<!\\)&', row)) for row in rows} == {columns - 1}


def test_unknown_formats_of_a_page_are_told(tmp_path, capsys):
    classification_run(tmp_path / 'run')
    assert report.main([str(tmp_path / 'run'), '--html', '--format', 'pdf']) == 2
    assert capsys.readouterr().err == 'error: --html --format pdf: a page shows pictures as png or svg\n'


PROBE = """
const table = document.querySelector('table.sortable');
const names = () => [...table.tBodies].map(body => body.rows[0].cells[0].textContent);
const before = names(), inner = table.querySelector('tr.inner').hidden;
table.querySelector('button.open').click();
const opened = !table.querySelector('tr.inner').hidden;
const click = () => table.tHead.rows[0].cells[COLUMN].querySelector('button.sort').click();
click(); const down = names(); click(); const up = names();
document.title = JSON.stringify({before, inner, opened, down, up});
"""


@pytest.mark.skipif(BROWSER is None, reason='no Chromium is installed')
def test_in_a_browser_it_sorts_opens_and_asks_for_nothing(written, tmp_path):
    """In headless Chromium: no error on the console and no request of the page; the probe is let in by its digest.

    Chromium's own requests (for updates, the time) have no origin as their initiator; those of a page have.
    """
    text, probe = written.read_text(), PROBE.replace('COLUMN', '1')  # what differs: the learning rate
    digest = html_page._digest(probe)
    text = text.replace("script-src '", f"script-src {digest} '", 1).replace(
        '</body>', f'<script>{probe}</script></body>'
    )
    (tmp_path / 'probed.html').write_text(text)
    log = tmp_path / 'net.json'
    command = [
        BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--no-first-run',
        '--disable-component-update', f'--user-data-dir={tmp_path / "profile"}', f'--log-net-log={log}',
        '--enable-logging=stderr', '--virtual-time-budget=3000', '--dump-dom', f'file://{tmp_path / "probed.html"}',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'CONSOLE' not in done.stderr, [line for line in done.stderr.splitlines() if 'CONSOLE' in line]
    title = html.unescape(re.search('<title>(.*?)</title>', done.stdout, re.DOTALL)[1])
    found = json.loads(title)
    assert (found['inner'], found['opened']) == (True, True)
    assert found['down'] != found['up']
    assert sorted(found['down']) == sorted(found['up']) == sorted(found['before'])
    assert set(re.findall(r'"initiator":"([^"]*)"', log.read_text(errors='replace'))) <= {'not an origin'}
    assert CLASSES[0] in done.stdout


def test_the_worst_clips_are_those_that_a_seed_got_wrong(tmp_path):
    """One calm clip of each fold is called happy, by all three seeds."""
    (run,), _ = find_runs([classification_run(tmp_path / 'run')])
    table = run_page.worst_clips(statistics.read_predicted(run))
    expected = ['b', 'label calm, predicted happy', '3 of 3', f'{-np.log(2 + np.e):.2f}']
    assert table.rows == [expected, expected]
    (run,), _ = find_runs([sentiment_run(tmp_path / 'sentiment')])
    path = run.folder / 'predictions' / 'test.npz'
    labels = np.array([-1.0, 0.5, 2.0])
    np.savez(
        path, id=np.array(['x', 'y', 'z']), label=labels, seed=[0], prediction=(labels + [0.5, 0, -2])[None, :, None]
    )
    table = run_page.worst_clips(statistics.read_predicted(run))
    assert table.rows[0] == ['z', 'label 2.00, predicted 0.00', '-2.00']
    assert [row[0] for row in table.rows] == ['z', 'x', 'y']


def test_pictures_of_figures_are_shown_and_those_of_others_are_not(tmp_path):
    (run,), _ = find_runs([classification_run(tmp_path / 'run')])
    assert run_page.pictures_of(run) == []
    folder = run.folder / 'figures' / 'attention_clip'
    folder.mkdir(parents=True)
    for name in ('overview', 'psa_0_text'):
        canvas.save(canvas.new_figure(1, 1), folder / f'{name}.png')
    (folder / 'attention.json').write_text(json.dumps({'run': {'answer': 'label a, predicted b'}, 'record': 'clip'}))
    (run.folder / 'figures' / 'mine.png').write_bytes(b'\x89PNG of someone else')
    (run.folder / 'fold_1' / 'figures').mkdir()
    canvas.save(canvas.new_figure(1, 1), run.folder / 'fold_1' / 'figures' / 'representations_pca.svg')
    heading, *pictures = run_page.pictures_of(run)
    assert heading.level == 3
    assert [picture.text for picture in pictures] == [
        'attention, record clip: label a, predicted b', 'representations pca (fold_1)',
    ]  # fmt: skip
    assert html_page.html(pictures, 'T', tmp_path).count('src="data:image/') == 2


@pytest.mark.parametrize('kind', ['sentiment', 'binary_emotions'])
def test_a_page_of_real_numbers_and_of_emotions(tmp_path, monkeypatch, kind):
    """Two runs, of which one is better: intervals, a test, worst clips, curves with the floor on validation."""
    monkeypatch.setattr(canvas, 'DPI', 40)
    monkeypatch.setattr(statistics, 'SLOW_DRAWS', 60)
    generator = np.random.default_rng(0)
    names = ['happy', 'sad'] if kind == 'binary_emotions' else []
    headline = ['mae', 'corr'] if kind == 'sentiment' else ['accuracy_happy', 'f1_sad']
    values = generator.uniform(-3, 3, 40)
    labels = values if kind == 'sentiment' else np.stack([values > 0, values > 1], -1).astype(int)
    for name, noise in (('good', 0.1), ('bad', 2.5)):
        folder = sentiment_run(tmp_path / name)
        answers = np.stack([values + noise * generator.normal(size=40) for _ in range(2)])
        logits = np.stack([-answers, answers, 1 - answers, answers - 1], -1)
        prediction = answers[..., None] if kind == 'sentiment' else logits
        ids = np.array([f'clip{n}' for n in range(40)])
        rows = []
        for seed in range(2):
            test = METRICS[kind](prediction[seed], labels, names)
            floor = floors(kind, labels, names)
            rows.append(
                {'fold': 'all', 'seed': seed, 'marks': [], 'best_epoch': 2, 'epochs': 3, 'test': test, 'floor': floor}
            )
        damage(
            folder, config=name, metrics=kind, headline=headline, class_names=names, rows=rows, selection=headline[0]
        )
        for split in ('test', 'validation'):
            path = folder / 'predictions' / f'{split}.npz'
            np.savez(path, id=ids, label=labels, prediction=prediction, seed=[0, 1])
    path = report.write_report([tmp_path], tmp_path / 'out', page=True)
    text = [data for _, data in Parsed(path.read_text()).texts]
    assert 'yes' in text
    assert any(re.search(r'\[[\d.]+ to [\d.]+\]', cell) for cell in text)
    (run, _), _ = find_runs([tmp_path])
    assert run_page.validation_floor(run, headline[0]) == pytest.approx(floors(kind, labels, names)[headline[0]])
    assert len(run_page.worst_clips(statistics.read_predicted(run)).rows) == run_page.WORST
