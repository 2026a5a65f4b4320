"""VGG-16 without batch norm (Simonyan and Zisserman 2015) as torchvision has it, one of the shared-encoder report's."""

import flax.linen as nn
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.encoders.convolution import max_pool
from mmer_jax.encoders.pictures import Conv2D, PictureEncoder, adaptive_mean, by_frame, flatten_channels_first
from mmer_jax.layers import masked_mean

SIDE = 7  # of the map that the dense layers take


class Vgg16(PictureEncoder):
    """Pictures (B, T, H, W, C) -> map (B, T, H / 32, W / 32, 512); `pool` is the second dense layer's output (B, 4096).

    Thirteen 3x3 convolutions in five blocks, each with a maximum over 2x2 behind it: `stem` and the four stages, of
    64, 128, 256, 512 and 512 channels. `pool`: means over 7x7 parts whatever the picture's size, two dense layers with
    ReLU and dropout, the mean over the valid frames; the third dense layer is the model's head. With torchvision's
    head of 1000 classes 138,357,544 parameters, with six 134,285,126.

    large_first_layer: the first convolution as the report replaces it for its channels, 7x7 with stride 2, padding 3
    and no bias; the map is half as large then, H / 64.
    """

    block_counts: tuple[int, int, int, int, int] = (2, 2, 3, 3, 3)
    planes: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)
    hidden_size: int = 4096
    dropout: float = 0.5
    large_first_layer: bool = False

    def setup(self):
        blocks = [
            [self._conv(stage + number == 0, features) for number in range(count)]
            for stage, (count, features) in enumerate(zip(self.block_counts, self.planes, strict=True))
        ]
        self.blocks0, self.blocks1, self.blocks2, self.blocks3, self.blocks4 = blocks
        init = nn.initializers.normal(0.01)
        self.dense1 = nn.Dense(self.hidden_size, kernel_init=init, dtype=self.dtype)
        self.dense2 = nn.Dense(self.hidden_size, kernel_init=init, dtype=self.dtype)
        self.drop = Dropout(self.dropout)

    def _conv(self, first, features):
        if first and self.large_first_layer:
            return Conv2D(features, 7, 2, dtype=self.dtype)
        return Conv2D(features, 3, use_bias=True, dtype=self.dtype)

    def _stem(self, x: Array, valid_N: Array, train: bool) -> Array:
        return self._stage(0, x, valid_N, train=train)

    def _stage(self, number: int, x: Array, valid_N: Array, train: bool) -> Array:
        del valid_N, train  # no statistics of the batch
        for conv in (self.blocks0, self.blocks1, self.blocks2, self.blocks3, self.blocks4)[number]:
            x = nn.relu(conv(x))
        return max_pool(x, 2, stride=2, padding=0)

    def pool(self, features: Array, mask_BT: Array, *, train: bool) -> Array:
        """(B, T, H', W', 512) -> (B, 4096)."""
        return masked_mean(by_frame(self._dense, features, mask_BT, train=train), mask_BT)

    def _dense(self, x_NHWC, valid_N, train):
        x_ND = flatten_channels_first(adaptive_mean(x_NHWC, SIDE))
        for dense in (self.dense1, self.dense2):
            x_ND = self.drop(nn.relu(dense(x_ND)), deterministic=not train)
        return x_ND
