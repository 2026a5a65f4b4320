"""Small files that ask for much, and files that point at others: refused in one line, in little time and memory."""

import json
import pickle
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from data_prep import ravdess_openface
from data_prep.convert_weights import huggingface_files, torch_files
from data_prep.csd import Sequence
from data_prep.pool import PreparationError
from data_prep.restricted_pickle import load_records
from mmer_jax.files import npy, read_arrays
from mmer_jax.media import MediaError
from mmer_jax.media.audio import load_audio
from mmer_jax.readers.given import read_features

h5py = pytest.importorskip('h5py')
LITTLE = 60 << 20  # bytes, as Python counts them


@pytest.fixture(autouse=True)
def cheap():
    """Each refusal takes less than a second and less memory than LITTLE."""
    tracemalloc.start()
    began = time.perf_counter()
    yield
    seconds, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 5  # a busy machine, and tracemalloc
    assert peak < LITTLE


def zipped(path, members, compress=True):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def header(shape, dtype='<f4'):
    text = repr({'descr': dtype, 'fortran_order': False, 'shape': shape})
    text += ' ' * (-(len(text) + 11) % 64) + '\n'
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text.encode()


def test_nested_tuples_of_a_pickle(tmp_path):
    value = (1.0, 2.0)
    for _ in range(40):
        value = (value, value)
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(value))
    with pytest.raises(PreparationError, match=r'x.pkl: lists and tuples hold one another so that .* values'):
        load_records(tmp_path / 'x.pkl')


def test_a_memo_index_of_any_size_takes_no_memory(tmp_path):
    """The interpreter of pickles in C makes room for 2^30 of them."""
    content = pickle.dumps(torch_files.LEGACY, 2) + b'\x80\x02I1\nr\x00\x00\x00\x40.'
    (tmp_path / 'x.bin').write_bytes(content)
    with pytest.raises(torch_files.CheckpointError, match=r'x.bin'):
        torch_files.load(tmp_path / 'x.bin')


def test_a_pickle_inside_a_torch_file_that_unpacks_without_end(tmp_path):
    path = zipped(tmp_path / 'x.pt', {'archive/data.pkl': bytes(100 << 20)})
    tracemalloc.reset_peak()
    with pytest.raises(
        torch_files.CheckpointError, match=r'x.pt .*104857600 bytes unpacked, expected 67108864 at most'
    ):
        torch_files.load(path)


def test_a_tensor_that_repeats_its_storage_without_end():
    storage = torch_files._Storage('0', np.dtype(np.float32), 10)
    tensor = torch_files._Tensor(storage, 0, (100_000, 10_000), (0, 0))
    with pytest.raises(ValueError, match=r'4000000000 bytes is announced of a storage of 40; MMER_LARGEST_FILE=BYTES'):
        torch_files._view(np.zeros(10, np.float32), tensor)
    few = torch_files._Tensor(storage, 0, (3, 10), (0, 1))
    assert torch_files._view(np.arange(10, dtype=np.float32), few).shape == (3, 10)  # torch saves views of this kind


@pytest.fixture
def csd(tmp_path):
    def make(features=None):
        path = tmp_path / 'x.csd'
        with h5py.File(path, 'w') as file:
            group = file.create_group('WORDS/data/v1')
            if features is None:
                group['features'] = np.ones((5, 3), np.float32)
            else:
                features(group)
            if 'intervals' not in group:
                group['intervals'] = np.ones((5, 2))
        return path

    return make


def read_all(path):
    with Sequence(path) as file:
        return [file.read(video) for video in file.videos]


def unallocated(group):
    group.create_dataset('features', (250_000_000, 4), 'f4', chunks=(1000, 4))
    group.create_dataset('intervals', (250_000_000, 2), 'f8', chunks=(1000, 2))


def external(group):
    group.create_dataset('features', (5, 1), 'S8', external=[('/etc/passwd', 0, 40)])


def linked(group):
    group['features'] = h5py.ExternalLink('/etc/passwd', '/x')


def virtual(group):
    layout = h5py.VirtualLayout((5, 3), 'f4')
    layout[:] = h5py.VirtualSource('/etc/passwd', 'x', (5, 3))
    group.create_virtual_dataset('features', layout)


