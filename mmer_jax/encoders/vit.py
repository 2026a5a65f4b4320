"""ViT (Dosovitskiy et al. 2021), AST (Gong et al. 2021) and VideoMAE (Tong et al. 2022): patches -> features.

The transformer's input has one fixed size: a picture, a spectrogram of max_length frames, a clip of num_frames
pictures. What the batch holds is brought to it row by row, so that padding has no part in it.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmer_jax.convolve import convolve
from mmer_jax.dropout import Dropout
from mmer_jax.encoders.convolution import IMAGENET_MEAN, IMAGENET_STD, scale_images
from mmer_jax.encoders.filterbank import kaldi_fbank
from mmer_jax.encoders.transformer import INIT, TransformerEncoder
from mmer_jax.encoders.wav2vec2 import prepare_waveform
from mmer_jax.layers import fix_length, mask_steps

AUDIOSET_MEAN, AUDIOSET_STD = -4.2677393, 4.5689974


def alternating_positions(steps: int, features: int) -> np.ndarray:
    """Positions from 0, float32 (steps, features): sine and cosine alternate, as in Vaswani et al. 2017."""
    frequency_D = np.power(10000.0, -2 * (np.arange(features) // 2) / features)
    angle_TD = np.arange(steps)[:, None] * frequency_D[None]
    even = np.arange(features)[None] % 2 == 0
    return np.where(even, np.sin(angle_TD), np.cos(angle_TD)).astype(np.float32)


class Patches(nn.Module):
    """A dense layer over the patches of x (B, ..., C), two or three axes of space and time -> (B, N, D).

    Where patches do not overlap they are cut out and multiplied: a strided convolution's gradient is slow on CPU.
    """

    features: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        axes, channels = len(self.kernel), x.shape[-1]
        kernel = self.param('kernel', INIT, (*self.kernel, channels, self.features)).astype(self.dtype)
        bias_D = self.param('bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.kernel == self.strides:
            counts = [size // k for size, k in zip(x.shape[1:-1], self.kernel, strict=True)]
            x = x[(slice(None), *(slice(n * k) for n, k in zip(counts, self.kernel, strict=True)))]
            cut = [size for pair in zip(counts, self.kernel, strict=True) for size in pair]
            order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
            patches_BND = x.reshape(len(x), *cut, channels).transpose(order).reshape(len(x), int(np.prod(counts)), -1)
            h_BND = patches_BND @ kernel.reshape(-1, self.features)
        else:
            h = convolve(x, kernel, strides=self.strides, padding='VALID')
            h_BND = h.reshape(len(x), -1, self.features)
        return h_BND + bias_D[None, None]


def take_evenly(x: Array, mask_BT: Array, count: int) -> Array:
    """`count` of the valid steps of x (B, T, ...) at equal distances; a row of just `count` gives all its own."""
    length_B1 = mask_BT.sum(1, keepdims=True)
    chosen_BT = (2 * jnp.arange(count)[None] + 1) * length_B1 // (2 * count)
    return jnp.take_along_axis(x, chosen_BT.reshape(*chosen_BT.shape, *(1,) * (x.ndim - 2)), axis=1)


class PatchEmbeddings(nn.Module):
    """Patches behind `tokens` learnt tokens, with learnt positions, or fixed ones where there are no tokens.

    `context` (B, ...) is brought to context_size numbers, which stand behind the values of every patch of its row in
    the dense layer over patches. That layer of (patch, context) is one of the patch plus one of the context, so the
    kernel of the patches keeps its name and shape, and pretrained ones load.
    """

    features: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    tokens: int
    dropout: float
    context_size: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None, *, train: bool) -> Array:
        h_BND = Patches(self.features, self.kernel, self.strides, dtype=self.dtype, name='patches')(x)
        if context is not None:
            dense = functools.partial(nn.Dense, dtype=self.dtype)
            context_BE = dense(self.context_size, name='context')(context.reshape(len(x), -1))
            beside_patches = dense(self.features, use_bias=False, kernel_init=INIT, name='context_patches')
            h_BND = h_BND + beside_patches(context_BE)[:, None]
        if self.tokens:
            names = ('class_token', 'distillation_token')[: self.tokens]
            tokens = [self.param(name, INIT, (1, 1, self.features)).astype(self.dtype) for name in names]
            tokens_B1D = [jnp.broadcast_to(token, (len(x), 1, self.features)) for token in tokens]
            h_BND = jnp.concatenate([*tokens_B1D, h_BND], 1)
            positions_1ND = self.param('positions', INIT, (1, *h_BND.shape[1:]))
        else:
            positions_1ND = jnp.asarray(alternating_positions(h_BND.shape[1], self.features))[None]
        return Dropout(self.dropout)(h_BND + positions_1ND.astype(self.dtype), deterministic=not train)


class PatchEncoder(TransformerEncoder):
    """What ViT, AST and VideoMAE share: pre-norm, no dropout, every position of a row seen."""

    pre_norm: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0

    attends_to_all = True

    def _setup_embeddings(self, kernel, strides, tokens, context_size=0):
        return PatchEmbeddings(
            self.hidden_size,
            kernel=kernel,
            strides=strides,
            tokens=tokens,
            dropout=self.dropout,
            context_size=context_size,
            dtype=self.dtype,
        )

    def _embed_rows(self, x, rows_B, *, train, context=None):
        h_BND = self.embeddings(x, context, train=train)
        return h_BND, jnp.broadcast_to(rows_B[:, None], h_BND.shape[:2])

    def _check_size(self, x):
        if x.shape[-3:-1] != (self.image_size, self.image_size):
            raise ValueError(
                f'pictures are {x.shape[-3:]}, this encoder takes ({self.image_size}, {self.image_size}, C): '
                'prepare the data in that size, or set image_size'
            )


class Vit(PatchEncoder):
    """Pictures (B, H, W, 3), or clips (B, T, H, W, 3) whose middle valid frame is taken -> (B, 1 + N, 768).

    ViT-B/16 by default; pictures of other than 3 channels make another first layer. uint8 is scaled by mean and std,
    floating point taken as scaled. mask: (B, T), or (B,) or (B, 1) for pictures. `pool` gives the class token, with
    projector the pooler behind it.

    patch_channels, where it is not 0: only so many of the channels are cut into patches. What lies in the channels
    behind them, a spectrogram behind a face, is repeated into every patch, as the shared-encoder report proposes in its
    section 6 ("replicate these spectrograms across the patches and concatenate"): all its pixels are embedded to
    context_size numbers by one dense layer, and these are concatenated with the pixels of each patch before the dense
    layer that makes the tokens. So every token of a patch sees all of the spectrogram; the class token sees it through
    attention. With the pixels themselves instead (50,176 of a grey spectrogram) that layer would have 38.5 million
    weights more; context_size is the rank to which they are held. Without channels behind them it is a plain ViT.
    """

    final_norm: bool = True
    pooling: str = 'first'
    image_size: int = 224
    patch_size: int = 16
    patch_channels: int = 0
    context_size: int = 64
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def _layouts(self) -> tuple[str, ...]:
        return 'BTHWC', 'BHWC'

    def setup(self):
        super().setup()
        size = (self.patch_size,) * 2
        self.embeddings = self._setup_embeddings(size, size, tokens=1, context_size=self.context_size)

    def embed(self, x: Array, mask: Array, *, train: bool) -> tuple[Array, Array]:
        self._check_size(x)
        mask_BT = mask.reshape(len(x), -1)
        if x.ndim == 5:
            middle_B = mask_BT.sum(1) // 2
            x = jnp.take_along_axis(x, middle_B[:, None, None, None, None], axis=1)[:, 0]
        rows_B = mask_BT.any(1)
        x = mask_steps(scale_images(x, mean=self.mean, std=self.std, dtype=self.dtype), rows_B)
        patch_channels, channels = self.patch_channels or x.shape[-1], x.shape[-1]
        if channels < patch_channels:
            raise ValueError(
                f'pictures have {channels} channels, patch_channels = {patch_channels}: expected so many or more, '
                'set it to those of one picture'
            )
        context = x[..., patch_channels:] if channels > patch_channels else None
        return self._embed_rows(x[..., :patch_channels], rows_B, train=train, context=context)


class Ast(PatchEncoder):
    """Waveform at 16 kHz, (B, S) or (B, S, 1), float or int16, or its log-mel frames (B, T, 128) -> (B, 2 + N, 768).

    A waveform becomes frames as Kaldi makes them, 100 a second (filterbank.py); one shorter than a frame is taken as
    padding. Frames are padded or cut to max_length and brought to (x - mean) / (2 std); padding is a frame of zeros
    before that, as in the original, and is seen. Patches of 16 x 16, one every 10 bands and frames. `pool` gives the
    mean of class and distillation token, normalised as its classifier's first layer does.
    """

    final_norm: bool = True
    pooling: str = 'first_two'
    pool_norm: bool = True
    max_length: int = 1024
    num_bands: int = 128
    patch_size: int = 16
    frequency_stride: int = 10
    time_stride: int = 10
    mean: float = AUDIOSET_MEAN
    std: float = AUDIOSET_STD

    def setup(self):
        super().setup()
        strides = (self.frequency_stride, self.time_stride)
        self.embeddings = self._setup_embeddings((self.patch_size,) * 2, strides, 2)

    def embed(self, x: Array, mask: Array, *, train: bool) -> tuple[Array, Array]:
        x_BTF, mask_BT = self.spectrogram(x, mask)
        return self._embed_rows(x_BTF.swapaxes(1, 2)[..., None], mask_BT.any(1), train=train)

    def spectrogram(self, x: Array, mask: Array) -> tuple[Array, Array]:
        """Waveform or frames -> the transformer's input (B, max_length, num_bands), and the frames' mask (B, T)."""
        if x.ndim == 2 or x.shape[-1] == 1:
            x_BS = prepare_waveform(x, mask, normalize=False)
            x_BTF, mask_BT = kaldi_fbank(x_BS, mask, num_bands=self.num_bands)
        else:
            x_BTF, mask_BT = mask_steps(x.astype(jnp.float32), mask), mask
        if x_BTF.shape[-1] != self.num_bands:
            raise ValueError(f'{x_BTF.shape[-1]} mel bands, this encoder takes {self.num_bands} (field num_bands)')
        return (fix_length(x_BTF, self.max_length) - self.mean) / (2 * self.std), mask_BT


class VideoMae(PatchEncoder):
    """Clips (B, T, H, W, 3) -> (B, N, 768); N: tubelets of 2 frames x 16 x 16 pixels, time first.

    num_frames of the valid frames are taken at equal distances; those of a clip of just num_frames are all its own.
    No class token; queries and values have a bias, keys none. `pool` gives the normalised mean (fc_norm).
    """

    key_bias: bool = False
    pool_norm: bool = True
    pool_epsilon: float = 1e-5
    image_size: int = 224
    patch_size: int = 16
    num_frames: int = 16
    tubelet_size: int = 2
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def _layouts(self) -> tuple[str, ...]:
        return ('BTHWC',)

    def setup(self):
        super().setup()
        size = (self.tubelet_size, self.patch_size, self.patch_size)
        self.embeddings = self._setup_embeddings(size, size, 0)

    def embed(self, x: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        self._check_size(x)
        x = take_evenly(x, mask_BT, self.num_frames)
        rows_B = mask_BT.any(1)
        x = mask_steps(scale_images(x, mean=self.mean, std=self.std, dtype=self.dtype), rows_B)
        return self._embed_rows(x, rows_B, train=train)
