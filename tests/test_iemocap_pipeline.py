"""From an IEMOCAP release to Tables 1 to 7 by the README's commands: prepare, fine-tune, extract, classify."""

import contextlib
import csv
import importlib
import io
import math

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.tables import transformers_tables1to3
from data_prep import iemocap
from mmer_jax import classifiers, extract, table
from mmer_jax.data.records import RecordSource, verify
from mmer_jax.files import read_json
from mmer_jax.train import train_and_evaluate
from tests.any_values import quick_runs
from tests.iemocap_release import write_release, write_tokenizer

pytest.importorskip('xgboost')
ENCODERS = {'text': 'bert_iemocap', 'audio': 'wav2vec2_iemocap', 'vision': 'videomae_iemocap'}
LABELS = ('neu', 'exc', 'ang', 'sad', 'hap', 'neu', 'xxx', 'sad')


PUBLISHED = {'BERT': (0.68, 1.19), 'wav2vec 2.0': (0.68, 0.95), 'VideoMAE': (0.38, 1.32)}  # accuracy, loss
SMALL_SPLIT = """import importlib

def get_config(variant):
    assert variant == 'split'
    module = importlib.import_module('configs.{name}')
    config = module.get_config('smoke')
    config.protocol = module.get_config('split').protocol
    return config
"""


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """A release and its records, in folder/data."""
    folder = tmp_path_factory.mktemp('iemocap')
    write_release(folder / 'release', labels=LABELS)
    tokenizer = write_tokenizer(folder / 'bert')
    options = ['--num_frames', '4', '--size', '32', '--workers', '1', '--tokenizer', str(tokenizer)]
    assert iemocap.main(['--source', str(folder / 'release'), '--output', str(folder / 'data'), *options]) == 0
    assert not verify(folder / 'data')
    return folder


@pytest.fixture(scope='module')
def folder(prepared):
    """Features of three smoke-size transformers, three folds, below folder/<modality>/features."""
    folder = prepared
    for m, name in ENCODERS.items():
        config = importlib.import_module(f'configs.{name}').get_config('smoke')
        config.data.directory = str(folder / 'data')
        config.tensorboard = False
        config.protocol.options = ConfigDict({'validation_sessions': 1, 'test_sessions': 2})  # three folds, not five
        with quick_runs(train=False):  # `split_table` trains the same networks
            train_and_evaluate(config, folder / m)
        assert extract.main([str(folder / m)]) == 0
    return folder


@pytest.fixture(scope='module')
def split_table(prepared):
    """Tables 1 to 3 by their command: a network a modality, small, on the paper's division of the sessions."""
    values, rows = transformers_tables1to3.get_table(), []
    for row in values['rows']:
        if row['label'] in PUBLISHED:
            name = row['config'].removeprefix('configs/').removesuffix('.py')
            file = prepared / f'small_{name}.py'
            file.write_text(SMALL_SPLIT.format(name=name))
            rows.append({**row, 'config': str(file)})
    file = prepared / 'tables1to3.py'
    file.write_text(f'def get_table():\n    return { ({**values, "rows": rows})!r}\n')
    options = [f'--table={file}', f'--output={prepared / "split"}', '--set', f'data.directory={prepared / "data"}']
    with quick_runs():
        assert table.main([*options, 'tensorboard=False']) == 0
    return prepared / 'split'


def test_every_row_of_tables_1_to_3_has_finished_beside_its_published_numbers(split_table):
    with open(split_table / 'table.csv', newline='') as file:
        lines = {(line['label'], line['metric']): line for line in csv.DictReader(file)}
    assert {label for label, _ in lines} == set(PUBLISHED)
    text = (split_table / 'table.md').read_text()
    for label, (accuracy, loss) in PUBLISHED.items():
        for metric in ('accuracy', 'uar', 'macro_f1', 'loss'):
            line = lines[label, metric]
            assert line['state'] == 'finished', line['detail']
            assert math.isfinite(float(line['mean']))
            assert (line['folds'], line['seeds']) == ('1', '1')
        published = [lines[label, metric]['published'] for metric in ('accuracy', 'loss')]
        assert published == [str(accuracy), str(loss)]
        (row,) = [line for line in text.splitlines() if line.startswith(f'| {label} |')]
        assert f'| {100 * accuracy:.1f} |' in row
        assert f'| {loss:.3f} |' in row
    assert 'Runtimes printed in the paper, whose unit is not stated: BERT 4.28' in text
    assert len({lines[label, 'loss']['mean'] for label in PUBLISHED}) == 3


