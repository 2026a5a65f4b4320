"""Self-MM (Yu et al. 2021): a prediction of each modality, trained on labels that training itself finds for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmer_jax.dropout import Dropout
from mmer_jax.kernels import Dense, relu
from mmer_jax.layers import MLP, check_batch, final_state, masked_mean
from mmer_jax.recurrent import LSTM

TINY = 1e-8
MEMORY = 'self_mm_memory'  # the collection of what is remembered of each record


class SelfMm(nn.Module):
    """A representation of each modality, one of all of them, and a prediction from each.

    Text is pooled, `first` (BERT's token of the whole sentence) or `mean` over its steps: an encoder in front of it
    (`encoded`) is trained with it. Audio and vision go through an LSTM and a linear layer. A head is dropout, a layer
    of `*_head` units with ReLU, whose values are the representation, another one, and a linear layer to one number.

    The label y_m of a modality begins as that of the record, y. When a record is seen for the n-th time, n > 1, and c+
    and c- are the means of the representations F_m of all records with a positive and a negative y_m,

        a_m = (|F_m - c-| - |F_m - c+|) / |F_m - c+|,    a the same of the representation of all modalities
        new = clip(y a_m / (2 a) + (y + a_m - a) / 2, -limit, limit)
        y_m <- (n - 1) / (n + 1) y_m + 2 / (n + 1) new

    Distances and order are those of the public code (github.com/thuiar/Self-MM). Zero is in neither mean;
    neutral_is_positive puts it into the positive one, as that code does with its defaults. limit is 3 there, for MOSI
    and MOSEI; here, where it is 0, the largest size of a label seen. Labels stay as they are until there are records
    of both signs, and where a record lacks the modality; it then is in no mean and its loss is 0.

    Predictions (B, 1). Extras: `features` (B, fusion_head); `unimodal` (B, M), the predictions of the M modalities in
    their order, and the `unimodal_label` (B, M) and `unimodal_weight` (B, M) that the loss `unimodal_l1` reads: in
    training those of before the step, else the predictions themselves and 0.

    Training reads batch['label'] and batch['record'] (B,), the numbers of the records in the data set; padding rows
    have num_records. What is remembered of all `num_records` records is the collection `self_mm_memory`, which only
    training reads and changes. A step in parts (config.accumulate) changes it after each part, as the public code does.
    """

    modalities: tuple[str, ...]
    num_outputs: int
    num_records: int  # a model with this field is trained with batch['record']
    text_pooling: str = 'first'
    audio_hidden: int = 32
    vision_hidden: int = 64
    audio_width: int = 16
    vision_width: int = 32
    text_head: int = 64
    audio_head: int = 16
    vision_head: int = 32
    fusion_head: int = 128
    text_dropout: float = 0.0
    audio_dropout: float = 0.1
    vision_dropout: float = 0.1
    fusion_dropout: float = 0.1
    lstm_dropout: float = 0.0
    limit: float = 0.0
    neutral_is_positive: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> dict[str, Array]:
        if self.num_outputs != 1:
            raise ValueError(
                f'self_mm predicts one number, found num_outputs = {self.num_outputs}: the labels are classes, or '
                '`ordinal` stands around it, which it cannot serve'
            )
        batch = check_batch(self, batch, self.modalities, layouts=('BTD',))
        pooled = {
            m: self._pool(m, batch[m].astype(self.dtype), batch[f'{m}_mask'], train=train) for m in self.modalities
        }
        pooled['fusion'] = jnp.concatenate(list(pooled.values()), -1)
        heads = {name: self._head(name, x_BD, train) for name, x_BD in pooled.items()}
        found = {name: representation_BD.astype(jnp.float32) for name, (representation_BD, _) in heads.items()}
        unimodal_BM = jnp.concatenate([heads[m][1] for m in self.modalities], -1).astype(jnp.float32)
        label_BM, weight_BM = jax.lax.stop_gradient(unimodal_BM), jnp.zeros_like(unimodal_BM)
        if self.is_initializing() or train:
            label_BM, weight_BM = self._remember(jax.lax.stop_gradient(found), batch)
        return {
            'prediction': heads['fusion'][1].astype(jnp.float32),
            'features': heads['fusion'][0],
            'unimodal': unimodal_BM,
            'unimodal_label': label_BM,
            'unimodal_weight': weight_BM,
        }

    def _pool(self, m, x_BTD, mask_BT, *, train):
        if m == 'text':
            if self.text_pooling not in ('first', 'mean'):
                raise ValueError(f"self_mm: text_pooling {self.text_pooling!r}, expected 'first' or 'mean'")
            steps = slice(1 if self.text_pooling == 'first' else None)
            return masked_mean(x_BTD[:, steps], mask_BT[:, steps])
        hidden, width = getattr(self, f'{m}_hidden'), getattr(self, f'{m}_width')
        h_BTH = LSTM(hidden, dtype=self.dtype, name=f'{m}_lstm')(x_BTD, mask_BT, train=train)
        h_BH = Dropout(self.lstm_dropout)(final_state(h_BTH, mask_BT), deterministic=not train)
        return Dense(width, dtype=self.dtype, name=f'{m}_projection')(h_BH)

    def _head(self, name, x_BD, train):
        """-> (the representation (B, D), the prediction (B, 1))."""
        size, dropout = getattr(self, f'{name}_head'), getattr(self, f'{name}_dropout')
        x_BD = Dropout(dropout)(x_BD, deterministic=not train)
        x_BD = relu(Dense(size, dtype=self.dtype, name=f'{name}_representation')(x_BD))
        return x_BD, MLP((size, 1), dtype=self.dtype, name=f'{name}_head')(x_BD, train=train)

    def _remember(self, found: Mapping[str, Array], batch: Mapping[str, Array]) -> tuple[Array, Array]:
        """The labels and weights of the batch's records as they were; then the memory moves on."""
        records, columns = self.num_records, len(self.modalities)

        def kept(name, *shape, kind=jnp.float32):
            return self.variable(MEMORY, name, lambda: jnp.zeros((records, *shape), kind))

        held = {m: kept(m, x_BD.shape[1]) for m, x_BD in found.items()}
        held |= {'count': kept('count', kind=jnp.int32), 'labels': kept('labels', 1 + columns)}
        held['seen'] = kept('seen', 1 + columns, kind=bool)
        if self.is_initializing():
            nothing = jnp.zeros((len(found['fusion']), columns))
            return nothing, nothing
        for key in ('record', 'label'):
            if key not in batch:
                raise ValueError(
                    f'self_mm is trained with the numbers and labels of the records: the batch lacks {key!r}, it has '
                    f'{", ".join(batch)}. A model that config.model names is given both; to one that is passed as a '
                    'module give them yourself'
                )
        label_BM, weight_BM, after = remember(
            {name: variable.value for name, variable in held.items()},
            found,
            number_B=batch['record'],
            label_B=batch['label'].astype(jnp.float32),
            present_BM=jnp.stack([batch[f'{m}_mask'].any(1) for m in self.modalities], 1),
            modalities=self.modalities,
            limit=self.limit,
            neutral_is_positive=self.neutral_is_positive,
        )
        if self.is_mutable_collection(MEMORY):
            for name, variable in held.items():
                variable.value = after[name]
        return label_BM, weight_BM


def remember(
    memory: Mapping[str, Array],
    found: Mapping[str, Array],
    *,
    number_B: Array,
    label_B: Array,
    present_BM: Array,
    modalities: Sequence[str],
    limit: float = 0.0,
    neutral_is_positive: bool = False,
) -> tuple[Array, Array, dict[str, Array]]:
    """-> the labels (B, M) and weights (B, M) of B records before they are seen once more, and the memory behind that.

    found: the representations (B, D) of each modality and of `fusion`; present_BM: which modalities a record has.
    memory, of R records: how often each was seen, `count` (R,); its `labels` (R, 1 + M), its own before those of the
    modalities; of which of them a representation was `seen` (R, 1 + M) bool; and the last one (R, D) by the names of
    found. number_B: rows of the memory; those from R on are left out.
    """
    memory = {name: jnp.asarray(array) for name, array in memory.items()}
    count_B = memory['count'].at[number_B].get(mode='clip')
    new_B1 = (count_B == 0)[:, None]
    labels_BC = jnp.where(new_B1, label_B[:, None], memory['labels'].at[number_B].get(mode='clip'))
    present_BC = jnp.concatenate([jnp.ones_like(present_BM[:, :1]), present_BM], 1)
    how: Any = {'modalities': modalities, 'limit': limit, 'neutral_is_positive': neutral_is_positive}
    moved_BC = moved_labels(found, memory, labels_BC, count_B=count_B, **how)
    after = {'count': memory['count'].at[number_B].add(1, mode='drop')}
    changed_BC = jnp.where(present_BC & ~new_B1, moved_BC, labels_BC)
    after['labels'] = memory['labels'].at[number_B].set(changed_BC, mode='drop')
    after['seen'] = memory['seen'].at[number_B].max(present_BC, mode='drop')
    for column, name in enumerate(('fusion', *modalities)):  # of dictionaries jax sorts the keys
        rows_B = jnp.where(present_BC[:, column], number_B, len(memory['count']))
        after[name] = memory[name].at[rows_B].set(found[name], mode='drop')
    weight_BM = jnp.where(present_BM, jnp.tanh(jnp.abs(labels_BC[:, 1:] - labels_BC[:, :1])), 0)
    return labels_BC[:, 1:], weight_BM, after


def moved_labels(
    found: Mapping[str, Array],
    memory: Mapping[str, Array],
    labels_BC: Array,
    *,
    count_B: Array,
    modalities: Sequence[str],
    limit: float,
    neutral_is_positive: bool,
) -> Array:
    """The labels (B, 1 + M) of records that were seen count_B times before, once more; column 0, their own, stays."""
    nearness, known = {}, {}
    for column, name in enumerate(('fusion', *modalities)):
        label_R, seen_R = memory['labels'][:, column], memory['seen'][:, column]
        positive_R = seen_R & (label_R >= 0 if neutral_is_positive else label_R > 0)
        negative_R = seen_R & (label_R < 0)
        known[name] = positive_R.any() & negative_R.any()
        nearness[name] = nearness_to_positive(found[name], memory[name], positive_R=positive_R, negative_R=negative_R)
    bound = jnp.float32(limit) if limit else jnp.abs(memory['labels'][:, 0]).max(initial=0)
    fusion_B, label_B, n_B = nearness['fusion'], labels_BC[:, 0], count_B.astype(jnp.float32) + 1
    columns = [label_B]
    for column, name in enumerate(modalities, 1):
        share_B, shift_B = nearness[name] / (fusion_B + TINY), nearness[name] - fusion_B
        new_B = jnp.clip(0.5 * share_B * label_B + 0.5 * (label_B + shift_B), -bound, bound)
        before_B = labels_BC[:, column]
        moved_B = (n_B - 1) / (n_B + 1) * before_B + 2 / (n_B + 1) * new_B
        columns.append(jnp.where(known['fusion'] & known[name], moved_B, before_B))
    return jnp.stack(columns, 1)


def nearness_to_positive(x_BD: Array, remembered_RD: Array, *, positive_R: Array, negative_R: Array) -> Array:
    """(|x - c-| - |x - c+|) / |x - c+| (B,), with the means c of the marked rows (0 where none is marked)."""

    def distance(marked_R):
        marked = marked_R.astype(jnp.float32)
        centre_D = (marked / jnp.maximum(marked.sum(), 1)) @ remembered_RD
        return jnp.linalg.norm(x_BD - centre_D[None], axis=-1)

    to_positive_B, to_negative_B = distance(positive_R), distance(negative_R)
    return (to_negative_B - to_positive_B) / (to_positive_B + TINY)
