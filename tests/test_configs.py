"""Every config file that is found: it loads, its keys are read, and its smoke variant trains to a results table."""

import importlib
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from configs import mfsa_mosi
from data_prep import synthetic
from mmer_jax import main
from mmer_jax.losses import make_loss
from mmer_jax.models import build_model
from mmer_jax.run.optimizer import make_optimizer, matches
from mmer_jax.train import train_and_evaluate
from tests.any_values import quick_runs
from tests.conftest import REPOSITORY

SHARED = ('__init__', 'base', 'datasets', 'encoders')
NAMES = sorted(path.stem for path in (REPOSITORY / 'configs').glob('*.py') if path.stem not in SHARED)
OWN = [name for name in NAMES if name.startswith('own_')]  # follow the data of a user: no data set stands behind them


def get_config(name, variant=''):
    return importlib.import_module(f'configs.{name}').get_config(variant)


def test_there_are_configs():
    assert {'quickstart', 'mfcc_cnn_ravdess', 'mfcc_cnn_ravdess_as_published'} <= set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_config_describes_itself(name):
    module = importlib.import_module(f'configs.{name}')
    assert f'--config=configs/{name}.py' in module.__doc__, 'the docstring gives the command'
    config = get_config(name)
    assert config.name == name
    assert config.is_locked
    with pytest.raises(AttributeError, match='learning_rat'):
        config.optimizer.learning_rat = 1
    with pytest.raises(ValueError, match='has no variant'):
        get_config(name, 'nonsense')
    json.dumps(config.to_dict())


OURS = re.compile(r'Ours: (not run: [^;]+(; .+)?|[^;]*\d[^;]*; (\S.*); (\S.*); (CPU|GPU|TPU|device not noted).*)\.')


@pytest.mark.parametrize('name', NAMES)
def test_a_config_ends_with_our_result_time_memory_and_device_or_why_it_was_not_run(name):
    """`Ours: 98.8 % accuracy; half a minute; memory not measured; CPU, 2 cores.` or `Ours: not run: why.`"""
    *_, before, line = importlib.import_module(f'configs.{name}').__doc__.rstrip().split('\n')
    assert before == ''
    assert OURS.fullmatch(line), line


# One smoke run a model, over all kinds of data, labels and losses; one of every config would take a quarter hour.
# wav2vec2_ravdess is trained by tests/test_wav2vec2_ravdess.py, quickstart by the command line below.
TRAINED = (
    'ast_ravdess', 'audio_visual_ravdess_openface', 'bert_iemocap', 'cfn_sr_ravdess_as_published',
    'ef_lstm_mosi_text_audio', 'lf_lstm_iemocap', 'lf_lstm_mosi_minilm', 'mctn_mosi', 'mfcc_cnn_ravdess',
    'mfsa_mosi_text_audio', 'mica_mosei', 'mult_synthetic', 'pmr_mosi', 'raven_mosi',
    'resnet18_crema_d', 'self_mm_mosi_minilm', 'videomae_iemocap',
)  # fmt: skip
PAIRWISE = ('mctn', 'mica', 'mult', 'pmr', 'raven')  # compile two to three times as long with three modalities


@pytest.mark.parametrize('name', TRAINED)
def test_smoke_variant_trains(name, tmp_path):
    config = get_config(name, 'smoke')
    synthetic.write_like(stand_in(name), tmp_path / 'data', records=80)
    config.data.directory = str(tmp_path / 'data')
    if config.model.name in PAIRWISE:
        config.modalities = ('text', 'audio')
        config.data.normalize = tuple(m for m in config.data.normalize if m != 'vision')
    with quick_runs():
        results = train_and_evaluate(config, tmp_path / 'run', folds=[0])  # the others: tests/test_train.py
    assert len(results['rows']) == config.seeds
    assert all(set(config.headline) <= set(row['test']) for row in results['rows'])


def test_every_model_of_a_config_has_a_smoke_run():
    models = {name: get_config(name).model.name for name in NAMES}
    others = {'any_input'}  # tests/test_predict.py
    missing = set(models.values()) - others - {models[name] for name in TRAINED}
    assert not missing, f'put a config of {sorted(missing)} into TRAINED'


def stand_in(name):
    """The name of the random data of a config's variant smoke."""
    directory = get_config(name, 'smoke').data.directory
    dataset = directory.removeprefix('data/smoke/')
    assert directory == f'data/smoke/{dataset}'
    assert dataset in synthetic.LIKE
    return dataset


def parts(name, variant=''):
    """A config's model at its full size, and the shapes of a batch of its data set; nothing is computed."""
    config, schema = get_config(name, variant), synthetic.LIKE[stand_in(name)][0]()
    outputs = schema.label.num_outputs
    common = {'modalities': tuple(config.modalities), 'num_outputs': outputs, 'num_records': 9, 'dtype': jnp.float32}
    rows, batch = 2 * config.accumulate, {}
    for m in config.modalities:
        feature = schema.features[m]
        steps = {'float32': 212 if 'ravdess' in name else 7, 'int16': 16000, 'int32': 12}.get(feature.dtype, 1)
        steps = steps if feature.is_sequence else 1
        frames = 1 if '2d' in config.data.directory else 30
        width = {'vision': 208, 'audio': 16}[m] if config.data.directory.endswith('crema_d_videomae') else 224
        shape = (rows, steps, *feature.step_shape)
        if feature.is_image:
            shape = (rows, frames, 224, width, feature.step_shape[-1])
        batch[m], steps = jax.ShapeDtypeStruct(shape, feature.dtype), shape[1]
        batch[f'{m}_mask'] = jax.ShapeDtypeStruct((rows, steps), bool)
    shape = (rows, len(schema.label.names)) if schema.label.kind == 'binary' else (rows,)
    dtype = jnp.float32 if schema.label.kind == 'regression' else jnp.int32
    batch |= {'label': jax.ShapeDtypeStruct(shape, dtype), 'weight': jax.ShapeDtypeStruct((rows,), jnp.float32)}
    return config, build_model(config.model.to_dict(), **common), batch


