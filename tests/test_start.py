"""Starting from finished runs: the right fold and seed, nothing that saw the test records, chains in a table."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from mmer_jax import table
from mmer_jax.data.leakage import check_unseen
from mmer_jax.data.records import Feature, Label, RecordSource, RecordWriter, Schema
from mmer_jax.results.table_config import TableError, read_table
from mmer_jax.run import finished, warm_start
from mmer_jax.run.program import folds_of, load_fold, open_source
from mmer_jax.train import train_and_evaluate
from tests.conftest import write_dataset
from tests.small_run import small_config

MODEL = {'name': 'lf_lstm', 'hidden_size': 2, 'mlp_size': 3}


def config_of(tiny, modalities, **changes):
    changes = {'protocol__name': 'leave_speakers_out', 'seeds': 2, 'epochs': 1, 'data__max_shapes': 1, **changes}
    config = small_config(tiny, modalities=modalities, **changes)
    config.protocol.options = ConfigDict({'folds': 2, 'validation_speakers': 1})
    config.model = ConfigDict(MODEL)
    return config


def chosen(workdir, fold, seed):
    return finished.chosen_variables(finished.open_run(workdir, fold=fold, seed=seed))['params']


@pytest.fixture(scope='module')
def text(tiny, tmp_path_factory):
    """Two folds and two seeds of a model of text alone."""
    folder = tmp_path_factory.mktemp('start') / 'text'
    train_and_evaluate(config_of(tiny, ('text',)), folder)
    return folder


def test_each_fold_and_seed_begins_with_its_own(tiny, text, tmp_path):
    """At a learning rate of 0 what a run begins with is what it ends with."""
    config = config_of(tiny, ('text', 'vision'), optimizer__learning_rate=1e-50, optimizer__average=0.5)
    config.start_from = ConfigDict({'text_lstm': f'{text}:text_lstm'})
    train_and_evaluate(config, tmp_path / 'both')
    different = []
    for fold in range(2):
        for seed in range(2):
            before, after = chosen(text, fold, seed), chosen(tmp_path / 'both', fold, seed)
            pairs = zip(jax.tree.leaves(before['text_lstm']), jax.tree.leaves(after['text_lstm']), strict=True)
            for a, b in pairs:
                np.testing.assert_allclose(a, b, rtol=1e-6)
            different.append(np.asarray(jax.tree.leaves(after['text_lstm'])[0]).tobytes())
    assert len(set(different)) == 4


@pytest.mark.parametrize(
    ('path', 'where', 'message'),
    [
        ('text_lstm', '{text}:speech_lstm', "the run has no module 'speech_lstm'; it has "),
        ('vision_lstm', '{text}:text_lstm', 'vision_lstm'),
        ('speech', '{text}:text_lstm', 'speech'),
        ('text_lstm', '{nowhere}:text_lstm', 'is no workdir'),
    ],
)
def test_what_does_not_fit_is_named_before_the_first_step(tiny, text, tmp_path, path, where, message):
    config = config_of(tiny, ('text', 'vision'))
    config.start_from = ConfigDict({path: where.format(text=text, nowhere=tmp_path / 'nowhere')})
    with pytest.raises(ValueError, match=message):
        train_and_evaluate(config, tmp_path / 'both')


def test_a_start_that_saw_the_test_records_is_refused(tiny, text, tmp_path):
    config = config_of(tiny, ('text', 'vision'))
    config.protocol.options = ConfigDict({'folds': 4, 'validation_speakers': 1})
    config.start_from = ConfigDict({'text_lstm': f'{text}:text_lstm'})
    with pytest.raises(ValueError, match='was trained on .* (validation|test) records of fold'):
        train_and_evaluate(config, tmp_path / 'both')


def inner(tiny, start, tmp_path, **changes):
    """The first fold's weights of the text encoder, after inner folds, at a learning rate of 0."""
    config = config_of(tiny, ('text', 'vision'), optimizer__learning_rate=1e-50, selection__folds=2, **changes)
    config.start_from = ConfigDict({'text_lstm': f'{start}:text_lstm'})
    train_and_evaluate(config, tmp_path / 'both', folds=[0])
    return chosen(tmp_path / 'both', 0, 0)['text_lstm']


@pytest.fixture(scope='module')
def reviews(tmp_path_factory):
    """A run of one split on records of another corpus, whose speakers have the same numbers; by inner folds itself."""
    folder = tmp_path_factory.mktemp('reviews')
    config = config_of(write_dataset(folder / 'data', name='reviews', prefix='review'), ('text',), seeds=1)
    config.selection.folds = 2
    config.protocol = ConfigDict({'name': 'official_split', 'options': {}})
    train_and_evaluate(config, folder / 'run')
    return folder / 'run'


