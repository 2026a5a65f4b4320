"""published_predictor(name): an emotion checkpoint that others trained, as it is, on raw clips.

Converted weights with a head (data_prep.convert_weights) answer with their own labels. A clip is read as the network
takes it: sound as 16 kHz samples, words by the tokenizer beside the weights, pictures in the size of its patches.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.data.schema import Label, Schema
from mmer_jax.models import build_model
from mmer_jax.prediction.predictor import Member, Predictor
from mmer_jax.pretrained import Head, find, graft, load_head, load_pretrained
from mmer_jax.readers import Pictures, Reader, Sound, Tokens

NAME = 'pretrained'  # of its one member
TEXT = ('bert', 'roberta', 'distilbert')
SPEECH = ('wav2vec2', 'hubert', 'ast')
RATE = 16000
SECONDS = 4  # of sound in the longest of the padded shapes; longer clips take a multiple
KINDS = {
    'single_label_classification': 'classes',
    'multi_label_classification': 'binary',
    'regression': 'regression',
}
UNUSED = 'hidden'  # wav2vec 2.0's vector of frames that are hidden in training


def published_predictor(name: str | Path, *, tokenizer: str | Path = '', crop: str = 'none') -> Predictor:
    """A converted classifier, ready for clips: `name` below $MMER_PRETRAINED, or its folder.

    tokenizer: folder of the tokenizer, where it does not lie beside the weights. crop: how a face is cut out of
    pictures (mmer_jax.media.faces); by default the whole picture is taken.

    FileNotFoundError or ValueError in one line where there are no such weights, they have no head, or are damaged.
    """
    head = load_head(name)
    folder = find(name)
    loaded, source = load_pretrained(name)
    family, fields = source.get('family', ''), dict(source.get('fields', {}))
    if 'mask_share' in fields:  # of training alone
        fields['mask_share'] = 0.0
        loaded['params'].get('embeddings', {}).pop(UNUSED, None)
    reader = _reader(folder, family, fields, str(tokenizer), crop)
    reader.check()
    label = Label(KINDS[head.problem], head.labels)
    schema = Schema(folder.name, {reader.modality: reader.feature()}, label)
    kernel, bias = _as_outputs(head)
    model = build_model(
        {'name': 'unimodal', 'encoder': {'name': family, **fields}},
        modalities=(reader.modality,), num_outputs=len(bias), dtype=jnp.float32,
    )  # fmt: skip
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), _example(reader, fields), train=False))
    try:
        variables = graft(dict(shapes), loaded, path='encoder')
    except ValueError as error:
        raise ValueError(f'{folder} is damaged, or was converted by another version: {error}') from error
    if variables['params']['head']['kernel'].shape != kernel.shape:
        raise ValueError(f'{folder}: the head reads {len(kernel)} values, the pooling of the encoder gives others')
    variables['params']['head'] = {'kernel': kernel, 'bias': bias}
    member = Member(NAME, np.array([0]), jax.tree.map(lambda x: x[None], variables), {}, np.ones(1))
    steps = {reader.modality: _steps(family, fields, reader)}
    config = ConfigDict({
        'modalities': (reader.modality,),
        'data': {'max_length': {}, 'max_shapes': 2, 'augment': ()},
    })  # fmt: skip
    return Predictor(config, schema, steps, [reader], [member], model)


def _reader(folder: Path, family: str, fields: dict[str, Any], tokenizer: str, crop: str) -> Reader:
    if family in TEXT:
        longest = fields['max_positions'] - fields.get('position_offset', 0)
        return Tokens(tokenizer or str(folder), max_length=longest)
    if family in SPEECH:
        return Sound(features='waveform', sample_rate=RATE)
    if family in ('vit', 'videomae'):
        return Pictures(frames=fields.get('num_frames', 1), crop=crop, size=fields['image_size'])
    raise ValueError(
        f'{folder} holds weights of {family!r}; clips are read for {", ".join((*TEXT, *SPEECH))}, vit, videomae'
    )


def _as_outputs(head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of the model's head: of several labels at once two logits for each, as our binary emotions have.

    Softmax over (0, z) is the sigmoid of z.
    """
    if head.problem != 'multi_label_classification':
        return head.kernel, head.bias
    kernel = np.stack([np.zeros_like(head.kernel), head.kernel], -1).reshape(len(head.kernel), -1)
    return kernel, np.stack([np.zeros_like(head.bias), head.bias], -1).reshape(-1)


def _steps(family: str, fields: dict[str, Any], reader: Reader) -> int:
    """The longest of the padded shapes; the predictor also takes halves and quarters of it, and multiples."""
    if isinstance(reader, Tokens):
        return reader.max_length
    return SECONDS * RATE if family in SPEECH else fields.get('num_frames', 1)


def _example(reader: Reader, fields: dict[str, Any]) -> dict[str, Any]:
    """A batch of one row, for the shapes of the variables."""
    feature, m = reader.feature(), reader.modality
    steps = fields.get('num_frames', 1)
    return {m: jnp.zeros((1, steps, *feature.step_shape), feature.dtype), f'{m}_mask': jnp.ones((1, steps), bool)}
