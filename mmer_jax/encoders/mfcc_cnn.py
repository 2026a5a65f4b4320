"""The audio network of CFN-SR (Fu et al. 2021, section 2.1, equations 1 to 3): a 1-D CNN over MFCC frames."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.convolve import Conv
from mmer_jax.dropout import Dropout
from mmer_jax.layers import check_mask, fix_length, mask_steps


class MfccCnn(nn.Module):
    """MFCC frames (B, T, 13) -> features (B, 26, 64); `pool` flattens them to (B, 1664).

    The network sees a window of exactly `num_frames` frames (212: 2.45 s at 44,100 Hz and hop 512), because it is
    flattened at its end; longer input is cut, shorter input continues with 0. The stages are those at which
    MSAF and MMTM couple the audio network: after `stem` (32 channels), after `stage1` (64 channels).
    Sizes: 13 -> 32 (k7) -> 32 (k7) -> max pool 8 -> 64 (k5); 20,704 parameters without a head.
    """

    num_frames: int = 212
    dropout: float = 0.2
    head_dropout: float = 0.4
    dtype: Any = jnp.float32

    stages = ('stem', 'stage1')
    masks_steps = False

    def setup(self):
        def conv(features, kernel):
            return Conv(features, (kernel,), padding=[(2, 2)], dtype=self.dtype)

        def norm():
            return nn.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=self.dtype)

        self.conv1, self.conv2, self.conv3 = conv(32, 7), conv(32, 7), conv(64, 5)
        self.norm1, self.norm2, self.norm3 = norm(), norm(), norm()
        self.drop, self.head_drop = Dropout(self.dropout), Dropout(self.head_dropout)

    def stem(self, x_BTD: Array, rows_B: Array, *, train: bool) -> Array:
        """Convolutions 1 and 2 (equation 1) -> (B, num_frames - 4, 32). rows_B: rows that are no padding."""
        x_BTC = self._norm(self.norm1, nn.relu(self.conv1(x_BTD)), rows_B, train=train)
        return nn.relu(self.conv2(x_BTC))

    def stage1(self, x_BTC: Array, rows_B: Array, *, train: bool) -> Array:
        """Max pooling (equation 2) and convolution 3 (equation 3) -> (B, 26, 64)."""
        x_BTC = self._norm(self.norm2, nn.max_pool(x_BTC, (8,), strides=(8,)), rows_B, train=train)
        x_BTC = self.drop(x_BTC, deterministic=not train)
        return self._norm(self.norm3, nn.relu(self.conv3(x_BTC)), rows_B, train=train)

    def pool(self, features_BTC: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, 26, 64) -> (B, 1664), with the published dropout before the head."""
        del mask_BT  # the window is fixed
        return self.head_drop(features_BTC.reshape(len(features_BTC), -1), deterministic=not train)

    def prepare(self, x_BTD: Array, mask_BT: Array) -> tuple[Array, Array]:
        """The window that the stem takes, (B, num_frames, D), and its mask: whole rows."""
        mask_BT = check_mask(self, x_BTD, mask_BT)
        x_BTD = fix_length(mask_steps(x_BTD, mask_BT), self.num_frames)
        return x_BTD, jnp.broadcast_to(mask_BT.any(1)[:, None], x_BTD.shape[:2])

    def __call__(self, x_BTD: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        x_BTD, mask_BT = self.prepare(x_BTD, mask_BT)
        rows_B = mask_BT.any(1)
        features_BTC = self.stage1(self.stem(x_BTD, rows_B, train=train), rows_B, train=train)
        return features_BTC, jnp.broadcast_to(rows_B[:, None], features_BTC.shape[:2])

    def _norm(self, norm, x_BTC, rows_B, *, train):
        # Padding rows are left out of the batch statistics: they would change every other row's output. Where there
        # is no other row (a part of an accumulated batch) all are taken, for the mean of none is NaN.
        rows_B = rows_B | ~rows_B.any()
        return norm(x_BTC, use_running_average=not train, mask=rows_B[:, None, None])
