"""From an IEMOCAP release to Tables 4 to 7 by the README's commands: prepare, fine-tune, extract, classify."""

import csv
import importlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from data_prep import iemocap
from mmer_jax import classifiers, extract
from mmer_jax.records import RecordSource, verify
from mmer_jax.train import train_and_evaluate
from tests.iemocap_release import write_release, write_tokenizer

pytest.importorskip('xgboost')
ENCODERS = {'text': 'bert_iemocap', 'audio': 'wav2vec2_iemocap', 'vision': 'videomae_iemocap'}
LABELS = ('neu', 'exc', 'ang', 'sad', 'hap', 'neu', 'xxx', 'sad')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Features of three smoke-size transformers, five folds, below folder/<modality>/features."""
    folder = tmp_path_factory.mktemp('iemocap')
    write_release(folder / 'release', labels=LABELS)
    tokenizer = write_tokenizer(folder / 'bert')
    options = ['--num_frames', '4', '--size', '32', '--workers', '1', '--tokenizer', str(tokenizer)]
    assert iemocap.main(['--source', str(folder / 'release'), '--output', str(folder / 'data'), *options]) == 0
    assert not verify(folder / 'data')
    for m, name in ENCODERS.items():
        config = importlib.import_module(f'configs.{name}').get_config('smoke')
        config.data.directory = str(folder / 'data')
        config.tensorboard = False
        config.protocol.options = ConfigDict({'validation_sessions': 1})
        train_and_evaluate(config, folder / m)
        assert extract.main([str(folder / m)]) == 0
    return folder


def command(folder, *more):
    features = [f'{m}={folder / m / "features"}' for m in ENCODERS]
    return classifiers.main(['--features', *features, '--output', str(folder / 'tables'), *more])


def test_tables_and_pictures(folder, capsys):
    capsys.readouterr()
    assert command(folder, '--published', 'iemocap') == 0
    text = capsys.readouterr().out
    assert '0 combinations' not in text
    for title in (
        'Table 4. One modality',
        'Table 5. Early fusion',
        'Table 6. Late fusion',
        'Table 7. early concat svm',
    ):
        assert title in text
    assert '(75.5)' in text
    assert '–' not in text.split('Table 7')[0].replace('– :', '')
    with open(folder / 'tables' / 'rows.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    combinations = {row['combination'] for row in rows if row['combination'].startswith(('early', 'late'))}
    assert len(combinations) == 18
    assert len(rows) == 5 * (18 + 3 + 9)
    for name in ('pca_text', 'pca_audio', 'pca_vision', 'pca_fusion', 'confusion'):
        assert (folder / 'tables' / f'{name}.png').stat().st_size > 4000


def test_the_unimodal_row_is_what_the_run_measured(folder):
    """The accuracy of Table 4 is that of the run's own results.json."""
    assert command(folder) == 0
    with open(folder / 'tables' / 'rows.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    from mmer_jax.writer import read_json

    for m in ENCODERS:
        measured = [row['test']['accuracy'] for row in read_json(folder / m / 'results.json')['rows']]
        found = [float(row['accuracy']) for row in rows if row['combination'] == f'unimodal {m}']
        np.testing.assert_allclose(found, measured, atol=1e-6)


def test_each_fold_has_its_own_features_and_session(folder):
    tested = set()
    for fold in range(5):
        manifest = RecordSource(folder / 'text' / 'features' / f'fold_{fold}').manifest
        sessions = {str(s) for s in manifest['session'][manifest['split'] == 'test']}
        assert len(sessions) == 1
        tested |= sessions
        assert RecordSource(folder / 'text' / 'features' / f'fold_{fold}')[0]['text'].shape == (8,)
    assert len(tested) == 5
