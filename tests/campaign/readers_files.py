"""Readers of weights, media and runs for the fuzz."""

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from data_prep.convert_weights import huggingface, torch_files
from data_prep.convert_weights.huggingface_files import Tensors
from mmer_jax.files import read_json, read_jsonl, sums, write_json
from mmer_jax.media import audio, video
from mmer_jax.prediction import run_exported
from mmer_jax.pretrained import Head, find_tokenizer, load_head, load_pretrained, save_pretrained
from mmer_jax.report import write_report
from mmer_jax.run import checkpoint, workdir
from tests.campaign.mutations import Generator, Outside, change_bytes, change_json, change_lines
from tests.campaign.subject import Subject
from tests.finished_runs import classification_run

GOLDEN = Path(__file__).resolve().parents[1] / 'golden' / 'transformers.npz'
RATE, FPS = 8000, 10


# ---- weights -------------------------------------------------------------------------------------------------


def make_bert(folder: Path) -> None:
    """A BERT of two small layers as a folder of Hugging Face."""
    with np.load(GOLDEN) as stored:
        config, names, shapes, flat = (stored[f'bert/{key}'] for key in ('config', 'names', 'shapes', 'weights'))
    (folder / 'config.json').write_text(str(config))
    weights, place = {}, 0
    for name, shape in zip(names.tolist(), shapes.tolist(), strict=True):
        sizes = [size for size in shape if size]
        count = int(np.prod(sizes))
        weights[name] = flat[place : place + count].astype(np.float32).reshape(sizes)
        place += count
    save_file(weights, folder / 'model.safetensors')


def read_tensors(folder: Path) -> Any:
    return dict(Tensors(folder))


def read_plan(folder: Path) -> Any:
    plan = huggingface.plan(folder)
    return [plan.family, plan.fields, plan.taken, plan.fresh, plan.unused, plan.not_read]


def index_of_shards(folder: Path, generator: Generator, outside: Outside) -> None:
    """The weights in shards, whose index names another file."""
    (folder / 'model.safetensors').rename(folder / 'part.safetensors')
    names = [*outside.names(), 'part.safetensors', 'missing.safetensors']
    places = {'a': 'part.safetensors', 'b': names[int(generator.integers(len(names)))]}
    (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': places}))


def make_converted(folder: Path) -> None:
    folder.rmdir()
    params = {'dense': {'kernel': np.ones((3, 4), np.float32), 'bias': np.zeros(4, np.float32)}}
    head = Head(np.ones((4, 2), np.float32), np.zeros(2, np.float32), 'regression', ('arousal', 'valence'))
    vocabulary = folder.with_name('vocab.txt')
    vocabulary.write_text('[UNK]\n[CLS]\n[SEP]\nso\ngood\n')
    source = {'family': 'bert', 'fields': {'width': 4}}
    save_pretrained(folder, {'params': params}, source, head, [vocabulary])
    vocabulary.unlink()


def read_converted(folder: Path) -> Any:
    return [load_pretrained(folder), tuple(load_head(folder)), (find_tokenizer(folder) / 'vocab.txt').read_bytes()]


def seal_converted(folder: Path) -> None:
    sums.write_sums(folder)


def without_sums(folder: Path) -> None:
    (folder / sums.SUMS).unlink()


def make_exported(folder: Path) -> None:
    """An export whose program is any bytes: it is not run, but compared with its sum."""
    (folder / 'model.jax_export').write_bytes(NUMBERS * 40)
    save_file({'fold_0/params/dense/bias': np.ones(9, np.float32)}, folder / 'params.safetensors')
    about = sums.seal({'labels': ['low', 'high'], 'inputs': {}}, folder, [p.name for p in folder.iterdir()], quick=True)
    (folder / 'preprocess.json').write_text(json.dumps(about, indent=1))


def _tensor(name: bytes, key: bytes) -> bytes:
    """Instructions of protocol 2 for one float32 tensor (2, 3) by name."""
    storage = b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00' + key + b'X\x03\x00\x00\x00cpuK\x06'
    tail = b'QK\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR'
    named = b'X' + struct.pack('<I', len(name)) + name
    legacy = b'N' if key == b'L' else b''
    return named + b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + legacy + b't' + tail


STATE = b'\x80\x02}(' + _tensor(b'a.weight', b'0') + _tensor(b'b.weight', b'1') + b'u.'
NUMBERS = np.arange(6, dtype=np.float32).tobytes()


def make_torch_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / 'model.bin', 'w') as archive:
        archive.writestr('archive/data.pkl', STATE)
        for key in '01':
            archive.writestr(f'archive/data/{key}', NUMBERS)
        archive.writestr('archive/version', '3\n')


