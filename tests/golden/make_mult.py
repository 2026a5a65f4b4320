"""Writes mult.npz: outputs and gradients of the official MulT code on random weights and sequences of unequal lengths.

    python tests/golden/make_mult.py CHECKOUT     (needs torch; tests/test_mult.py reads the file and needs neither)

CHECKOUT is a clone of github.com/yaohungt/Multimodal-Transformer at commit a670936. Its code is run, not kept here, so
this file is the parity and there is no live comparison. Its width, fixed to 30, is made 6 to keep the file small.
Weights are values that float16 holds exactly, and are stored so; everything is computed in float32.
"""

import sys
import types
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name('mult.npz')
MODALITIES = ('text', 'audio', 'vision')
WIDTH, LAYERS, HEADS, OUTPUTS = 6, 2, 2, 2
SIZES = {'text': 3, 'audio': 4, 'vision': 5}
# True lengths by row, with sources longer and shorter than targets. The batch is padded to one number of steps for all
# modalities, so that the test, which runs step by step, compiles every operation once.
LENGTHS = {'text': (5, 3, 6), 'audio': (9, 2, 4), 'vision': (7, 7, 1)}
PADDED_TO = 10


def build(checkout, causal):
    """The official model, small and without dropout."""
    if checkout not in sys.path:
        sys.path.insert(0, checkout)
    from modules.position_embedding import SinusoidalPositionalEmbedding
    from src.models import MULTModel

    published = SinusoidalPositionalEmbedding.forward  # the view it takes fails in torch 2 on the memories' input
    SinusoidalPositionalEmbedding.forward = lambda self, input: published(self, input.contiguous())

    class Small(MULTModel):
        d_l = d_a = d_v = property(lambda self: WIDTH, lambda self, value: None)

    dropouts = ('attn_dropout', 'attn_dropout_a', 'attn_dropout_v', 'relu_dropout', 'res_dropout', 'out_dropout')
    sizes = {f'orig_d_{short}': size for short, size in zip('lav', SIZES.values(), strict=True)}
    options = dict.fromkeys((*dropouts, 'embed_dropout'), 0.0)
    options |= {'vonly': True, 'aonly': True, 'lonly': True, 'num_heads': HEADS, 'layers': LAYERS}
    options |= {'attn_mask': causal, 'output_dim': OUTPUTS}
    return Small(types.SimpleNamespace(**sizes, **options)).eval()


def randomise(model, seed=0):
    """Initial weights, with biases and norms that are neither 0 nor 1, rounded to float16."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            parameter.copy_(parameter.half().float())
    return model.state_dict()


def flat(values):
    return np.concatenate([value.detach().numpy().ravel() for value in values])


def reference(model, batches):
    """Outputs of the batches one after another, and the gradient of the sum of their squares, flat."""
    import torch

    model.zero_grad()
    output = torch.cat([model(*(torch.from_numpy(x) for x in batch))[0] for batch in batches])
    output.square().sum().backward()
    return output.detach().numpy(), flat(parameter.grad for parameter in model.parameters())


def main(checkout):
    import torch

    torch.manual_seed(0)
    generator, rows = np.random.default_rng(0), 3
    clips = [
        [generator.standard_normal((LENGTHS[m][row], SIZES[m])).astype(np.float32) for m in MODALITIES]
        for row in range(rows)
    ]
    padded = [
        np.stack([np.pad(clip[i], ((PADDED_TO - len(clip[i]), 0), (0, 0))) for clip in clips])
        for i, m in enumerate(MODALITIES)
    ]
    alone = [[x[None] for x in clip] for clip in clips]
    weights = randomise(build(checkout, causal=True))
    arrays = {f'{m}_left_padded': x for m, x in zip(MODALITIES, padded, strict=True)}
    for causal in (True, False):
        model = build(checkout, causal)
        model.load_state_dict(weights)
        for case, batches in (('padded', [padded]), ('alone', alone)):
            key = f'{case}_{"causal" if causal else "full"}'
            arrays[f'{key}/output'], arrays[f'{key}/gradient'] = reference(model, batches)
    parameters = dict(model.named_parameters())
    arrays['names'] = np.array(list(parameters))
    arrays['shapes'] = np.array([(*p.shape, 0, 0)[:3] for p in parameters.values()], np.int32)
    arrays['weights'] = flat(parameters.values()).astype(np.float16)
    arrays['note'] = np.array(
        f'official MulT a670936 in torch {torch.__version__}, written by tests/golden/make_mult.py'
    )
    np.savez_compressed(PATH, **arrays)


if __name__ == '__main__':
    main(sys.argv[1])
