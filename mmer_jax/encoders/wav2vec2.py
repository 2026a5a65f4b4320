"""wav2vec 2.0 (Baevski et al. 2020) and HuBERT (Hsu et al. 2021): waveform -> features, 50 a second at 16 kHz."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.convolve import Conv
from mmer_jax.dropout import Dropout
from mmer_jax.encoders.transformer import INIT, Norm, TransformerEncoder, activate
from mmer_jax.layers import mask_steps

CONV_EPSILON = 1e-5


def conv_lengths(lengths: Array, kernels: Sequence[int], strides: Sequence[int]) -> Array:
    """Frames that unpadded convolutions make of so many samples, never below 0."""
    for kernel, stride in zip(kernels, strides, strict=True):
        lengths = jnp.maximum((lengths - kernel) // stride + 1, 0)
    return lengths


def prepare_waveform(x_BS: Array, mask_BS: Array, *, normalize: bool) -> Array:
    """Samples as float32 (B, S): 16-bit integers scaled to [-1, 1), padding 0, a last axis of 1 taken off.

    normalize brings the valid samples of each row to mean 0 and deviation 1.
    """
    if x_BS.ndim == 3 and x_BS.shape[-1] == 1:
        x_BS = x_BS[..., 0]
    if x_BS.ndim != 2:
        raise ValueError(f'a waveform is (B, S) or (B, S, 1), found shape {x_BS.shape}')
    if x_BS.dtype == jnp.int16:
        x_BS = x_BS.astype(jnp.float32) / 32768
    elif not jnp.issubdtype(x_BS.dtype, jnp.floating):
        raise ValueError(f'a waveform is int16 or floating point, found {x_BS.dtype}')
    x_BS = mask_steps(x_BS.astype(jnp.float32), mask_BS)
    if not normalize:
        return x_BS
    count_B1 = jnp.maximum(mask_BS.sum(1, keepdims=True), 1).astype(jnp.float32)
    centred_BS = mask_steps(x_BS - x_BS.sum(1, keepdims=True) / count_B1, mask_BS)
    return centred_BS * jax.lax.rsqrt(jnp.square(centred_BS).sum(1, keepdims=True) / count_B1 + 1e-7)


def span_mask(key: Array, length_B: Array, steps: int, share: float, span: int, fewest: int) -> Array:
    """Spans of `span` steps at random places of each row, together about `share` of its steps, at least `fewest` of
    them where they fit; (B, steps) bool. The masking of wav2vec 2.0 in fine-tuning (SpecAugment over time)."""
    count_key, place_key = jax.random.split(key)
    uniform_B = jax.random.uniform(count_key, length_B.shape)
    expected_B = share * length_B.astype(jnp.float32) / span
    count_B = jnp.maximum((expected_B + uniform_B).astype(jnp.int32), fewest)
    count_B = jnp.minimum(count_B, length_B // span)
    possible_BT = jnp.arange(steps)[None] <= (length_B - span)[:, None]
    order_BT = jnp.where(possible_BT, jax.random.uniform(place_key, (len(length_B), steps)), 2.0)
    rank_BT = jnp.argsort(jnp.argsort(order_BT, axis=1), axis=1)
    begun_BT = jnp.cumsum(possible_BT & (rank_BT < count_B[:, None]), axis=1)
    ended_BT = jnp.pad(begun_BT, ((0, 0), (span, 0)))[:, :steps]
    return begun_BT > ended_BT


class TimeNorm(nn.Module):
    """Each channel normalised over the time of its row (the group norm of wav2vec 2.0 base), in float32.

    mask_BT: the steps that count.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTC: Array, mask_BT: Array) -> Array:
        scale_C = self.param('scale', nn.initializers.ones, x_BTC.shape[-1:])
        bias_C = self.param('bias', nn.initializers.zeros, x_BTC.shape[-1:])
        x_BTC = x_BTC.astype(jnp.float32)
        count_B11 = jnp.maximum(mask_BT.sum(1), 1).astype(jnp.float32)[:, None, None]
        centred_BTC = x_BTC - mask_steps(x_BTC, mask_BT).sum(1, keepdims=True) / count_B11
        variance_B1C = mask_steps(jnp.square(centred_BTC), mask_BT).sum(1, keepdims=True) / count_B11
        x_BTC = centred_BTC * jax.lax.rsqrt(variance_B1C + CONV_EPSILON)
        return (x_BTC * scale_C[None, None] + bias_C[None, None]).astype(self.dtype)


