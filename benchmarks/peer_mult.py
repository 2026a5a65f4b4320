"""The official MulT, from a folder of its code, in training: a case of benchmarks.sequence_models.

    git clone https://github.com/yaohungt/Multimodal-Transformer DIR
    python -m benchmarks.sequence_models --model mult --peer DIR

Nothing of that code is here, and the folder stays as it is. Needs torch. Its model has the width 30 in its source; the
line is read with the width of ours, and the sizes and shares of dropout are those of ours. It has no masks of padding
(every step is attended), and runs without its future mask, which would only cost it time. Its function of positions,
which stops under today's torch (a view of strided memory on the CPU, an index out of range by CUDA), is replaced by one
of the same values.
"""

import re
import resource
import sys
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SOURCE = 'src/models.py'
WIDTHS = re.compile(r'(self\.d_l, self\.d_a, self\.d_v = )\d+, \d+, \d+')


def load_model(folder: Path, width: int) -> Any:
    """The class MULTModel of the folder, its width replaced; ValueError where the folder is another one."""
    path = folder / SOURCE
    if not path.is_file():
        raise ValueError(f'--peer {folder}: there is no {SOURCE}; expected a folder of the official code of MulT')
    text, found = WIDTHS.subn(rf'\g<1>{width}, {width}, {width}', path.read_text())
    if found != 1:
        raise ValueError(f'{path}: found {found} lines that set d_l, d_a and d_v, expected one; is this its code?')
    sys.path.insert(0, str(folder))  # for its own imports
    module = types.ModuleType('official_mult')
    exec(compile(text, str(path), 'exec'), module.__dict__)
    sys.modules['modules.position_embedding'].make_positions = positions  # type: ignore[attr-defined]
    return module.MULTModel


def positions(first_BT: Any, padding: int, left_pad: int) -> Any:
    """1, 2, ... where the first feature of a step is not `padding`, which is 0; there 0."""
    import torch

    assert not left_pad
    numbers_T = torch.arange(1, first_BT.shape[1] + 1, device=first_BT.device) + padding
    return torch.where(first_BT != padding, numbers_T, padding).contiguous()


def build(folder: Path, fields: Mapping[str, Any], features: Sequence[int]) -> Any:
    """Its model with the sizes of `fields`, those of our model; features: of text, audio and vision."""
    attention = fields['attention_dropout']
    options = {
        **dict(zip(('orig_d_l', 'orig_d_a', 'orig_d_v'), features, strict=True)),
        **dict.fromkeys(('lonly', 'aonly', 'vonly'), True),
        'num_heads': fields['num_heads'],
        'layers': fields['num_layers'],
        **dict.fromkeys(('attn_dropout', 'attn_dropout_a', 'attn_dropout_v'), attention),
        'relu_dropout': fields.get('relu_dropout', 0.1),
        'res_dropout': fields.get('residual_dropout', 0.1),
        'out_dropout': fields['output_dropout'],
        'embed_dropout': fields.get('embedding_dropout', 0.25),
        'attn_mask': False,
        'output_dim': 1,
    }
    return load_model(folder, fields['width'])(types.SimpleNamespace(**options))


def measure(
    folder: Path, config: Any, features: Sequence[int], lengths: Mapping[str, int], *, records: int, steps: int,
    cuda: bool,
) -> dict[str, Any]:  # fmt: skip
    """A case as benchmarks.sequence_models has them: seconds of a step of forward, backward, clipping and Adam."""
    import torch

    device = 'cuda' if cuda and torch.cuda.is_available() else 'cpu'
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = build(folder, config.model, features).to(device).train()
    update = torch.optim.Adam(model.parameters(), lr=config.optimizer.learning_rate)
    generator, rows = np.random.default_rng(0), config.data.batch_size
    x = [
        torch.tensor(generator.standard_normal((rows, lengths[m], width), np.float32), device=device)
        for m, width in zip(lengths, features, strict=True)
    ]
    targets = torch.tensor(generator.uniform(-3, 3, (rows, 1)).astype(np.float32), device=device)

    def step():
        update.zero_grad(set_to_none=True)
        loss = torch.nn.functional.l1_loss(model(*x)[0], targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        update.step()
        return loss.item()

    started = time.perf_counter()
    step()
    first, started = time.perf_counter() - started, time.perf_counter()
    losses = [step() for _ in range(steps)]
    seconds = (time.perf_counter() - started) / steps
    if not np.isfinite(losses).all():
        raise ValueError(f'the loss of the official code is not finite: {losses}')
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    if device == 'cuda':
        peak = torch.cuda.max_memory_allocated() / 2**30
    row = {'steps': dict(lengths), 'batches': -(-records // rows), 'seconds': seconds, 'peak': peak}
    return {
        'device': f'torch {torch.__version__} on {device}, {torch.get_num_threads()} threads',
        'records': records,
        'batch_size': rows,
        'timed_steps': steps,
        'shapes': [{**row, 'compile': max(first - seconds, 0.0)}],
    }
