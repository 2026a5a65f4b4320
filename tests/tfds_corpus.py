"""A small directory as TensorFlow Datasets writes crema_d: its metadata word for word, short tones, no TensorFlow."""

import json
from pathlib import Path

import numpy as np
from tensorflow_datasets import features

from mmer_jax.data.tfrecord import frame

RATE = 16000
NAMES = ('NEU', 'HAP', 'SAD', 'ANG', 'FEA', 'DIS')
SPLITS = {'train': ('1001', '1002'), 'validation': ('1003',), 'test': ('1004',)}
CLASSES = 'tensorflow_datasets.core.features.'
# features.json of crema_d/1.0.0 as tensorflow-datasets 4.9.10 writes it, and as versions before 4.5 did.
NEW = {
    'pythonClassName': f'{CLASSES}features_dict.FeaturesDict',
    'featuresDict': {
        'features': {
            'audio': {
                'pythonClassName': f'{CLASSES}audio_feature.Audio',
                'audio': {
                    'dtype': 'int64',
                    'encoding': 'NONE',
                    'fileFormat': 'wav',
                    'sampleRate': '16000',
                    'shape': {'dimensions': ['-1']},
                },
            },
            'label': {
                'pythonClassName': f'{CLASSES}class_label_feature.ClassLabel',
                'classLabel': {'numClasses': '6'},
            },
            'speaker_id': {
                'pythonClassName': f'{CLASSES}tensor_feature.Tensor',
                'tensor': {'dtype': 'string', 'encoding': 'none', 'shape': {}},
            },
        }
    },
}
OLD = {
    'type': f'{CLASSES}features_dict.FeaturesDict',
    'content': {
        'audio': {
            'type': f'{CLASSES}audio_feature.Audio',
            'content': {'file_format': 'wav', 'shape': [None], 'dtype': 'int64', 'sample_rate': 16000},
        },
        'label': {'type': f'{CLASSES}class_label_feature.ClassLabel', 'content': {'num_classes': 6}},
        'speaker_id': {
            'type': f'{CLASSES}tensor_feature.Tensor',
            'content': {'shape': [], 'dtype': 'string', 'encoding': 'none'},
        },
    },
}


def samples_of(number: int) -> np.ndarray:
    """The sound of example `number` of all, int16."""
    time = np.arange(1200 + 160 * number) / RATE
    return np.round(9000 * np.sin(2 * np.pi * (200 + 40 * number) * time)).astype(np.int16)


def write_corpus(path: Path, *, array_record: bool = False, described=NEW, change=None) -> Path:
    """crema_d/1.0.0 with two clips of each speaker in two shards per split. change(number, example) edits examples."""
    path.mkdir(parents=True)
    kind = 'array_record' if array_record else 'tfrecord'
    encoder = features.FeaturesDict(
        {
            'audio': features.Tensor(shape=(None,), dtype=np.int64),
            'label': features.Scalar(np.int64),
            'speaker_id': features.Text(),
        }
    )
    number, splits = 0, []
    for split, speakers in SPLITS.items():
        shards = ([], [])
        for speaker in speakers:
            for shard in shards:
                example = {
                    'audio': samples_of(number).astype(np.int64),
                    'label': np.int64(number % 6),
                    'speaker_id': speaker,
                }
                shard.append(encoder.serialize_example((change or (lambda _, same: same))(number, example)))
                number += 1
        for index, shard in enumerate(shards):
            _write_shard(path / f'crema_d-{split}.{kind}-{index:05d}-of-00002', shard, array_record)
        splits.append(
            {
                'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
                'name': split,
                'numBytes': str(sum(map(len, shards[0] + shards[1]))),
                'shardLengths': [str(len(shard)) for shard in shards],
            }
        )
    info = {'name': 'crema_d', 'version': '1.0.0', 'fileFormat': kind, 'splits': splits}
    (path / 'dataset_info.json').write_text(json.dumps(info))
    (path / 'features.json').write_text(json.dumps(described))
    (path / 'label.labels.txt').write_text('\n'.join(NAMES) + '\n')
    return path


def _write_shard(path, examples, array_record):
    if not array_record:
        path.write_bytes(b''.join(map(frame, examples)))
        return
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
    for example in examples:
        writer.write(example)
    writer.close()
