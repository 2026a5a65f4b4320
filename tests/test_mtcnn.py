"""MTCNN: the networks equal facenet-pytorch's, boxes and suppression their worked values, the converter is strict."""

import os

import numpy as np
import pytest

from data_prep.convert_weights import mtcnn as converter
from mmer_jax.media import mtcnn, video
from tests.golden import make_mtcnn


def state_of(network):
    """torch's state dict with the golden weights, built from our parameters' shapes."""
    state = {}
    for key, shape in mtcnn.flat_shapes().items():
        name, layer, kind = key.split('/')
        if name == network:
            shape = {4: lambda s: (s[3], s[2], s[0], s[1]), 2: lambda s: s[::-1], 1: lambda s: s}[len(shape)](shape)
            torch_name = f'{layer}.{"bias" if kind == "bias" else "weight"}'
            state[torch_name] = make_mtcnn.weights(torch_name, shape)
    return state


def nest(flat):
    tree = {}
    for key, array in flat.items():
        name, layer, kind = key.split('/')
        tree.setdefault(name, {}).setdefault(layer, {})[kind] = array
    return tree


@pytest.fixture(scope='module')
def params():
    return nest({k: v for name in mtcnn.NETWORKS for k, v in converter.convert_network(state_of(name), name).items()})


@pytest.mark.parametrize('name', ['pnet', 'rnet', 'onet'])
def test_networks_equal_facenet_pytorch(params, name):
    with np.load(make_mtcnn.PATH) as golden:
        face, box, *points = mtcnn._apply(name, params[name], [make_mtcnn.pictures(name)])[0]
        np.testing.assert_allclose(face, golden[f'{name}_face'], atol=1e-4)
        np.testing.assert_allclose(box, golden[f'{name}_box'], atol=1e-4)
        if name == 'onet':
            np.testing.assert_allclose(points[0], golden['onet_points'], atol=1e-4)


def test_area_resize_equals_pytorch():
    sums = mtcnn.integral(make_mtcnn.areas())
    boxes = np.tile([[3, 2, 16, 12]], (2, 1))
    with np.load(make_mtcnn.PATH) as golden:
        np.testing.assert_allclose(mtcnn.area_resize(sums, np.arange(2), boxes, 7, 24), golden['area'], atol=1e-4)


def test_parameter_count():
    counts = dict.fromkeys(mtcnn.NETWORKS, 0)
    for key, shape in mtcnn.flat_shapes().items():
        counts[key.split('/')[0]] += int(np.prod(shape))
    assert counts == {'pnet': 6632, 'rnet': 100178, 'onet': 389040}


def row(*box, score=0.9, frame=0):
    return [*box, score, frame]


def test_suppression():
    rows = np.array(
        [
            row(0, 0, 10, 10, score=0.8),
            row(0, 0, 10, 8, score=0.9),  # covers 0.8 of the first: the better of the two
            row(0, 0, 10, 10, score=0.7, frame=1),  # another frame
            row(8, 0, 18, 10, score=0.6),
        ]
    )
    assert mtcnn.suppress(rows, 0.7).tolist() == [1, 2, 3]
    assert mtcnn.suppress(rows, 0.8).tolist() == [1, 0, 2, 3]
    assert mtcnn.suppress(rows[:0], 0.5).tolist() == []
    inner = np.array([row(0, 0, 99, 99), row(40, 40, 49, 49, score=0.8)])
    assert mtcnn.suppress(inner, 0.7).tolist() == [0, 1]
    assert mtcnn.suppress(inner, 0.7, by_smaller=True).tolist() == [0]


def test_boxes_grow_to_squares_and_are_corrected():
    squares = mtcnn.to_squares(np.array([row(10, 20, 30, 60), row(0, 0, 5, 5)]))
    np.testing.assert_allclose(squares[:, :4], [[0, 20, 40, 60], [0, 0, 5, 5]])
    moved = mtcnn.correct(np.array([row(0, 0, 9, 19)]), np.array([[0.1, -0.1, 0.2, 0.5]]))
    np.testing.assert_allclose(moved, [row(1, -2, 11, 29)])


