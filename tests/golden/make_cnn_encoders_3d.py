"""Writes cnn_encoders_3d.npz: narrow I3D and Simple3D in PyTorch, with the public names.

    python -m tests.golden.make_cnn_encoders_3d     (needs torch; tests/test_cnn_encoders_3d.py reads the file without)

Weights, clips and cotangents are made by formula from the raw numbers of PCG64; the file holds the names and shapes of
the state dicts, the outputs, and of every gradient its norm and one projection. The networks see the real clips alone,
at their fixed length; the encoders must give the same among padding.
"""

import json
import zlib
from pathlib import Path

import numpy as np

from data_prep.convert_weights import names

PATH = Path(__file__).with_name('cnn_encoders_3d.npz')
CASES = (('i3d', 'eval'), ('i3d', 'train'), ('simple3d', 'eval'), ('simple3d_shared', 'eval'))
# frames the network looks at, frames of the batch, height, width: odd and even sides at every stage
CLIPS = {'i3d': (17, 18, 20, 36), 'simple3d': (64, 65, 64, 128), 'simple3d_shared': (64, 65, 64, 128)}
LENGTHS = {'i3d': (18, 12, 0), 'simple3d': (40, 0), 'simple3d_shared': (40, 0)}
POOL_WINDOW = (2, 2, 2)
DIVISOR, FEATURES = 8, 3
STEM = {'Conv3d_1a_7x7': (3, 64, 7, 2), 'Conv3d_2b_1x1': (64, 64, 1, 1), 'Conv3d_2c_3x3': (64, 192, 3, 1)}
MIXED = {
    '3b': (192, 64, 96, 128, 16, 32, 32), '3c': (256, 128, 128, 192, 32, 96, 64),
    '4b': (480, 192, 96, 208, 16, 48, 64), '4c': (512, 160, 112, 224, 24, 64, 64),
    '4d': (512, 128, 128, 256, 24, 64, 64), '4e': (512, 112, 144, 288, 32, 64, 64),
    '4f': (528, 256, 160, 320, 32, 128, 128), '5b': (832, 256, 160, 320, 32, 128, 128),
    '5c': (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip


def uniform(name, shape, seed=0):
    """Values in -1..1 by name, float32, the same on every version of numpy."""
    raw = np.random.PCG64(zlib.crc32(f'{seed} {name}'.encode())).random_raw(int(np.prod(shape)))
    return ((np.atleast_1d(raw) >> 11) * 2.0**-52 - 1).reshape(shape).astype(np.float32)


def state_of(shapes, seed=0):
    """A state dict: norms as after training, kernels that keep the size of what passes them."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith('num_batches_tracked'):
            state[name] = np.array(7)
            continue
        noise = uniform(name, tuple(shape), seed)
        if len(shape) > 1:
            state[name] = noise * np.float32(np.sqrt(6 / np.prod(shape[1:])))
        elif name.endswith(('bn.weight', 'running_var')):
            state[name] = 1 + np.float32(0.4) * noise
        else:
            state[name] = np.float32(0.2) * noise
    return state


def simple3d_rules(state):
    """What of Simple3D's state dict becomes which parameter; two convolutions where one is shared, else six."""
    return [
        rule
        for number in range(len(state) // 2)
        for rule in names.conv(
            f'block_{number}/conv', f'conv{number + 1}', state[f'conv{number + 1}.weight'].shape, bias=True
        )
    ]


def clips(kind, seed=0):
    """(normalised clips (B, T, H, W, 3), mask (B, T)); what is padded is NaN."""
    _, frames, *sides = CLIPS[kind]
    mask_BT = np.arange(frames)[None] < np.array(LENGTHS[kind])[:, None]
    x = 1.7 * uniform(f'{kind} clips', (*mask_BT.shape, *sides, 3), seed)
    return np.where(mask_BT[..., None, None, None], x, np.nan).astype(np.float32), mask_BT


def networks(torch):
    """{kind: function of the sizes -> module}; a module gives (map, features) of clips (B, 3, T, H, W)."""
    nn, functional = torch.nn, torch.nn.functional

    def pad_same(x, sizes, strides):
        """Zeros around x, for ceil(side / stride) windows on each axis; an odd one behind."""
        pads = []
        for side, size, stride in reversed(list(zip(x.shape[2:], sizes, strides, strict=True))):
            total = max(size - (side % stride or stride), 0)
            pads += [total // 2, total - total // 2]
        return functional.pad(x, pads)

    def pool_same(x, sizes, strides):
        return functional.max_pool3d(pad_same(x, sizes, strides), sizes, strides)

    class Unit(nn.Module):
        def __init__(self, inputs, width, size=1, stride=1):
            super().__init__()
            self.conv3d = nn.Conv3d(inputs, width, size, stride, bias=False)
            self.bn = nn.BatchNorm3d(width, eps=0.001, momentum=0.01)

        def forward(self, x):
            return self.bn(self.conv3d(pad_same(x, self.conv3d.kernel_size, self.conv3d.stride))).relu()

    class Mixed(nn.Module):
        def __init__(self, inputs, point, reduce1, conv1, reduce2, conv2, projected):
            super().__init__()
            self.b0 = Unit(inputs, point)
            self.b1a, self.b1b = Unit(inputs, reduce1), Unit(reduce1, conv1, 3)
            self.b2a, self.b2b = Unit(inputs, reduce2), Unit(reduce2, conv2, 3)
            self.b3b = Unit(inputs, projected)

        def forward(self, x):
            pooled = pool_same(x, (3, 3, 3), (1, 1, 1))
            return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)

    class Logits(nn.Module):
        def __init__(self, inputs, classes):
            super().__init__()
            self.conv3d = nn.Conv3d(inputs, classes, 1)

    class InceptionI3D(nn.Module):
        def __init__(self, divisor=DIVISOR, window=POOL_WINDOW, classes=5):
            super().__init__()
            self.window = window
            for name, (inputs, width, size, stride) in STEM.items():
                inputs = inputs if inputs == 3 else inputs // divisor
                self.add_module(name, Unit(inputs, width // divisor, size, stride))
            for name, sizes in MIXED.items():
                self.add_module(f'Mixed_{name}', Mixed(*(size // divisor for size in sizes)))
            self.logits = Logits(1024 // divisor, classes)

        def forward(self, x):
            space = (1, 3, 3), (1, 2, 2)
            x = pool_same(self.Conv3d_1a_7x7(x), *space)
            x = pool_same(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), *space)
            x = pool_same(self.Mixed_3c(self.Mixed_3b(x)), (3, 3, 3), (2, 2, 2))
            for name in ('4b', '4c', '4d', '4e', '4f'):
                x = getattr(self, f'Mixed_{name}')(x)
            x = self.Mixed_5c(self.Mixed_5b(pool_same(x, (2, 2, 2), (2, 2, 2))))
            window = [min(pair) for pair in zip(self.window, x.shape[2:], strict=True)]
            return x, functional.avg_pool3d(x, window, 1).mean((2, 3, 4))

    class Simple3D(nn.Module):
        def __init__(self, shared=False, features=FEATURES):
            super().__init__()
            self.conv1, self.shared = nn.Conv3d(3, features, 3, padding=1), shared
            for number in range(2, 3 if shared else 7):
                self.add_module(f'conv{number}', nn.Conv3d(features, features, 3, padding=1))

        def forward(self, x):
            for number in range(1, 7):
                conv = getattr(self, f'conv{min(number, 2) if self.shared else number}')
                x = functional.max_pool3d(conv(x).relu(), 2)
            return x, x.flatten(1)

    return {'i3d': InceptionI3D, 'simple3d': Simple3D, 'simple3d_shared': lambda: Simple3D(shared=True)}


def reference(torch, kind, seed, mode):
    """(outputs, gradients by name, state after), numpy, computed in float64 on the real clips.

    outputs: 'map' (B, T, H, W, C) and 'features' (B, D). The gradients, that of the clips under 'x', are those of the
    sum of outputs x uniform(name).
    """
    network = networks(torch)[kind]().double().train(mode == 'train')
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: torch.tensor(array) for name, array in state_of(shapes, seed).items()})
    x, mask_BT = clips(kind, seed)
    x = np.nan_to_num(x[mask_BT.any(1), : CLIPS[kind][0]])
    x = torch.tensor(np.moveaxis(x, -1, 1).astype(np.float64), requires_grad=True)
    maps, features = network(x)
    outputs = {'map': maps.permute(0, 2, 3, 4, 1), 'features': features}
    sum((y * torch.tensor(uniform(name, tuple(y.shape)))).sum() for name, y in outputs.items()).backward()
    gradients = {name: p.grad.numpy() for name, p in network.named_parameters() if p.grad is not None}
    gradients['x'] = x.grad.permute(0, 2, 3, 4, 1).numpy()
    after = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return {name: y.detach().numpy() for name, y in outputs.items()}, gradients, after


def summary(gradient, name):
    """Norm and projection of a gradient."""
    return np.linalg.norm(gradient), (gradient * uniform(name, gradient.shape)).sum()


def main():
    import torch

    arrays = {}
    for kind, mode in CASES:
        shapes = {name: tuple(tensor.shape) for name, tensor in networks(torch)[kind]().state_dict().items()}
        outputs, gradients, _ = reference(torch, kind, 0, mode)
        arrays[f'{kind}/shapes'] = np.array(json.dumps(shapes))
        arrays |= {f'{kind}/{mode}/{name}': array.astype(np.float32) for name, array in outputs.items()}
        arrays[f'{kind}/names'] = np.array(json.dumps(sorted(gradients)))
        pairs = [summary(gradients[name], name) for name in sorted(gradients)]
        arrays[f'{kind}/{mode}/gradients'] = np.array(pairs, np.float32)
    np.savez_compressed(PATH, **arrays)


if __name__ == '__main__':
    main()
