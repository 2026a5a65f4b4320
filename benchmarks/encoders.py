"""The pretrained transformer encoders in jax against PyTorch's transformers: an inference pass and a training step.

    python -m benchmarks.encoders [--encoders bert vit] [--batch 4] [--steps 5] [--dtype float32] [--remat] [--compiled]

Needs torch and transformers. A randomly initialised classifier of Hugging Face (benchmarks/convert.py), base size by
default and without dropout, is saved to a folder and converted by data_prep.convert_weights, so both sides have the
same weights, inputs (128 tokens, 5 s at 16 kHz, 1024 frames, 16 pictures or one of 224 x 224; nothing padded) and head.
A training step is forward, cross-entropy of four classes, backward and AdamW (PyTorch: eager, and by torch.compile too
with --compiled; fused AdamW, its own choice of attention). The largest difference of the logits and all sides' losses
of the first two steps are printed. Calls alternate: the median of each side, and the median ratio of neighbours (jax /
the other; below 1 jax is faster).

Share: the encoder's floating-point operations a second as a part of the machine's, those of a square matrix product in
the same dtype (2048, on an accelerator 8192) by whichever library is the faster; both products run beside each call.
Operations are counted from the sizes of the matrix products and convolutions of the forward pass, 2 a multiplication;
a training step counts as three passes.

PyTorch runs where jax does: on the CPU, or by CUDA where torch has it; else only jax is measured. On an accelerator
float32 products may use TF32 on both sides. On a machine that does other work too, begin with `taskset -c 0`:
PyTorch's threads wait for each other.
"""

import argparse
import contextlib
import copy
import functools
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import transformers
from flax import traverse_util
from torch.nn import functional

from benchmarks.conv3d import alternate, parameters
from benchmarks.convert import CLASSES, MODELS, build
from data_prep.convert_weights import huggingface
from mmer_jax.encoders import ENCODERS
from mmer_jax.settings import command, ranges

RATE, DECAY = 1e-5, 1e-2
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    'base': {
        'tokens': (128,),
        'samples': (80000,),
        'frames': (1024, 128),
        'clips': (16, 224, 224, 3),
        'pictures': (1, 224, 224, 3),
    },
    'tiny': {
        'tokens': (12,),
        'samples': (600,),
        'frames': (24, 16),
        'clips': (4, 16, 16, 3),
        'pictures': (1, 16, 16, 3),
    },
}
# Fields that no folder decides: the inputs here are normalised already.
GIVEN: dict[str, dict[str, Any]] = {
    'wav2vec2': {'normalize': False},
    'hubert': {'normalize': False},
    'ast': {'mean': 0.0, 'std': 0.5},
}


class Side(NamedTuple):
    """One library's call, and its product of square matrices."""

    call: Callable[[], object]
    matmul: Callable[[], object]


class Network(nn.Module):
    """An encoder, its pooling and a dense layer, as the classifier of Hugging Face has them."""

    encoder: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        features, mask_BT = self.encoder(x, mask, train=train)
        pooled_BD = self.encoder.pool(features, mask_BT, train=train)
        return nn.Dense(CLASSES, name='head')(pooled_BD.astype(jnp.float32))


