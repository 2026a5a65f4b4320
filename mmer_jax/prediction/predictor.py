"""load_predictor(workdir): a finished run whose models of all folds and seeds answer for clips that nobody labelled.

A clip is read by the readers that the run's data were made by, normalised by each fold's own training statistics, and
padded to shapes that the run knows. The run's data need not be there: its results say what they were like.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from mmer_jax.data.schema import MODALITIES, Label, RecordError, Schema
from mmer_jax.files import read_arrays
from mmer_jax.media import MediaError
from mmer_jax.prediction import calibration, enrolling
from mmer_jax.prediction.memory import MemorySource, one_batch
from mmer_jax.readers import Clip, Reader, from_info, read_record
from mmer_jax.run import own_module
from mmer_jax.run.checkpoint import Checkpoints
from mmer_jax.run.places import choose_trained, workdir_of
from mmer_jax.run.program import make_model, read_statistics
from mmer_jax.run.step import to_evaluate
from mmer_jax.run.workdir import read_config, read_results

FRACTIONS = (4, 2, 1)  # a run with several padded shapes also takes halves and quarters of its longest
DROPOUT = 'modality_dropout'


@dataclasses.dataclass(frozen=True)
class Member:
    """The models of one fold: their variables with a leading seed axis, and a temperature for each seed."""

    name: str
    seeds: np.ndarray
    variables: Any
    statistics: Mapping[str, tuple[np.ndarray, np.ndarray]]
    temperatures: np.ndarray


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the models say of a clip.

    scores: {class: probability}, {emotion: probability that it is there}, or {'score': value} (one per name where a
    published checkpoint gives several): the mean over all models; by_model: {(fold, seed): the same of one}; label: the
    most probable class, the emotions above one half, or the value, of several none. notes: what a reader should know,
    such as a modality that the clip lacks.
    """

    clip: Clip
    kind: str
    scores: Mapping[str, float]
    by_model: Mapping[tuple[str, int], Mapping[str, float]]
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str | float | list[str] | None:
        if self.kind == 'regression':
            return next(iter(self.scores.values())) if len(self.scores) == 1 else None
        if self.kind == 'classes':
            return max(self.scores, key=lambda name: self.scores[name])
        return [name for name, score in self.scores.items() if score > 0.5]

    @property
    def spread(self) -> dict[str, float]:
        """Standard deviation of each score over the models."""
        return {k: float(np.std([scores[k] for scores in self.by_model.values()])) for k in self.scores}

    def to_json(self) -> dict[str, Any]:
        models = [{'fold': f, 'seed': s, 'scores': dict(scores)} for (f, s), scores in self.by_model.items()]
        times = {'start': self.clip.start, 'end': self.clip.end}
        found = {'id': self.clip.id, 'path': str(self.clip.path or ''), **times, 'prediction': self.label}
        return {
            **found,
            'scores': dict(self.scores),
            'spread': self.spread,
            'notes': list(self.notes),
            'models': models,
        }


@dataclasses.dataclass(frozen=True)
class Failure:
    """A clip that could not be read, and why, in one line."""

    clip: Clip
    error: str

    def to_json(self) -> dict[str, Any]:
        return {'id': self.clip.id, 'path': str(self.clip.path or ''), 'error': self.error}


