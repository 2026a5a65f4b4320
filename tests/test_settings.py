"""Every key, option and field has its range, each fault is one line, and the command line sets what can be set."""

import os
import re
import sys

import pytest
from ml_collections import ConfigDict

from configs import lf_lstm_mosi_minilm, quickstart
from configs.base import get_base
from mmer_jax import main, train
from mmer_jax.data.augment import AUGMENTATIONS
from mmer_jax.data.protocols import PROTOCOLS
from mmer_jax.encoders import ENCODERS
from mmer_jax.models import MODELS
from mmer_jax.settings import model_fields, overrides, ranges
from mmer_jax.settings.keys import KEYS, OPEN, check_config_values, leaves, option_kinds
from tests.small_run import MeanModel, small_config

INF, NAN = float('inf'), float('nan')


# ---- every key, option and field has a range -------------------------------------------------------------------


def test_every_key_of_a_config_has_its_kind_and_a_default_within():
    keys = dict(leaves(get_base('x').to_dict()))
    assert set(keys) == {*KEYS, *OPEN}
    assert [key for key, kind in KEYS.items() if kind.fault(keys[key])] == []
    numbers = [key for key, value in keys.items() if isinstance(value, int | float) and not isinstance(value, bool)]
    assert len(numbers) > 25
    assert all(isinstance(KEYS[key], ranges.Number) for key in numbers)


@pytest.mark.parametrize('module', [*MODELS.values(), *ENCODERS.values()], ids=lambda module: module.__name__)
def test_every_field_of_a_module_has_its_kind_and_a_default_within(module):
    for field, annotation in model_fields.fields_of(module).items():
        kind, default = model_fields.kind_of(field, annotation), module.__dataclass_fields__[field].default
        if model_fields.is_module(annotation):
            continue
        assert not isinstance(kind, ranges.Anything), f'{field}: {annotation} has no kind'
        assert kind != ranges.FINITE or field in model_fields.FIELDS, f'give the range of {field} in FIELDS'
        assert kind.fault(default) == '', field


@pytest.mark.parametrize(('table', 'skip'), [(PROTOCOLS, 1), (AUGMENTATIONS, 0)], ids=['protocols', 'augmentations'])
def test_every_option_has_its_kind(table, skip):
    for name, function in table.items():
        for option, kind in option_kinds(function, name, skip).items():
            parts = kind.kinds if isinstance(kind, ranges.Either) else (kind,)
            assert not any(isinstance(part, ranges.Anything) for part in parts), f'{name}: give the kind of {option}'


# ---- a whole config --------------------------------------------------------------------------------------------


def config(**changes):
    made = quickstart.get_config()
    for key, value in changes.items():
        node, parts = made, key.split('__')
        with made.unlocked(), made.ignore_type():
            for part in parts[:-1]:
                node = node[part]
            node[parts[-1]] = value
    return made


@pytest.mark.parametrize(
    ('changes', 'fault'),
    [
        ({'data__batch_size': 0}, 'config.data.batch_size: found 0, expected a whole number of at least 1'),
        ({'seeds': True}, 'config.seeds: found True, expected a whole number of at least 1'),
        ({'epochs': '3'}, "config.epochs: found '3', expected a whole number of at least 1"),
        ({'epochs': 2.5}, 'config.epochs: found 2.5, expected a whole number of at least 1'),
        (
            {'optimizer__learning_rate': NAN},
            'config.optimizer.learning_rate: found nan, expected a finite number above',
        ),
        ({'optimizer__b2': 1.0}, 'config.optimizer.b2: found 1.0, expected a finite number of at least 0 and below 1'),
        ({'optimizer__freeze': ('(',)}, "config.optimizer.freeze: found ('(',), expected a tuple, each a regular"),
        ({'seed': 2**31 - 1, 'seeds': 2}, 'config.seed: found 2147483647 and 2 seeds, expected a last seed of at most'),
        ({'accumulate': 3}, 'config.accumulate: found 3, expected a divisor of config.data.batch_size = 64'),
        ({'seeds': 3, 'mesh__seed': 2}, 'config.mesh.seed: found 2, expected a divisor of config.seeds = 3'),
        ({'mesh__data': 0}, 'config.mesh.data: found 0, expected a whole number of at least 1, or -1'),
        ({'data__max_length': ConfigDict({'text': 0})}, 'config.data.max_length.text: found 0, expected a whole'),
        ({'data__max_length': ConfigDict({'txt': 3})}, 'config.data.max_length.txt: config.data.max_length has no txt'),
        ({'losses': ConfigDict({'cross_entropy': INF})}, 'config.losses.cross_entropy: found inf, expected a finite'),
        (
            {'losses': ConfigDict({'cross_entropy': 0})},
            "config.losses: found {'cross_entropy': 0}; name one or more of",
        ),
        ({'losses': ConfigDict({'cross': 1.0})}, 'config.losses.cross: config.losses has no cross'),
        ({'protocol__options': ConfigDict({'folds': 3})}, 'config.protocol.options.folds: protocol official_split has'),
        (
            {'model__dropout': 1.0},
            'config.model.dropout: found 1.0, expected a finite number of at least 0 and below 1',
        ),
        ({'model__hidden_size': 0}, 'config.model.hidden_size: found 0, expected a whole number of at least 1'),
        ({'model__hidden': 8}, 'config.model.hidden: LfLstm has no field hidden; its fields are hidden_size, num_'),
        ({'model__num_outputs': 8}, 'config.model.num_outputs: found 8, expected nothing: the data and config.compute'),
        ({'model__name': 'lf'}, "config.model.name: found 'lf', expected the name of a known model: any_input, "),
        ({'modalities': ('text', 'text')}, "config.modalities: found ('text', 'text'), expected one to three of"),
        (
            {'data__augment': (('time_mask', {'modality': 'text', 'steps': 0}),)},
            'config.data.augment[0].steps: found 0',
        ),
        ({'data__augment': (('time_mask', {'modality': 'text'}),)}, 'config.data.augment[0]: time_mask needs steps'),
        ({'data__augment': (('noise', {}),)}, "config.data.augment[0]: found 'noise', expected one of gaussian_noise"),
        ({'data__augment': ('noise',)}, "config.data.augment[0]: found 'noise', expected ('name', {'modality': ..."),
        ({'epoch': 3}, 'config.epoch is no key (did you mean epochs?)'),
        ({'data': ConfigDict({'directory': ''})}, 'the config lacks data.batch_size, data.eval_batch_size, '),
    ],
)
def test_a_value_outside_its_range_is_one_line(changes, fault, tmp_path):
    with pytest.raises(ValueError) as caught:
        train.train_and_evaluate(config(**changes), tmp_path / 'run')
    assert str(caught.value).startswith(fault)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'run').exists()