def make_torch_legacy(folder: Path) -> None:
    import pickle

    head = [torch_files.LEGACY, 1001, {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {}}]
    content = b''.join(pickle.dumps(part, 2) for part in head)
    content += b'\x80\x02}(' + _tensor(b'a.weight', b'L') + b'u.' + pickle.dumps(['L'], 2)
    (folder / 'model.bin').write_bytes(content + struct.pack('<q', 6) + NUMBERS)


def read_torch(folder: Path) -> Any:
    return torch_files.load(folder / 'model.bin')


def repacked(folder: Path, generator: Generator, outside: Outside) -> None:
    """The pickle inside the zip file changed, or asking for a call, with the sums of zip right; or a zip bomb."""
    call = b'\x80\x02cposix\nsystem\nX' + struct.pack('<I', 6 + len(str(outside.canary)))
    call += b'touch ' + str(outside.canary).encode() + b'\x85R.'
    bomb = b'\x80\x02]' + b'(K\x00' * 10 + b'X\x00\x00\x00\x40' + bytes(100)
    kind = int(generator.integers(4))
    changed = (call, bomb, STATE.replace(b'K\x02K\x03\x86', b'J\xff\xff\xff\x7fK\x03\x86'))
    content = change_bytes(STATE, generator, outside) if kind == 3 else changed[kind]
    if (folder / 'model.bin').read_bytes()[:2] != b'PK':
        (folder / 'model.bin').write_bytes(content)
        return
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', content if generator.integers(8) else bytes(300 << 20))
        for key in '01':
            archive.writestr(f'archive/data/{key}', NUMBERS)
    (folder / 'model.bin').write_bytes(buffer.getvalue())


# ---- media ---------------------------------------------------------------------------------------------------


def _sound() -> np.ndarray:
    return (0.5 * np.sin(np.arange(2 * RATE) / 7)).astype(np.float32)


def make_sound(name: str) -> Any:
    def make(folder: Path) -> None:
        import soundfile

        soundfile.write(folder / name, _sound(), RATE)

    return make


def read_sound(name: str) -> Any:
    return lambda folder: audio.load_audio(folder / name, 16000)


def make_mp4(folder: Path) -> None:
    import av

    with av.open(str(folder / 'clip.mp4'), 'w') as container:
        pictures = container.add_stream('mpeg4', rate=FPS)
        pictures.width = pictures.height = 32
        pictures.pix_fmt = 'yuv420p'
        sound = container.add_stream('aac', rate=RATE, layout='mono')
        for number in range(2 * FPS):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 10 * number, np.uint8), format='rgb24')
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        samples = av.AudioFrame.from_ndarray((_sound()[None] * 32767).astype(np.int16), format='s16', layout='mono')
        samples.sample_rate = RATE
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))


def read_pictures(folder: Path) -> Any:
    return [video.read_frames(folder / 'clip.mp4', 8)[0], video.read_frames(folder / 'clip.mp4', how='all')[0]]


# ---- runs ----------------------------------------------------------------------------------------------------


def make_run(folder: Path) -> None:
    classification_run(folder)


def report_of(folder: Path) -> Any:
    return write_report([folder], folder / 'report').read_text(encoding='utf-8')


