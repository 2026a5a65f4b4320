"""A training step of the shared-encoder report's CNN encoders in jax against PyTorch, side by side.

    python -m benchmarks.encoders_2d_3d [--encoders resnet18 i3d] [--batch 16] [--size 224] [--frames 32] [--steps 5]

Needs torch; its networks are those of the parity tests (tests/golden/make_cnn_encoders.py and _3d.py, torchvision's
layers and names). ResNet-18, GoogLeNet with its auxiliary heads, VGG-16 with the report's first layer, Simple3D and
I3D, each with a head of six classes and without dropout. Both sides begin with the same weights on the same random
pictures: 16 of 224 x 224 for 2-D networks, two clips of 64 (Simple3D, which halves them six times) or 32 (I3D) frames
of 112 x 112 for 3-D ones.

A step is forward, cross-entropy (0.3 of each auxiliary head's is added), backward and SGD. The losses of the first two
steps are printed, the second of which has the gradients in it. Then steps alternate: samples/s by the median of each
side, and the median ratio of neighbours (jax / PyTorch; below 1 jax is faster). The exit status is 1 where losses or
numbers of parameters differ. --quick: narrow networks on small pictures: does it work.

On an accelerator PyTorch runs by CUDA and cuDNN; both sides may then use TF32, and losses may differ by 3 %.

On a machine that does other work too, begin with `taskset -c 0`: PyTorch's threads wait for each other.
"""

import argparse
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import traverse_util
from torch.nn import functional

from benchmarks.conv3d import alternate, parameters, torch_device
from data_prep.convert_weights import i3d, names, torchvision_cnn
from mmer_jax.encoders import ENCODERS
from mmer_jax.settings import command, ranges
from tests.golden import make_cnn_encoders, make_cnn_encoders_3d

CLASSES, RATE, AUXILIARY_WEIGHT, CHANNELS = 6, 1e-4, 0.3, 3
# Of the losses, relative to the larger of 1 and PyTorch's: float32 rounds up to 9e-4 of I3D's second one away; in
# float64 both sides agree to 2e-8.
TOLERANCE = 2e-3
TF32_TOLERANCE = 3e-2  # on accelerators, whose products have ten bits
# last layer in PyTorch, batch, frames (0: pictures) and side; the last two as --quick has them
KINDS = {
    'resnet18': ('fc', 16, 0, 224, 0, 40),
    'googlenet': ('fc', 16, 0, 224, 0, 64),
    'vgg16': ('classifier.6', 16, 0, 224, 0, 64),
    'simple3d': ('head', 2, 64, 112, 64, 64),
    'i3d': ('head', 2, 32, 112, 16, 96),  # quick, of 64: rounding decides the second loss, by norms of few values
}
QUICK_BATCH = 2
NO_DROPOUT = {'googlenet': ('dropout', 'auxiliary_dropout'), 'vgg16': ('dropout',), 'i3d': ('dropout',)}


class Pair(NamedTuple):
    """A network of PyTorch, its last layer's name, and our encoder with the same weights, nested."""

    network: torch.nn.Module
    head: str
    encoder: nn.Module
    variables: dict[str, Any]


class Network(nn.Module):
    """An encoder, its pooling and a linear head: logits of the head, then of auxiliary heads."""

    encoder: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        auxiliary = ()
        if getattr(self.encoder, 'auxiliary', 0):
            features, mask, auxiliary = self.encoder.with_auxiliary(x, mask, train=train)
        else:
            features, mask = self.encoder(x, mask, train=train)
        return nn.Dense(CLASSES, name='head')(self.encoder.pool(features, mask, train=train)), *auxiliary


def input_shape(kind: str, arguments: argparse.Namespace) -> tuple[int, ...]:
    """(B, H, W, C) or (B, T, H, W, C), where no flag says otherwise by default."""
    _, batch, *sizes = KINDS[kind]
    frames, size = sizes[2:] if arguments.quick else sizes[:2]
    batch = arguments.batch or (QUICK_BATCH if arguments.quick else batch)
    time = (arguments.frames or frames,) if frames else ()
    return batch, *time, *(arguments.size or size,) * 2, CHANNELS


