"""The audio-visual baselines of CFN-SR's Table 1: two encoders and one of seven ways to fuse them."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.encoders.protocol import Encoder, StagedEncoder
from mmer_jax.fusion.compact_bilinear import CompactBilinear
from mmer_jax.fusion.late import ConcatFc, averaging, multiplication, multiplicative
from mmer_jax.fusion.mmtm import Mmtm
from mmer_jax.fusion.msaf import Msaf
from mmer_jax.layers import check_batch

LATE = ('averaging', 'multiplication', 'multiplicative')
COUPLED = ('mmtm', 'msaf')
FUSIONS = (*LATE, 'concat_fc', 'compact_bilinear', *COUPLED)


class AudioVisual(nn.Module):
    """`audio` and `vision` are encoders (mfcc_cnn and resnext3d in the paper), `fusion` one of:

    | fusion | what is fused | parameters of eight classes | published |
    |---|---|---|---|
    | averaging | logits: their mean | 25,916,080 | 25.92M |
    | multiplication | class probabilities: their product | 25,916,080 | 25.92M |
    | multiplicative | class log-probabilities, weighted down by `beta` (Liu et al. 2018) | 25,916,080 | 25.92M |
    | concat_fc | pooled features: side by side, a layer of `hidden_size` | 26,838,952 | 26.87M |
    | compact_bilinear | pooled features: their outer product as a sketch, a linear head | 26,014,376 | 51.03M |
    | mmtm | feature maps between stages; mean of the logits | 31,496,512 | 31.97M |
    | msaf | feature maps between stages; sum of the logits | 25,940,724 | 25.94M |

    The published 26.87M of concat_fc are 26,868,664 with a head a modality beside it, which nothing reads:
    `modality_heads` adds them here, and their logits are an extra. The layers behind the 51.03M are described nowhere;
    ours are those of Fukui et al. (2016), `sketch_size` 16,000 and no hidden layers. MMTM's places in these networks
    are not given: ours, after the last two stages as for MSAF, make it 0.5M smaller; with a third one, of (512, 32)
    channels, it would have 31.79M.

    mmtm and msaf couple the last `couplings` stages of both encoders, video of 1024 and 2048 channels with audio of 32
    and 64 in the paper; an encoder without stages (vector_encoder) is coupled once, at its output, and then so is the
    other, behind its last stage. msaf has one number of `block_channels` a coupling; the last ones are used where there
    are fewer. `reduction` is that of both, `gate_scale` is MMTM's, and `drop_twice` the authors' form of MSAF's block
    dropout.

    Predictions (B, num_outputs); those of multiplication and multiplicative are log-probabilities that do not sum to 1,
    whose softmax is taken for a probability. multiplicative is trained by its authors on the negative prediction of the
    true class. Extras: `features` (B, D), both encoders' pooled features, vision before audio, and, where there are
    heads, `modality_logits` (B, 2, num_outputs) of vision and audio.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    audio: Encoder
    vision: Encoder
    fusion: str = 'averaging'
    beta: float = 0.3
    hidden_size: int = 256
    sketch_size: int = 16000
    sketch_seed: int = 0
    couplings: int = 2
    reduction: int = 4
    gate_scale: float = 2.0
    block_channels: tuple[int, ...] = (16, 32)
    block_dropout: float = 0.2
    drop_twice: bool = False
    modality_heads: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        self._check()
        batch = check_batch(self, batch, self.modalities)
        encoders = {'vision': self.vision, 'audio': self.audio}
        blocks = self._blocks(encoders) if self.fusion in COUPLED else []
        maps, masks = _encode(encoders, blocks, batch, train=train)
        pooled = {m: encoder.pool(maps[m], masks[m], train=train) for m, encoder in encoders.items()}
        vectors = list(pooled.values())
        outputs = {'features': jnp.concatenate(vectors, -1)}
        if self.fusion in (*LATE, *COUPLED) or self.modality_heads:
            heads = {m: nn.Dense(self.num_outputs, dtype=self.dtype, name=f'{m}_head') for m in pooled}
            logits = [heads[m](vector_BD).astype(jnp.float32) for m, vector_BD in pooled.items()]
            outputs['modality_logits'] = jnp.stack(logits, 1)
        return {'prediction': self._predict(vectors, outputs.get('modality_logits')), **outputs}

    def _predict(self, vectors, logits_BMC):
        match self.fusion:
            case 'averaging' | 'mmtm':
                return averaging(logits_BMC)
            case 'msaf':
                return logits_BMC.sum(1)
            case 'multiplication':
                return multiplication(logits_BMC)
            case 'multiplicative':
                return multiplicative(logits_BMC, self.beta)
            case 'concat_fc':
                return ConcatFc(self.num_outputs, self.hidden_size, dtype=self.dtype, name='concat_fc')(vectors)
            case _:
                sketch_BD = CompactBilinear(self.sketch_size, self.sketch_seed)(vectors)
                head = nn.Dense(self.num_outputs, dtype=self.dtype, name='head')
                return head(sketch_BD).astype(jnp.float32)

    def _blocks(self, encoders):
        """The modules that couple the encoders, first to last."""
        for m, encoder in encoders.items():
            if not isinstance(encoder, Encoder):
                raise ValueError(
                    f'{self.fusion} couples the stages of encoders, and that of {m}, {type(encoder).__name__}, is no '
                    'mmer_jax.encoders.Encoder: give it pool, and `stages`, () where it has none'
                )
        stages = {m: encoder.stages for m, encoder in encoders.items()}
        number = self.couplings if all(stages.values()) else min(self.couplings, 1)
        for m, names in stages.items():
            if len(names or [m]) < number or number < 1:
                raise ValueError(
                    f'couplings = {self.couplings}: {self.fusion} needs at least 1, and the encoder of {m} has '
                    f'{len(names)} stages'
                )
        if self.fusion == 'mmtm':
            return [Mmtm(self.reduction, self.gate_scale, dtype=self.dtype, name=f'mmtm{i}') for i in range(number)]
        if len(self.block_channels) < number:
            raise ValueError(f'block_channels {self.block_channels}: give one number for each of {number} couplings')
        return [
            Msaf(
                channels,
                self.reduction,
                self.block_dropout,
                drop_twice=self.drop_twice,
                dtype=self.dtype,
                name=f'msaf{i}',
            )
            for i, channels in enumerate(self.block_channels[-number:])
        ]

    def _check(self):
        if set(self.modalities) != {'audio', 'vision'}:
            raise ValueError(f'audio_visual needs the modalities audio and vision, found {self.modalities}')
        if self.fusion not in FUSIONS:
            raise ValueError(f'fusion {self.fusion!r} is unknown; the known ones are {", ".join(FUSIONS)}')


