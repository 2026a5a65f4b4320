"""The last layer of a published classifier, with its labels: what a checkpoint says of a clip by itself.

Whatever stands between the states and this layer is the encoder's `pool` (huggingface_names.py), so a head is one dense
layer: kernel (D, C), bias (C,). transformers' classes of sequences, pictures, sound and video, and the two speech
classifiers that are no class of transformers: `dense`, tanh, `out_proj` (or `output`) over mean-pooled states, as in
audeering's regression of arousal, dominance and valence.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from data_prep.convert_weights.huggingface_settings import Settings
from mmer_jax.pretrained import PROBLEMS

# Classes whose layer `classifier` says something else than one answer per clip.
OTHER_TASKS = re.compile(r'.*For(TokenClassification|AudioFrameClassification|MultipleChoice|XVector|CTC)')
DENSE = 'classifier.dense.bias'
# By family: names that the last layer may have, the first that is there counts; each with the tensor that the encoder's
# pooling must have taken to give what it reads ('': none).
PLACES: dict[str, tuple[tuple[str, str], ...]] = {
    'bert': (('classifier', 'pooler.dense.bias'),),
    'roberta': (('classifier.out_proj', DENSE),),
    'distilbert': (('classifier', 'pre_classifier.bias'),),
    'wav2vec2': (('classifier.out_proj', DENSE), ('classifier.output', DENSE), ('classifier', 'projector.bias')),
    'vit': (('classifier', ''),),
    'ast': (('classifier.dense', 'classifier.layernorm.bias'),),
    'videomae': (('classifier', ''),),
}
PLACES['hubert'] = PLACES['wav2vec2']


class HeadPlan(NamedTuple):
    """Name of the last layer in the original, what its outputs are (a key of PROBLEMS), and their labels."""

    name: str
    problem: str
    labels: tuple[str, ...]

    @property
    def tensors(self) -> dict[str, str]:
        """Our name -> the original's."""
        return {'kernel': f'{self.name}.weight', 'bias': f'{self.name}.bias'}


def find_head(config: Settings, family: str, taken: Iterable[str], tensors: Mapping[str, Any]) -> HeadPlan | None:
    """The head of a folder, None where it has none; ValueError where its labels and its rows contradict each other.

    `taken`: original names that the encoder took; `tensors`: their on-disk description by name, with `shape`.
    """
    architectures = config.get('architectures') or ()
    taken = set(taken)
    if any(OTHER_TASKS.fullmatch(str(name)) for name in architectures):
        return None
    if family == 'vit' and any(name.endswith('pooler.dense.bias') for name in taken):
        return None  # ViT's classifier reads the class token itself
    if family == 'videomae' and config.flag('use_mean_pooling', True) and 'fc_norm.bias' not in taken:
        return None
    for name, before in PLACES[family]:
        if not all(f'{name}.{part}' in tensors for part in ('weight', 'bias')):
            continue
        if not any(found.endswith(before) for found in taken):
            continue
        rows = tensors[f'{name}.bias'].shape
        shape = tensors[f'{name}.weight'].shape
        if len(rows) != 1 or len(shape) != 2 or shape[0] != rows[0]:
            raise ValueError(f'{config.file}: {name} has a weight {shape} and a bias {rows}, expected (C, D) and (C,)')
        if name != 'classifier' and family in ('wav2vec2', 'hubert'):
            config.demand('pooling_mode', 'mean')
        return HeadPlan(name, _problem(config, rows[0]), _labels(config, name, rows[0]))
    return None


def _problem(config: Settings, rows: int) -> str:
    """As transformers decides it: one output is a number."""
    given = config.get('problem_type')
    if given is None:
        return 'regression' if rows == 1 else 'single_label_classification'
    if given not in PROBLEMS:
        raise config.wrong('problem_type', f'one of {", ".join(PROBLEMS)}')
    return given


def _labels(config: Settings, name: str, rows: int) -> tuple[str, ...]:
    """The labels in the order of the outputs; transformers' own names where the folder gives none."""
    given = config.get('id2label')
    if given is None:
        return tuple(f'LABEL_{number}' for number in range(rows))
    if not isinstance(given, Mapping) or not all(isinstance(label, str) and label for label in given.values()):
        raise config.wrong('id2label', 'an object of labels by number')
    if sorted(given, key=str) != sorted(map(str, range(rows))):
        raise ValueError(
            f'{config.file} has {len(given)} labels in id2label ({", ".join(map(str, list(given)[:3]))}, ...), and '
            f'{name} gives {rows} outputs: expected one label for each number from 0 to {rows - 1}'
        )
    labels = tuple(' '.join(given[str(number)].split()) for number in range(rows))
    if not all(label.isprintable() for label in labels):
        raise config.wrong('id2label', 'labels of printable characters')
    if len(set(labels)) < rows:
        raise config.wrong('id2label', 'each label once')
    return labels
