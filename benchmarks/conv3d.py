"""3-D convolutions and a training step of the 3-D ResNeXt-50 in jax against PyTorch, side by side.

    python -m benchmarks.conv3d [--batch 2] [--frames 30] [--size 112] [--optimizer sgd] [--remat] [--layers]

Needs torch, as the parity tests do. Both sides begin with the same weights, on the same clips, and the first losses
are printed. Then steps (forward, backward, optimiser) alternate: the median of each side, and the median ratio of
neighbours (jax / PyTorch; below 1 jax is faster). --layers times the network's kinds of convolution alone, forward and
backward: XLA's native operation, the one over frames (mmer_jax/encoders/convolution.py), and PyTorch's.

On a machine that does other work too, begin with `taskset -c 0`: PyTorch's threads wait for each other.
"""

import argparse
import functools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import traverse_util
from torch.nn import functional

from data_prep.convert_weights import resnext3d
from mmer_jax.encoders.convolution import conv3d_frames, conv3d_native
from mmer_jax.encoders.resnext3d import ResNeXt3D
from mmer_jax.settings import command, ranges

CLASSES, RATE = 8, 1e-3
# channels, kernel, strides, groups and size of the map, at clips of 30 x 112 x 112
LAYERS = {
    'stem, 7x7x7': (3, 64, 7, (1, 2, 2), 1, (30, 112, 112)),
    'stage 1, 32 groups of 4': (128, 128, 3, (1, 1, 1), 32, (15, 28, 28)),
    'stage 2, 32 groups of 8, strided': (256, 256, 3, (2, 2, 2), 32, (15, 28, 28)),
    'stage 3, 32 groups of 16': (512, 512, 3, (1, 1, 1), 32, (4, 7, 7)),
    'stage 4, 32 groups of 32': (1024, 1024, 3, (1, 1, 1), 32, (2, 4, 4)),
    'stage 1, 1x1x1': (256, 128, 1, (1, 1, 1), 1, (15, 28, 28)),
}


