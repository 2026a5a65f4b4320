"""ERANN, the efficient residual audio network (Verbitskiy et al. 2022, arXiv 2106.01621): a CNN over log-mel frames.

It is the audio network behind the row "ERANNs" of CFN-SR's table, which lists it among the audio-visual fusions.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.convolve import Conv
from mmer_jax.encoders.protocol import STAGES
from mmer_jax.layers import check_mask, mask_steps, masked_mean


class ResidualBlock(nn.Module):
    """(B, T, F, C') -> (B, ceil(T / stride), ceil(F / frequency_stride), channels): two pre-activated convolutions.

    Kernels have 3 taps along an axis; where its stride is 4, the first has 6 and the second 5. The shortcut is a 1 x 1
    convolution where the shape changes. mask_BT holds the valid steps of x; what stands at others is not seen.
    """

    channels: int
    time_stride: int = 1
    frequency_stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTFC: Array, mask_BT: Array, *, train: bool) -> Array:
        strides = (self.time_stride, self.frequency_stride)

        def conv(x, kernel, *, strides, padding, name):
            layer = Conv(self.channels, kernel, strides, padding=padding, use_bias=False, dtype=self.dtype, name=name)
            return layer(x)

        def activate(x, mask, name):
            # Padded steps are left out of the batch statistics; a batch of padding alone takes all.
            counted = (mask | ~mask.any())[:, :, None, None]
            norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name=name)
            return mask_steps(nn.leaky_relu(norm(x, mask=counted)), mask)

        x_BTFC = mask_steps(x_BTFC, mask_BT)
        shortcut = x_BTFC
        if strides != (1, 1) or x_BTFC.shape[-1] != self.channels:
            shortcut = conv(x_BTFC, (1, 1), strides=strides, padding='VALID', name='shortcut')
        kernel = tuple(6 if stride == 4 else 3 for stride in strides)
        padding = [_padding(size, k, s) for size, k, s in zip(x_BTFC.shape[1:3], kernel, strides, strict=True)]
        h_BTFC = conv(activate(x_BTFC, mask_BT, 'norm1'), kernel, strides=strides, padding=padding, name='conv1')
        h_BTFC = activate(h_BTFC, mask_BT[:, :: self.time_stride], 'norm2')
        kernel = tuple(5 if stride == 4 else 3 for stride in strides)
        return shortcut + conv(h_BTFC, kernel, strides=(1, 1), padding='SAME', name='conv2')


def _padding(size, kernel, stride):
    """One zero before; behind, as many as make ceil(size / stride) outputs."""
    outputs = -(-size // stride)
    return 1, max(0, (outputs - 1) * stride + kernel - 1 - size)


class Erann(nn.Module):
    """Log-mel frames (B, T, F) -> maps (B, T', F', 128 width); `pool` gives (B, 128 width).

    Five stages of four residual blocks, of 8, 16, 32, 64 and 128 times `width` channels; the first of each stage after
    the stem halves the frequencies and divides the steps by 2, or by 4 in the first `coarse_stages` of stages 1 to 3
    (the paper's s_m, its means to make the network cheaper). `pool` adds mean and maximum over valid steps and
    frequencies, then a dense layer of 128 width and leaky ReLU; the head is the model's. Padding is masked, in the
    statistics too; steps are filled up to a multiple of the total stride: T' = ceil(T / (16 2^coarse_stages)).

    The original is an audio network for 128 mel bands and has no public code. Its abstract says 3.3 times smaller than
    the former best on RAVDESS; if that is the CNN14 of PANNs, of 80 million parameters, `width` is 4, the default, of
    24 million. coarse_stages = 0, the finest, is our choice. Block, kernels and pooling are those of the public
    re-implementation github.com/Matheuao/ERANNs; batch normalisation of its input is in the first block.
    """

    width: int = 4
    coarse_stages: int = 0
    blocks: int = 4
    dtype: Any = jnp.float32

    stages = STAGES
    masks_steps = True  # stages take the mask of the valid steps (B, T), not only that of the rows (B,)

    def setup(self):
        if not 0 <= self.coarse_stages <= 3:
            raise ValueError(f'coarse_stages = {self.coarse_stages}: stages 1 to 3 can be coarse, so 0 to 3')

        def stage(number):
            channels, strides = 8 * self.width * 2**number, (self._time_stride(number), 2 if number else 1)
            first = ResidualBlock(channels, *strides, dtype=self.dtype)
            return [first, *(ResidualBlock(channels, dtype=self.dtype) for _ in range(self.blocks - 1))]

        self.stem_blocks, self.stage1_blocks, self.stage2_blocks, self.stage3_blocks, self.stage4_blocks = (
            stage(number) for number in range(5)
        )
        self.dense = nn.Dense(128 * self.width, dtype=self.dtype)

    def _time_stride(self, number):
        return 1 if number == 0 else 4 if number <= min(self.coarse_stages, 3) else 2

    def prepare(self, x_BTF: Array, mask_BT: Array) -> tuple[Array, Array]:
        """Zeros at padded steps, and as many steps more as make a multiple of the total stride."""
        mask_BT = check_mask(self, x_BTF, mask_BT, layouts=('BTF',))
        missing = -x_BTF.shape[1] % (16 * 2**self.coarse_stages)
        mask_BT = jnp.pad(mask_BT, ((0, 0), (0, missing)))
        return mask_steps(jnp.pad(x_BTF, ((0, 0), (0, missing), (0, 0))), mask_BT), mask_BT

    def stem(self, x_BTF: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T, F) -> (B, T, F, 8 width). mask_BT, here and below: the valid steps of x, as `prepare` gives them."""
        return self._run(self.stem_blocks, x_BTF[..., None], mask_BT, train=train)

    def stage1(self, x_BTFC: Array, mask_BT: Array, *, train: bool) -> Array:
        return self._run(self.stage1_blocks, x_BTFC, mask_BT, train=train)

    def stage2(self, x_BTFC: Array, mask_BT: Array, *, train: bool) -> Array:
        return self._run(self.stage2_blocks, x_BTFC, mask_BT, train=train)

    def stage3(self, x_BTFC: Array, mask_BT: Array, *, train: bool) -> Array:
        return self._run(self.stage3_blocks, x_BTFC, mask_BT, train=train)

    def stage4(self, x_BTFC: Array, mask_BT: Array, *, train: bool) -> Array:
        return self._run(self.stage4_blocks, x_BTFC, mask_BT, train=train)

    def pool(self, features_BTFC: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T', F', C) -> (B, 128 width)."""
        del train
        highest_BC = jnp.where(mask_BT[:, :, None, None], features_BTFC, -jnp.inf).max((1, 2))
        highest_BC = jnp.where(mask_BT.any(1)[:, None], highest_BC, 0)
        return nn.leaky_relu(self.dense(masked_mean(features_BTFC.mean(2), mask_BT) + highest_BC))

    def __call__(self, x_BTF: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        x, mask_BT = self.prepare(x_BTF, mask_BT)
        for number, stage in enumerate((self.stem, self.stage1, self.stage2, self.stage3, self.stage4)):
            x = stage(x, mask_BT, train=train)
            mask_BT = mask_BT[:, :: self._time_stride(number)]
        return mask_steps(x, mask_BT), mask_BT

    def _run(self, blocks, x_BTFC, mask_BT, *, train):
        for number, block in enumerate(blocks):
            x_BTFC = block(x_BTFC, mask_BT, train=train)
            if number == 0:
                mask_BT = mask_BT[:, :: block.time_stride]
        return x_BTFC