class Predictor:
    """Models of a finished run; predictor('clip.mp4') -> Prediction. Make one with load_predictor."""

    def __init__(
        self,
        config: ConfigDict,
        schema: Schema,
        steps: Mapping[str, int],
        readers: Sequence[Reader],
        members: Sequence[Member],
        model: nn.Module,
        enrolled: int = 0,
    ):
        self.config, self.schema, self.steps = config, schema, dict(steps)
        self.readers, self.members, self.model = list(readers), list(members), model
        self.enrolled = enrolled  # clips of the one speaker for whom it answers; 0: it is for anybody
        self.modalities = tuple(config.modalities)
        self.max_length = config.data.max_length.to_dict()

        def predict(variables, batch):
            outputs: Any = model.apply(variables, batch, train=False)
            return outputs['prediction']

        self._apply = jax.jit(jax.vmap(predict, (0, None)))

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.schema.label.names

    @property
    def parameters(self) -> int:
        """Of one model."""
        first = self.members[0]
        return sum(int(np.prod(x.shape[1:])) for x in jax.tree.leaves(first.variables['params']))

    def __call__(
        self,
        path: str | Path | None = None,
        *,
        text: str | None = None,
        start: float = 0.0,
        end: float | None = None,
        given: Mapping[str, str | Path] | None = None,
    ) -> Prediction:
        """One clip: a sound or video file, or the part from `start` to `end` seconds, its words, features {modality:
        file} that were extracted elsewhere.

        MediaError where a file cannot be used, ValueError where nothing of the clip can be read.
        """
        name = str(path) if path is not None else 'text'
        files = {m: Path(p) for m, p in (given or {}).items()}
        clip = Clip(name, None if path is None else Path(path), text, start, end, files)
        return self._predict([self._read(clip)])[0]

    def predict(self, clips: Iterable[Clip], *, batch_size: int = 8) -> Iterator[Prediction | Failure]:
        """Each clip's Prediction, or the Failure of one that cannot be read, in their order."""
        waiting: list[tuple[Clip, Any]] = []
        for clip in clips:
            try:
                waiting.append((clip, self._read(clip)))
            except (MediaError, RecordError, ValueError, OSError) as error:
                waiting.append((clip, ' '.join(str(error).split()) or type(error).__name__))
            if sum(not isinstance(found, str) for _, found in waiting) >= batch_size:
                yield from self._flush(waiting, batch_size)
                waiting = []
        yield from self._flush(waiting, batch_size)

    def of_records(self, records: Sequence[Mapping[str, Any]], rows: int) -> list[Prediction]:
        """The Prediction of each record, an id and arrays by modality, None where one is missing, as one batch.

        rows: of the batch at least, so that the last one of many has the shape of the others.
        """
        return self._predict([(Clip(str(found['id'])), {**found, 'label': 0}, ()) for found in records], rows)

    def _flush(self, waiting: Sequence[tuple[Clip, Any]], rows: int) -> Iterator[Prediction | Failure]:
        read = [found for _, found in waiting if not isinstance(found, str)]
        predicted = iter(self._predict(read, rows) if read else [])
        for clip, found in waiting:
            yield Failure(clip, found) if isinstance(found, str) else next(predicted)

    def _read(self, clip: Clip) -> tuple[Clip, dict[str, Any], tuple[str, ...]]:
        """(clip, its record, notes). MediaError or ValueError where there is nothing to predict from."""
        if clip.path is not None and not clip.path.is_file():
            found = 'is a folder' if clip.path.is_dir() else 'is missing'
            raise MediaError(clip.path, f'the clip {found}', 'give a sound or video file')
        arrays, _, missing = read_record(clip, self.readers)
        if len(missing) == len(self.readers):
            why = ', '.join(f'{m}: {reason}' for m, reason in missing.items())
            raise ValueError(f'{clip.id}: the model sees {", ".join(self.modalities)}, and the clip has none ({why})')
        trained = any(entry[0] == DROPOUT for entry in self.config.data.augment)
        how = 'masked' if trained else 'masked, and the run was trained without modality_dropout'
        notes = tuple(f'{m} is missing ({why}): {how}' for m, why in missing.items())
        return clip, {'id': clip.id, 'label': 0, **arrays}, notes

    def _shape(self, source: MemorySource) -> dict[str, int]:
        """The padded steps of a batch: the run's longest, parts of it where the run had several, or multiples."""
        shape = {}
        for m, counts in source.steps(self.modalities, self.max_length).items():
            longest, full = max(int(counts.max()), 1), max(self.steps[m], 1)
            parts = FRACTIONS if self.config.data.max_shapes > 1 else (1,)
            fitting = [-(-full // part) for part in parts if -(-full // part) >= longest]
            shape[m] = fitting[0] if fitting else -(-longest // full) * full
        return shape

    def _predict(self, read: Sequence[tuple[Clip, Mapping[str, Any], tuple[str, ...]]], rows: int = 1) -> list[Any]:
        source = MemorySource(self.schema, [record for _, record, _ in read])
        shape, found = self._shape(source), {}
        for member in self.members:
            batch = one_batch(source, self.modalities, member.statistics, self.max_length, shape, max(rows, len(read)))
            outputs = np.asarray(self._apply(member.variables, batch), np.float32)[:, : len(read)]
            for n, seed in enumerate(member.seeds):
                found[member.name, int(seed)] = _scores(self.schema.label, outputs[n], member.temperatures[n])
        return [
            Prediction(
                clip,
                self.schema.label.kind,
                {name: float(np.mean([scores[name][k] for scores in found.values()])) for name in _names(self.schema)},
                {key: {name: float(values[k]) for name, values in scores.items()} for key, scores in found.items()},
                notes,
            )
            for k, (clip, _, notes) in enumerate(read)
        ]


def _names(schema: Schema) -> tuple[str, ...]:
    return schema.label.names or ('score',)


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis. scipy's would cost a prediction a quarter of a second."""
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _scores(label: Label, outputs_RC: np.ndarray, temperature: float) -> dict[str, np.ndarray]:
    """{name: (R,) score} of one model's outputs."""
    if label.kind == 'regression':
        return {name: outputs_RC[:, k] for k, name in enumerate(label.names or ('score',))}
    if label.kind == 'classes':
        probability_RC = _softmax(outputs_RC / temperature)
        return {name: probability_RC[:, k] for k, name in enumerate(label.names)}
    pairs = _softmax(outputs_RC.reshape(len(outputs_RC), -1, 2) / temperature)
    return {name: pairs[:, k, 1] for k, name in enumerate(label.names)}


def load_predictor(
    workdir: str | Path,
    *,
    fold: int | None = None,
    seed: int | None = None,
    calibrate: bool = False,
    tokenizer: str = '',
    glove: str | Path = '',
    model: nn.Module | None = None,
    enrol: Iterable[str | Path | Clip] = (),
) -> Predictor:
    """A finished run, ready for clips: all its folds and seeds, whose scores are averaged, or the one of each given.

    calibrate: divide each model's logits by the temperature that fits its validation split best. tokenizer, glove:
    where these lie on this machine, when that is not where preparation found them. model: the module of a run of an own
    one. enrol: clips of the one speaker that is predicted, for a run that normalises by speaker and knows something of
    him ('enrolled', 'transductive'); such a run needs them.

    ValueError or FileNotFoundError in one line where the run is unfinished or damaged, or its data were made by
    something that cannot read a clip.
    """
    workdir = Path(workdir)
    parent = workdir_of(workdir)
    config, entry = read_config(parent)
    own_module.check(entry, model, parent)
    if calibrate and config.selection.folds:
        raise ValueError(
            f'{parent} was selected by inner folds and trained on its validation records, so none are left to '
            'calibrate on: leave --calibrate out'
        )
    places = choose_trained(workdir, parent, fold)
    results = {place.name: read_results(place.folder / 'results.json') for place in places}
    inputs = next(iter(results.values())).get('inputs')
    if not inputs:
        raise ValueError(f'{places[0].folder}/results.json is of a version that kept no inputs: train the run again')
    readers = [_placed(reader, tokenizer, str(glove)) for reader in _readers(inputs, tuple(config.modalities), parent)]
    for reader in readers:
        reader.check()
    enrol = list(enrol)
    enrolled = enrolling.read_clips(config, enrol, readers, parent)
    label = Label(inputs['label']['kind'], tuple(inputs['label']['names']))
    features = {reader.modality: reader.feature() for reader in readers}
    schema = Schema(next(iter(results.values()))['dataset'], features, label, inputs['prepared'])
    source: Any = MemorySource(schema, [])
    module = make_model(config, source) if model is None else model
    shapes = _shapes(module, _example(schema, inputs['steps']), config.seeds)
    seeds = config.seed + np.arange(config.seeds)
    if seed is not None and seed not in seeds:
        raise ValueError(f'{parent} has no seed {seed}; it has {", ".join(map(str, seeds))}')
    chosen = np.arange(config.seeds) if seed is None else np.array([seed - config.seed])
    members = []
    for place in places:
        temperatures = np.ones(len(chosen))
        if calibrate:
            found = read_arrays(place.folder / 'predictions' / 'validation.npz', ['prediction', 'label'])
            temperatures = np.array(
                [calibration.fit(label.kind, found['prediction'][n], found['label']) for n in chosen]
            )
        variables = _variables(shapes, place.folder)
        members.append(
            Member(
                place.name,
                seeds[chosen],
                jax.tree.map(lambda x: x[chosen], variables),
                enrolling.statistics_for(config, read_statistics(config, place.folder), enrolled),
                temperatures,
            )
        )
    return Predictor(config, schema, inputs['steps'], readers, members, module, enrolled=len(enrol))


def _readers(inputs: Mapping[str, Any], modalities: tuple[str, ...], where: Path) -> list[Reader]:
    """The readers of the run's modalities, whose features must be those it was trained on."""
    readers = from_info(inputs['prepared'], modalities)
    for reader in readers:
        feature = reader.feature()
        found = {'shape': list(feature.shape), 'dtype': feature.dtype}
        if found != inputs['features'][reader.modality]:
            raise ValueError(
                f'{where}: clips would be read as {reader.modality} {found}, and the run was trained on '
                f'{inputs["features"][reader.modality]}: the settings of its preparation have changed'
            )
    return sorted(readers, key=lambda reader: MODALITIES.index(reader.modality))


def _placed(reader: Any, tokenizer: str, glove: str) -> Reader:
    """The reader with the tokenizer or the word vectors at their place on this machine."""
    for name, place in (('tokenizer', tokenizer), ('vectors', glove)):
        if place and hasattr(reader, name):
            return dataclasses.replace(reader, **{name: place})
    return reader


def _example(schema: Schema, steps: Mapping[str, int]) -> dict[str, np.ndarray]:
    """A batch of one row in the run's longest shape, for the shapes of its variables."""
    batch: dict[str, np.ndarray] = {'weight': np.ones(1, np.float32)}
    for m, feature in schema.features.items():
        batch[m] = np.zeros((1, max(steps[m], 1), *feature.step_shape), feature.dtype)
        batch[f'{m}_mask'] = np.ones((1, max(steps[m], 1)), bool)
    return batch


def _shapes(module: nn.Module, example: Mapping[str, np.ndarray], seeds: int) -> Any:
    """Of the variables of all seeds, which are the same in all folds."""
    one = jax.eval_shape(lambda: module.init(jax.random.key(0), example, train=False))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # whatever devices the run was trained on
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype, sharding=here), to_evaluate(one))


def _variables(shapes: Any, folder: Path) -> Any:
    """The variables of all seeds at their best epoch, as host arrays with a leading seed axis."""
    with Checkpoints(folder / 'checkpoints', read_only=True) as checkpoints:
        return jax.device_get(checkpoints.restore_best(shapes))