def test_heads_divide_the_width_they_share():
    made = {'name': 'mult', 'width': 30, 'num_heads': 4}
    assert list(model_fields.faults(made)) == ['config.model.num_heads: found 4, expected a divisor of width = 30']
    assert list(model_fields.faults({**made, 'width': 32})) == []
    assert list(model_fields.faults({'name': 'mult', 'num_heads': 7})) == [
        'config.model.num_heads: found 7, expected a divisor of width = 40'
    ]


def test_every_fault_is_told_at_once():
    with pytest.raises(ValueError, match=r'config.epochs: found 0.*; config.model.dropout: found -1'):
        check_config_values(config(epochs=0, model__dropout=-1))


# ---- values from the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('given', 'key', 'value'),
    [
        (['--config.data.max_length.text=3'], 'data.max_length.text', 3),
        (['--config.losses.mse=1'], 'losses.mse', 1.0),
        (['--config.losses={"mse": 2}'], 'losses', {'mse': 2}),
        (['--config.model.bidirectional=true'], 'model.bidirectional', True),
        (['--config.model.bidirectional'], 'model.bidirectional', True),
        (['--noconfig.tensorboard'], 'tensorboard', False),
        (['--config.model.num_layers', '2'], 'model.num_layers', 2),
        (['--config.mesh.data', '-1'], 'mesh.data', -1),
        (['--config.published.accuracy=0.5'], 'published.accuracy', 0.5),
        (['--config.published.source=A, Table 1'], 'published.source', 'A, Table 1'),
        (['--config.pretrained.encoder=bert'], 'pretrained.encoder', 'bert'),
        (['--config.modalities=text,audio'], 'modalities', ('text', 'audio')),
        (['--config.data.normalize=()'], 'data.normalize', ()),
        (['--config.seeds=2', '--config.seeds=3'], 'seeds', 3),
        (['--config.protocol.options.folds=3', '--config.protocol.name=leave_speakers_out'],
         'protocol.options.folds', 3),
        (['--config.protocol.options.speakers_per_fold=none', '--config.protocol.name=leave_speakers_out'],
         'protocol.options.speakers_per_fold', None),
        (['--config.model.kernel_sizes=3,1,1', '--config.model={"name": "mult"}'], 'model.kernel_sizes', (3, 1, 1)),
        (['--config.model.kernel_sizes=3', '--config.model={"name": "mult"}'], 'model.kernel_sizes', 3),
        (['--config.model.encoder.projector=0', '--config.model.encoder.name=bert', '--config.model.name=unimodal'],
         'model.encoder.projector', 0),
    ],
)  # fmt: skip
def test_a_key_that_the_config_does_not_spell_out_is_set_with_its_type(given, key, value):
    rest, changes = overrides.split_arguments(['--workdir=x', *given])
    assert rest == ['--workdir=x']
    made = config()
    overrides.apply(made, changes)
    found = made
    for part in key.split('.'):
        found = found[part]
    found = found.to_dict() if isinstance(found, ConfigDict) else found
    assert (found, type(found)) == (value, type(value))
    assert made.is_locked


