"""Every config file that is found: it loads, its keys are read, and its smoke variant trains to a results table."""

import ast
import importlib
import json
import subprocess
import sys

import pytest

from configs.base import get_base
from data_prep import synthetic
from mmer_jax.train import train_and_evaluate
from tests.conftest import REPOSITORY

NAMES = sorted(path.stem for path in (REPOSITORY / 'configs').glob('*.py') if path.stem not in ('__init__', 'base'))


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


@pytest.mark.parametrize('name', NAMES)
def test_smoke_variant_trains(name, tmp_path):
    config = get_config(name, 'smoke')
    dataset = config.data.directory.removeprefix('data/smoke/')
    assert config.data.directory == f'data/smoke/{dataset}'
    synthetic.write_like(dataset, tmp_path / 'data', records=80)
    config.data.directory = str(tmp_path / 'data')
    results = train_and_evaluate(config, tmp_path / 'run')
    assert len(results['rows']) >= config.seeds
    assert all(set(config.headline) <= set(row['test']) for row in results['rows'])


def leaves(config, prefix=''):
    for key, value in config.to_dict().items():
        if isinstance(value, dict) and value:
            yield from (f'{prefix}{key}.{rest}' for rest in value)
        else:
            yield f'{prefix}{key}'


def test_every_key_is_read_somewhere():
    """A key that nothing reads is a promise that nothing keeps."""
    read = set()
    for path in (REPOSITORY / 'mmer_jax').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                read.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                read.add(node.value)
    unread = [key for key in leaves(get_base('x')) if key.split('.')[-1] not in read]
    assert unread == []


def run_main(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'mmer_jax.main', *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )


def test_command_line_trains_and_says_where(tiny, tmp_path):
    done = run_main(
        '--config=configs/quickstart.py', f'--config.data.directory={tiny}', f'--workdir={tmp_path}',
        '--config.epochs=1', '--config.model.hidden_size=4', '--config.data.batch_size=8', '--config.data.max_shapes=1',
        "--config.modalities=('text',)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'all seed 0: best epoch 1 of 1, test accuracy' in done.stdout
    assert f'python -m mmer_jax.report {tmp_path}' in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--config.optimizer.lerning_rate=1',), 'lerning_rate'),
        (('--config.data.directory=/nowhere',), 'error: shard directory /nowhere is missing'),
        (("--config.modalities=('speech',)",), "error: modalities ('speech',)"),
    ],
)
def test_command_line_mistakes_name_the_key(tiny, tmp_path, arguments, message):
    done = run_main(
        '--config=configs/quickstart.py', f'--config.data.directory={tiny}', f'--workdir={tmp_path / "run"}', *arguments
    )
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    if message.startswith('error'):
        assert 'Traceback' not in done.stderr
