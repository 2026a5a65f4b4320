"""A published checkpoint on the records of a data set: its labels mapped to theirs, and the metrics of all records.

Nothing is trained and nothing is chosen, so all records are the test. What the checkpoint was trained on is not known
here, and each row says so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmer_jax import __version__
from mmer_jax.data.batches import labels_of
from mmer_jax.data.records import RecordSource
from mmer_jax.data.schema import Label
from mmer_jax.files import save_arrays, write_json
from mmer_jax.files.outputs import check_folder
from mmer_jax.metrics import KINDS, as_json, floors, metric_kind
from mmer_jax.prediction.predictor import Prediction, Predictor
from mmer_jax.prediction.published import published_predictor
from mmer_jax.readers import Clip, Tokens
from mmer_jax.run.workdir import hold

MARK = 'pretrained, not trained on this data: overlap unknown'
PROTOCOL = 'pretrained: '
HEADLINES = {
    'classes': ('accuracy', 'uar', 'macro_f1'),
    'binary': ('uar', 'macro_f1'),
    'regression': ('mae', 'corr'),
}
LEAST = 1e-12  # of a probability whose logarithm is taken
ROWS = 8


def rows_of(name: str, directory: str, mapping: str, output: Path | None) -> list[dict[str, Any]]:
    """What `mmer_jax.evaluate --pretrained` prints: remarks as notes, the one row given back."""
    results, remarks = evaluate_published(published_predictor(name), directory, mapping, output)
    for remark in remarks:
        print(f'note: {remark}')
    (row,) = results['rows']
    floor = {f'floor of {metric}': row['floor'].get(metric) for metric in results['headline']}
    return [{'records': row['counts']['test'], **row['test'], **floor}]


def read_map(text: str, labels: Sequence[str], target: Label) -> dict[str, str]:
    """{label of the checkpoint: class of the data set} of 'joy=happy,anger=angry', in the checkpoint's order.

    Labels that are called as a class, whatever their case, need not be named. ValueError where a name is unknown on its
    side, a label is given twice, or nothing is mapped.
    """
    names = target.names or ('score',)
    given: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(','))):
        label, mark, name = (word.strip() for word in part.partition('='))
        if not mark or label not in labels or name not in names:
            side = 'the checkpoint has the labels' if label not in labels else 'the data set has the classes'
            raise ValueError(f'--map {part}: {side} {", ".join(labels if label not in labels else names)}')
        if label in given:
            raise ValueError(f'--map {part}: {label} is mapped to {given[label]} before; each label goes to one class')
        given[label] = name
    same = {name.casefold(): name for name in names}
    found = {label: given.get(label, same.get(label.casefold(), '')) for label in labels}
    found = {label: name for label, name in found.items() if name}
    if not found:
        raise ValueError(
            f'no label of the checkpoint ({", ".join(labels)}) is mapped to {", ".join(names)}: '
            f"give --map '{labels[0]}={names[0]},...'"
        )
    if target.kind == 'regression' and len(found) > 1:
        raise ValueError(f'{", ".join(found)} are mapped to one score: expected one of them')
    return found


def mapped(scores_RL: np.ndarray, labels: Sequence[str], mapping: Mapping[str, str], target: Label) -> np.ndarray:
    """Scores of the checkpoint's labels (R, L) as predictions of the data set's labels, as its own models give them.

    Of one class of several (R, C) log-probabilities: labels of one class are added, those without one are left out, and
    the rest is brought to a sum of 1. Of several at once (R, 2 E) logits of absent and present, by the most probable of
    an emotion's labels; of numbers (R, 1), the mapped score itself.
    """
    names = target.names or ('score',)
    member_LC = np.array([[mapping.get(label) == name for name in names] for label in labels])
    if target.kind == 'regression':
        return (scores_RL @ member_LC).astype(np.float32)
    if target.kind == 'binary':
        present_RE = (scores_RL[..., None] * member_LC[None]).max(1)
        pairs = np.clip(np.stack([1 - present_RE, present_RE], -1), LEAST, 1)
        return np.log(pairs).reshape(len(pairs), -1).astype(np.float32)
    sums_RC = scores_RL @ member_LC
    share_RC = sums_RC / np.maximum(sums_RC.sum(1, keepdims=True), LEAST)
    return np.log(np.maximum(share_RC, LEAST)).astype(np.float32)


def evaluate_published(
    predictor: Predictor, directory: str | Path, mapping_text: str, output: str | Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """(results as those of a run, with one row; remarks to print) of all records of a shard directory.

    `output`: a folder that gets results.json, config.json and predictions/test.npz. ValueError where the records are
    not what the checkpoint reads.
    """
    if output is not None:
        check_folder(output, {'results.json': PROTOCOL.encode(), 'config.json': b'"pretrained"'})
    source = RecordSource(directory)
    target, labels = source.schema.label, predictor.class_names
    _check_kinds(predictor, target)
    mapping = read_map(mapping_text, labels, target)
    rows, lacking = _predict(predictor, source)
    scores_RL = np.array([[row.scores[label] for label in labels] for row in rows])
    prediction, truth = mapped(scores_RL, labels, mapping, target), labels_of(source, source.manifest['record'])
    kind = metric_kind(target.kind, truth)
    names = target.names or None
    row: dict[str, Any] = {'fold': 'all', 'seed': 0, 'marks': [MARK], 'best_epoch': 0, 'epochs': 0}
    row |= {'counts': {'test': len(source)}}
    row |= {'test': as_json(KINDS[kind].measure(prediction, truth, names=names))}
    row |= {'floor': as_json(floors(kind, truth, names=names))}
    modalities = list(predictor.modalities)
    results = {
        'format': 1, 'version': __version__, 'config': predictor.schema.name, 'variant': 'pretrained',
        'model': 'published checkpoint', 'dataset': source.schema.name, 'modalities': modalities,
        'protocol': f'{PROTOCOL}{source.schema.name}', 'protocol_options': {}, 'map': mapping,
        'parameters': predictor.parameters, 'metrics': kind, 'headline': list(HEADLINES[target.kind]),
        'class_names': list(target.names), 'published': None, 'selection': '', 'rows': [row],
    }  # fmt: skip
    if output is not None:
        folder = Path(output)
        with hold(folder / '.evaluate.lock', folder):
            save_arrays(
                folder / 'predictions' / 'test.npz',
                id=source.manifest['id'], label=truth, prediction=prediction[None], seed=np.zeros(1, np.int64),
            )  # fmt: skip
            write_json(folder / 'config.json', {'pretrained': predictor.schema.name, 'map': mapping})
            write_json(folder / 'results.json', results)
    return results, _remarks(scores_RL, labels, mapping, target, predictor.schema.label, lacking)


def _check_kinds(predictor: Predictor, target: Label) -> None:
    numbers = predictor.schema.label.kind == 'regression'
    if numbers != (target.kind == 'regression'):
        found = 'numbers' if numbers else 'probabilities of classes'
        wanted = 'numbers' if target.kind == 'regression' else 'classes'
        raise ValueError(f'{predictor.schema.name} gives {found}, and the labels of the data set are {wanted}')


def _predict(predictor: Predictor, source: RecordSource) -> tuple[list[Prediction], int]:
    """The prediction of each record in their order, and how many of them lack what the checkpoint reads.

    Records of like length share a batch. Words are cut into tokens anew, by the checkpoint's own tokenizer.
    """
    (reader,) = predictor.readers
    m = reader.modality
    if isinstance(reader, Tokens):
        texts = source.manifest.get('text')
        if texts is None:
            raise ValueError(f'{source.directory}/manifest.csv has no column text: prepare the data with their words')
        records: list[dict[str, Any]] = [
            {'id': key, m: reader.read(Clip(str(key), None, str(text))).array}
            for key, text in zip(source.manifest['id'], texts, strict=True)
        ]
        length_R = np.array([0 if record[m] is None else len(record[m]) for record in records])
    else:
        _check_feature(reader, source)
        length_R = source.manifest.get(f'length_{m}', np.ones(len(source), np.int64))
    order = np.argsort(length_R, kind='stable')
    found: dict[int, Prediction] = {}
    for start in range(0, len(order), ROWS):
        numbers = order[start : start + ROWS]
        batch = [records[n] if isinstance(reader, Tokens) else _of(source, int(n), m) for n in numbers]
        found |= dict(zip(numbers.tolist(), predictor.of_records(batch, ROWS), strict=True))
    return [found[number] for number in range(len(source))], int((length_R == 0).sum())


def _of(source: RecordSource, number: int, modality: str) -> dict[str, Any]:
    record = source.read(number, lazy=True)
    return {'id': record['id'], modality: record[modality]}


def _check_feature(reader: Any, source: RecordSource) -> None:
    """ValueError where the records hold something else than the checkpoint reads."""
    wanted, m = reader.feature(), reader.modality
    found = source.schema.features.get(m)
    if found is None:
        raise ValueError(f'{source.directory} has no {m}; the checkpoint reads {m}: {wanted.description}')
    same_rate = m != 'audio' or found.description.split(',')[0] == wanted.description.split(',')[0]
    if (found.step_shape, found.dtype) != (wanted.step_shape, wanted.dtype) or not same_rate:
        hint = f'--size {reader.size}' if m == 'vision' else '--audio waveform'
        raise ValueError(
            f'{source.directory} holds {m} {found.dtype} {found.shape} ({found.description}), the checkpoint reads '
            f'{wanted.dtype} {wanted.shape} ({wanted.description}): prepare the clips anew, as data_prep.clips '
            f'does with {hint}'
        )


def _remarks(
    scores_RL: np.ndarray,
    labels: Sequence[str],
    mapping: Mapping[str, str],
    target: Label,
    own: Label,
    lacking: int,
) -> list[str]:
    """What was mapped, and what was not."""
    left = [label for label in labels if label not in mapping]
    remarks = ['map: ' + ', '.join(f'{label}={name}' for label, name in mapping.items())]
    if left and target.kind == 'classes':
        share = f', {100 * scores_RL[:, [labels.index(x) for x in left]].sum(1).mean():.1f} % of the probability'
        dropped = f'left out{share if own.kind == "classes" else ""}; the rest is brought to a sum of 1'
        remarks.append(f'not mapped: {", ".join(left)}: {dropped}')
    elif left:
        remarks.append(f'not mapped: {", ".join(left)}: left out')
    if missing := [name for name in target.names if name not in mapping.values()]:
        remarks.append(f'never predicted, for no label is mapped to it: {", ".join(missing)}')
    if target.kind == 'regression':
        remarks.append('the two scales may differ: errors (mae) compare them as they are, correlations do not mind')
    if lacking:
        remarks.append(f'{lacking} records lack what the checkpoint reads; they are answered from nothing, and counted')
    return [*remarks, MARK]