def torch_network(kind: str, shape: Sequence[int], quick: bool) -> torch.nn.Module:
    """The network with six classes, convolutions as ours begin."""
    if kind in make_cnn_encoders.KINDS:
        sizes = (make_cnn_encoders.NARROW if quick else make_cnn_encoders.FULL)[kind]
        sizes = {name: CLASSES if name in ('classes', 'auxiliary') else value for name, value in sizes.items()}
        network = make_cnn_encoders.networks(torch)[kind](**sizes)
    elif kind == 'i3d':
        divisor, window = make_cnn_encoders_3d.DIVISOR if quick else 1, (2, 7, 7)
        network = make_cnn_encoders_3d.networks(torch)[kind](divisor=divisor, window=window)
        del network.logits  # a 1x1x1 convolution behind the mean is a linear layer
        network.head = torch.nn.Linear(1024 // divisor, CLASSES)
    else:
        features = 3 if quick else 8
        network = make_cnn_encoders_3d.networks(torch)[kind](features=features)
        network.head = torch.nn.Linear(features * int(np.prod([side // 64 for side in shape[1:4]])), CLASSES)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight, mode='fan_out')
    return network


def build(kind: str, shape: Sequence[int], quick: bool) -> Pair:
    """Both sides' networks; ours has the weights of PyTorch's."""
    network: Any = torch_network(kind, shape, quick)
    head = KINDS[kind][0]
    state = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    fields: dict[str, Any] = {}
    if kind in make_cnn_encoders.KINDS:
        fields, arrays, _ = torchvision_cnn.convert_state(state, kind, auxiliary=kind == 'googlenet')
    else:
        state = {name: array for name, array in state.items() if not name.startswith('head.')}
        if kind == 'i3d':
            fields, arrays, _ = i3d.convert_state(state)
        else:
            fields = {'features': state['conv1.bias'].size}
            arrays, _ = names.apply_rules(state, make_cnn_encoders_3d.simple3d_rules(state), source='the network')
        fields['num_frames'] = shape[1]
    if kind == 'vgg16':
        first = network.features[0] = torch.nn.Conv2d(CHANNELS, network.features[0].out_channels, 7, 2, 3, bias=False)
        arrays = {name: array for name, array in arrays.items() if not name.startswith('params/blocks0_0/')}
        name = 'params/blocks0_0/kernel'
        arrays[name], fields['large_first_layer'] = names.to_ours(name, first.weight.detach().numpy()), True
    last = network.get_submodule(head)
    for name, tensor in (('kernel', last.weight.T), ('bias', last.bias)):
        arrays[f'params/head/{name}'] = tensor.detach().numpy()
    encoder: Any = ENCODERS[kind](**fields, **dict.fromkeys(NO_DROPOUT.get(kind, ()), 0.0))
    placed = {
        name if name.startswith('params/head/') else name.replace('/', '/encoder/', 1): np.array(array)
        for name, array in arrays.items()
    }
    return Pair(network, head, encoder, traverse_util.unflatten_dict(placed, sep='/'))


def torch_step(pair: Pair, x: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """A function that takes one training step and returns its loss."""
    device = torch_device()
    network, head = pair.network.to(device).train(), pair.network.get_submodule(pair.head)
    update = torch.optim.SGD(network.parameters(), lr=RATE)
    pictures = torch.tensor(np.moveaxis(x, -1, 1).copy(), device=device)
    targets = torch.tensor(labels, device=device)

    def step() -> float:
        update.zero_grad(set_to_none=True)
        _, features, *auxiliary = network(pictures)
        loss = functional.cross_entropy(head(features), targets)
        for logits in auxiliary[0] if auxiliary else ():
            loss = loss + AUXILIARY_WEIGHT * functional.cross_entropy(logits, targets)
        loss.backward()
        update.step()
        return loss.item()

    return step


def jax_step(pair: Pair, x: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], float], float]:
    """The same from the same weights, compiled, and the seconds that this took."""
    model, update = Network(pair.encoder), optax.sgd(RATE)
    params, stats = jax.device_put((pair.variables['params'], pair.variables.get('batch_stats', {})))
    pictures, mask, targets = jnp.asarray(x), jnp.ones(x.shape[: x.ndim - 3], bool), jnp.asarray(labels)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def run(params, stats, opt_state, pictures, mask, targets):
        def loss_of(params):
            variables = {'params': params, 'batch_stats': stats}
            logits, changed = model.apply(variables, pictures, mask, train=True, mutable=['batch_stats'])
            first, *others = (optax.softmax_cross_entropy_with_integer_labels(y, targets).mean() for y in logits)
            return first + AUXILIARY_WEIGHT * sum(others), changed.get('batch_stats', {})

        (loss, new_stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = update.update(gradient, opt_state)
        return optax.apply_updates(params, updates), new_stats, opt_state, loss

    held, batch = [params, stats, update.init(params)], (pictures, mask, targets)
    started = time.perf_counter()
    compiled = run.lower(*held, *batch).compile()
    seconds = time.perf_counter() - started

    def step() -> float:
        *held[:], loss = compiled(*held, *batch)
        return float(loss)

    return step, seconds


def faults_of(kind: str, losses: Sequence[tuple[float, float]], counts: tuple[int, int]) -> list[str]:
    """What differs of (jax, PyTorch): the loss of a step, or the number of parameters."""
    allowed = TOLERANCE if torch_device() == 'cpu' else TF32_TOLERANCE
    faults = [
        f'{kind}: the losses of step {number} differ, jax {a:.5f} and PyTorch {b:.5f}'
        for number, (a, b) in enumerate(losses, start=1)
        if not abs(a - b) <= allowed * max(1, abs(b))  # not a number differs too
    ]
    if counts[0] != counts[1]:
        faults.append(f'{kind}: jax has {counts[0]:,} parameters, PyTorch {counts[1]:,}')
    return faults


def compare(kind: str, arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """A row of the table, and what is wrong with it."""
    shape, generator = input_shape(kind, arguments), np.random.default_rng(0)
    torch.manual_seed(0)
    pair = build(kind, shape, arguments.quick)
    x = generator.standard_normal(shape).astype(np.float32)
    labels = generator.integers(CLASSES, size=len(x))
    counts = parameters(pair.variables['params']), sum(p.numel() for p in pair.network.parameters())
    ours, seconds = jax_step(pair, x, labels)
    theirs = torch_step(pair, x, labels)
    losses = [(ours(), theirs()) for _ in range(2)]
    printed = '; '.join(f'jax {a:.5f} PyTorch {b:.5f}' for a, b in losses)
    print(f'{kind}: jax compiled in {seconds:.1f} s; losses of the first two steps: {printed}', flush=True)
    times = alternate((ours, theirs), arguments.steps)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    rates = [1e3 * len(x) / statistics.median(spent) for spent in times]
    inner = ' x '.join(map(str, shape[1:]))
    row = f'{kind:10}{inner:>20}{len(x):>7}{rates[0]:>12.2f}{rates[1]:>12.2f}{ratio:>8.2f}'
    row += ''.join(f'{count:>14,}' for count in counts)
    return row, faults_of(kind, losses, counts)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary = (__doc__ or '').split('\n')[0]
    parser = argparse.ArgumentParser(prog='python -m benchmarks.encoders_2d_3d', description=summary)
    parser.add_argument('--encoders', nargs='+', choices=KINDS, default=list(KINDS), metavar='NAME')
    parser.add_argument('--batch', type=ranges.COUNT, help='default: 16 pictures, 2 clips')
    parser.add_argument('--steps', type=ranges.COUNT, default=5, help='timed steps of each side')
    parser.add_argument('--frames', type=ranges.COUNT, help='of a clip (default: 32 for I3D, 64 for Simple3D)')
    parser.add_argument('--size', type=ranges.COUNT, help='side of a picture (default: 224, of a clip 112)')
    parser.add_argument('--quick', action='store_true', help='narrow networks on small pictures: does it work')
    arguments = parser.parse_args(argv)
    for flag, value, least, kinds in (
        ('frames', arguments.frames, 64, ('simple3d',)),
        ('size', arguments.size, 64, ('simple3d', 'vgg16')),
    ):
        small = [kind for kind in kinds if kind in arguments.encoders]
        if value and value < least and small:
            parser.error(f'--{flag} must be {least} or more for {" and ".join(small)}, found {value}')
    return arguments


def work(arguments: argparse.Namespace) -> int:
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch needs memory beside jax
    if jax.default_backend() != 'cpu' and torch_device() == 'cpu':
        print('error: jax runs on an accelerator, this torch only on the CPU: use JAX_PLATFORMS=cpu', file=sys.stderr)
        return 1
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as XLA's convolutions may
    print(
        f'{jax.devices()[0].device_kind}, float32, jax {jax.__version__}, torch {torch.__version__} '
        f'({torch_device()}, {torch.get_num_threads()} threads), SGD, median of {arguments.steps}',
        flush=True,
    )
    rows, faults = [], []
    for kind in arguments.encoders:
        row, wrong = compare(kind, arguments)
        rows.append(row)
        faults += wrong
    heads = ('input', 'batch', 'jax/s', 'PyTorch/s', 'ratio', 'parameters', 'PyTorch')
    widths = (20, 7, 12, 12, 8, 14, 14)
    print(f'{"network":10}' + ''.join(f'{head:>{width}}' for head, width in zip(heads, widths, strict=True)))
    print('\n'.join(rows), flush=True)
    for fault in faults:
        print(f'error: {fault}', file=sys.stderr)
    return 1 if faults else 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 1 also where the sides differ in losses or parameters."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
