"""The layer table of BUILD.md, enforced: which file may import what."""

import ast
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / 'mmer_jax'
JAX = {'jax', 'flax', 'optax'}
PREPARATION = {'data_prep', 'configs', 'PIL', 'av', 'flax', 'h5py', 'matplotlib', 'ml_dtypes', 'safetensors', 'tqdm'}

# file (or folder/) -> (modules of mmer_jax it may import, third-party packages it may import besides numpy)
LAYERS = {
    'schema': (set(), {'tensorflow_datasets', 'PIL'}),
    'outputs': (set(), set()),
    'records': ({'outputs', 'schema'}, {'google_crc32c'}),
    'folds': (set(), set()),
    'protocols': ({'folds'}, set()),
    'leakage': ({'protocols', 'records'}, set()),
    'ranges': (set(), set()),
    'confusion': (set(), set()),
    'metrics': ({'confusion'}, set()),
    'summary': ({'metrics'}, set()),
    'selection': (set(), set()),
    'augment': ({'schema'}, {'PIL'}),
    'data': ({'augment', 'records'}, {'absl', 'grain'}),
    'media/': ({'media'}, {'av', 'librosa', 'scipy', 'soundfile', 'soxr', 'tokenizers', 'transformers'}),
    'media/faces': ({'media'}, {'PIL'}),
    'media/spectrogram_image': (set(), {'PIL'}),
    'media/mtcnn': ({'media'}, JAX | {'safetensors'}),
    'layers': (set(), JAX),
    'losses/': ({'losses'}, JAX),
    'optimizer': (set(), JAX),
    'sharding': (set(), JAX),
    'encoders/': ({'layers', 'encoders'}, JAX),
    'fusion/': ({'layers', 'fusion'}, JAX),
    'models/': ({'encoders', 'fusion', 'layers'}, JAX),
    'models/__init__': ({'encoders', 'models'}, JAX),
    'checkpoint': (set(), {'orbax', 'jax'}),
    'own_module': (set(), JAX),
    'workdir': ({'own_module', 'writer'}, {'flax', 'jax', 'ml_collections'}),
    'other_data': ({'protocols', 'records'}, set()),
    'writer': (set(), {'tensorboardX'}),
    'step': ({'losses', 'optimizer'}, JAX),
    'experiment': (
        {
            'augment',
            'data',
            'leakage',
            'losses',
            'models',
            'optimizer',
            'protocols',
            'records',
            'sharding',
            'step',
            'workdir',
            'writer',
        },
        JAX,
    ),
    'evaluate': (
        {
            'outputs',
            'checkpoint',
            'data',
            'experiment',
            'metrics',
            'records',
            'sharding',
            'step',
            'trained',
            'workdir',
            'writer',
        },
        {'jax', 'absl'},
    ),
    'train': (
        {
            'checkpoint',
            'data',
            'evaluate',
            'experiment',
            'metrics',
            'models',
            'other_data',
            'protocols',
            'records',
            'selection',
            'settings',
            'sharding',
            'start',
            'step',
            'workdir',
            'writer',
        },
        JAX,
    ),
    'plots': ({'outputs', 'metrics'}, {'matplotlib'}),
    'bar_plots': ({'outputs', 'plots'}, {'matplotlib'}),
    'report': ({'outputs', 'confusion', 'plots', 'summary', 'writer'}, set()),
    'trained': (
        {
            'checkpoint',
            'data',
            'experiment',
            'leakage',
            'other_data',
            'own_module',
            'protocols',
            'records',
            'sharding',
            'step',
            'workdir',
        },
        JAX,
    ),
    'pretrained': (set(), {'flax', 'safetensors'}),
    'start': (
        {'experiment', 'media', 'pretrained', 'records', 'sharding', 'step', 'trained'},
        JAX | {'ml_collections'},
    ),
    'attention_plots': ({'outputs', 'plots'}, {'matplotlib'}),
    'attention_maps': ({'attention_plots', 'media'}, set()),
    'figures': (
        {
            'outputs',
            'attention_maps',
            'attention_plots',
            'bar_plots',
            'data',
            'experiment',
            'models',
            'ranges',
            'records',
            'trained',
            'writer',
        },
        {'absl', 'jax', 'sklearn', 'threadpoolctl'},
    ),
    'feature_folds': ({'leakage', 'records'}, set()),
    'feature_fusion': ({'feature_folds', 'metrics'}, {'sklearn', 'xgboost'}),
    'classifiers': (
        {'outputs', 'confusion', 'feature_folds', 'feature_fusion', 'plots', 'ranges', 'report', 'summary', 'writer'},
        {'sklearn'},
    ),
    'extract': (
        {'outputs', 'data', 'experiment', 'leakage', 'ranges', 'records', 'trained', 'workdir', 'writer'},
        {'absl'},
    ),
    'model_fields': ({'encoders', 'models', 'ranges'}, JAX),
    'settings': (
        {'augment', 'data', 'experiment', 'losses', 'model_fields', 'optimizer', 'protocols', 'ranges'},
        set(),
    ),
    'overrides': ({'model_fields', 'ranges', 'settings'}, {'ml_collections'}),
    'table_config': ({'metrics', 'overrides', 'report', 'settings', 'summary'}, {'ml_collections'}),
    'table': (
        {'outputs', 'bar_plots', 'evaluate', 'ranges', 'report', 'start', 'summary', 'table_config', 'train'},
        {'absl', 'ml_collections'},
    ),
    'main': ({'evaluate', 'overrides', 'protocols', 'ranges', 'settings', 'train'}, {'absl', 'jax', 'ml_collections'}),
    '__init__': (set(), set()),
}


