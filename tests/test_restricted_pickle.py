"""data_prep.restricted_pickle: real pickles of every protocol come back, hostile and damaged ones run nothing."""

import collections
import os
import pickle
import re
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from data_prep import restricted_pickle
from data_prep.pool import PreparationError
from data_prep.restricted_pickle import UnsafePickleError, load, load_records

PROTOCOLS = range(2, 6)
FLOATS = np.linspace(-1, 1, 120, dtype=np.float32).reshape(4, 5, 6)  # more bytes than a short string has


def content():
    """One of everything that may be read."""
    arrays = {
        'float': FLOATS,
        'again': FLOATS,
        'float64 fortran': np.asfortranarray(FLOATS.astype(np.float64)),
        'transposed': FLOATS.transpose(2, 0, 1),
        'axes': FLOATS.transpose(1, 0, 2),
        'big-endian': np.arange(5, dtype='>i4'),
        'bool': np.array([True, False]),
        'complex': np.array([1 + 2j]),
        'bytes': np.array([[b'video', b'1.5', b'2']]),
        'text': np.array(['a word', '\u4e00\U0001f600']),
        'objects': np.array([b'x', 'y', 3, None, np.float32(2)], object),
        'no rows': np.zeros((0, 3)),
        'no dimension': np.array(2.5),
        'empty text': np.array(['', '']),
    }
    scalars = [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_('s'), np.bytes_(b'b')]
    plain = [None, True, 2**40, -(2**80), 0.1, 'tex\u00e9t', b'\x00\xff', b'', (), (1,), (1, (2, [3])), {1: {'a': ()}}]
    return {**arrays, 'scalars': scalars, 'plain': plain, 'ordered': collections.OrderedDict([('b', 1), ('a', 2)])}


def assert_same(found, expected):
    assert isinstance(found, np.ndarray if isinstance(expected, np.ndarray) else type(expected))
    if isinstance(expected, np.ndarray):
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