def test_inner_folds_begin_with_a_run_on_other_records(tiny, reviews, tmp_path, monkeypatch):
    begun, part = [], warm_start.chosen_part

    def noted(where, fold_data, seeds):
        begun.append(fold_data.fold.name)
        return part(where, fold_data, seeds)

    monkeypatch.setattr(warm_start, 'chosen_part', noted)
    before = finished.chosen_variables(finished.open_run(reviews))['params']['text_lstm']
    after = inner(tiny, reviews, tmp_path)
    assert begun == ['inner_0', 'inner_1', 'fold_0']
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(
    ('folder', 'message'),
    [
        ('fold_0', 'fold .fold_0. validate on, or it tests, 20 records and 4 speakers that its model was trained on'),
        ('fold_1', 'fold .fold_0. validate on, or it tests, '),
        ('', 'text has 2 folds: inner folds begin with one, on other records than theirs, such as .*fold_0:text_lstm'),
    ],
)
def test_inner_folds_refuse_a_run_on_their_records_before_the_first_is_trained(tiny, text, tmp_path, folder, message):
    with pytest.raises(ValueError, match=message):
        inner(tiny, text / folder, tmp_path)
    assert not list((tmp_path / 'both').rglob('statistics.npz'))


@pytest.fixture
def runs_of(tmp_path, monkeypatch):
    """Finished runs as they are opened, without a training: name -> (corpus, prefix of ids, what it began with)."""

    def make(**described):
        runs = {}
        for name, (corpus, prefix, starts) in described.items():
            config = config_of(write_dataset(tmp_path / name, name=corpus, prefix=prefix), ('text',), seeds=1)
            config.start_from = ConfigDict(starts)
            source = open_source(config)
            data = SimpleNamespace(fold=folds_of(config, source)[0], source=source)
            runs[name] = SimpleNamespace(config=config, fold_data=data, folder=tmp_path / name)

        def opened(workdir):
            if str(workdir) not in runs:
                raise ValueError(f'{workdir} is no workdir')
            return [runs[str(workdir)]]

        monkeypatch.setattr(finished, 'open_runs', opened)
        monkeypatch.setattr(finished, 'open_run', lambda workdir: opened(workdir)[0])

    return make


def check(tiny, start, **changes):
    config = config_of(tiny, ('text',), start_from={'text_lstm': start}, **changes)
    source = open_source(config)
    folds = folds_of(config, source)
    warm_start.check_starts(config, folds, source)
    return config, source, folds


def test_inner_folds_refuse_speakers_whose_records_are_called_otherwise_within_a_corpus(tiny, runs_of):
    runs_of(same=('tiny_again', 'take', {}), other=('reviews', 'take', {}), ids=('reviews', 'clip', {}))
    check(tiny, 'other:x', selection__folds=2)
    check(tiny, 'same:x')  # without inner folds chosen_part compares, fold by fold
    with pytest.raises(ValueError, match='same: inner folds .* it tests, 4 speakers that its model was trained on'):
        check(tiny, 'same:x', selection__folds=2)
    with pytest.raises(ValueError, match='ids: inner folds .* [0-9]+ records that its model was trained on'):
        check(tiny, 'ids:x', selection__folds=2)


def test_what_a_start_began_with_counts_too(tiny, runs_of):
    """Two runs back somebody was trained on the tested records, or nobody can tell."""
    runs_of(
        first=('tiny_again', 'clip', {}),
        between=('reviews', 'review', {'text_lstm': 'first:x'}),
        lost=('reviews', 'review', {'text_lstm': 'nowhere:x'}),
    )
    with pytest.raises(ValueError, match='first: inner folds .* [0-9]+ records and 4 speakers'):
        check(tiny, 'between:x', selection__folds=2)
    with pytest.raises(ValueError, match='lost began with nowhere:x, and what that saw cannot be read: nowhere is no'):
        check(tiny, 'lost:x', selection__folds=2)
    config, source, (_, second) = check(tiny, 'between:x')
    with pytest.raises(ValueError, match='first was trained on .* records of fold'):
        warm_start.chosen_part('between:x', load_fold(config, source, second), np.arange(2))


TABLE = """
def get_table():
    rows = {rows!r}
    return {{'title': 'chain', 'source': 'none', 'metrics': 'classification', 'classes': ('a', 'b'),
            'columns': {{'accuracy': ''}}, 'rows': rows}}
"""


