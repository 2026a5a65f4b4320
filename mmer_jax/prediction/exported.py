"""A finished run as one program for other machines: jax.export, parameters, preparation, a script that runs them.

The program takes raw features: normalisation, the models of all folds and seeds, their temperatures, softmax and the
mean over models are inside. Parameters are an argument of it, so that they lie on disk once.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array, export
from safetensors.numpy import save_file

from mmer_jax import __version__
from mmer_jax.files import atomic, sums
from mmer_jax.files.outputs import check_folder
from mmer_jax.prediction import run_exported
from mmer_jax.prediction.memory import MemorySource, one_batch
from mmer_jax.prediction.predictor import Predictor
from mmer_jax.readers import Tokens, to_info

PLATFORMS = ('cpu', 'cuda', 'tpu')
PROGRAM, PARAMS, ABOUT, SCRIPT, CARD = (
    'model.jax_export', 'params.safetensors', 'preprocess.json', 'run.py', 'README.md',
)  # fmt: skip
MADE_BY = 'mmer_jax.export'
MARKS = {
    ABOUT: b'"made_by": "mmer_jax.export"',
    CARD: b'mmer_jax.export',
    SCRIPT: b'What an exported model says of a clip',
    PROGRAM: b'',
    PARAMS: b'',
}
PLACES = ('tokenizer', 'vectors', 'folder')  # settings of readers that are paths of this machine
TOLERANCE = 1e-4
SAMPLES = 1600  # least length of a waveform, padding included: a tenth of a second at 16 kHz
TRIED = 5  # steps of the clip on which the program is tried, of samples as many times SAMPLES


@dataclasses.dataclass(frozen=True)
class Program:
    """The exported program; steps: {modality: its fixed number of steps, None where any fits}; any_batch: whether a
    batch may have any number of rows, else 1; difference: the largest from the predictor's scores, of a random clip."""

    exported: export.Exported
    params: Mapping[str, np.ndarray]
    steps: Mapping[str, int | None]
    any_batch: bool
    difference: float = 0.0


def flat_params(predictor: Predictor) -> dict[str, np.ndarray]:
    """{'fold_0/params/encoder/...': array with a leading axis of seeds} of all members."""
    found = {}
    for member in predictor.members:
        for name, array in traverse_util.flatten_dict(dict(member.variables), sep='/').items():
            found[f'{member.name}/{name}'] = np.ascontiguousarray(array)
    return found


def make_scores(predictor: Predictor) -> Any:
    """The function to export: (flat params, {m: raw (B, T, ...), m_mask: (B, T)}) -> mean scores (B, C)."""
    label = predictor.schema.label

    def of_row(variables: Any, row: Mapping[str, Array]) -> Array:
        outputs: Any = predictor.model.apply(variables, {key: x[None] for key, x in row.items()}, train=False)
        return outputs['prediction'][0].astype(jnp.float32)

    # Mapped over rows, the model sees one row of a size that is known, whatever symbol the batch's is.
    by_row = jax.vmap(of_row, (None, 0))

    def scores(params: Mapping[str, Array], raw: Mapping[str, Array]) -> Array:
        found = []
        for member in predictor.members:
            stem = f'{member.name}/'
            mine = {name.removeprefix(stem): x for name, x in params.items() if name.startswith(stem)}
            batch = {**raw, 'weight': jnp.ones(next(iter(raw.values())).shape[:1], jnp.float32)}
            for m, (mean, deviation) in member.statistics.items():
                x = (raw[m] - mean[None, None]) / deviation[None, None]
                mask = raw[f'{m}_mask'].reshape(*raw[f'{m}_mask'].shape, *(1,) * (x.ndim - 2))
                batch[m] = jnp.where(mask, x, 0).astype(raw[m].dtype)

            outputs_NBC = jax.vmap(by_row, (0, None))(traverse_util.unflatten_dict(mine, sep='/'), batch)
            found.append(_scores(label.kind, outputs_NBC, member.temperatures))
        return jnp.concatenate(found).mean(0)

    return scores


def _scores(kind: str, outputs_NBC: Array, temperature_N: np.ndarray) -> Array:
    if kind == 'regression':
        return outputs_NBC
    warm = outputs_NBC / jnp.asarray(temperature_N, jnp.float32)[:, None, None]
    if kind == 'classes':
        return jax.nn.softmax(warm, -1)
    return jax.nn.softmax(warm.reshape(*warm.shape[:2], -1, 2), -1)[..., 1]


def make_program(predictor: Predictor) -> Program:
    """Exports with any batch and any length where the model allows it, else with the run's longest steps, else one row.

    ValueError where none can be exported, or what is exported says something else than the predictor.
    """
    params, function = flat_params(predictor), jax.jit(make_scores(predictor))
    fixed: dict[str, int | None] = {
        m: longest_of(predictor, m) or max(predictor.steps[m], least_of(predictor, m)) for m in predictor.modalities
    }
    features = predictor.schema.features
    free = {m: None if features[m].is_sequence and not features[m].is_image else steps for m, steps in fixed.items()}
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in params.items()}
    faults = []
    for steps, any_batch in ((free, True), (fixed, True), (fixed, False)):
        try:
            inputs = _inputs(predictor, steps, any_batch)
            exported = export.export(function, platforms=PLATFORMS)(shapes, inputs)
        except Exception as error:  # what a model raises where a size is a symbol has no common type
            faults.append(' '.join(str(error).split())[:200])
            continue
        program = Program(exported, params, steps, any_batch)
        return dataclasses.replace(program, difference=_try(predictor, program))
    raise ValueError(f'the model cannot be exported: {faults[-1]}')