def test_a_field_of_a_nested_encoder_is_known_by_its_module():
    made = lf_lstm_mosi_minilm.get_config()
    overrides.set_value(made, 'model.text.attention_dropout', '0.3')
    assert made.model.text.attention_dropout == 0.3
    with pytest.raises(ValueError, match=r'config.model.text.dropot: Bert has no field dropot \(did you mean dropout'):
        overrides.set_value(made, 'model.text.dropot', '0.3')
    with pytest.raises(ValueError, match=r"config.model.text.projector: found '0.5', expected a whole number"):
        overrides.set_value(made, 'model.text.projector', '0.5')


@pytest.mark.parametrize(
    ('given', 'fault'),
    [
        ('--config.epoch=5', 'config.epoch is no key (did you mean epochs?); config has name, variant, '),
        (
            '--config.data.batchsize=5',
            'config.data.batchsize is no key (did you mean data.batch_size?); config.data has',
        ),
        ('--config.seeds=0', 'config.seeds: found 0, expected a whole number of at least 1'),
        ('--config.seeds=two', "config.seeds: found 'two', expected a whole number of at least 1"),
        ('--config.data.batch_size=0', 'config.data.batch_size: found 0, expected a whole number of at least 1'),
        (
            '--config.data.max_length=3',
            "config.data.max_length: found 3, expected a dictionary such as {'name': value}",
        ),
        (
            '--config.data.max_length.txt=3',
            'config.data.max_length.txt: config.data.max_length has no txt (did you mean',
        ),
        (
            '--config.losses.crossentropy=1',
            'config.losses.crossentropy: config.losses has no crossentropy (did you mean',
        ),
        (
            '--config.model.dropout=2',
            'config.model.dropout: found 2.0, expected a finite number of at least 0 and below',
        ),
        ('--config.model.num_outputs=2', 'config.model.num_outputs cannot be set'),
        (
            '--config.model.encoder.projector=0',
            'config.model.encoder.projector: LfLstm has no field encoder; its fields are',
        ),
        ('--config.protocol.options.folds=3', 'config.protocol.options.folds: protocol official_split has no folds'),
        ('--config.tensorboard=maybe', "config.tensorboard: found 'maybe', expected true or false"),
        ('--noconfig.tensorboard=1', '--noconfig.tensorboard=1: --noconfig.tensorboard takes no value'),
        ('--config.optimizer=adam', 'config.optimizer holds several values; set one of optimizer.name, '),
        ('--config.model.dropout.x=1', 'config.model.dropout.x is no key: config.model.dropout is one value, a finite'),
        ('--config.epochs.x=1', 'config.epochs.x is no key: config.epochs is one value, a whole number'),
        ('--config=configs/quikstart.py', 'configs/quikstart.py: no such file in '),
        ('--config=configs/quickstart.py:deep', "configs/quickstart.py has no variant 'deep'; it has smoke, text"),
        ('--config=configs/base.py', 'configs/base.py defines no get_config()'),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(given, fault, capsys, monkeypatch):
    monkeypatch.setattr('mmer_jax.train.train_and_evaluate', None)
    assert main.main(['--config=configs/quickstart.py', given]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'error: {fault}')
    assert error.count('\n') == 1


@pytest.mark.parametrize(
    'given', ['--folds=a', '--folds=0,0', '--folds=', '--folds=-1', '--num_processes=0', '--seed=1']
)
def test_a_wrong_flag_of_main_is_exit_2(given, capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(['--config=configs/quickstart.py', given])
    assert caught.value.code == 2
    assert given.split('=')[0] in capsys.readouterr().err.splitlines()[-1]


def test_help_lists_flags_and_keys(capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(['--help'])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert '--workdir' in shown
    assert all(f'--config.{key}' in shown for key in [*KEYS, *OPEN])


def test_a_config_that_raises_is_told_with_its_line(tmp_path):
    (tmp_path / 'mine.py').write_text('def get_config(variant=""):\n    return {}["x"]\n')
    with pytest.raises(ValueError, match=r"mine.py, line 2: KeyError: 'x'"):
        overrides.load_config(str(tmp_path / 'mine.py'))
    (tmp_path / 'mine.py').write_text('\n\nx = = 1\n')
    with pytest.raises(ValueError, match=r'mine.py, line 3: SyntaxError'):
        overrides.load_config(str(tmp_path / 'mine.py'))


def test_a_config_edited_within_a_second_is_read_as_it_stands(tmp_path, monkeypatch):
    """Its time and its size are those of before, which is what an import goes by."""
    monkeypatch.setattr(sys, 'dont_write_bytecode', False)
    file = tmp_path / 'mine.py'
    for seed in (1, 2):
        lines = ('from configs import quickstart', 'def get_config():', '    config = quickstart.get_config()')
        file.write_text('\n'.join((*lines, f'    config.seed = {seed}', '    return config\n')))
        os.utime(file, (10**9, 10**9))
        assert overrides.load_config(str(file)).seed == seed
    assert list(tmp_path.iterdir()) == [file]


def test_folds_of_a_caller_are_checked(tiny, tmp_path):
    for folds in ([], [0, 0], [True], [1]):
        with pytest.raises(ValueError, match=re.escape(f'folds {folds}: protocol')):
            train.train_and_evaluate(small_config(tiny), tmp_path, model=MeanModel(), folds=folds)
