"""MTCNN (Zhang et al. 2016, arXiv 1604.02878): faces in frames by a cascade of three small networks, run in jax.

The P-Net looks at a pyramid of sizes in 12 x 12 windows, the R-Net sorts its candidates out at 24 x 24 and the O-Net
at 48 x 48; each corrects the boxes. Networks, thresholds and the treatment of borders equal those of facenet-pytorch,
whose weights data_prep.convert_weights converts. Boxes are (x1, y1, x2, y2) in pixels of the frame.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array
from safetensors.numpy import load_file

from mmer_jax.files.sums import check

FACTOR = 0.709  # from one size of the pyramid to the next
WINDOW, STRIDE = 12, 2  # of the P-Net
FRAMES = 4  # frames that go through the P-Net at once
CONVERT = 'convert them once: python -m data_prep.convert_weights.mtcnn --source WHEEL'
CANDIDATES = 64  # candidates that go through the R- and the O-Net at once


class PReLU(nn.Module):
    """x where positive, alpha x elsewhere, one alpha a channel."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        alpha_C = self.param('alpha', nn.initializers.constant(0.25), (x.shape[-1],))
        alpha = alpha_C.reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.where(x > 0, x, alpha * x)


def pool(x_BHHC: Array, size: int) -> Array:
    """Maximum over windows of `size` every 2 steps; a last window may reach over the border."""
    over = [max((-(-(n - size) // 2)) * 2 + size - n, 0) for n in x_BHHC.shape[1:3]]
    return nn.max_pool(x_BHHC, (size, size), (2, 2), [(0, n) for n in over])


class PNet(nn.Module):
    """Pictures (B, H, W, 3) in [-1, 1] -> (face probability (B, h, w), box correction (B, h, w, 4))."""

    @nn.compact
    def __call__(self, x_BHHC: Array) -> tuple[Array, Array]:
        x_BHHC = PReLU(name='prelu1')(nn.Conv(10, (3, 3), padding='VALID', name='conv1')(x_BHHC))
        x_BHHC = pool(x_BHHC, 2)
        x_BHHC = PReLU(name='prelu2')(nn.Conv(16, (3, 3), padding='VALID', name='conv2')(x_BHHC))
        x_BHHC = PReLU(name='prelu3')(nn.Conv(32, (3, 3), padding='VALID', name='conv3')(x_BHHC))
        face_BHH = nn.softmax(nn.Conv(2, (1, 1), name='conv4_1')(x_BHHC))[..., 1]
        return face_BHH, nn.Conv(4, (1, 1), name='conv4_2')(x_BHHC)


def flatten(x_BHHC: Array) -> Array:
    """(B, H, W, C) -> (B, W H C): width first, as the published weights were trained."""
    return x_BHHC.transpose(0, 2, 1, 3).reshape(len(x_BHHC), -1)


class RNet(nn.Module):
    """Pictures (B, 24, 24, 3) -> (face probability (B,), box correction (B, 4))."""

    @nn.compact
    def __call__(self, x_BHHC: Array) -> tuple[Array, Array]:
        for number, (channels, kernel, pooled) in enumerate([(28, 3, 3), (48, 3, 3), (64, 2, 0)], 1):
            conv = nn.Conv(channels, (kernel, kernel), padding='VALID', name=f'conv{number}')
            x_BHHC = PReLU(name=f'prelu{number}')(conv(x_BHHC))
            x_BHHC = pool(x_BHHC, pooled) if pooled else x_BHHC
        x_BD = PReLU(name='prelu4')(nn.Dense(128, name='dense4')(flatten(x_BHHC)))
        return nn.softmax(nn.Dense(2, name='dense5_1')(x_BD))[..., 1], nn.Dense(4, name='dense5_2')(x_BD)


class ONet(nn.Module):
    """Pictures (B, 48, 48, 3) -> (face probability (B,), box correction (B, 4), five points (B, 10))."""

    @nn.compact
    def __call__(self, x_BHHC: Array) -> tuple[Array, Array, Array]:
        layers = [(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)]
        for number, (channels, kernel, pooled) in enumerate(layers, 1):
            conv = nn.Conv(channels, (kernel, kernel), padding='VALID', name=f'conv{number}')
            x_BHHC = PReLU(name=f'prelu{number}')(conv(x_BHHC))
            x_BHHC = pool(x_BHHC, pooled) if pooled else x_BHHC
        x_BD = PReLU(name='prelu5')(nn.Dense(256, name='dense5')(flatten(x_BHHC)))
        face_B = nn.softmax(nn.Dense(2, name='dense6_1')(x_BD))[..., 1]
        return face_B, nn.Dense(4, name='dense6_2')(x_BD), nn.Dense(10, name='dense6_3')(x_BD)


NETWORKS: dict[str, tuple[nn.Module, int]] = {'pnet': (PNet(), 12), 'rnet': (RNet(), 24), 'onet': (ONet(), 48)}


def flat_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters by name, such as 'pnet/conv1/kernel': (3, 3, 3, 10)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (network, size) in NETWORKS.items():
        variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
        flat = traverse_util.flatten_dict(variables['params'], sep='/')
        shapes |= {f'{name}/{key}': leaf.shape for key, leaf in flat.items()}
    return shapes


def load(directory: str | os.PathLike | None = None) -> 'Mtcnn':
    """The detector with converted weights: directory/params.safetensors, by default of $MMER_PRETRAINED/mtcnn.

    FileNotFoundError where there are none, ValueError where a parameter is missing, left over or of another shape.
    """
    if directory is None:
        root = os.environ.get('MMER_PRETRAINED')
        if not root:
            raise FileNotFoundError(f'MMER_PRETRAINED is not set: it names the folder of converted weights; {CONVERT}')
        directory = Path(root) / 'mtcnn'
    path = Path(directory) / 'params.safetensors'
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; {CONVERT}')
    check(path.parent, (path.name,), CONVERT)
    found, expected = load_file(path), flat_shapes()
    wrong = sorted(set(found) ^ set(expected))
    wrong += [f'{key} {found[key].shape}' for key in found if key in expected and found[key].shape != expected[key]]
    if wrong:
        raise ValueError(f'{path} does not fit MTCNN; missing, left over or misshapen: {", ".join(wrong)}; {CONVERT}')
    return Mtcnn(traverse_util.unflatten_dict(found, sep='/'))


@functools.partial(jax.jit, static_argnums=0)
def _apply(name: str, params: Mapping[str, Any], pictures: Sequence[Array]) -> list[Any]:
    """A network over batches of uint8-valued pictures of several sizes, as one program."""
    network, _ = NETWORKS[name]
    return [network.apply({'params': params}, (x - 127.5) * 0.0078125) for x in pictures]


@dataclasses.dataclass(frozen=True)
class Mtcnn:
    """Finds faces. params: {'pnet', 'rnet', 'onet'}; min_size: side in pixels of the smallest face looked for."""

    params: Mapping[str, Any]
    min_size: int = 20
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)

    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        """uint8 (T, H, W, 3) RGB -> for each frame float32 (N, 5): x1, y1, x2, y2, probability; largest first."""
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise ValueError(f'expected uint8 frames (T, H, W, 3), found {frames.dtype} {frames.shape}')
        found = []
        for first in range(0, len(frames), FRAMES):
            part = frames[first : first + FRAMES]
            sums = integral(part)
            faces = self._third(sums, self._second(sums, self._first(sums)))
            for number in range(len(part)):
                boxes = faces[faces[:, 5] == number, :5]
                area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
                found.append(boxes[np.argsort(-area, kind='stable')].astype(np.float32))
        return found

    def _first(self, sums: np.ndarray) -> np.ndarray:
        """Candidates of the P-Net over the pyramid, (N, 6): box, probability, number of the frame."""
        count, height, width = sums.shape[0], sums.shape[1] - 1, sums.shape[2] - 1
        scales, scale = [], WINDOW / self.min_size
        while min(height, width) * scale >= WINDOW:
            scales.append(scale)
            scale *= FACTOR
        pictures = [self._level(sums, int(height * s + 1), int(width * s + 1)) for s in scales]
        candidates = []
        for scale, (faces, corrections) in zip(scales, _apply('pnet', self.params['pnet'], pictures), strict=True):
            faces, corrections = np.asarray(faces)[:count], np.asarray(corrections)[:count]
            number, row, column = np.nonzero(faces >= self.thresholds[0])
            corner = STRIDE * np.stack([column, row], 1) + 1
            box = np.floor(np.concatenate([corner, corner + WINDOW - 1], 1) / scale)
            score = faces[number, row, column][:, None]
            rows = np.concatenate([box, score, number[:, None], corrections[number, row, column]], 1)
            candidates.append(rows[suppress(rows, 0.5)])
        if not candidates:
            return np.zeros((0, 6))
        rows = np.concatenate(candidates)
        rows = rows[suppress(rows, 0.7)]
        size = rows[:, 2:4] - rows[:, :2]
        rows[:, :4] += rows[:, 6:] * np.tile(size, 2)
        return to_squares(rows[:, :6])

    def _level(self, sums: np.ndarray, height: int, width: int) -> np.ndarray:
        """One size of the pyramid, float32 (FRAMES, height, width, 3); missing frames are filled with 0."""
        count = len(sums)
        whole = np.tile([[0, 0, sums.shape[2] - 1, sums.shape[1] - 1]], (count, 1))
        level = area_resize(sums, np.arange(count), whole, height, width)
        return np.pad(level, ((0, FRAMES - count), (0, 0), (0, 0), (0, 0)))

    def _second(self, sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Candidates that the R-Net believes in, corrected."""
        rows, (scores, corrections) = self._look(sums, rows, 'rnet')
        good = scores > self.thresholds[1]
        rows, corrections = np.column_stack([rows[good, :4], scores[good], rows[good, 5]]), corrections[good]
        kept = suppress(rows, 0.7)
        return to_squares(correct(rows[kept], corrections[kept]))

    def _third(self, sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Faces that the O-Net believes in, corrected."""
        rows, (scores, corrections, _) = self._look(sums, rows, 'onet')
        good = scores > self.thresholds[2]
        rows = np.column_stack([rows[good, :4], scores[good], rows[good, 5]])
        rows = correct(rows, corrections[good])
        return rows[suppress(rows, 0.7, by_smaller=True)]

    def _look(self, sums: np.ndarray, rows: np.ndarray, name: str) -> tuple[np.ndarray, list[np.ndarray]]:
        """The candidates inside the frame, and what a network says of each cut out and resized."""
        height, width, size = sums.shape[1] - 1, sums.shape[2] - 1, NETWORKS[name][1]
        box = np.trunc(rows[:, :4]).astype(int)
        box = np.column_stack([np.maximum(box[:, :2], 1) - 1, np.minimum(box[:, 2:], [width, height])])
        inside = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
        rows, box = rows[inside], box[inside]
        outputs = []
        for first in range(0, max(len(box), 1), CANDIDATES):
            part = slice(first, first + CANDIDATES)
            pictures = area_resize(sums, rows[part, 5].astype(int), box[part], size, size)
            pictures = np.pad(pictures, ((0, CANDIDATES - len(pictures)), (0, 0), (0, 0), (0, 0)))
            outputs.append(_apply(name, self.params[name], [pictures])[0])
        return rows, [
            np.concatenate([np.asarray(x) for x in column])[: len(box)] for column in zip(*outputs, strict=True)
        ]


def integral(frames: np.ndarray) -> np.ndarray:
    """uint8 (T, H, W, 3) -> int64 (T, H + 1, W + 1, 3), the sums of all pixels above and to the left."""
    sums = np.zeros((len(frames), frames.shape[1] + 1, frames.shape[2] + 1, 3), np.int64)
    np.cumsum(frames, 1, np.int64, out=sums[:, 1:, 1:])
    np.cumsum(sums[:, 1:, 1:], 2, out=sums[:, 1:, 1:])
    return sums


def area_resize(sums: np.ndarray, numbers: np.ndarray, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cuts boxes (N, 4) of whole pixels out of the frames `numbers` and resizes each: float32 (N, height, width, 3).

    Every new pixel is the mean of those it covers, also in part: PyTorch's interpolate(mode='area').
    """

    def edges(low, high, count):
        steps, extent = np.arange(count), (high - low)[:, None]
        return low[:, None] + steps * extent // count, low[:, None] - (-(steps + 1) * extent // count)

    left, right = edges(boxes[:, 0], boxes[:, 2], width)
    top, bottom = edges(boxes[:, 1], boxes[:, 3], height)
    n = np.asarray(numbers)[:, None, None]
    top, bottom, left, right = top[:, :, None], bottom[:, :, None], left[:, None], right[:, None]
    total = sums[n, bottom, right] - sums[n, top, right] - sums[n, bottom, left] + sums[n, top, left]
    return (total / ((bottom - top) * (right - left))[..., None]).astype(np.float32)


def suppress(rows: np.ndarray, threshold: float, *, by_smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression within each frame: numbers of the rows kept, by falling probability.

    rows (N, 6 or more): box, probability, frame. A box goes where its overlap with a better one exceeds the threshold:
    intersection over union, or over the smaller box (in whole pixels, as published) with `by_smaller`.
    """
    low, high, edge = rows[:, :2], rows[:, 2:4], float(by_smaller)
    area = np.prod(high - low + edge, 1)
    order, kept = np.argsort(-rows[:, 4], kind='stable'), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        overlap = np.minimum(high[best], high[rest]) - np.maximum(low[best], low[rest]) + edge
        shared = np.prod(np.maximum(overlap, 0), 1)
        against = np.minimum(area[best], area[rest]) if by_smaller else area[best] + area[rest] - shared
        order = rest[(shared <= threshold * against) | (rows[rest, 5] != rows[best, 5])]
    return np.array(kept, int)


def correct(rows: np.ndarray, corrections: np.ndarray) -> np.ndarray:
    """Moves the corners by shares of the box's size in whole pixels."""
    size = np.tile(rows[:, 2:4] - rows[:, :2] + 1, 2)
    return np.column_stack([rows[:, :4] + corrections * size, rows[:, 4:]])


def to_squares(rows: np.ndarray) -> np.ndarray:
    """Boxes grown to squares about their centres."""
    size = rows[:, 2:4] - rows[:, :2]
    side = size.max(1, keepdims=True)
    low = rows[:, :2] + size / 2 - side / 2
    return np.column_stack([low, low + side, rows[:, 4:]])