@pytest.mark.parametrize('frames', [1, 5])
def test_a_frame_is_judged_alone(params, frames):
    """Random networks see faces anywhere; what they see in a frame does not depend on the frames beside it."""
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 255, (5, 40, 50, 3), dtype=np.uint8)
    heads = ('conv4_2', 'dense5_2', 'dense6_2')  # without corrections, which random weights make wild
    still = {
        name: {layer: {k: v * (layer not in heads) for k, v in arrays.items()} for layer, arrays in layers.items()}
        for name, layers in params.items()
    }
    detector = mtcnn.Mtcnn(still, min_size=30, thresholds=(0.0, 0.0, 0.0))
    whole, part = detector.detect(pictures), detector.detect(pictures[:frames])
    assert len(part) == frames
    assert sum(map(len, whole)) > 0
    for one, other in zip(part, whole, strict=False):
        np.testing.assert_allclose(one, other, atol=1e-3)
    for faces in whole:
        area = (faces[:, 2] - faces[:, 0]) * (faces[:, 3] - faces[:, 1])
        assert (np.diff(area) <= 1e-3).all()


def test_small_and_wrong_frames(params):
    detector = mtcnn.Mtcnn(params)
    assert [len(faces) for faces in detector.detect(np.zeros((2, 10, 10, 3), np.uint8))] == [0, 0]
    with pytest.raises(ValueError, match=r'expected uint8 frames \(T, H, W, 3\), found float32'):
        detector.detect(np.zeros((2, 10, 10, 3), np.float32))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('conv1.weight'), 'pnet/conv1/kernel is missing'),
        (lambda s: s.update({'conv9.weight': s['conv1.weight']}), 'pnet/conv9/kernel is not known'),
        (lambda s: s.update({'conv1.bias': np.zeros(3)}), r'pnet/conv1/bias has shape \(3,\), expected \(10,\)'),
    ],
)
def test_the_converter_is_strict(change, message):
    state = state_of('pnet')
    change(state)
    with pytest.raises(ValueError, match=message):
        converter.convert_network(state, 'pnet')


def save(folder, params):
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    flat = {
        f'{n}/{k}/{a}': v for n, layers in params.items() for k, arrays in layers.items() for a, v in arrays.items()
    }
    save_file(flat, folder / 'params.safetensors')


def test_loading(params, tmp_path, monkeypatch):
    monkeypatch.delenv('MMER_PRETRAINED', raising=False)
    with pytest.raises(FileNotFoundError, match='MMER_PRETRAINED is not set'):
        mtcnn.load()
    monkeypatch.setenv('MMER_PRETRAINED', str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r'params.safetensors is missing; convert them once'):
        mtcnn.load()
    save(tmp_path / 'mtcnn', params)
    np.testing.assert_array_equal(mtcnn.load().params['rnet']['dense4']['kernel'], params['rnet']['dense4']['kernel'])
    broken = {**params, 'pnet': {k: v for k, v in params['pnet'].items() if k != 'conv2'}}
    save(tmp_path / 'other', broken)
    with pytest.raises(ValueError, match='does not fit MTCNN.*pnet/conv2/bias, pnet/conv2/kernel'):
        mtcnn.load(tmp_path / 'other')


def test_a_source_without_weights_is_refused(tmp_path, capsys):
    (tmp_path / 'x.whl').write_bytes(b'no wheel')
    for source, word in ((tmp_path, 'lacks pnet.pt, rnet.pt, onet.pt'), (tmp_path / 'x.whl', 'neither a wheel')):
        assert converter.main(['--source', str(source), '--output', str(tmp_path / 'out')]) == 1
        assert word in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_real_faces(ravdess):
    """Every frame of real clips has one face, in the upper middle of the picture, once the weights are converted."""
    if not os.environ.get('MMER_PRETRAINED') or not os.path.isdir(os.path.join(os.environ['MMER_PRETRAINED'], 'mtcnn')):
        pytest.skip('no converted weights of MTCNN (MMER_PRETRAINED)')
    path = sorted((ravdess / 'Video_Speech_Actor_01' / 'Actor_01').iterdir())[0]
    frames, _ = video.read_frames(path, 4)
    found = mtcnn.load().detect(frames)
    assert [len(faces) for faces in found] == [1] * 4
    boxes = np.concatenate(found)
    assert (boxes[:, 4] > 0.99).all()
    assert ((boxes[:, 0] > 200) & (boxes[:, 2] < 440) & (boxes[:, 3] < 300)).all()