def make_lines(folder: Path) -> None:
    rows = [{'step': n, 'split': 'train', 'loss': 1 / n} for n in range(1, 6)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


def make_sealed_run(folder: Path) -> None:
    """As training writes it: the other one is as version 0.2 did."""
    classification_run(folder)
    write_json(folder / 'results.json', read_json(folder / 'results.json'), sealed=True)


def make_config(folder: Path) -> None:
    from tests.campaign.tiny import get_config

    (folder / 'config.json').write_text(json.dumps(get_config().to_dict()))


def make_sealed_config(folder: Path) -> None:
    from tests.campaign.tiny import get_config

    write_json(folder / 'config.json', get_config().to_dict(), sealed=True)


def read_config(folder: Path) -> Any:
    return workdir.read_config(folder)[0].to_dict()


def make_checkpoint(folder: Path) -> None:
    step = folder / '3'
    (step / 'state' / 'd').mkdir(parents=True)
    (step / 'state' / 'd' / 'a').write_bytes(NUMBERS)
    (step / 'state' / '_METADATA').write_text('{"a": 1}')
    checkpoint.write_sums(step)


def read_checkpoint(folder: Path) -> Any:
    fault = checkpoint.fault_of(folder / '3')
    if fault != '':
        raise ValueError(f'{folder / "3"}: {fault}')
    return {path.name: path.read_bytes() for path in (folder / '3' / 'state').rglob('*') if path.is_file()}


CONVERTED = ('params.safetensors', 'source.json', 'head.safetensors', 'vocab.txt', sums.SUMS)
BYTES, JSON = (change_bytes,), (change_bytes, change_json, change_json)
SUBJECTS = (
    Subject('safetensors', make_bert, read_tensors, ('model.safetensors',), BYTES, special=(index_of_shards,)),
    Subject('weights, converted', make_converted, read_converted, CONVERTED, BYTES, has_sum=True),
    Subject('weights, converted, sums valid', make_converted, read_converted, CONVERTED[:2], BYTES,
            after=seal_converted),
    Subject('weights, converted, without sums', make_converted, read_converted, CONVERTED[:2], BYTES,
            after=without_sums),
    Subject('exported model', make_exported, run_exported.read,
            ('model.jax_export', 'params.safetensors', 'preprocess.json'), BYTES, has_sum=True),
    Subject('bin (PyTorch, zip)', make_torch_zip, read_torch, ('model.bin',), BYTES, has_sum=True),
    Subject('bin (PyTorch, zip), sums valid', make_torch_zip, read_torch, ('model.bin',), BYTES, special=(repacked,)),
    Subject('bin (PyTorch, legacy)', make_torch_legacy, read_torch, ('model.bin',), BYTES, special=(repacked,)),
    Subject('config.json of weights', make_bert, read_plan, ('config.json',), JSON),
    Subject('wav', make_sound('a.wav'), read_sound('a.wav'), ('a.wav',), BYTES),
    Subject('flac', make_sound('a.flac'), read_sound('a.flac'), ('a.flac',), BYTES, has_sum=True),
    Subject('ogg', make_sound('a.ogg'), read_sound('a.ogg'), ('a.ogg',), BYTES, has_sum=True),
    Subject('mp4, sound', make_mp4, read_sound('clip.mp4'), ('clip.mp4',), BYTES),
    Subject('mp4, pictures', make_mp4, read_pictures, ('clip.mp4',), BYTES),
    Subject('results.json of a run', make_sealed_run, report_of, ('results.json',), BYTES, has_sum=True),
    Subject('results.json of a run, without a sum', make_run, report_of, ('results.json',), JSON),
    Subject('metrics.jsonl, predictions of a run', make_run, report_of,
            ('fold_0/metrics.jsonl', 'fold_0/predictions/test.npz'), BYTES),
    Subject('metrics.jsonl', make_lines, lambda folder: read_jsonl(folder / 'metrics.jsonl'), ('metrics.jsonl',),
            (change_bytes, change_lines)),
    Subject('config.json of a run', make_sealed_config, read_config, ('config.json',), BYTES, has_sum=True),
    Subject('config.json of a run, without a sum', make_config, read_config, ('config.json',), JSON),
    Subject('files of a checkpoint', make_checkpoint, read_checkpoint,
            ('3/state/d/a', '3/state/_METADATA', f'3/{checkpoint.SUMS}'), BYTES, has_sum=True),
)  # fmt: skip
