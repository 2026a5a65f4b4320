"""Records with JPEG frames: round trip, lazy decoding, damage named, batches of uint8."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from mmer_jax.data import batches, records
from mmer_jax.data.augment import make_augmentations
from mmer_jax.data.records import Feature, Frames, Label, RecordError, RecordSource, RecordWriter, Schema, encode_frames

SIZE = (16, 24)
FEATURES = {
    'audio': Feature((None, 2)),
    'vision': Feature((None, *SIZE, 3), 'uint8', 'jpeg', 'frames'),
    'text': Feature((*SIZE, 1), 'uint8', 'jpeg', 'one grey picture'),
}
SCHEMA = Schema('pictures', FEATURES, Label('classes', ('calm', 'happy')))


def smooth(number, steps, channels=3):
    """Smooth pictures, which JPEG keeps well."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    frames = [np.stack([4 * x + 9 * t + k * y + 5 * number for k in range(channels)], -1) for t in range(steps)]
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


def record(number):
    return {
        'id': f'r{number}',
        'label': number % 2,
        'audio': np.full((3, 2), number, np.float32),
        'vision': smooth(number, number + 1),
        'text': smooth(number, 1, 1)[0],
    }


def write(directory, schema=SCHEMA, change=lambda r: r, count=6):
    with RecordWriter(directory, schema, num_shards=2) as writer:
        for number in range(count):
            writer.write(change(record(number)), speaker='1', session='', split='train')
    return directory


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return RecordSource(write(tmp_path_factory.mktemp('jpeg') / 'x'))


def test_round_trip(source):
    assert source.schema == SCHEMA
    assert source.manifest['length_vision'].tolist() == [1, 2, 3, 4, 5, 6]
    for number in range(6):
        found, expected = source[number], record(number)
        for key in ('vision', 'text'):
            assert (found[key].shape, found[key].dtype) == (expected[key].shape, np.uint8)
            assert np.abs(found[key].astype(int) - expected[key]).mean() < 2
    assert records.verify(source.directory) == []


def test_other_readers_find_jpeg_files_in_a_bytes_list(source):
    payload = source.read_bytes(3)
    assert payload.count(b'\xff\xd8\xff') == 4 + 1
    start = payload.index(b'\xff\xd8\xff')
    assert Image.open(io.BytesIO(payload[start:])).format == 'JPEG'


def test_frames_encoded_elsewhere_are_stored_as_they_are(tmp_path, source):
    again = write(tmp_path / 'x', change=lambda r: {**r, 'vision': encode_frames(r['vision'])})
    assert [path.read_bytes() for path in sorted(again.glob('data*'))] == [
        path.read_bytes() for path in sorted(source.directory.glob('data*'))
    ]


def test_less_quality_is_less_bytes():
    many, few = encode_frames(smooth(0, 3), 95), encode_frames(smooth(0, 3), 20)
    assert sum(map(len, few.encoded)) < sum(map(len, many.encoded))


def test_lazy_frames_decode_what_is_asked_for(source, monkeypatch):
    frames = source.read(5, lazy=True)['vision']
    assert isinstance(frames, Frames)
    whole = source[5]['vision']
    np.testing.assert_array_equal(np.asarray(frames), whole)
    np.testing.assert_array_equal(np.asarray(frames[2:4]), whole[2:4])
    np.testing.assert_array_equal(frames[-1], whole[-1])
    assert np.asarray(frames, np.float32).dtype == np.float32
    decoded = []
    original = Frames._decode
    monkeypatch.setattr(Frames, '_decode', lambda self, number: decoded.append(number) or original(self, number))
    batch = load(source, ('vision',), {'vision': 2})((0, 0, np.arange(6)))
    assert batch['vision'].shape == (8, 2, *SIZE, 3)
    assert len(decoded) == 1 + 5 * 2  # records of one step and of more
    decoded.clear()
    load(source, ('audio',))((0, 0, np.arange(6)))
    assert not decoded


def load(source, modalities, max_length=None, augment=(), statistics=None):
    lengths = batches.record_lengths(source, modalities, max_length or {})
    plan = batches.BatchPlan(np.arange(6), lengths, batches.plan_shapes(lengths, 1), batch_size=8)
    return batches.LoadBatch(source, modalities, plan, statistics or {}, max_length or {}, make_augmentations(augment))


def test_a_batch_has_uint8_pictures_with_masks(source):
    batch = next(iter(batches.read_batches(load(source, ('audio', 'text', 'vision')))))
    assert (batch['vision'].shape, batch['vision'].dtype) == ((8, 6, *SIZE, 3), np.uint8)
    assert batch['vision_mask'].sum(1).tolist() == [1, 2, 3, 4, 5, 6, 0, 0]
    assert batch['text'].shape == (8, 1, *SIZE, 1)
    assert not batch['vision'][~batch['vision_mask']].any()
    for number in range(6):
        np.testing.assert_array_equal(batch['vision'][number, : number + 1], source[number]['vision'])


def test_augmented_batches_are_drawn_anew_and_reproducible(source):
    loader = load(source, ('vision',), augment=[('horizontal_flip', {'modality': 'vision', 'per': 'frame'})])
    first, again, other = loader((0, 0, np.arange(6))), loader((0, 0, np.arange(6))), loader((1, 0, np.arange(6)))
    np.testing.assert_array_equal(first['vision'], again['vision'])
    assert (first['vision'] != other['vision']).any()


def test_an_augmentation_to_another_size_is_refused(source):
    loader = load(source, ('vision',), augment=[('random_resized_crop', {'modality': 'vision', 'size': 8})])
    with pytest.raises(ValueError, match=r'a step of vision has shape \(8, 8, 3\) after augmentation, expected'):
        loader((0, 0, np.arange(6)))


