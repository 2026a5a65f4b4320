"""Files of torch.save without torch: both formats, views and half precision; hostile and damaged files run nothing."""

import collections
import io
import pickle
import zipfile

import numpy as np
import pytest

from data_prep.convert_weights import torch_files
from data_prep.convert_weights.torch_files import CheckpointError


@pytest.fixture(scope='module')
def torch():
    return pytest.importorskip('torch')


def state(torch):
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    return collections.OrderedDict({
        'whole': base,
        'turned': base.T,
        'part': base[1:5:2, 1:],
        'parameter': torch.nn.Parameter(torch.randn(3)),
        'half': torch.randn(5).half(),
        'brain': torch.randn(5).bfloat16(),
        'count': torch.tensor(7),
        'flags': torch.tensor([True, False]),
        'none': torch.zeros(0, 3),
    })  # fmt: skip


@pytest.mark.parametrize('new', [True, False])
@pytest.mark.parametrize('wrapper', [None, 'state_dict', 'model'])
def test_every_tensor_comes_back(torch, tmp_path, new, wrapper):
    tensors = state(torch)
    content = tensors if wrapper is None else {'epoch': 3, wrapper: tensors, 'lr': [0.1]}
    torch.save(content, tmp_path / 'w.pth', _use_new_zipfile_serialization=new)
    found = torch_files.open_checkpoint(tmp_path / 'w.pth')
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        expected = tensor.detach().float().numpy()
        assert found[name].shape == found.shape(name) == expected.shape
        np.testing.assert_array_equal(found[name].astype(np.float32), expected)
    assert found['brain'].dtype.name == 'bfloat16'
    assert found['count'].dtype == np.int64
    assert torch_files.load(tmp_path / 'w.pth').keys() == tensors.keys()


@pytest.mark.parametrize('new', [True, False])
def test_a_truncated_file_is_named(torch, tmp_path, new):
    path = tmp_path / 'w.pth'
    torch.save(state(torch), path, _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.97):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError, match=r'w\.pth is'):
            torch_files.load(path)


class Hostile:
    def __reduce__(self):
        return (print, ('ran',))


def zipped(path, content, name='w/data.pkl'):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(name, content)
    return path


def legacy(path, content):
    stream = io.BytesIO()
    for value in (torch_files.LEGACY, 1001, {'little_endian': True}):
        pickle.dump(value, stream, protocol=2)
    path.write_bytes(stream.getvalue() + content)
    return path


@pytest.mark.parametrize('write', [zipped, legacy])
def test_a_hostile_pickle_runs_nothing(write, tmp_path, capsys):
    path = write(tmp_path / 'w.pth', pickle.dumps({'a': Hostile()}, protocol=2))
    with pytest.raises(CheckpointError, match='asks for .*print, which is neither a tensor'):
        torch_files.load(path)
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is empty'),
        (b'version https://git-lfs.github.com/spec/v1\noid', 'is a git-LFS pointer'),
        (b'<!DOCTYPE html>', 'is a web page'),
        (b'\x1f\x8b\x08', 'is a gzip file'),
        (b'no weights at all', 'is no file of torch.save'),
        (pickle.dumps([1, 2]), 'is no file of torch.save'),
        (b'PK\x03\x04 broken', 'is no file of torch.save'),
    ],
)
def test_other_files_are_told_apart(content, message, tmp_path):
    (tmp_path / 'w.pth').write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        torch_files.load(tmp_path / 'w.pth')


def test_no_file_no_tensors_and_no_names(tmp_path):
    with pytest.raises(CheckpointError, match='is missing'):
        torch_files.load(tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='is a folder'):
        torch_files.load(tmp_path)
    with pytest.raises(CheckpointError, match='holds no tensors'):
        torch_files.load(zipped(tmp_path / 'a.pth', pickle.dumps({'epoch': 3})))
    with pytest.raises(CheckpointError, match='holds a list'):
        torch_files.load(zipped(tmp_path / 'b.pth', pickle.dumps([1])))
    with pytest.raises(CheckpointError, match='0 entries data.pkl'):
        torch_files.load(zipped(tmp_path / 'c.pth', b'', name='w/other'))


def test_a_tensor_beyond_its_storage_is_refused():
    storage = torch_files._Storage('0', np.dtype(np.float32), 4)
    for offset, shape, strides in ((0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 2), (3, 1)), (-1, (1,), (1,))):
        with pytest.raises(ValueError, match='of a storage of 4'):
            torch_files._view(np.zeros(4, np.float32), torch_files._Tensor(storage, offset, shape, strides))
