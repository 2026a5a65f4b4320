"""A small 3-D CNN in front of VideoMAE, as the shared-encoder report proposes (sections 5.7.4 and 6).

The report holds two things against VideoMAE on faces: pictures that hardly change from place to place and from frame to
frame, and joint attention, which grows with the square of the number of pixels and frames. A CNN in front shrinks time
and space before the transformer sees them. It gives no layers and sizes; those here are ours.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmer_jax.encoders.convolution import Conv3D, scale_images
from mmer_jax.encoders.vit import VideoMae, take_evenly
from mmer_jax.layers import check_mask, mask_steps


class ConvFront(nn.Module):
    """Clips (B, T, H, W, C) -> (B, *size, C): the means over blocks plus what three convolutions add to them.

    T, H and W are multiples of `size`; the quotients are the strides of the first convolution and the sides of the
    blocks. 3x3x3, ReLU, 3x3x3, ReLU, 1x1x1. The last one begins with zeros (a residual branch as in Goyal et al. 2017),
    so at the start what comes out are the means, or the clip itself where it has that size already.
    """

    size: tuple[int, int, int]
    features: int = 8
    convolution: str = 'auto'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        found = x.shape[1:4]
        if any(n % wanted for n, wanted in zip(found, self.size, strict=True)) or min(found) == 0:
            raise ValueError(
                f'clips have {found[0]} frames of {found[1:]}, expected multiples of {self.size[0]} frames of '
                f'{self.size[1:]}: set `frames`, the image_size of `network`, or prepare the data in another size'
            )
        strides = tuple(n // wanted for n, wanted in zip(found, self.size, strict=True))
        h = nn.relu(self._conv('conv1', strides)(x))
        h = nn.relu(self._conv('conv2', (1, 1, 1))(h))
        added = nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, dtype=self.dtype, name='conv3')(h)
        cut = [number for pair in zip(self.size, strides, strict=True) for number in pair]
        return x.reshape(len(x), *cut, x.shape[-1]).mean((2, 4, 6)) + added

    def _conv(self, name, strides):
        return Conv3D(
            self.features,
            kernel_size=(3, 3, 3),
            strides=strides,
            padding=(1, 1, 1),
            use_bias=True,
            method=self.convolution,
            dtype=self.dtype,
            name=name,
        )


class ConvVideoMae(nn.Module):
    """Clips (B, T, H, W, 3), uint8 or normalised -> (B, N, 768), those of `network`, a VideoMae behind ConvFront.

    `frames` of the valid frames are taken at equal distances; ConvFront brings them, normalised, to the num_frames and
    image_size of `network`, which then takes them as they are. So a face beside a spectrogram strip (224 x 448) goes in
    whole, where VideoMAE alone needs both squeezed into one square. With 32 frames and 16 of `network` the tokens are
    1,568 rather than 3,136, and the pairs of joint attention a quarter; image_size=112 makes 392, and converted weights
    load all the same, as VideoMAE's positions are not learnt.

    Converted weights of VideoMAE are loaded at `network`. At the start the outcome is then that of VideoMAE on the
    means over blocks, or, where `frames` and the pictures have the network's sizes, on the clip itself. No layer mixes
    rows. features: the inner channels; 8 give 2,419 parameters. convolution: 'auto', 'native' or 'frames', see Conv3D.
    """

    network: VideoMae
    frames: int = 32
    features: int = 8
    convolution: str = 'auto'
    dtype: Any = jnp.float32

    stages = ()

    def setup(self):
        size = (self.network.num_frames, self.network.image_size, self.network.image_size)
        self.front = ConvFront(size, features=self.features, convolution=self.convolution, dtype=self.dtype)

    def shrink(self, x: Array, mask_BT: Array) -> Array:
        """What `network` sees: (B, num_frames, image_size, image_size, 3), normalised."""
        mask_BT = check_mask(self, x, mask_BT, layouts=('BTHWC',))
        taken, network = take_evenly(x, mask_BT, self.frames), self.network
        x = scale_images(taken, mean=network.mean, std=network.std, dtype=self.dtype)
        return self.front(mask_steps(x, mask_BT.any(1)))

    def __call__(self, x: Array, mask_BT: Array, *, train: bool) -> tuple[Array, Array]:
        mask_BT = check_mask(self, x, mask_BT, layouts=('BTHWC',))
        x = self.shrink(x, mask_BT)
        return self.network(x, jnp.broadcast_to(mask_BT.any(1)[:, None], x.shape[:2]), train=train)

    def pool(self, features_BTD: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, N, 768) -> (B, 768), as `network` pools."""
        return self.network.pool(features_BTD, mask_BT, train=train)