def longest_of(predictor: Predictor, modality: str) -> int | None:
    """Steps after which a clip is cut: by the run's config, or by the reader of tokens; None for none."""
    reader = next(reader for reader in predictor.readers if reader.modality == modality)
    return predictor.max_length.get(modality) or (reader.max_length if isinstance(reader, Tokens) else None)


def least_of(predictor: Predictor, modality: str) -> int:
    """Steps that a batch has at least: encoders of samples pad what is shorter, for which a size must be known."""
    return SAMPLES if predictor.schema.features[modality].dtype == 'int16' else 1


def _inputs(predictor: Predictor, steps: Mapping[str, int | None], any_batch: bool) -> dict[str, Any]:
    names = [m for m in predictor.modalities if steps[m] is None]
    bounds = [f't_{m} >= {least_of(predictor, m)}' for m in names]
    bounds += [f't_{m} <= {longest}' for m in names if (longest := longest_of(predictor, m))]
    symbols = export.symbolic_shape(', '.join(['b', *(f't_{m}' for m in names)]), constraints=bounds)
    found, rows = {}, symbols[0] if any_batch else 1
    for m in predictor.modalities:
        feature = predictor.schema.features[m]
        length = symbols[1 + names.index(m)] if m in names else steps[m]
        found[m] = jax.ShapeDtypeStruct((rows, length, *feature.step_shape), np.dtype(feature.dtype))
        found[f'{m}_mask'] = jax.ShapeDtypeStruct((rows, length), np.dtype(bool))
    return found


def _try(predictor: Predictor, program: Program) -> float:
    """The largest difference of scores of a random clip; ValueError where it is more than rounding."""
    generator = np.random.default_rng(0)
    record: dict[str, Any] = {'id': 'tried'}
    for m in predictor.modalities:
        feature = predictor.schema.features[m]
        most = program.steps[m] or longest_of(predictor, m)
        steps = min([TRIED * least_of(predictor, m), *([most] if most else [])])
        shape = (steps, *feature.step_shape) if feature.is_sequence else feature.step_shape
        whole = feature.dtype != 'float32'
        record[m] = (generator.integers(0, 5, shape) if whole else generator.standard_normal(shape)).astype(
            feature.dtype
        )
    (wanted,) = predictor.of_records([record], 1)
    source = MemorySource(predictor.schema, [{**record, 'label': 0}])
    padded = {m: program.steps[m] or TRIED * least_of(predictor, m) for m in predictor.modalities}
    batch = one_batch(source, predictor.modalities, {}, predictor.max_length, padded, 1)
    batch.pop('weight')
    found = np.asarray(jax.jit(program.exported.call)(program.params, batch))[0]
    difference = float(np.abs(found - np.array(list(wanted.scores.values()))).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(found).max())):
        raise ValueError(f'the exported program differs by {difference:.3g} from the run on a random clip: not written')
    return difference


def describe(predictor: Predictor, program: Program) -> dict[str, Any]:
    """preprocess.json: how a clip becomes arrays, what the program takes and gives."""
    info = to_info(predictor.readers)
    inputs = {}
    for m in predictor.modalities:
        feature, steps = predictor.schema.features[m], program.steps[m]
        reader = {k: Path(v).name if k in PLACES and isinstance(v, str) else v for k, v in info[m].items()}
        inputs[m] = {
            'dtype': feature.dtype,
            'step_shape': list(feature.step_shape),
            'steps': steps,
            'least': least_of(predictor, m),
            'longest': longest_of(predictor, m) or steps,
            'description': feature.description,
            'reader': reader,
        }
    return {
        'made_by': MADE_BY,
        'version': __version__,
        'jax': jax.__version__,
        'format': 1,
        'kind': predictor.schema.label.kind,
        'labels': list(predictor.class_names or ('score',)),
        'inputs': inputs,
        'padding': 'on the right, zeros; <modality>_mask (B, T) bool is True where a step is one of the clip',
        'normalisation': 'inside the program: give features as the reader makes them',
        'batch': 'any' if program.any_batch else 1,
        'scores': 'mean over the models',
        **({'enrolled_clips_of_one_speaker': predictor.enrolled} if predictor.enrolled else {}),
        'models': [[member.name, int(seed)] for member in predictor.members for seed in member.seeds],
        'platforms': list(PLATFORMS),
    }


def write(folder: str | os.PathLike, predictor: Predictor, card: Any) -> tuple[Path, Program]:
    """Writes the folder whole or not at all; an earlier export in its place is replaced.

    card: (Program) -> README.md. FileExistsError where the folder holds anything else.
    """
    folder = Path(os.path.abspath(folder))
    check(folder)
    program = make_program(predictor)
    with atomic.making(folder, partial(atomic.remove_known, names=MARKS)) as new:
        (new / PROGRAM).write_bytes(program.exported.serialize())
        save_file(dict(program.params), new / PARAMS)
        shutil.copyfile(run_exported.__file__, new / SCRIPT)
        about = sums.seal(describe(predictor, program), new, (PROGRAM, PARAMS, SCRIPT), quick=True)
        (new / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
        (new / CARD).write_text(card(program), encoding='utf-8')
        check(folder)
    return folder, program


def check(folder: Path) -> None:
    """FileExistsError where the folder holds anything but an export."""
    check_folder(folder, {} if not (folder / ABOUT).exists() else MARKS)
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in found if name not in MARKS] or (found if found and ABOUT not in found else [])
    if foreign or folder.is_symlink():
        what = f'also holds {", ".join(foreign[:3])}' if foreign else 'is a symbolic link'
        raise FileExistsError(f'{folder} {what}: it is not replaced; choose another output')
