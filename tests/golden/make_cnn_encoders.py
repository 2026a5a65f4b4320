"""Writes cnn_encoders.npz: narrow ResNet-18, GoogLeNet and VGG-16 in PyTorch, torchvision's layout and names.

    python -m tests.golden.make_cnn_encoders     (needs torch; tests/test_cnn_encoders.py reads the file without)

Weights, pictures and cotangents are made by formula, from the raw numbers of PCG64, so the file holds none of them:
only the names and shapes of the state dict, the outputs, and of every gradient its norm and one projection. Computed
in float64. The networks see the valid frames alone; the encoders must give the same among padding.
"""

import json
import zlib
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name('cnn_encoders.npz')
KINDS, MODES = ('resnet18', 'googlenet', 'vgg16'), ('eval', 'train')
SEED, LIVE_SEED = 4, 10  # where no unit is so near its kink that float32 and float64 take different sides
SIDES = {'resnet18': (40, 33), 'googlenet': (68, 61), 'vgg16': (64, 45)}
MASK_BT = np.array([[True, True], [True, True], [True, False], [False, False]])
FULL = {
    'resnet18': {'planes': (64, 128, 256, 512), 'stem': 64, 'classes': 1000},
    'googlenet': {'divisor': 1, 'auxiliary': 1000, 'classes': 1000},
    'vgg16': {'planes': (64, 128, 256, 512, 512), 'hidden': 4096, 'classes': 1000},
}
NARROW = {
    'resnet18': {'planes': (4, 6, 6, 8), 'stem': 4, 'classes': 5},
    'googlenet': {'divisor': 8, 'auxiliary': 3, 'classes': 5},
    'vgg16': {'planes': (4, 4, 6, 6, 6), 'hidden': 10, 'classes': 5},
}


def uniform(name, shape, seed=SEED):
    """Values in -1..1 by name, float32, the same on every version of numpy."""
    raw = np.random.PCG64(zlib.crc32(f'{seed} {name}'.encode())).random_raw(int(np.prod(shape)))
    return ((np.atleast_1d(raw) >> 11) * 2.0**-52 - 1).reshape(shape).astype(np.float32)


def weights(name, shape, seed=SEED):
    """A tensor of a state dict: norms as after training, layers that keep the size of what passes them."""
    if name.endswith('num_batches_tracked'):
        return np.array(7)
    noise = uniform(name, shape, seed)
    if name.endswith('running_var') or (name.endswith('weight') and len(shape) == 1):
        return 1 + 0.4 * noise
    if name.endswith('bias'):
        return np.float32(0.3) + 0.3 * noise  # few units are dead
    return noise * np.float32(np.sqrt(6 / np.prod(shape[1:])) if len(shape) > 1 else 0.2)


def pictures(kind, seed=SEED):
    """Normalised pictures (B, T, H, W, 3) under MASK_BT; what is padded is NaN."""
    x = 1.7 * uniform(f'{kind} pictures', (*MASK_BT.shape, *SIDES[kind], 3), seed)
    return np.where(MASK_BT[..., None, None, None], x, np.nan).astype(np.float32)