def test_tables_1_to_3_test_session_5_and_validate_on_session_4(prepared, split_table):
    manifest = RecordSource(prepared / 'data').manifest
    session = dict(zip(manifest['id'].tolist(), manifest['session'].tolist(), strict=True))
    for row in ('bert', 'wav2vec_2_0', 'videomae'):
        (path,) = split_table.glob(f'{row}/**/predictions/test.npz')
        with np.load(path) as file:
            names = file['id'].tolist()
        with np.load(path.with_name('validation.npz')) as file:
            validated = file['id'].tolist()
        assert sorted(names) == sorted(name for name, s in session.items() if s == 'Session5')
        assert sorted(validated) == sorted(name for name, s in session.items() if s == 'Session4')


def test_the_tables_published_losses_are_those_of_the_paper():
    rows = transformers_tables1to3.get_table()['rows']
    found = {row['label']: (row['published']['accuracy'], row['published']['loss']) for row in rows}
    others = {'DistilBERT': (0.65, 0.91), 'RoBERTa': (0.65, 1.48), 'HuBERT': (0.625, 1.07), 'AST': (0.61, 3.07)}
    assert found == {**PUBLISHED, **others}


@pytest.fixture(scope='module')
def printed(folder):
    """What the command of Tables 4 to 7 prints; its files are in folder/tables."""
    features = [f'{m}={folder / m / "features"}' for m in ENCODERS]
    options = ['--output', str(folder / 'tables'), '--published', 'iemocap']
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert classifiers.main(['--features', *features, *options]) == 0
    return text.getvalue()


def test_tables_and_pictures(folder, printed):
    assert '0 combinations' not in printed
    for title in (
        'Table 4. One modality',
        'Table 5. Early fusion',
        'Table 6. Late fusion',
        'Table 7. early concat svm',
    ):
        assert title in printed
    assert '(75.5)' in printed
    assert 'by its abstract and section 3.3 concatenation with SVM, by its Table 5 the sum with SVM' in printed
    assert '| all, weighted by class |' in printed
    assert '(75.4)' in printed.split('| all, weighted by class |')[1].splitlines()[0]
    assert '–' not in printed.split('Table 7')[0].replace('– :', '')
    with open(folder / 'tables' / 'rows.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    combinations = {row['combination'] for row in rows if row['combination'].startswith(('early', 'late'))}
    assert len(combinations) == 18
    assert len(rows) == 3 * (18 + 3 + 9)
    for name in ('pca_text', 'pca_audio', 'pca_vision', 'pca_fusion', 'confusion'):
        assert (folder / 'tables' / f'{name}.png').stat().st_size > 4000


@pytest.mark.usefixtures('printed')
def test_the_unimodal_row_is_what_the_run_measured(folder):
    """The accuracy of Table 4 is that of the run's own results.json."""
    with open(folder / 'tables' / 'rows.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    for m in ENCODERS:
        measured = [row['test']['accuracy'] for row in read_json(folder / m / 'results.json')['rows']]
        found = [float(row['accuracy']) for row in rows if row['combination'] == f'unimodal {m}']
        np.testing.assert_allclose(found, measured, atol=1e-6)


def test_each_fold_has_its_own_features_and_session(folder):
    tested = []
    for fold in range(3):
        manifest = RecordSource(folder / 'text' / 'features' / f'fold_{fold}').manifest
        sessions = {str(s) for s in manifest['session'][manifest['split'] == 'test']}
        assert len(sessions) == (1 if fold == 2 else 2)
        tested += sessions
        assert RecordSource(folder / 'text' / 'features' / f'fold_{fold}')[0]['text'].shape == (8,)
    assert sorted(tested) == [f'Session{n}' for n in range(1, 6)]