def grouped_convolution(x_BTD: Array, kernel: Array, groups: int) -> Array:
    """Convolution over time, kernel (taps, D / groups, D), that keeps the length; an even one looks back further."""
    taps = len(kernel)
    return jax.lax.conv_general_dilated(
        x_BTD,
        kernel,
        window_strides=(1,),
        padding=[(taps // 2, (taps - 1) // 2)],
        dimension_numbers=('NWC', 'WIO', 'NWC'),
        feature_group_count=groups,
    )


def grouped_convolution_fft(x_BTD: Array, kernel: Array, groups: int) -> Array:
    """The same by Fourier transforms, in float32: on CPU XLA's gradient of the other takes eight times as long."""
    taps, (rows, steps, features) = len(kernel), x_BTD.shape
    size = -(-(steps + taps) // 64) * 64  # a multiple of small primes, without wrapping around
    x_BFGd = jnp.fft.rfft(x_BTD.astype(jnp.float32), size, axis=1).reshape(rows, -1, groups, features // groups)
    kernel_FdGd = jnp.fft.rfft(kernel[::-1].astype(jnp.float32), size, axis=0)
    kernel_FdGd = kernel_FdGd.reshape(-1, features // groups, groups, features // groups)
    y_BFD = jnp.einsum('bfgi,figo->bfgo', x_BFGd, kernel_FdGd).reshape(rows, -1, features)
    first = (taps - 1) // 2
    return jnp.fft.irfft(y_BFD, size, axis=1)[:, first : first + steps].astype(x_BTD.dtype)


class ConvPositions(nn.Module):
    """Relative positions from a grouped convolution over time with normalised weights, (B, T, D) -> (B, T, D).

    As in the original the kernel is magnitude x direction / |direction|, a norm for each tap; both are parameters.
    """

    kernel_size: int
    groups: int
    activation: str = 'gelu'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTD: Array, *, train: bool) -> Array:
        features, taps = x_BTD.shape[-1], self.kernel_size
        direction = self.param('direction', INIT, (taps, features // self.groups, features))
        magnitude = self.param('magnitude', nn.initializers.ones, (taps,))
        bias_D = self.param('bias', nn.initializers.zeros, (features,))
        kernel = direction * (magnitude * jax.lax.rsqrt(jnp.square(direction).sum((1, 2))))[:, None, None]
        by_fft = train and jax.default_backend() == 'cpu'
        convolve = grouped_convolution_fft if by_fft else grouped_convolution
        h_BTD = convolve(x_BTD.astype(self.dtype), kernel.astype(self.dtype), self.groups)
        return activate(self.activation, h_BTD + bias_D.astype(self.dtype)[None, None])


class WaveEmbeddings(nn.Module):
    """Waveform (B, S) and its mask -> (B, T, D) with positions, and the mask of the frames. Fields as in Wav2Vec2."""

    features: int
    conv_sizes: tuple[int, ...]
    conv_kernels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    conv_bias: bool
    conv_norm: str
    conv_activation: str
    norm_over_padding: bool
    projection_norm: bool
    projection_dropout: float
    position_kernel: int
    position_groups: int
    mask_share: float
    mask_span: int
    mask_fewest: int
    embedding_norm: bool
    epsilon: float
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BS: Array, mask_BS: Array, *, train: bool) -> tuple[Array, Array]:
        h_BTC = self._convolve(x_BS[..., None].astype(self.dtype), mask_BS)
        length_B = conv_lengths(mask_BS.sum(1), self.conv_kernels, self.conv_strides)
        mask_BT = jnp.arange(h_BTC.shape[1])[None] < length_B[:, None]
        if self.projection_norm:
            h_BTC = Norm(self.epsilon, self.dtype, name='projection_norm')(h_BTC)
        h_BTD = nn.Dense(self.features, kernel_init=INIT, dtype=self.dtype, name='projection')(h_BTC)
        h_BTD = Dropout(self.projection_dropout)(h_BTD, deterministic=not train)
        if self.mask_share:
            hidden_D = self.param('hidden', nn.initializers.uniform(1.0), (self.features,))
            if train:
                key, steps = self.make_rng('dropout'), h_BTD.shape[1]
                masked_BT = span_mask(
                    key, length_B, steps, share=self.mask_share, span=self.mask_span, fewest=self.mask_fewest
                )
                h_BTD = jnp.where(masked_BT[..., None], hidden_D.astype(self.dtype)[None, None], h_BTD)
        h_BTD = mask_steps(h_BTD, mask_BT)
        positions = ConvPositions(
            self.position_kernel,
            groups=self.position_groups,
            activation=self.conv_activation,
            dtype=self.dtype,
            name='positions',
        )
        h_BTD = h_BTD + positions(h_BTD, train=train)
        if self.embedding_norm:
            h_BTD = Norm(self.epsilon, self.dtype, name='norm')(h_BTD)
        return Dropout(self.dropout)(h_BTD, deterministic=not train), mask_BT

    def _convolve(self, h_BTC, mask_BS):
        length_B = mask_BS.sum(1)
        sizes = zip(self.conv_sizes, self.conv_kernels, self.conv_strides, strict=True)
        for number, (channels, kernel, stride) in enumerate(sizes):
            init = nn.initializers.he_normal()
            conv = Conv(
                channels,
                (kernel,),
                (stride,),
                padding='VALID',
                use_bias=self.conv_bias,
                kernel_init=init,
                dtype=self.dtype,
                name=f'conv_{number}',
            )
            h_BTC, name = conv(h_BTC), f'conv_norm_{number}'
            if self.conv_norm == 'layer':
                h_BTC = Norm(CONV_EPSILON, self.dtype, name=name)(h_BTC)
            elif number == 0:
                length_B = conv_lengths(length_B, (kernel,), (stride,))
                counted_BT = jnp.arange(h_BTC.shape[1])[None] < length_B[:, None]
                h_BTC = TimeNorm(self.dtype, name=name)(h_BTC, counted_BT | self.norm_over_padding)
            h_BTC = activate(self.conv_activation, h_BTC)
        return h_BTC


class Wav2Vec2(TransformerEncoder):
    """Waveform (B, S), float or int16, mask (B, S) -> features (B, T, 768) and the mask of the frames (B, T).

    16 kHz; a frame of 400 samples every 320. wav2vec 2.0 base by default; the large models have conv_norm 'layer',
    conv_bias, pre_norm and final_norm. The base models normalise the first convolution's channels over time, in the
    original over the padding too, so that a clip's features depend on what it is batched with: here over the valid
    frames, as if each clip were alone, and as in the original with norm_over_padding. A clip shorter than one frame
    has no valid step. In training, mask_share of the frames is hidden in spans of mask_span (0: none).
    """

    epsilon: float = 1e-5
    activation_dropout: float = 0.1
    layer_drop: float = 0.1
    projector_activation: str = 'linear'
    normalize: bool = True  # bring each waveform to mean 0, deviation 1
    conv_sizes: tuple[int, ...] = (512,) * 7
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    conv_norm: str = 'group'  # of the first convolution over time; 'layer': of all over channels
    conv_activation: str = 'gelu'
    norm_over_padding: bool = False
    projection_norm: bool = True
    projection_dropout: float = 0.0
    position_kernel: int = 128
    position_groups: int = 16
    mask_share: float = 0.05
    mask_span: int = 10
    mask_fewest: int = 2

    def setup(self):
        super().setup()
        if self.conv_norm not in ('group', 'layer'):
            raise ValueError(f"conv_norm {self.conv_norm!r}: expected 'group' or 'layer'")
        same = ['conv_sizes', 'conv_kernels', 'conv_strides', 'conv_bias', 'conv_norm', 'conv_activation']
        same += ['norm_over_padding', 'projection_norm', 'projection_dropout', 'position_kernel', 'position_groups']
        same += ['mask_share', 'mask_span', 'mask_fewest', 'epsilon', 'dropout', 'dtype']
        fields = {name: getattr(self, name) for name in same}
        self.embeddings = WaveEmbeddings(self.hidden_size, embedding_norm=not self.final_norm, **fields)

    def embed(self, x_BS: Array, mask_BS: Array, *, train: bool) -> tuple[Array, Array]:
        x_BS = prepare_waveform(x_BS, mask_BS, normalize=self.normalize)
        shortest = 1  # samples that make one frame
        for kernel, stride in zip(reversed(self.conv_kernels), reversed(self.conv_strides), strict=True):
            shortest = (shortest - 1) * stride + kernel
        missing = max(shortest - x_BS.shape[1], 0)
        x_BS, mask_BS = (jnp.pad(x, ((0, 0), (0, missing))) for x in (x_BS, mask_BS))
        return self.embeddings(x_BS, mask_BS, train=train)


class Hubert(Wav2Vec2):
    """HuBERT base: the network of wav2vec 2.0, trained otherwise. The large model has projection_norm too."""
