"""A small convolutional network for the pictures of a clip, frame by frame: a first encoder for data of one's own."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.encoders.convolution import IMAGENET_MEAN, IMAGENET_STD, scale_images
from mmer_jax.encoders.pictures import Conv2D, by_frame
from mmer_jax.layers import check_mask, mask_steps, masked_mean


class FrameCnn(nn.Module):
    """Pictures (B, T, H, W, C), uint8 or normalised -> one vector per frame (B, T, widths[-1]).

    One 3x3 convolution of stride 2 for each of `widths`, with group norm, which knows no other frame or row, then the
    mean over what is left of the picture. `pool` is the mean over the valid frames.
    """

    widths: tuple[int, ...] = (16, 32, 64, 64)
    dropout: float = 0.2
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    dtype: Any = jnp.float32

    stages = ()

    @nn.compact
    def __call__(self, x: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        mask_BT = check_mask(self, x, mask_BT, layouts=('BTHWC',))
        x = mask_steps(scale_images(x, mean=self.mean, std=self.std, dtype=self.dtype), mask_BT)
        convolutions = [Conv2D(width, 3, 2, use_bias=True, dtype=self.dtype) for width in self.widths]
        norms = [nn.GroupNorm(num_groups=_groups(width), dtype=self.dtype) for width in self.widths]

        def frames(x_NHWC: Array, valid_N: Array, train: bool) -> Array:
            del valid_N, train
            for convolution, norm in zip(convolutions, norms, strict=True):
                x_NHWC = nn.relu(norm(convolution(x_NHWC)))
            return x_NHWC.mean((1, 2))

        features_BTD = by_frame(frames, x, mask_BT, train=train)
        features_BTD = Dropout(self.dropout)(features_BTD, deterministic=not train)
        return mask_steps(features_BTD, mask_BT), mask_BT

    def pool(self, features_BTD: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T, D) -> (B, D)."""
        del train
        return masked_mean(features_BTD, mask_BT)


def _groups(width: int) -> int:
    """Of eight channels each where that divides the width, else one."""
    return width // 8 if width % 8 == 0 else 1