class TorchBlock(torch.nn.Module):
    """A bottleneck with the names of the Kinetics files."""

    def __init__(self, channels: int, planes: int, stride: int):
        super().__init__()
        out = 2 * planes
        self.conv1 = torch.nn.Conv3d(channels, planes, 1, bias=False)
        self.conv2 = torch.nn.Conv3d(planes, planes, 3, stride, 1, groups=32, bias=False)
        self.conv3 = torch.nn.Conv3d(planes, out, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = (torch.nn.BatchNorm3d(n) for n in (planes, planes, out))
        self.downsample = None
        if stride != 1 or channels != out:
            shortcut = torch.nn.Conv3d(channels, out, 1, stride, bias=False)
            self.downsample = torch.nn.Sequential(shortcut, torch.nn.BatchNorm3d(out))

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        x = x if self.downsample is None else self.downsample(x)
        return functional.relu(self.bn3(self.conv3(y)) + x, inplace=True)


class TorchNetwork(torch.nn.Module):
    """3-D ResNeXt-50 with a head of eight classes."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1, channels = torch.nn.BatchNorm3d(64), 64
        for stage, (planes, count) in enumerate(zip((128, 256, 512, 1024), (3, 4, 6, 3), strict=True), start=1):
            blocks = []
            for number in range(count):
                blocks.append(TorchBlock(channels, planes, 2 if stage > 1 and number == 0 else 1))
                channels = 2 * planes
            self.add_module(f'layer{stage}', torch.nn.Sequential(*blocks))
        self.fc = torch.nn.Linear(channels, CLASSES)

    def forward(self, x):
        x = functional.max_pool3d(functional.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f'layer{stage}')(x)
        return self.fc(x.mean((2, 3, 4)))


class Network(nn.Module):
    """Our encoder with the same head."""

    frames: int
    remat: bool

    def setup(self):
        self.encoder = ResNeXt3D(num_frames=self.frames, remat=self.remat)
        self.head = nn.Dense(CLASSES)

    def __call__(self, x: jax.Array, mask_BT: jax.Array, *, train: bool) -> jax.Array:
        features, mask_BT = self.encoder(x, mask_BT, train=train)
        return self.head(self.encoder.pool(features, mask_BT, train=train))


def torch_device() -> str:
    """Where PyTorch runs: beside jax, on the CPU or by CUDA."""
    return 'cuda' if jax.default_backend() != 'cpu' and torch.cuda.is_available() else 'cpu'


def torch_step(network: TorchNetwork, x: np.ndarray, labels: np.ndarray, optimizer: str) -> Callable[[], float]:
    """A function that takes one training step and returns its loss."""
    kind = torch.optim.Adam if optimizer == 'adam' else torch.optim.SGD
    device = torch_device()
    update = kind(network.to(device).parameters(), lr=RATE)
    clips = torch.tensor(np.moveaxis(x, -1, 1).copy(), device=device)
    targets = torch.tensor(labels, device=device)

    def step() -> float:
        update.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(network(clips), targets)
        loss.backward()
        update.step()
        return loss.item()

    return step


def jax_step(network: TorchNetwork, x: np.ndarray, labels: np.ndarray, optimizer: str, remat: bool) -> Callable:
    """The same from the same weights, compiled; also says how long that took."""
    state = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    _, arrays, _ = resnext3d.convert_state(state)
    variables = traverse_util.unflatten_dict(arrays, sep='/')
    head = {'kernel': state['fc.weight'].T.copy(), 'bias': state['fc.bias'].copy()}
    params = jax.device_put({'encoder': variables['params'], 'head': head})
    stats = jax.device_put({'encoder': variables['batch_stats']})
    model, update = Network(x.shape[1], remat), (optax.adam if optimizer == 'adam' else optax.sgd)(RATE)
    clips, mask, targets = jnp.asarray(x), jnp.ones(x.shape[:2], bool), jnp.asarray(labels)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def run(params, stats, opt_state):
        def loss_of(params):
            variables = {'params': params, 'batch_stats': stats}
            logits, changed = model.apply(variables, clips, mask, train=True, mutable=['batch_stats'])
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean(), changed['batch_stats']

        (loss, new_stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = update.update(gradient, opt_state)
        return optax.apply_updates(params, updates), new_stats, opt_state, loss

    held = [params, stats, update.init(params)]
    started = time.perf_counter()
    compiled = run.lower(*held).compile()
    print(f'jax: compiled in {time.perf_counter() - started:.1f} s, {parameters(params):,} parameters', flush=True)

    def step() -> float:
        *held[:], loss = compiled(*held)
        return float(loss)

    return step


def parameters(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def alternate(functions: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Milliseconds of each function, run in turns; a first call of each is left out."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for spent, function in zip(times, functions, strict=True):
            started = time.perf_counter()
            function()
            spent.append(1e3 * (time.perf_counter() - started))
    return times


def measure_step(arguments: argparse.Namespace) -> None:
    """Prints losses, milliseconds and the ratio of a training step."""
    generator = np.random.default_rng(0)
    shape = (arguments.batch, arguments.frames, arguments.size, arguments.size, 3)
    x = generator.standard_normal(shape).astype(np.float32)
    labels = generator.integers(CLASSES, size=arguments.batch)
    torch.manual_seed(0)
    network = TorchNetwork()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight, mode='fan_out')
    print(f'clips {shape}, {arguments.optimizer}; PyTorch: {sum(p.numel() for p in network.parameters()):,} parameters')
    ours = jax_step(network, x, labels, arguments.optimizer, arguments.remat)
    theirs = torch_step(network, x, labels, arguments.optimizer)
    print(f'loss of the first step: jax {ours():.5f}, PyTorch {theirs():.5f}', flush=True)
    times = alternate((ours, theirs), arguments.steps)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    jax_ms, torch_ms = map(statistics.median, times)
    print(f'a step: jax {jax_ms:.0f} ms, PyTorch {torch_ms:.0f} ms, ratio {ratio:.2f} (median of {arguments.steps})')
    jax_ms, torch_ms = map(min, times)
    print(f'  the fastest of each: jax {jax_ms:.0f} ms, PyTorch {torch_ms:.0f} ms, ratio {jax_ms / torch_ms:.2f}')
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f'largest memory of the process, with both: {peak / 1024:.0f} MB')


def measure_layer(name: str, batch: int, repeats: int) -> None:
    """Prints milliseconds of a convolution, forward and backward: native, over frames, PyTorch."""
    channels, features, size, strides, groups, volume = LAYERS[name]
    generator, padding = np.random.default_rng(0), (size // 2,) * 3
    x = generator.standard_normal((batch, *volume, channels)).astype(np.float32)
    kernel = generator.standard_normal((size, size, size, channels // groups, features)).astype(np.float32)

    def compiled(convolve):
        # the stem's input needs no gradient
        wanted = (1,) if channels == 3 else (0, 1)
        step = jax.jit(jax.grad(lambda x, k: (convolve(x, k, strides, padding, groups) ** 2).sum(), wanted))
        arrays = jnp.asarray(x), jnp.asarray(kernel)
        return lambda: jax.block_until_ready(step(*arrays))

    device = torch_device()
    clips = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=channels != 3, device=device)
    weight = torch.tensor(kernel.transpose(4, 3, 0, 1, 2).copy(), requires_grad=True, device=device)

    def torch_both():
        (functional.conv3d(clips, weight, None, strides, padding, 1, groups) ** 2).sum().backward()
        if device == 'cuda':
            torch.cuda.synchronize()

    times = alternate([compiled(conv3d_native), compiled(conv3d_frames), torch_both], repeats)
    native, frames, pytorch = map(statistics.median, times)
    print(
        f'{name}: native {native:.0f} ms, over frames {frames:.0f} ms, PyTorch {pytorch:.0f} ms; native / frames '
        f'{native / frames:.1f}, frames / PyTorch {frames / pytorch:.2f}',
        flush=True,
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.conv3d', description=__doc__.split('\n')[0])
    parser.add_argument('--batch', type=ranges.COUNT, default=2, help='clips')
    parser.add_argument('--frames', type=ranges.COUNT, default=30)
    parser.add_argument('--size', type=ranges.COUNT, default=112)
    parser.add_argument('--steps', type=ranges.COUNT, default=5, help='steps of each side')
    parser.add_argument('--optimizer', choices=('sgd', 'adam'), default='sgd')
    parser.add_argument('--remat', action='store_true', help='jax recomputes each block in the backward pass')
    parser.add_argument('--layers', action='store_true', help='also each kind of convolution alone')
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}, torch {torch.__version__} on {torch_device()}')
    if arguments.layers:
        for name in LAYERS:
            measure_layer(name, arguments.batch, arguments.steps)
    measure_step(arguments)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