def test_a_row_of_a_table_starts_from_the_row_above(tmp_path):
    one = {'label': 'Text', 'config': 'configs/lf_lstm_synthetic.py', 'overrides': {'modalities': ('text',)}}
    both = {
        'label': 'All of it',
        'config': 'configs/lf_lstm_synthetic.py',
        'start': {'text_lstm': ('Text', 'text_lstm')},
    }
    file = tmp_path / 'chain.py'
    file.write_text(TABLE.format(rows=[one, both]))
    job = table.Job(read_table(str(file)), tmp_path / 'out')
    assert job.configs['All of it'].start_from.to_dict() == {'text_lstm': f'{tmp_path / "out" / "text"}:text_lstm'}
    assert not job.configs['Text'].start_from
    file.write_text(TABLE.format(rows=[both, one]))
    with pytest.raises(TableError, match="'All of it': starts from 'Text', which is no row with a config above it"):
        read_table(str(file))


def test_a_start_that_saw_only_validation_records_is_refused(tiny):
    """They choose the epoch, so they must be as unseen as those of the test."""
    config = config_of(tiny, ('text',))
    source = open_source(config)
    fold = folds_of(config, source)[0]
    check_unseen(fold, source, fold, source, 'runs/text')
    target = dataclasses.replace(fold, validation=fold.train[:2])
    with pytest.raises(
        ValueError, match=r'runs/text was trained on 2 of the 2 validation records of fold .* such as clip'
    ):
        check_unseen(fold, source, target, source, 'runs/text')


def weights_folder(folder, words, kind='vocab.txt', family='bert'):
    folder.mkdir()
    save_file({'zero': np.zeros(1, np.float32)}, folder / 'params.safetensors')
    (folder / 'source.json').write_text(json.dumps({'family': family, 'fields': {}}))
    numbered = {word: number for number, word in enumerate(words)}
    contents = {
        'vocab.txt': '\n'.join(words) + '\n',
        'vocab.json': json.dumps(numbered),
        'tokenizer.json': json.dumps({'model': {'vocab': numbered}}),
    }
    (folder / kind).write_text(contents[kind])


def test_token_ids_of_another_vocabulary_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('MMER_PRETRAINED', str(tmp_path))
    weights_folder(tmp_path / 'bert', ['a', 'b', 'c'])
    weights_folder(tmp_path / 'distilbert', ['a', 'b', 'c'], 'tokenizer.json', 'distilbert')
    weights_folder(tmp_path / 'roberta', ['b', 'a'], 'vocab.json', 'roberta')
    weights_folder(tmp_path / 'speech', ['x'], 'vocab.json', 'wav2vec2')
    schema = Schema('said', {'text': Feature((None,), 'int32')}, Label('regression'), {'tokenizer': 'bert'})
    with RecordWriter(tmp_path / 'data', schema) as writer:
        writer.write({'id': 'one', 'label': 0.0, 'text': np.arange(3, dtype=np.int32)})
    source = RecordSource(tmp_path / 'data')
    for name in ('bert', 'distilbert', 'speech'):  # the same words; no text
        warm_start.check_vocabulary(name, source)
    with pytest.raises(
        ValueError, match=r'token ids of bert \(3 tokens\), the weights roberta have another .* --tokenizer roberta'
    ):
        warm_start.check_vocabulary('roberta', source)
    (tmp_path / 'distilbert' / 'tokenizer.json').write_text('{}')
    with pytest.raises(ValueError, match='tokenizer.json is no vocabulary'):
        warm_start.check_vocabulary('distilbert', source)


def test_what_begins_anew_is_named_once(tiny, text, tmp_path, capsys):
    """Parameters beside loaded ones, as config.fresh allows, and modules of which nothing is loaded."""
    config = config_of(tiny, ('text', 'vision'))
    config.start_from = ConfigDict({'text_lstm': f'{text}:text_lstm'})
    config.fresh = ('bias',)
    train_and_evaluate(config, tmp_path / 'both')
    printed = capsys.readouterr().out.splitlines()
    names = [line for line in printed if line.startswith('text_lstm: at their initialisation, as config.fresh says: ')]
    assert len(names) == 1
    found = names[0].split(': ')[2].split(', ')
    assert found
    assert all(name.endswith('bias') for name in found)
    biases = [
        path for path in jax.tree_util.tree_leaves_with_path(chosen(text, 0, 0)['text_lstm']) if 'bias' in str(path[0])
    ]
    assert len(found) == len(biases)
    (rest,) = [line for line in printed if line.startswith('modules at their initialisation: ')]
    assert 'vision_lstm' in rest
    assert 'text_lstm' not in rest
    assert printed.count(f'text_lstm: variables of {text}:text_lstm') == 1