def imports(path):
    """Top-level names of third-party packages, and the modules of mmer_jax, that a file imports anywhere."""
    third, own = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: import by full name'
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        for name in names:
            parts = name.split('.')
            if parts[0] == 'mmer_jax':
                own.add(parts[1] if len(parts) > 1 else '')
            elif parts[0] not in sys.stdlib_module_names and parts[0] != 'numpy':
                third.add(parts[0])
    return third, own - {'', '__version__'}


FILES = sorted(path.relative_to(PACKAGE).with_suffix('').as_posix() for path in PACKAGE.rglob('*.py'))


@pytest.mark.parametrize('name', FILES)
def test_imports(name):
    key = name if name in LAYERS else f'{name.split("/")[0]}/'
    assert key in LAYERS, f'{name}.py is in no layer: add it to the table here and in BUILD.md'
    third, own = imports(PACKAGE / f'{name}.py')
    allowed_own, allowed_third = LAYERS[key]
    assert own <= allowed_own, f'{name}.py imports mmer_jax.{sorted(own - allowed_own)}'
    assert third <= allowed_third, f'{name}.py imports {sorted(third - allowed_third)}'


def test_a_model_never_imports_another_model():
    for path in (PACKAGE / 'models').glob('*.py'):
        if path.name != '__init__.py':
            assert 'mmer_jax.models' not in path.read_text(), path


def test_only_sharding_names_mesh_axes():
    for name in FILES:
        text = (PACKAGE / f'{name}.py').read_text()
        assert name == 'sharding' or ('PartitionSpec' not in text and 'axis_types' not in text), name


@pytest.mark.parametrize('folder', ['configs', 'data_prep'])
def test_configs_and_data_prep(folder):
    for path in (REPOSITORY / folder).rglob('*.py'):
        third, own = imports(path)
        if folder == 'configs':
            assert third <= {'configs', 'ml_collections'}, path
            assert not own, path
        else:
            # The first asks the encoders for the shapes of their parameters, the second runs them.
            shapes = path.name in ('huggingface_shapes.py', 'huggingface_check.py')
            assert third <= PREPARATION | ({'jax'} if shapes else set()), path
            assert own <= {'media', 'outputs', 'pretrained', 'ranges', 'records', 'protocols'} | (
                {'encoders'} if shapes else set()
            ), path


def test_no_torch_and_no_tensorflow_on_the_training_path():
    import subprocess

    code = 'import sys, mmer_jax.main, mmer_jax.records; print(sorted({"torch", "tensorflow"} & set(sys.modules)))'
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert found.stdout.strip() == '[]'


def test_files_stay_readable():
    """About 100 to 350 lines a file; a longer one wants splitting."""
    folders = ('mmer_jax', 'configs', 'data_prep', 'benchmarks')
    files = [p for folder in folders for p in (REPOSITORY / folder).rglob('*.py')]
    long = {str(p.relative_to(REPOSITORY)): n for p in files if (n := len(Path(p).read_text().splitlines())) > 400}
    assert long == {}