TRACED = {}


def shapes(name, variant=''):
    """(outputs, variables) of a config's model at its full size, as shapes; configs of one network are traced once."""
    _, model, batch = parts(name, variant)
    described = str(model), tuple((key, x.shape, str(x.dtype)) for key, x in sorted(batch.items()))
    if described not in TRACED:
        TRACED[described] = jax.eval_shape(
            lambda batch: model.init_with_output(jax.random.key(0), batch, train=False), batch
        )
    return TRACED[described]


@pytest.mark.parametrize('name', sorted({*NAMES} - {*OWN}))
def test_the_full_config_fits_its_data(name):
    """The model at its full size takes a batch of its data set, and the losses take what it gives."""
    config, _, batch = parts(name)
    make_optimizer(config.optimizer.to_dict(), 10)
    outputs, variables = shapes(name)
    assert jax.eval_shape(make_loss(config.losses.to_dict()), outputs, batch).shape == batch['weight'].shape
    for pattern in config.optimizer.clip_alone:
        assert any(jax.tree.leaves(matches(variables['params'], [pattern]))), pattern


@pytest.mark.parametrize('name', ['googlenet_crema_d', 'i3d_crema_d'])
def test_the_smoke_variant_of_a_network_that_is_not_trained_here_fits_its_data(name):
    """Trained they would be compiled for a minute each; tests of the encoders have their gradients."""
    _, model, batch = parts(name, 'smoke')
    shapes = {key: jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype) for key, x in batch.items()}
    outputs = jax.eval_shape(lambda batch: model.init_with_output(jax.random.key(0), batch, train=False)[0], shapes)
    assert outputs['prediction'].shape == (2, 6)


# As README's rows were measured.
TOGETHER = {'mfsa_mosi_minilm'}


@pytest.mark.parametrize('name', NAMES)
def test_what_trains_itself_alone_is_clipped_by_itself(name):
    config = get_config(name)
    alone = {'importance', 'ctc_alignment', 'ctc_alignment_padded'} & set(config.losses)
    if alone and config.optimizer.clip_norm:
        assert bool(config.optimizer.clip_alone) == (name not in TOGETHER)
    else:
        assert not config.optimizer.clip_alone


@pytest.mark.parametrize('variant', mfsa_mosi.ABLATIONS)
def test_ablations_of_mfsa_differ_from_the_full_model(variant):
    config, _, batch = parts('mfsa_mosi', variant)
    full, _, _ = parts('mfsa_mosi')
    changed = [key for key in ('model', 'losses') if getattr(config, key) != getattr(full, key)]
    assert len(changed) == 1
    assert config.published != full.published
    outputs, _ = shapes('mfsa_mosi', variant)
    assert jax.eval_shape(make_loss(config.losses.to_dict()), outputs, batch).shape == batch['weight'].shape


def test_mfsa_has_the_parameters_its_config_states():
    params = shapes('mfsa_mosi')[1]['params']
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_787_428
    assert '1,787,428 parameters' in mfsa_mosi.__doc__


def run_main(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'mmer_jax.main', *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )


def test_command_line_trains_and_says_where(tiny, tmp_path):
    done = run_main(
        '--config=configs/quickstart.py', f'--config.data.directory={tiny}', f'--workdir={tmp_path}',
        '--config.epochs=1', '--config.model.hidden_size=4', '--config.data.batch_size=8', '--config.data.max_shapes=1',
        "--config.modalities=('text',)", '--config.data.max_length.text=3', '--config.model.num_layers=2',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'all seed 0: best epoch 1 of 1, test accuracy' in done.stdout
    assert f'python -m mmer_jax.report {tmp_path}' in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ('--config.optimizer.lerning_rate=1',),
            'error: config.optimizer.lerning_rate is no key (did you mean optimizer',
        ),
        (
            ('--config.data.batch_size=0',),
            'error: config.data.batch_size: found 0, expected a whole number of at least 1',
        ),
        (('--config.data.directory=/nowhere',), 'error: shard directory /nowhere is missing'),
        (("--config.modalities=('speech',)",), "error: config.modalities: found ('speech',), expected one"),
    ],
)
def test_command_line_mistakes_name_the_key(tiny, tmp_path, capsys, arguments, message):
    config = ('--config=configs/quickstart.py', f'--config.data.directory={tiny}')
    assert main.main([*config, f'--workdir={tmp_path / "run"}', *arguments]) != 0
    printed = capsys.readouterr()
    assert message in printed.err
    assert 'Traceback' not in printed.err + printed.out