def inputs(name: str, size: str, batch: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, the mask of its steps and labels, for our encoder."""
    generator, kind = np.random.default_rng(0), MODELS[name][1]
    shape = (batch, *SHAPES[size][kind])
    if kind == 'tokens':
        x = generator.integers(4, vocabulary, shape).astype(np.int32)  # no special token
    else:
        x = generator.standard_normal(shape).astype(np.float32)
    return x, np.ones(shape[:2], bool), generator.integers(CLASSES, size=batch)


def torch_inputs(kind: str, x: np.ndarray, device: str) -> dict[str, torch.Tensor]:
    """x under the name and in the order that the model of transformers takes."""
    if kind == 'tokens':
        ids = torch.tensor(x, dtype=torch.int64, device=device)
        return {'input_ids': ids, 'attention_mask': torch.ones_like(ids)}
    if kind in ('samples', 'frames'):
        return {'input_values': torch.tensor(x, device=device)}
    x = np.moveaxis(x, -1, 2)
    return {'pixel_values': torch.tensor((x[:, 0] if kind == 'pictures' else x).copy(), device=device)}


def convert(name: str, model: transformers.PreTrainedModel, dtype: Any, remat: bool) -> tuple[Network, dict[str, Any]]:
    """Our network and parameters, by way of a folder."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        made = huggingface.convert(Path(folder))
    fields = {**made.fields, **GIVEN.get(name, {}), 'dtype': dtype, 'remat': remat}
    head = model.get_submodule(MODELS[name][2]).state_dict()
    last = {'kernel': head['weight'].numpy().T.copy(), 'bias': head['bias'].numpy().copy()}
    params = traverse_util.unflatten_dict(made.arrays, sep='/')['params']
    encoder: Any = ENCODERS[made.family](**fields)
    return Network(encoder), {'encoder': params, 'head': last}


def product_operations(jaxpr: Any) -> int:
    """Floating-point operations of the matrix products and convolutions of a jaxpr, 2 a multiplication."""
    total = 0
    for equation in jaxpr.eqns:
        size = 2 * math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == 'dot_general':
            (contracted, _), _ = equation.params['dimension_numbers']
            total += size * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif equation.primitive.name == 'conv_general_dilated':
            kernel, features = equation.invars[1].aval.shape, equation.params['dimension_numbers'].rhs_spec[0]
            total += size * math.prod(kernel) // kernel[features]
        for value in equation.params.values():
            inner = getattr(value, 'jaxpr', value)  # closed or open
            if hasattr(inner, 'eqns'):
                total += product_operations(inner)
    return total


def matmul_size(size: str) -> int:
    if size == 'tiny':
        return 128
    return 2048 if jax.default_backend() == 'cpu' else 8192


def jax_matmul(length: int, dtype: str) -> Callable[[], object]:
    a = jnp.asarray(np.random.default_rng(0).standard_normal((length, length), np.float32), dtype)
    product = jax.jit(lambda a: a @ a)
    return lambda: product(a).block_until_ready()


def torch_matmul(length: int, dtype: str, device: str) -> Callable[[], object]:
    a = torch.randn(length, length, dtype=getattr(torch, dtype), device=device)

    def product():
        with torch.inference_mode():
            b = a @ a
        if device == 'cuda':
            torch.cuda.synchronize()
        return b

    return product


def compile_timed(function: Any, *arrays: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    compiled = function.lower(*arrays).compile()
    return compiled, time.perf_counter() - started


def jax_calls(network: Network, params: Any, x: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> tuple:
    """An inference pass, a training step that returns its loss, seconds to compile both, operations of a pass.

    The step takes the parameters over: no inference behind it.
    """
    held = [jax.device_put(params)]
    batch = tuple(map(jnp.asarray, (x, mask, labels)))
    update = optax.adamw(RATE, weight_decay=DECAY)

    def forward(params, x, mask, train=False):
        return network.apply({'params': params}, x, mask, train=train)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(params, opt_state, x, mask, labels):
        def loss_of(params):
            logits = forward(params, x, mask, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, opt_state = update.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    held.append(jax.jit(update.init)(held[0]))
    operations = product_operations(jax.make_jaxpr(forward)(held[0], *batch[:2]).jaxpr)
    inference, forward_seconds = compile_timed(jax.jit(forward), held[0], *batch[:2])
    compiled, step_seconds = compile_timed(train, *held, *batch)

    def step() -> float:
        *held[:], loss = compiled(*held, *batch)
        return float(loss)

    return lambda: np.asarray(inference(held[0], *batch[:2])), step, (forward_seconds, step_seconds), operations


def keep_result(results: list[float], call: Callable[[], float]) -> None:
    results.append(call())


def torch_calls(
    model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], labels: np.ndarray, dtype: str, *, compiled: bool
) -> tuple:
    """The same two calls."""
    device = next(iter(tensors.values())).device.type
    model.to(device)
    update = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    targets = torch.tensor(labels, device=device)
    call: Any = torch.compile(model) if compiled else model

    def forward() -> torch.Tensor:
        low = torch.autocast(device, torch.bfloat16) if dtype == 'bfloat16' else contextlib.nullcontext()
        with low:
            return call(**tensors).logits

    def inference() -> np.ndarray:
        model.eval()
        with torch.inference_mode():
            return forward().float().cpu().numpy()

    def step() -> float:
        model.train()
        update.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(forward().float(), targets)
        loss.backward()
        update.step()
        return loss.item()

    return inference, step


def measure(what: str, sides: Mapping[str, Side], operations: int, length: int, repeats: int) -> None:
    """Prints milliseconds, share and ratio of calls of so many operations; the first side is jax.

    length: the side of the matrices that are multiplied.
    """
    times = alternate([function for side in sides.values() for function in side], repeats)
    calls, products = times[::2], times[1::2]
    # operations a millisecond of the faster product of each round
    machine = [2 * length**3 / min(beside) for beside in zip(*products, strict=True)]
    parts = []
    for name, spent in zip(sides, calls, strict=True):
        share = statistics.median(operations / a / b for a, b in zip(spent, machine, strict=True))
        parts.append(f'{name} {statistics.median(spent):.1f} ms, share {share:.3f}')
    for name, spent in list(zip(sides, calls, strict=True))[1:]:
        ratio = statistics.median(a / b for a, b in zip(calls[0], spent, strict=True))
        parts.append(f'ratio to {name} {ratio:.2f} (median of {repeats})')
    rates = (
        f'{name} {2 * length**3 / statistics.median(spent) / 1e6:.4g}'
        for name, spent in zip(sides, products, strict=True)
    )
    print(f'  {what}: {"; ".join(parts)}; matrix products: {", ".join(rates)} GFLOP/s', flush=True)


def compare(name: str, arguments: argparse.Namespace, device: str | None) -> None:
    """Prints sizes, agreement, inference and training step of an encoder."""
    model = build(name, arguments.size)
    network, params = convert(name, model, jnp.dtype(arguments.dtype), arguments.remat)
    x, mask, labels = inputs(name, arguments.size, arguments.batch, getattr(model.config, 'vocab_size', 0) or 0)
    passes, step, seconds, operations = jax_calls(network, params, x, mask, labels)
    print(
        f'{name}: {x.shape}, {parameters(params):,} parameters, {operations / 1e9:.4g} GFLOP a pass; jax compiled '
        f'inference in {seconds[0]:.1f} s, step in {seconds[1]:.1f} s',
        flush=True,
    )
    length = matmul_size(arguments.size)
    product = jax_matmul(length, arguments.dtype)
    losses: dict[str, list[float]] = {'jax': []}
    inference, training = {'jax': Side(passes, product)}, {'jax': Side(lambda: losses['jax'].append(step()), product)}
    if device:
        tensors = torch_inputs(MODELS[name][1], x, device)
        their_product = torch_matmul(length, arguments.dtype, device)
        ways = {'PyTorch': copy.deepcopy(model), **({'compiled': model} if arguments.compiled else {})}
        for way, one in ways.items():
            their_pass, their_step = torch_calls(one, tensors, labels, arguments.dtype, compiled=way == 'compiled')
            inference[way] = Side(their_pass, their_product)
            losses[way] = []
            training[way] = Side(functools.partial(keep_result, losses[way], their_step), their_product)
            theirs = their_pass()
            largest = np.abs(passes() - theirs).max()
            print(f'  logits of {way} to {np.abs(theirs).max():.2f}, largest difference {largest:.1e}')
    measure('inference', inference, operations, length, arguments.steps)
    measure('step', training, 3 * operations, length, arguments.steps)
    first = (f'{side} {values[0]:.5f} {values[1]:.5f}' for side, values in losses.items())
    print('  losses of the first two steps: ' + ', '.join(first), flush=True)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    summary = (__doc__ or '').split('\n')[0]
    parser = argparse.ArgumentParser(prog='python -m benchmarks.encoders', description=summary)
    parser.add_argument('--encoders', nargs='+', choices=MODELS, default=list(MODELS), metavar='NAME')
    parser.add_argument('--batch', type=ranges.COUNT, default=4)
    parser.add_argument('--steps', type=ranges.COUNT, default=5, help='timed calls of each side')
    parser.add_argument('--size', choices=SHAPES, default='base')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32', help='bfloat16: accelerators')
    parser.add_argument('--compiled', action='store_true', help='PyTorch by torch.compile too, beside eager')
    parser.add_argument('--remat', action='store_true', help='jax recomputes each layer in the backward pass')
    return parser.parse_args(argv)


def work(arguments: argparse.Namespace) -> None:
    transformers.utils.logging.disable_progress_bar()
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch needs memory beside jax
    on_cpu = jax.default_backend() == 'cpu'
    if on_cpu and arguments.dtype != 'float32':
        raise command.WrongCall('--dtype bfloat16 is measured on an accelerator; jax runs on the CPU here')
    device = 'cpu' if on_cpu else 'cuda' if torch.cuda.is_available() else None
    torch.set_float32_matmul_precision('highest' if on_cpu else 'high')
    where = f'on {device}, {torch.get_num_threads()} threads' if device else 'not measured, for it has no CUDA'
    print(
        f'{jax.devices()[0].device_kind}, {arguments.dtype}, batch {arguments.batch}; jax {jax.__version__}, '
        f'torch {torch.__version__} ({where}), transformers {transformers.__version__}',
        flush=True,
    )
    for name in arguments.encoders:
        compare(name, arguments, device)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