def networks(torch):
    """{kind: function of the sizes -> module}; a module gives (map, features before the last layer, auxiliary)."""
    nn, cat, pooled = torch.nn, torch.cat, torch.nn.functional.adaptive_avg_pool2d

    class Block(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
            if stride > 1 or inputs != width:
                shortcut = nn.Conv2d(inputs, width, 1, stride, bias=False)
                self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(width))

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (y + (self.downsample(x) if hasattr(self, 'downsample') else x)).relu()

    class ResNet(nn.Module):
        def __init__(self, planes, stem, classes, channels=3):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(channels, stem, 7, 2, 3, bias=False), nn.BatchNorm2d(stem)
            for number, (inputs, width) in enumerate(zip((stem, *planes[:-1]), planes, strict=True), start=1):
                blocks = Block(inputs, width, 2 if number > 1 else 1), Block(width, width, 1)
                self.add_module(f'layer{number}', nn.Sequential(*blocks))
            self.fc = nn.Linear(planes[-1], classes)

        def forward(self, x):
            x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return x, pooled(x, 1).flatten(1), []

    class Normed(nn.Module):
        def __init__(self, inputs, width, size=1, stride=1):
            super().__init__()
            self.conv = nn.Conv2d(inputs, width, size, stride, size // 2, bias=False)
            self.bn = nn.BatchNorm2d(width, eps=0.001)

        def forward(self, x):
            return self.bn(self.conv(x)).relu()

    class Inception(nn.Module):
        def __init__(self, inputs, point, reduce3, conv3, reduce5, conv5, projected):
            super().__init__()
            self.branch1 = Normed(inputs, point)
            self.branch2 = nn.Sequential(Normed(inputs, reduce3), Normed(reduce3, conv3, 3))
            self.branch3 = nn.Sequential(Normed(inputs, reduce5), Normed(reduce5, conv5, 3))
            self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), Normed(inputs, projected))

        def forward(self, x):
            return cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)

    class Auxiliary(nn.Module):
        def __init__(self, inputs, features, hidden, classes):
            super().__init__()
            self.conv, self.fc1 = Normed(inputs, features), nn.Linear(features * 16, hidden)
            self.fc2 = nn.Linear(hidden, classes)

        def forward(self, x):
            return self.fc2(self.fc1(self.conv(pooled(x, 4)).flatten(1)).relu())

    class GoogLeNet(nn.Module):
        def __init__(self, divisor, auxiliary, classes, channels=3):
            super().__init__()
            self.conv1, self.conv2 = Normed(channels, 64 // divisor, 7, 2), Normed(64 // divisor, 64 // divisor)
            self.conv3 = Normed(64 // divisor, 192 // divisor, 3)
            for name, sizes in {
                '3a': (192, 64, 96, 128, 16, 32, 32), '3b': (256, 128, 128, 192, 32, 96, 64),
                '4a': (480, 192, 96, 208, 16, 48, 64), '4b': (512, 160, 112, 224, 24, 64, 64),
                '4c': (512, 128, 128, 256, 24, 64, 64), '4d': (512, 112, 144, 288, 32, 64, 64),
                '4e': (528, 256, 160, 320, 32, 128, 128), '5a': (832, 256, 160, 320, 32, 128, 128),
                '5b': (832, 384, 192, 384, 48, 128, 128),
            }.items():  # fmt: skip
                self.add_module(f'inception{name}', Inception(*(size // divisor for size in sizes)))
            self.aux1 = Auxiliary(512 // divisor, 128 // divisor, 1024 // divisor, auxiliary)
            self.aux2 = Auxiliary(528 // divisor, 128 // divisor, 1024 // divisor, auxiliary)
            self.fc = nn.Linear(1024 // divisor, classes)

        def forward(self, x):
            def shrink(x, size):
                return nn.functional.max_pool2d(x, size, 2, ceil_mode=True)

            x = shrink(self.conv3(self.conv2(shrink(self.conv1(x), 3))), 3)
            first = self.inception4a(shrink(self.inception3b(self.inception3a(x)), 3))
            second = self.inception4d(self.inception4c(self.inception4b(first)))
            x = self.inception5b(self.inception5a(shrink(self.inception4e(second), 2)))
            return x, pooled(x, 1).flatten(1), [self.aux1(first), self.aux2(second)]

    class Vgg(nn.Module):
        def __init__(self, planes, hidden, classes, channels=3):
            super().__init__()
            layers = []
            for count, width in zip((2, 2, 3, 3, 3), planes, strict=True):
                for _ in range(count):
                    layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU()]
                    channels = width
                layers.append(nn.MaxPool2d(2, 2))
            self.features = nn.Sequential(*layers)
            dense = [nn.Linear(width * 49, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, classes)]
            between = [nn.ReLU(), nn.Dropout(0)]
            self.classifier = nn.Sequential(dense[0], *between, dense[1], *between, dense[2])

        def forward(self, x):
            x = self.features(x)
            return x, self.classifier[:6](pooled(x, 7).flatten(1)), []

    return {'resnet18': ResNet, 'googlenet': GoogLeNet, 'vgg16': Vgg}


def state_of(shapes, seed=SEED):
    return {name: weights(name, tuple(shape), seed) for name, shape in shapes.items()}


def reference(torch, kind, seed, mode, dtype='float64'):
    """(outputs, gradients by name, state after) of the narrow network on the valid frames; numpy.

    outputs: 'map' (N, H, W, C) of the valid frames, 'features' (B, D) and 'auxiliary' (2, B, C), means over a row's
    valid frames. The gradients, that of the pictures under 'x', are those of the sum of outputs x uniform(name).
    """
    dtype = getattr(torch, dtype)
    network = networks(torch)[kind](**NARROW[kind]).to(dtype).train(mode == 'train')
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: torch.tensor(array) for name, array in state_of(shapes, seed).items()})
    frames = torch.tensor(pictures(kind, seed)[MASK_BT].transpose(0, 3, 1, 2).copy(), dtype=dtype, requires_grad=True)
    mean_BN = torch.zeros(len(MASK_BT), int(MASK_BT.sum()), dtype=dtype)
    for frame, row in enumerate(np.nonzero(MASK_BT)[0]):
        mean_BN[row, frame] = 1 / MASK_BT[row].sum()
    maps, features, auxiliary = network(frames)
    outputs = {'map': maps.permute(0, 2, 3, 1), 'features': mean_BN @ features}
    if auxiliary:
        outputs['auxiliary'] = torch.stack([mean_BN @ logits for logits in auxiliary])
    sum((y * torch.tensor(uniform(name, tuple(y.shape)))).sum() for name, y in outputs.items()).backward()
    gradients = {name: p.grad.numpy() for name, p in network.named_parameters() if p.grad is not None}
    gradients['x'] = frames.grad.permute(0, 2, 3, 1).numpy()
    after = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return {name: y.detach().numpy() for name, y in outputs.items()}, gradients, after


def summary(gradients, names):
    """(names, 2): norm and projection of each gradient."""
    pairs = [(np.linalg.norm(g), (g * uniform(name, g.shape)).sum()) for name, g in ((n, gradients[n]) for n in names)]
    return np.array(pairs, np.float32)


def main():
    import torch

    arrays = {}
    for kind in KINDS:
        network = networks(torch)[kind](**NARROW[kind])
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        arrays[f'{kind}/shapes'] = np.array(json.dumps(shapes))
        for mode in MODES:
            outputs, gradients, _ = reference(torch, kind, SEED, mode)
            arrays |= {f'{kind}/{mode}/{name}': array.astype(np.float32) for name, array in outputs.items()}
            arrays[f'{kind}/names'] = np.array(json.dumps(sorted(gradients)))
            arrays[f'{kind}/{mode}/gradients'] = summary(gradients, sorted(gradients))
    np.savez_compressed(PATH, **arrays)


if __name__ == '__main__':
    main()
