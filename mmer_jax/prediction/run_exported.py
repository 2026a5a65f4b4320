"""What an exported model says of a clip: python run.py CLIP.npz, its arrays by modality as preprocess.json describes.

It imports jax and numpy alone; jax.export reads its programs with flatbuffers (pip install jax flatbuffers). In Python:
from run import load; load('model')({'audio': array}).
"""

import hashlib
import json
import sys
import zlib
from pathlib import Path

import numpy as np
from jax import export

TYPES = {'F32': np.float32, 'F16': np.float16, 'I32': np.int32, 'U32': np.uint32, 'U8': np.uint8, 'BOOL': np.bool_}


def read(folder):
    """(preprocess.json, program, parameters) as they were written; ValueError names the file that was changed."""
    path = Path(folder) / 'preprocess.json'
    try:
        about = json.loads(path.read_text(encoding='utf-8'))
        rest = {key: value for key, value in about.items() if key != 'sha256'}
        if hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest() != about['sha256']:
            raise ValueError('its sum differs')
        found = []
        for name in ('model.jax_export', 'params.safetensors'):
            path = Path(folder) / name
            found.append(path.read_bytes())
            if zlib.crc32(found[-1]) != about['files'][name]['crc32']:
                raise ValueError('its sum differs')
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f'{path} was changed since it was exported ({error}): export the run again') from error
    return about, *found


def load(folder):
    """The model of a folder: {modality: (T, ...)} of a clip -> {label: score}; a modality may be left out."""
    about, program, raw = read(folder)
    program = export.deserialize(bytearray(program))
    start = 8 + int.from_bytes(raw[:8], 'little')
    names = {name: at for name, at in json.loads(raw[8:start]).items() if name != '__metadata__'}
    params: dict = {
        name: np.frombuffer(raw[start + at['data_offsets'][0] : start + at['data_offsets'][1]], TYPES[at['dtype']])
        for name, at in names.items()
    }
    params = {name: array.reshape(names[name]['shape']) for name, array in params.items()}

    def predict(arrays):
        batch = {}
        for m, one in about['inputs'].items():
            x = np.asarray(arrays.get(m, []), one['dtype']).reshape(-1, *one['step_shape'])[: one['longest']]
            steps = one['steps'] or max(len(x), one['least'])
            batch[m] = np.zeros((1, steps, *one['step_shape']), one['dtype'])
            batch[m][0, : len(x)], batch[f'{m}_mask'] = x, np.arange(steps)[None] < len(x)
        return dict(zip(about['labels'], np.asarray(program.call(params, batch))[0].tolist(), strict=True))

    return predict


if __name__ == '__main__':
    try:
        print(json.dumps(load(Path(__file__).parent)(dict(np.load(sys.argv[1])))))
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