def test_pictures_are_not_normalised_by_the_pipeline(source):
    with pytest.raises(ValueError, match=r"normalised by their encoder; take 'vision' out of config.data.normalize"):
        batches.feature_statistics(source, np.arange(3), ('audio', 'vision'))
    assert batches.feature_statistics(source, np.arange(3), ('audio',))['audio'][0].tolist() == [1, 1]


def damaged(directory, tmp_path, change):
    """A copy whose record 3 holds a changed third frame, with right CRCs: another tool wrote it."""

    def spoil(r):
        if r['id'] != 'r3':
            return r
        encoded = list(encode_frames(r['vision']).encoded)
        encoded[2] = change(encoded[2])
        return {**r, 'vision': Frames(encoded)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmer_jax.data.schema.check_frames', lambda *_: None)
        return RecordSource(write(tmp_path / 'bad', change=spoil))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda b: b[:-20], r'frame 2 of 4 \(\d+ bytes\) is no whole JPEG file .*truncated'),
        (lambda b: b[: len(b) // 2], r'frame 2 of 4 \(\d+ bytes\) is no whole JPEG file'),
        (lambda b: b'', r'frame 2 of 4 \(0 bytes\) is no whole JPEG file'),
        (lambda b: b'x' * 50, r'frame 2 of 4 \(50 bytes\) is no whole JPEG file'),
        (
            lambda b: encode_frames(smooth(0, 1)[:, :, :9]).encoded[0],
            r'frame 2 is RGB of 16 x 9, expected RGB of 16 x 24',
        ),
        (lambda b: encode_frames(smooth(0, 1, 1)).encoded[0], r'frame 2 is L of 16 x 24, expected RGB'),
    ],
)
def test_a_damaged_picture_is_named(source, tmp_path, change, message):
    bad = damaged(source, tmp_path, change)
    with pytest.raises(RecordError, match=r"record 3 \('r3'\), feature 'vision'.*" + message):
        bad[3]
    assert bad[2]['id'] == 'r2'
    assert [fault for fault in records.verify(bad.directory) if 'r3' in fault]
    loader = load(bad, ('vision',))
    with pytest.raises(RecordError, match="'r3'"):
        loader((0, 0, np.arange(6)))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'vision': smooth(0, 2)[:, :8]}, r'has shape \(2, 8, 24, 3\), expected'),
        ({'vision': smooth(0, 2).astype(np.float32)}, 'has dtype float32, expected uint8'),
        ({'vision': encode_frames(smooth(0, 2)[:, :8])}, r'frame 0 is RGB of 8 x 24, expected RGB of 16 x 24'),
        ({'vision': Frames([])}, 'has 0 frames, expected at least one'),
        ({'text': encode_frames(smooth(0, 2, 1))}, 'has 2 frames, expected one'),
        ({'audio': encode_frames(smooth(0, 2))}, "is given as JPEG frames, but its encoding is 'values'"),
    ],
)
def test_the_writer_refuses_other_pictures(tmp_path, change, message):
    with pytest.raises(RecordError, match=message):
        write(tmp_path / 'x', change=lambda r: {**r, **change})
    assert not (tmp_path / 'x').exists()


@pytest.mark.parametrize(
    ('shape', 'dtype', 'message'),
    [
        ((None, 8, 8, 3), 'float32', "'jpeg' with uint8"),
        ((None, 8, 8, 2), 'uint8', r'C 1 or 3; \(None, 8, 8, 2\) is not'),
        ((None, 8, 3), 'uint8', 'needs the shape'),
    ],
)
def test_what_cannot_be_jpeg(shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        Feature(shape, dtype, encoding='jpeg')


def test_records_of_before_stay_readable(tiny):
    content = json.loads((tiny / 'features.json').read_text())
    assert set(content['features']['audio']) == {'shape', 'dtype', 'encoding', 'description'}
    assert Schema.from_json(content).features['audio'] == Feature((None, 4))
    assert RecordSource(tiny)[0]['audio'].dtype == np.float32


def test_pictures_may_be_missing_where_they_are_optional(tmp_path):
    feature = Feature((None, 8, 8, 3), 'uint8', 'jpeg', optional=True)
    with RecordWriter(tmp_path / 'x', Schema('x', {'vision': feature}, Label('regression'))) as writer:
        writer.write({'id': 'none', 'label': 0.0, 'vision': None})
        writer.write({'id': 'two', 'label': 0.0, 'vision': np.full((2, 8, 8, 3), 9, np.uint8)})
    assert records.verify(tmp_path / 'x') == []
    source = RecordSource(tmp_path / 'x')
    assert source.manifest['length_vision'].tolist() == [0, 2]
    assert [source[n]['vision'].shape for n in (0, 1)] == [(0, 8, 8, 3), (2, 8, 8, 3)]
    lazy = source.read(0, lazy=True)['vision'][:5]
    assert (np.asarray(lazy).shape, np.asarray(lazy).dtype) == ((0, 8, 8, 3), np.uint8)
    for name in ('random_resized_crop', 'horizontal_flip'):
        for per in ('clip', 'frame'):
            (change,) = make_augmentations([(name, {'modality': 'vision', 'per': per})])
            for pictures in (lazy, np.zeros((0, 8, 8, 3), np.uint8)):
                assert len(change({'vision': pictures}, np.random.default_rng(0))['vision']) == 0


def test_empty_frames_cannot_be_decoded():
    with pytest.raises(RecordError, match='is empty'):
        np.asarray(Frames([], "record 'x', feature 'vision'"))