def save(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize('large', [16, 1 << 20])
@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_everything_plain_comes_back(tmp_path, monkeypatch, protocol, large):
    monkeypatch.setattr(restricted_pickle, 'LARGE', large)  # 16: nearly every array is mapped, unaligned
    expected = content()
    found = load(save(tmp_path / 'a.pkl', pickle.dumps(expected, protocol)))
    assert_same(found, expected)
    assert found['again'] is found['float']
    assert isinstance(found['float'], np.memmap) == (large == 16)


@pytest.mark.parametrize('protocol', [0, 1])
def test_small_files_of_the_text_protocols(tmp_path, protocol):
    expected = {'array': FLOATS, 'text': ['a', 'b'], 'number': 1.5, 'long': 2**70, 'pair': (1, 2)}
    assert_same(load(save(tmp_path / 'a.pkl', pickle.dumps(expected, protocol))), expected)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_long_text_and_bytes_outside_arrays(tmp_path, monkeypatch, protocol):
    monkeypatch.setattr(restricted_pickle, 'LARGE', 16)
    expected = {'text': ['\u4e00' * 50], 'bytes': (b'\xff' * 50, 'x'), 'twice': ['y' * 50] * 2}
    assert_same(load(save(tmp_path / 'a.pkl', pickle.dumps(expected, protocol))), expected)


# ---- files of Python 2 and of numpy 1, from their instructions -----------------------------------------------------


def short(text):
    """A string of Python 2."""
    return b'U' + bytes([len(text)]) + text


def small_tuple(numbers):
    return b'(' + b''.join(b'J' + struct.pack('<i', n) for n in numbers) + b't'


def dtype_code(code, order=b'<', size=-1):
    state = b'(K\x03' + short(order) + b'NNN' + (b'J' + struct.pack('<i', size)) * 2 + b'K\x00t'
    return b'cnumpy\ndtype\n' + short(code) + b'K\x00K\x01\x87R' + state + b'b'


def array_code(data, shape, dtype, core=b'numpy.core'):
    """An array as cPickle of Python 2 writes it under protocol 2; `data` is the instruction that gives its contents."""
    created = b'c' + core + b'.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85' + short(b'b') + b'\x87R'
    return created + b'(K\x01' + small_tuple(shape) + dtype + b'\x89' + data + b'tb'


def binstring(data):
    return b'T' + struct.pack('<i', len(data)) + data


@pytest.mark.parametrize('large', [16, 1 << 20])
def test_a_file_of_python_2(tmp_path, monkeypatch, large):
    monkeypatch.setattr(restricted_pickle, 'LARGE', large)
    train = b'}(' + short(b'audio') + array_code(binstring(FLOATS.tobytes()), FLOATS.shape, dtype_code(b'f4'))
    train += short(b'id') + array_code(short(b'a\x00bc'), (2,), dtype_code(b'S2', b'|', 2)) + b'u'
    long_name = binstring(b'caf\xe9' * 5)
    pairs = b'ccollections\nOrderedDict\n](](' + short(b'k') + b'I12345678901\nee\x85R'
    data = b'\x80\x02}(' + short(b'train') + train + short(b'name') + long_name + short(b'pairs') + pairs + b'u.'
    found = load(save(tmp_path / 'a.pkl', data))
    expected = {'audio': FLOATS, 'id': np.array([b'a', b'bc'])}
    assert_same(found, {'train': expected, 'name': 'caf\u00e9' * 5, 'pairs': collections.OrderedDict(k=12345678901)})
    assert isinstance(found['train']['audio'], np.memmap) == (large == 16)


@pytest.mark.parametrize('core', [b'numpy.core', b'numpy._core'])
def test_names_of_numpy_1_and_2(tmp_path, core):
    data = FLOATS.tobytes()
    buffer = b'c' + core + b'.numeric\n_frombuffer\n(\x96' + struct.pack('<Q', len(data)) + data + dtype_code(b'f4')
    buffer += small_tuple(FLOATS.shape) + short(b'C') + b'tR'
    scalar = b'c' + core + b'.multiarray\nscalar\n' + dtype_code(b'f4') + short(data[:4]) + b'\x86R'
    array = array_code(binstring(data), FLOATS.shape, dtype_code(b'f4'), core)
    found = load(save(tmp_path / 'a.pkl', b'\x80\x02](' + buffer + scalar + array + b'e.'))
    assert_same(found, [FLOATS, FLOATS.flat[0], FLOATS])


# ---- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('protocol', ['python 2', *PROTOCOLS])
def test_large_arrays_stay_on_the_disk(tmp_path, monkeypatch, protocol):
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    monkeypatch.setattr('tempfile.tempdir', None)
    array = np.random.default_rng(0).integers(0, 256, 1 << 24, np.uint8).view(np.float32).reshape(64, -1, 16)
    if protocol == 'python 2':
        data = (
            b'\x80\x02}' + short(b'x') + array_code(binstring(array.tobytes()), array.shape, dtype_code(b'f4')) + b's.'
        )
    else:
        data = pickle.dumps({'x': array}, protocol)
    path = save(tmp_path / 'a.pkl', data)
    del data
    tracemalloc.start()
    try:
        found = load(path)['x']
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(found) is np.memmap
    assert peak < array.nbytes // 3  # protocol 2 decodes pieces of 1 MiB, the others read nothing
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert np.array_equal(found.view(np.uint8), array.view(np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ['a.pkl']
    with pytest.raises(ValueError, match='read-only'):
        found[0] = 0


# ---- hostile files -------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class State:
    pass


HOSTILE = {
    'os.system': b'cos\nsystem\n(S"touch {marker}"\ntR.',
    'os.system ': b'\x80\x02ios\nsystem\n.',
    'builtins.eval': b'\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x03a()\x85R.',
    '__builtin__.eval': b'\x80\x02c__builtin__\neval\nU\x011\x85R.',
    'evil_module.anything': b'\x80\x02cevil_module\nanything\n.',
    'os.system  ': b'\x80\x02(ios\nsystem\n.',
    'numpy.load': b'\x80\x02cnumpy\nload\nU\x01f\x85R.',
    'numpy.ndarray.tofile': b'\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.',
    '_codecs.decode': b'\x80\x02c_codecs\ndecode\n.',
    "encoding 'zip'": b'\x80\x02c_codecs\nencode\n' + short(b'a') + short(b'zip') + b'\x86R.',
    'a call of numpy.ndarray': b'\x80\x02cnumpy\nndarray\nK\x05\x85\x85R.',
    'a call of str': b'\x80\x02' + short(b'a') + b')R.',
    'asks for numpy.dtype,': b'\x80\x02cnumpy\ndtype\n.',
    "numpy.dtype 'V8'": b'\x80\x02cnumpy\ndtype\n' + short(b'V8') + b'\x85R.',
    'a class other than numpy.ndarray': b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n' + short(b'a') * 3 + b'\x87R.',
    'an instance of a class': b'\x80\x02cnumpy\nndarray\nK\x05\x85\x81.',
    'an object array with an item of numpy.dtype': b'\x80\x02'
    + array_code(b'](cnumpy\ndtype\ne', (1,), dtype_code(b'O8', b'|'))
    + b'.',
    'an object array with an item of list': b'\x80\x02' + array_code(b'](]e', (1,), dtype_code(b'O8', b'|')) + b'.',
    'a persistent id': b'\x80\x02Pname\n.',
    'a persistent id ': b'\x80\x02K\x01Q.',
    'extension code 7': b'\x80\x02\x82\x07.',
    'extension code 258': b'\x80\x02\x83\x02\x01.',
    'a buffer outside the file': b'\x80\x05\x97.',
    'a set': b'\x80\x04\x8f.',
    'the state of dict': b'\x80\x02}}b.',
    'appending to an object of type dict': b'\x80\x02}K\x01a.',
    'items of an object of type list': b'\x80\x02]K\x01K\x02s.',
    'an object scalar': b'\x80\x02cnumpy.core.multiarray\nscalar\n'
    + dtype_code(b'O8', b'|')
    + short(b'x' * 8)
    + b'\x86R.',
}


@pytest.mark.parametrize('name', HOSTILE)
def test_whatever_is_not_plain_is_refused_by_name(tmp_path, monkeypatch, name):
    marker = tmp_path / 'marker'
    (tmp_path / 'evil_module.py').write_text(f'open({str(marker)!r}, "w").close()')
    monkeypatch.syspath_prepend(tmp_path)
    path = save(tmp_path / 'a.pkl', HOSTILE[name].replace(b'{marker}', str(marker).encode()))
    with pytest.raises(UnsafePickleError, match=re.escape(name.strip())) as error:
        load(path)
    assert str(path) in str(error.value)
    assert 'nothing of it was run' in str(error.value)
    assert not marker.exists()
    assert 'evil_module' not in sys.modules


@pytest.mark.parametrize('protocol', range(6))
def test_real_exploits_of_every_protocol(tmp_path, protocol):
    marker = tmp_path / 'marker'
    items = np.empty(2, object)
    items[:] = ['harmless', Call(os.system, f'touch {marker}')]
    path = tmp_path / 'a.pkl'
    for evil, name in (
        ({'train': {'id': Call(os.system, f'touch {marker}')}}, f'{os.name}.system'),
        ([1, Call(eval, f'open({str(marker)!r}, "w")')], r'(builtins|__builtin__)\.eval'),
        ({'id': items}, f'{os.name}.system'),
        # Below protocol 3 Popen has the name of its module in Python 2.
        ({'x': Call(subprocess.Popen, ['touch', str(marker)])}, r'(subprocess|commands)\.Popen'),
        (State(), r'test_restricted_pickle\.State|copy_reg\._reconstructor'),
    ):
        path.write_bytes(pickle.dumps(evil, protocol))
        with pytest.raises(UnsafePickleError, match=name):
            load(path)
    assert not marker.exists()
    with open(path, 'wb') as file:
        pickle.dump({'id': items}, file, protocol)
    with open(path, 'rb') as file:
        pickle.load(file)
    assert marker.exists()  # so the exploit is a real one


RAW = binstring(FLOATS.tobytes())
F4 = dtype_code(b'f4')
CONTRADICTIONS = {
    'has 480 bytes, expected 960': array_code(RAW, (4, 10, 6), F4),
    'has 480 bytes, expected 4000000000000000': array_code(RAW, (10**9, 10**6), F4),
    'shape (2, -3, 4)': array_code(RAW, (2, -3, 4), F4),
    'raw data (str), expected a list of 12': array_code(RAW, (12,), dtype_code(b'O8', b'|')),
    'are list, expected bytes': array_code(b']', (0,), F4),
    '1 items, expected a list of 2': array_code(b'](K\x01e', (2,), dtype_code(b'O8', b'|')),
    'no characters': array_code(short(b'\xff' * 4), (1,), dtype_code(b'U1', b'<', 4)),
    'dtype S2 has 9 bytes an item, expected 2': array_code(short(b'ab'), (1,), dtype_code(b'S2', b'|', 9)),
    "byte order 'q'": array_code(RAW, (120,), dtype_code(b'f4', b'q')),
    'expected 5000 more bytes, found 3': b'T' + struct.pack('<i', 5000) + b'ab',
    'expected -1 more bytes, found 1': b'T' + struct.pack('<i', -1),
    'expected 9223372036854775807 more bytes, found 1': b'\x8e' + struct.pack('<Q', 2**63 - 1),
    'expected 18446744073709551615 more bytes, found 1': b'\x96' + struct.pack('<Q', 2**64 - 1),
    'expected 1099511627776 more bytes, found 1': b'\x95' + struct.pack('<Q', 2**40),
    'used before its contents': array_code(b'](h\x05e', (1,), dtype_code(b'O8', b'|')).replace(
        b'\x87R(', b'\x87Rq\x05(', 1
    ),
    'has no contents': b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R',
    'a key of type tuple': b'})K\x01s',
    'nested too deeply': b']' * 5000 + b'a' * 4999,
    'byte 0xff is no instruction': b'\xff',
    'index 9': b'h\x09',
}


@pytest.mark.parametrize('message', CONTRADICTIONS)
def test_contradictions_are_told_with_their_numbers(tmp_path, message):
    path = save(tmp_path / 'a.pkl', b'\x80\x02' + CONTRADICTIONS[message] + b'.')
    with pytest.raises(PreparationError, match=re.escape(message)) as error:
        load(path)
    assert str(error.value).startswith(f'{path} is damaged or no pickle: at byte ')
    assert f' of {path.stat().st_size}: ' in str(error.value)


def test_shared_values_cost_no_more_than_once(tmp_path):
    doubling = b''.join(b'(h' + bytes([k]) + b'h' + bytes([k]) + b'lq' + bytes([k + 1]) for k in range(60))
    found = load(save(tmp_path / 'a.pkl', b'\x80\x02]q\x00' + doubling + b'.'))
    assert found[0] is found[1]
    pairs = b''.join(b'h' + bytes([k]) + b'h' + bytes([k]) + b'\x86q' + bytes([k + 1]) for k in range(5))
    found = load(save(tmp_path / 'a.pkl', b'\x80\x02)q\x00' + pairs + b'.'))
    assert found[0] is found[1]
    itself = load(save(tmp_path / 'a.pkl', b'\x80\x02]q\x00h\x00a.'))
    assert itself[0] is itself


# ---- damaged files and other files ---------------------------------------------------------------------------------


@pytest.mark.parametrize('large', [16, 1 << 20])
@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_a_truncated_file_is_told_wherever_it_ends(tmp_path, monkeypatch, protocol, large):
    monkeypatch.setattr(restricted_pickle, 'LARGE', large)
    data = pickle.dumps({'audio': FLOATS, 'id': np.array([b'ab']), 'labels': [1, 'x']}, protocol)
    for size in (*range(1, len(data), 5), len(data) - 1):
        path = save(tmp_path / 'a.pkl', data[:size])
        with pytest.raises(PreparationError, match=f'a.pkl is damaged or no pickle: at byte .* of {size}: '):
            load(path)


OTHER = {
    'git-LFS pointer': b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 341000000\n',
    'HTML page': b'\n<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>',
    'zip archive': b'PK\x03\x04rest',
    'gzip file': b'\x1f\x8brest',
    'HDF5 file': b'\x89HDF\r\n',
    'is empty': b'',
    'is damaged or no pickle': b'{"train": {"text": []}}',
}


@pytest.mark.parametrize('message', OTHER)
def test_files_that_are_no_pickle(tmp_path, message):
    path = save(tmp_path / 'mosi_data.pkl', OTHER[message])
    with pytest.raises(PreparationError, match=f'mosi_data.pkl .*{message}|mosi_data.pkl {message}'):
        load(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(PreparationError, match=r'no\.pkl is missing'):
        load(tmp_path / 'no.pkl')
    with pytest.raises(PreparationError, match='is a folder'):
        load(tmp_path)


def test_tuples_that_stand_for_more_than_the_file_holds_are_refused(tmp_path):
    """2 to the 36th values in a file of some hundred bytes: whoever walks through them needs gigabytes."""
    value, shared = 1, (1, 2)
    for _ in range(36):
        value = (value, value)
    path = tmp_path / 'a.pkl'
    path.write_bytes(pickle.dumps({'id': value}))
    with pytest.raises(PreparationError, match=r'37 of them stand for 1\.4e\+11 values'):
        load_records(path)
    path.write_bytes(pickle.dumps([shared] * 1000))
    assert load_records(path) == [shared] * 1000
