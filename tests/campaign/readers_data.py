"""Readers of data for the fuzz: shard directories, pickles, .csd, tables of arrays and text."""

import io
import json
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets.core.features  # noqa: F401  loaded once, before the children

from data_prep import csd, mmsa_pickle, mult_pickle, ravdess_openface
from data_prep.pool import MISTAKES
from mmer_jax.data import records
from mmer_jax.data.records import Feature, Label, RecordError, RecordSource, RecordWriter, Schema
from mmer_jax.data.tfrecord import masked_crc
from mmer_jax.files import sums
from mmer_jax.media.textfile import read_table
from mmer_jax.readers import given
from tests.campaign import mutations
from tests.campaign.mutations import Generator, Outside, change_bytes, change_csv, change_json, change_pickle
from tests.campaign.subject import Subject

SHARDS = ('data-00000-of-00002.tfrecord', 'data-00001-of-00002.tfrecord')
INDICES = tuple(name.replace('.tfrecord', '.index.npy') for name in SHARDS)
FEATURES, MANIFEST = 'features.json', 'manifest.csv'


def make_shards(folder: Path, *, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    features = {
        'text': Feature((None, 3)),
        'audio': Feature((None,), 'int16'),
        'vision': Feature((None, 8, 8, 3), 'uint8', encoding='jpeg'),
        'vector': Feature((4,), optional=True),
    }
    folder.rmdir()
    with RecordWriter(folder, Schema('small', features, Label('classes', ('a', 'b', 'c'))), num_shards=2) as writer:
        for number in range(6):
            record: dict[str, Any] = {'id': f'clip_{number}', 'label': number % 3}
            record['text'] = generator.standard_normal((2 + number % 2, 3)).astype(np.float32)
            record['audio'] = generator.integers(-99, 99, 12).astype(np.int16)
            record['vision'] = np.full((1, 8, 8, 3), 40 * number, np.uint8)
            record['vector'] = None if number == 3 else generator.standard_normal(4).astype(np.float32)
            writer.write(record, speaker=str(number % 2), session='1', split='train')


def read_shards(folder: Path) -> Any:
    source = RecordSource(folder)
    return [source.manifest, source.schema.to_json(), [source[number] for number in range(len(source))]]


def verify_shards(folder: Path) -> Any:
    if faults := records.verify(folder):
        raise RecordError(f'{folder}: {faults[0]}')
    return read_shards(folder)


def seal(folder: Path) -> None:
    """Sums of the files as they are now, as a stranger can write them; a damaged features.json stays as it is."""
    path = folder / FEATURES
    try:
        content = json.loads(path.read_bytes())
        names = [file.name for file in folder.iterdir() if file.name != FEATURES]
        path.write_text(json.dumps(sums.seal(content, folder, names)))
    except (ValueError, AttributeError, RecursionError):
        return


def unseal(folder: Path) -> None:
    """As version 0.2 wrote it: without sums."""
    path = folder / FEATURES
    content = json.loads(path.read_bytes())
    rest = {key: value for key, value in content.items() if key not in (sums.FILES, sums.OWN)}
    path.write_text(json.dumps(rest))


def make_unsealed(folder: Path) -> None:
    make_shards(folder)
    unseal(folder)


def change_records(content: bytes, generator: Generator, outside: Outside) -> bytes:
    """The content of one record changed, and its length and CRCs right."""
    found, place = [], 0
    while place < len(content):
        (length,) = struct.unpack('<Q', content[place : place + 8])
        found.append(content[place + 12 : place + 12 + length])
        place += length + 16
    number = int(generator.integers(len(found)))
    found[number] = change_bytes(found[number], generator, outside)
    return b''.join(map(_framed, found))


def _framed(payload: bytes) -> bytes:
    head = struct.pack('<Q', len(payload))
    return head + struct.pack('<I', masked_crc(head)) + payload + struct.pack('<I', masked_crc(payload))


def reindex(folder: Path) -> None:
    """Indices and sums as the shards are now."""
    records.mend_index(folder)
    seal(folder)


# ---- pickles -------------------------------------------------------------------------------------------------

STEPS, SIZES = {'text': 4, 'audio': 6, 'vision': 5}, {'text': 3, 'audio': 2, 'vision': 2}
COUNTS = {'train': 3, 'valid': 2, 'test': 2}


def mult_content() -> dict[str, Any]:
    generator, content = np.random.default_rng(0), {}
    for split, count in COUNTS.items():
        part: dict[str, Any] = {m: generator.uniform(1, 2, (count, STEPS[m], SIZES[m])).astype('f4') for m in STEPS}
        part['labels'] = generator.uniform(-3, 3, (count, 1, 1))
        part['id'] = [[f'{split}{n}', '0.5', '1.5'] for n in range(count)]
        content[split] = part
    return content


def mmsa_content() -> dict[str, Any]:
    content = mult_content()
    for split, part in content.items():
        count = COUNTS[split]
        part['id'] = [f'{split}{n}$_${n}' for n in range(count)]
        part['text_bert'] = np.ones((count, 3, STEPS['text']), np.float32)
        part['raw_text'], part['annotations'] = ['so well'] * count, ['Negative'] * count
        part['regression_labels'] = part.pop('labels').ravel()
        part['audio_lengths'], part['vision_lengths'] = [3] * count, [4] * count
    return content


def listed_content() -> dict[str, Any]:
    generator, content = np.random.default_rng(0), {}
    for split, count in COUNTS.items():
        rows = []
        for number in range(count):
            steps = 2 + number
            vision, audio = (generator.uniform(1, 2, (steps, 2)) for _ in range(2))
            rows.append(((['so'] * steps, vision, audio), np.array([[0.5]]), f'{split}[{number}]'))
        content[split] = rows
    return content


def pickled(name: str, content: Any) -> Any:
    return lambda folder: (folder / name).write_bytes(pickle.dumps(content(), 4))


def prepared(module: Any, name: str, dataset: str) -> Any:
    def read(folder: Path) -> Any:
        module.prepare(folder / name, folder / 'out', dataset=dataset, num_shards=1)
        source = RecordSource(folder / 'out')
        return [source.manifest, [source[number] for number in range(len(source))]]

    return read


# ---- .csd ----------------------------------------------------------------------------------------------------


def make_csd(folder: Path) -> None:
    import h5py

    with h5py.File(folder / 'words.csd', 'w') as file:
        for number in range(3):
            file[f'words/data/v{number}/features'] = np.arange(6.0).reshape(2, 3) + number
            file[f'words/data/v{number}/intervals'] = np.array([[0, 1], [1, 2.5]])


def read_csd(folder: Path) -> Any:
    with csd.Sequence(folder / 'words.csd') as sequence:
        return {video: sequence.read(video) for video in sequence.videos}


def odd_csd(folder: Path, generator: Generator, outside: Outside) -> None:
    """A video whose data lie elsewhere, announce much, or are of another kind."""
    import h5py

    path = folder / 'words.csd'
    with h5py.File(path, 'a') as file:
        data, secret = file['words/data'], str(outside.secret)
        kind, target = int(generator.integers(12)), f'v{int(generator.integers(3))}'
        name = ('features', 'intervals')[int(generator.integers(2))]
        if kind == 0:
            del data[target]
            data[target] = h5py.ExternalLink(secret, '/words/data/v0')
        elif kind == 1:
            del data[target][name]
            data[target][name] = h5py.ExternalLink('../outside/secret.txt', '/x')
        elif kind == 2:
            del data[target][name]
            data[target].create_dataset(name, (2, 2), 'S8', external=[(secret, 0, 32)])
        elif kind == 3:
            layout = h5py.VirtualLayout((2, 2), 'f8')
            layout[:] = h5py.VirtualSource(secret, 'x', (2, 2))
            del data[target][name]
            data[target].create_virtual_dataset(name, layout)
        elif kind == 4:
            del data[target][name]
            data[target].create_dataset(name, (10**6, 600), 'f4', chunks=(100, 100))
        elif kind == 5:
            data[target]['loop'] = h5py.SoftLink(f'/words/data/{target}')
            del data[target][name]
            data[target][name] = h5py.SoftLink(f'/words/data/{target}/{name}')
        elif kind == 6:
            del data[target][name]
            data[target].create_group(name)
        elif kind == 7:
            place, key = (file, 'more/data') if generator.integers(2) else (data, outside.names()[0])
            place.create_group(key.replace('/', '_') if place is data else key)
        else:
            odd = (
                np.zeros(0), np.array([b'a', b'b']), np.zeros((2, 2, 2)), np.array([[np.nan, 1], [1, np.inf]]),
                np.ones((2, 3), complex), np.array(3.0), np.zeros((2, 3), bool), np.array([['a', 'b']] * 2, 'S3'),
                np.zeros(2, [('a', 'f4'), ('b', 'i4')]),
            )  # fmt: skip
            del data[target][name]
            data[target][name] = odd[int(generator.integers(len(odd)))]


# ---- arrays and tables ---------------------------------------------------------------------------------------


def make_openface(folder: Path) -> None:
    ids = [f'03-01-0{1 + n}-01-01-01-0{1 + n}' for n in range(3)]
    np.savez(folder / 'table.npz', ids=np.array(ids), feats=np.ones((3, 294), np.float32))


def odd_npz(folder: Path, generator: Generator, outside: Outside) -> None:
    """An array of another kind, of objects, or one that unpacks to much."""
    arrays = {'ids': np.array(['03-01-01-01-01-01-01']), 'feats': np.ones((1, 294), np.float32), 'x': np.ones((2, 3))}
    odd = (
        np.array([mutations._Call(print)], object), np.zeros(0), np.zeros((2,) * 12), np.array(outside.names()),
        np.zeros((1, 294), np.float16), np.full((1, 294), np.nan), np.array([b'\xff']), np.array(1.0),
    )  # fmt: skip
    name = ('ids', 'feats', 'x')[int(generator.integers(3))]
    arrays[name] = odd[int(generator.integers(len(odd)))]
    for path in folder.glob('*.npz'):
        kept = arrays if path.name == 'table.npz' else {'x': arrays[name]}
        if generator.integers(4) == 0:
            _write_bomb(path, name)
        else:
            np.savez(path, **kept)


def _write_bomb(path: Path, name: str, size: int = 1200 << 20) -> None:
    """An array that is a megabyte packed: the same block of zeros again and again."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {'descr': '|u1', 'fortran_order': False, 'shape': (size,)})
    packer, zeros, sum_ = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1 << 20), zlib.crc32(head.getvalue())
    first = packer.compress(head.getvalue()) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    content, total = first + block * (size >> 20) + packer.flush(), len(head.getvalue()) + size
    for _ in range(size >> 20):
        sum_ = zlib.crc32(zeros, sum_)
    key = f'{name}.npy'.encode()
    sizes = struct.pack('<III', sum_, len(content), total)
    local = b'PK\3\4' + struct.pack('<HHHHH', 20, 0, 8, 0, 33) + sizes + struct.pack('<HH', len(key), 0) + key
    entry = b'PK\1\2' + struct.pack('<HHHHHH', 20, 20, 0, 8, 0, 33) + sizes
    entry += struct.pack('<HHHHHII', len(key), 0, 0, 0, 0, 0, 0) + key
    end = b'PK\5\6' + struct.pack('<HHHHIIH', 0, 0, 1, 1, len(entry), len(local) + len(content), 0)
    path.write_bytes(local + content + entry + end)


def make_arrays(folder: Path) -> None:
    np.save(folder / 'a.npy', np.arange(12.0).reshape(3, 4))
    (folder / 'c.csv').write_text('frame,success,x,y\n1,1,0.5,1\n2,1,0.25,2\n')


def read_arrays(folder: Path) -> Any:
    return {name: given.read_features(folder / name) for name in ('a.npy', 'c.csv')}


def make_packed(folder: Path) -> None:
    np.savez(folder / 'b.npz', x=np.ones((2, 3)))


def make_clips(folder: Path) -> None:
    (folder / 'labels.csv').write_text('path,label,text,start,end\na.wav,happy,so well,0,1\nb.wav,sad,oh,1,2.5\n')


BYTES = (change_bytes,)
SUBJECTS = (
    Subject('records', make_shards, read_shards, SHARDS, BYTES, has_sum=True),
    Subject('records, CRC valid', make_shards, verify_shards, SHARDS, (change_records,), has_sum=True),
    Subject('records, CRC and sums valid', make_shards, verify_shards, SHARDS, (change_records,), after=reindex),
    Subject('manifest.csv', make_shards, read_shards, (MANIFEST,), (change_bytes, change_csv), has_sum=True),
    Subject('manifest.csv, sums valid', make_shards, verify_shards, (MANIFEST,), (change_csv,), after=seal),
    Subject('features.json', make_shards, read_shards, (FEATURES,), (change_bytes, change_json), has_sum=True),
    Subject('features.json, sums valid', make_shards, verify_shards, (FEATURES,), (change_json,), after=seal),
    Subject('features.json without sums', make_unsealed, read_shards, (FEATURES,), (change_bytes, change_json)),
    Subject('index.npy', make_shards, read_shards, INDICES, BYTES, has_sum=True),
    *(
        Subject(
            f'pickle of {title}',
            pickled(name, content),
            prepared(module, name, dataset),
            (name,),
            (change_bytes, change_pickle),
            mistakes=MISTAKES,
        )
        for title, module, name, dataset, content in (
            ('MulT', mult_pickle, 'mosi_data.pkl', 'mosi', mult_content),
            ('MMSA', mmsa_pickle, 'unaligned_50.pkl', 'mosi', mmsa_content),
            ('MAG-BERT', mult_pickle, 'mosi.pkl', 'own', listed_content),
        )
    ),
    Subject('csd (HDF5)', make_csd, read_csd, ('words.csd',), BYTES, special=(odd_csd,), mistakes=MISTAKES),
    Subject(
        'npz of OpenFace',
        make_openface,
        lambda folder: {'-'.join(take): row for take, row in ravdess_openface.read_table(folder / 'table.npz').items()},
        ('table.npz',),
        BYTES,
        special=(odd_npz,),
        mistakes=MISTAKES,
    ),
    Subject('npz of features', make_packed, lambda folder: given.read_features(folder / 'b.npz'), ('b.npz',), BYTES,
            special=(odd_npz,), mistakes=MISTAKES),
    Subject('npy, csv of features', make_arrays, read_arrays, ('a.npy', 'c.csv'), BYTES, mistakes=MISTAKES),
    Subject('csv of clips', make_clips, lambda folder: list(read_table(folder / 'labels.csv', expected='clips')),
            ('labels.csv',), (change_bytes, change_csv), mistakes=MISTAKES),
)  # fmt: skip