def test_an_honest_sequence_is_read(csd):
    ((features, intervals),) = read_all(csd())
    assert features.shape == (5, 3)
    assert intervals.shape == (5, 2)


@pytest.mark.parametrize(
    ('features', 'message'),
    [
        (unallocated, 'announces more than it holds; .* announces 4000000000 bytes, 0 are stored'),
        (external, 'data outside the file; /WORDS/data/v1/features reads other files'),
        (linked, r'data outside the file; /WORDS/data/v1/features is a link to another file \(/etc/passwd\)'),
        (virtual, 'data outside the file; /WORDS/data/v1/features reads other files'),
    ],
)
def test_sequences_that_hold_nothing_or_point_elsewhere(csd, features, message):
    with pytest.raises(MediaError, match=message):
        read_all(csd(features))


def test_a_sequence_that_is_a_link(csd, tmp_path):
    csd().rename(tmp_path / 'other.csd')
    with h5py.File(tmp_path / 'x.csd', 'w') as file:
        file['WORDS'] = h5py.ExternalLink('other.csd', '/WORDS')
    with pytest.raises(MediaError, match='/WORDS is a link to another file'):
        read_all(tmp_path / 'x.csd')


def test_large_files_are_read_where_the_user_says_so(csd, monkeypatch):
    monkeypatch.setenv(npy.LIMIT_VARIABLE, '10')
    with pytest.raises(MediaError, match='too large; .* has 60 bytes, expected 10 at most; MMER_LARGEST_FILE=BYTES'):
        read_all(csd())
    monkeypatch.setenv(npy.LIMIT_VARIABLE, '60MB')
    with pytest.raises(ValueError, match="MMER_LARGEST_FILE='60MB' is no number of bytes"):
        read_all(csd())


@pytest.mark.parametrize('name', ['../model.safetensors', '/etc/passwd', 'below/model.safetensors', '..', ''])
def test_an_index_of_weights_names_files_of_its_own_folder(tmp_path, name):
    path = tmp_path / 'folder' / 'model.safetensors.index.json'
    path.parent.mkdir()
    (tmp_path / 'model.safetensors').write_bytes(b'x')
    path.write_text(json.dumps({'weight_map': {'a': name}}))
    with pytest.raises(ValueError, match=r'index.json names .*, expected files of its own folder; nothing of it was'):
        huggingface_files.Tensors(path.parent)


@pytest.mark.parametrize('announced', [(10**12,), (10**6, 10**6), (3, -1)])
def test_arrays_that_announce_more_than_they_hold(tmp_path, announced):
    (tmp_path / 'x.npy').write_bytes(header(announced) + bytes(12))
    with pytest.raises(MediaError, match=r'x.npy: no array can be read; .* is announced; 12 bytes follow'):
        read_features(tmp_path / 'x.npy')
    with pytest.raises(ValueError, match='is announced; 12 bytes follow'):
        npy.load_npy(tmp_path / 'x.npy')


def test_zip_files_of_arrays_that_unpack_without_end(tmp_path, monkeypatch):
    monkeypatch.setenv(npy.LIMIT_VARIABLE, str(1 << 20))
    monkeypatch.setattr('mmer_jax.readers.given.MOST', 1 << 20)
    path = zipped(tmp_path / 'x.npz', {'ids.npy': header((1 << 20,)) + bytes(4 << 20)})
    assert path.stat().st_size < 10_000
    limit = 'bytes unpacked, expected 1048576 at most .MMER_LARGEST_FILE=BYTES raises it'
    with pytest.raises(MediaError, match=limit):
        read_features(path)
    with pytest.raises(ValueError, match=f'x.npz is damaged .*{limit}'):
        read_arrays(path, ['ids'])
    with pytest.raises(PreparationError, match=limit):
        ravdess_openface.read_table(path)


def test_a_rate_that_would_multiply_the_samples(tmp_path):
    body = (
        b'WAVEfmt ' + struct.pack('<IHHIIHH', 16, 1, 1, 1, 2, 2, 16) + b'data' + struct.pack('<I', 2000) + bytes(2000)
    )
    (tmp_path / 'x.wav').write_bytes(b'RIFF' + struct.pack('<I', len(body)) + body)
    with pytest.raises(MediaError, match='a sample rate that cannot be; the header says 1 Hz'):
        load_audio(tmp_path / 'x.wav', 16000)