def _encode(
    encoders: Mapping[str, Encoder], blocks: Sequence[nn.Module], batch: Mapping[str, Array], *, train: bool
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Feature maps and masks of both encoders; block i is put behind the i-th of each one's last stages."""
    inputs = {m: (batch[m], batch[f'{m}_mask']) for m in encoders}
    if not blocks:
        encoded = {m: encoder(*inputs[m], train=train) for m, encoder in encoders.items()}
        return {m: x for m, (x, _) in encoded.items()}, {m: mask for m, (_, mask) in encoded.items()}
    running = {m: _run(encoder, *inputs[m], couplings=len(blocks), train=train) for m, encoder in encoders.items()}
    states = {m: next(stages) for m, stages in running.items()}
    for number, block in enumerate(blocks):
        maps, masks = {m: x for m, (x, _) in states.items()}, {m: mask for m, (_, mask) in states.items()}
        maps = block(maps, masks, train=train) if isinstance(block, Msaf) else block(maps, masks)
        if number + 1 < len(blocks):
            states = {m: stages.send(maps[m]) for m, stages in running.items()}
    return maps, masks


def _run(
    encoder: Encoder, x: Array, mask_BT: Array, *, couplings: int, train: bool
) -> Generator[tuple[Array, Array], Array, None]:
    """A generator that yields (map, mask of its steps) where a block goes, and takes the map that it makes of it."""
    if not encoder.stages:
        yield encoder(x, mask_BT, train=train)
        return
    if not isinstance(encoder, StagedEncoder):
        raise ValueError(
            f'{type(encoder).__name__} has stages but is no StagedEncoder, which coupling its stages needs: give it '
            'prepare(x, mask) -> (x, mask) and masks_steps, or take a fusion of features or logits'
        )
    x, mask_BT = encoder.prepare(x, mask_BT)
    rows_B, by_step = mask_BT.any(1), encoder.masks_steps
    for name in encoder.stages:
        x = getattr(encoder, name)(x, mask_BT if by_step else rows_B, train=train)
        stride = mask_BT.shape[1] // x.shape[1]
        mask_BT = mask_BT[:, ::stride] if by_step else jnp.broadcast_to(rows_B[:, None], x.shape[:2])
        if name in encoder.stages[-couplings:]:
            x = yield x, mask_BT
