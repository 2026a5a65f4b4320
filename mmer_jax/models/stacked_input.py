"""One encoder for pictures of a face, of a spectrogram, or of both side by side (the shared-encoder report)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.encoders.protocol import Encoder
from mmer_jax.layers import check_batch

ORDER = ('vision', 'audio')  # the face first: left, above, or in the first channels
AXES = {'height': 2, 'width': 3, 'channel': 4}


class StackedInput(nn.Module):
    """vision and audio as pictures (B, T, H, W, C), joined, -> encoder -> pool -> linear head; (B, num_outputs).

    join: 'channel' (the code of the report's 2-D networks: a grey face and a grey spectrogram are two channels; its
    text says side by side), 'width' (its 3-D ones) or 'height' (the code of its pretrained ViT). One modality alone
    goes into the encoder as it is, so the encoder is the part that changes. A step is valid where it is in any
    modality; the pictures of the other one are black there, as they are in all steps when a modality is hidden. resize:
    side of the square to which what is joined is brought (a face above a spectrogram for a network of one picture
    size); 0: as it is. Extras: `features` (B, D), the head's input.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    encoder: Encoder
    join: str = 'channel'
    resize: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        x, mask_BT = self._joined(batch)
        features, mask = self.encoder(x, mask_BT, train=train)
        pooled_BD = self.encoder.pool(features, mask, train=train)
        logits_BC = nn.Dense(self.num_outputs, dtype=self.dtype, name='head')(pooled_BD)
        return {'prediction': logits_BC.astype(jnp.float32), 'features': pooled_BD}

    def _joined(self, batch):
        known = [m for m in ORDER if m in self.modalities]
        if set(known) != set(self.modalities) or not known:
            raise ValueError(
                f'stacked_input takes pictures of vision, audio or both, found modalities {self.modalities}'
            )
        if self.join not in AXES:
            raise ValueError(f'join {self.join!r} is unknown; the known ones are {", ".join(AXES)}')
        batch = check_batch(self, batch, known)
        shapes = {m: batch[m].shape for m in known}
        if any(len(shape) != 5 for shape in shapes.values()):
            raise ValueError(f'stacked_input takes pictures (B, T, H, W, C), found {shapes}')
        axis = AXES[self.join]
        others = {shape[:axis] + shape[axis + 1 :] for shape in shapes.values()}
        if len(others) > 1:
            raise ValueError(f'join {self.join!r} needs pictures that agree in every other axis, found {shapes}')
        masks = [batch[f'{m}_mask'] for m in known]
        black = [
            jnp.where(mask[..., None, None, None], batch[m], jnp.zeros((), batch[m].dtype))
            for m, mask in zip(known, masks, strict=True)
        ]
        x = jnp.concatenate(black, axis)
        if self.resize:
            size = (*x.shape[:2], self.resize, self.resize, x.shape[-1])
            resized = jax.image.resize(x.astype(jnp.float32), size, 'linear')
            x = jnp.round(resized).astype(x.dtype) if x.dtype == jnp.uint8 else resized.astype(x.dtype)
        return x, jnp.stack(masks).any(0)
