"""The command that converts weights: a Kinetics file gives PyTorch's numbers; what does not fit is named."""

import json

import jax
import numpy as np
import pytest

from data_prep.convert_weights import resnext3d
from data_prep.convert_weights.__main__ import main
from mmer_jax import pretrained
from mmer_jax.encoders.resnext3d import ResNeXt3D

FIELDS = {'block_counts': (1, 2, 1, 1), 'planes': (32, 32, 64, 64), 'cardinality': 4, 'stem_features': 8}


def state_dict():
    """Random tensors under the names of the published file, with its classifier and counters."""
    generator, tensors = np.random.default_rng(0), {}
    for rule in resnext3d.rules(**FIELDS):
        if rule.original.endswith('running_var') or (len(rule.shape) == 1 and rule.original.endswith('weight')):
            array = generator.uniform(0.5, 1.5, rule.shape)
        else:
            array = generator.standard_normal(rule.shape) / np.sqrt(np.prod(rule.shape[1:]) or 1)
        tensors[rule.original] = array.astype(np.float32)
        if rule.original.endswith('running_var'):
            tensors[rule.original.replace('running_var', 'num_batches_tracked')] = np.int64(3)
    return {**tensors, 'fc.weight': np.zeros((400, 128), np.float32), 'fc.bias': np.zeros(400, np.float32)}


def save(torch, path, tensors, **options):
    tensors = {f'module.{name}': torch.tensor(array) for name, array in tensors.items()}
    torch.save({'epoch': 200, 'arch': 'resnext-50', 'state_dict': tensors}, path, **options)
    return path


def published_map(torch, tensors, x):
    """The map before the pooling by PyTorch's functions, on the original names. x (B, T, H, W, 3) normalised."""
    from torch.nn import functional as f

    t = {name: torch.tensor(array) for name, array in tensors.items()}

    def norm(x, name):
        return f.batch_norm(x, *(t[f'{name}.{k}'] for k in ('running_mean', 'running_var', 'weight', 'bias')))

    x = torch.tensor(np.moveaxis(x, -1, 1).copy())
    x = f.max_pool3d(f.relu(norm(f.conv3d(x, t['conv1.weight'], stride=(1, 2, 2), padding=3), 'bn1')), 3, 2, 1)
    for stage, count in enumerate(FIELDS['block_counts'], start=1):
        for number in range(count):
            name, stride = f'layer{stage}.{number}', 2 if number == 0 and stage > 1 else 1
            y = f.relu(norm(f.conv3d(x, t[f'{name}.conv1.weight']), f'{name}.bn1'))
            groups = FIELDS['cardinality']
            y = f.conv3d(y, t[f'{name}.conv2.weight'], stride=stride, padding=1, groups=groups)
            y = norm(f.conv3d(f.relu(norm(y, f'{name}.bn2')), t[f'{name}.conv3.weight']), f'{name}.bn3')
            if f'{name}.downsample.0.weight' in t:
                x = norm(f.conv3d(x, t[f'{name}.downsample.0.weight'], stride=stride), f'{name}.downsample.1')
            x = f.relu(x + y)
    return np.moveaxis(x.numpy(), 1, -1)


@pytest.mark.parametrize('new', [True, False])
def test_a_kinetics_file_gives_the_numbers_of_pytorch(new, tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip('torch')
    monkeypatch.setenv('MMER_PRETRAINED', str(tmp_path / 'weights'))
    tensors = state_dict()
    path = save(torch, tmp_path / 'resnext.pth', tensors, _use_new_zipfile_serialization=new)
    assert main(['resnext3d', '--source', str(path), '--output', 'tiny', '--revision', 'r1']) == 0
    printed = capsys.readouterr().out
    assert 'left out of the original: fc.weight, fc.bias' in printed
    assert 'stays at its initialisation: none' in printed
    loaded, source = pretrained.load_pretrained('tiny')
    assert source['fields'] == json.loads(json.dumps(FIELDS))
    assert source['revision'] == 'r1'
    assert len(source['sha256']['resnext.pth']) == 64
    model = ResNeXt3D(num_frames=4, **FIELDS)
    x, mask = np.random.default_rng(1).standard_normal((2, 4, 40, 40, 3)).astype(np.float32), np.ones((2, 4), bool)
    fresh = model.init(jax.random.key(0), x, mask, train=False)
    variables = pretrained.graft(fresh, loaded, path='')
    found, _ = jax.jit(lambda v: model.apply(v, x, mask, train=False))(variables)
    expected = published_map(torch, tensors, x)
    assert (expected > 0).mean() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda t: t.pop('layer2.1.bn2.running_mean'), 'layer2.1.bn2.running_mean is missing'),
        (lambda t: t.update(extra=np.zeros(2, np.float32)), 'extra is not known'),
        (lambda t: t.update({'layer3.0.bn3.bias': np.zeros(7, np.float32)}), r'bias has shape (7,), expected (128,)'),
        (lambda t: t.pop('conv1.weight'), 'lacks conv1.weight: it is no 3-D ResNeXt'),
    ],
)
def test_a_file_that_does_not_fit_is_named_and_nothing_is_written(change, message, tmp_path, capsys):
    torch = pytest.importorskip('torch')
    tensors = state_dict()
    change(tensors)
    path = save(torch, tmp_path / 'resnext.pth', tensors)
    assert main(['resnext3d', '--source', str(path), '--output', str(tmp_path / 'out')]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert str(path) in error
    assert not (tmp_path / 'out').exists()


def test_a_name_needs_its_place_and_a_folder_is_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv('MMER_PRETRAINED', raising=False)
    assert main(['resnext3d', '--source', str(tmp_path / 'none.pth'), '--output', 'tiny']) == 1
    assert "MMER_PRETRAINED is not set, so the name 'tiny' has no place" in capsys.readouterr().err
    assert main(['resnext3d', '--source', str(tmp_path / 'none.pth'), '--output', str(tmp_path)]) == 1
    assert 'exists; remove it' in capsys.readouterr().err
    assert main(['resnext3d', '--source', str(tmp_path / 'none.pth'), '--output', str(tmp_path / 'new')]) == 1
    assert 'none.pth is missing' in capsys.readouterr().err
