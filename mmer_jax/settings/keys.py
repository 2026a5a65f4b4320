"""What every key of a config may be, in one place, and the check of a whole config before anything is loaded.

`KEYS` has a line for each key of configs/base.py. Keys below the open dictionaries (`OPEN`) follow from what they are
for: losses and their weights, options of the protocol, fields of the model's modules (model_fields.py).
"""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmer_jax.data.augment import AUGMENTATIONS
from mmer_jax.data.enrolment import MODES, NORMALIZE_BY
from mmer_jax.data.protocols import PROTOCOLS
from mmer_jax.data.schema import MODALITIES
from mmer_jax.run.choices import COMPUTE_DTYPES, OPTIMIZERS, SCHEDULES, SEEDS_BY, TRACKERS
from mmer_jax.settings import ranges, space

AUTO, TASK = 'auto', 'task'  # what settings/follow_data.py fills in
NAMES, PATTERNS = ranges.Items(ranges.NAME), ranges.Items(ranges.Text(pattern=True, filled=True))
KEYS: dict[str, ranges.Kind] = {
    'name': ranges.NAME,
    'variant': ranges.TEXT,
    'debug': ranges.FLAG,
    'modalities': NAMES,
    'data.directory': ranges.TEXT,
    'data.batch_size': ranges.COUNT,
    'data.eval_batch_size': ranges.COUNT_OR_0,
    'data.max_shapes': ranges.COUNT,
    'data.normalize': ranges.Items(ranges.Text((*MODALITIES, AUTO))),
    'data.normalize_by': ranges.Text(NORMALIZE_BY),
    'data.enrolment.mode': ranges.Text(MODES),
    'data.enrolment.clips': ranges.COUNT,
    'data.enrolment.label': ranges.TEXT,
    'data.enrolment.seed': ranges.NUMPY_SEED,
    'data.augment': ranges.Items(ranges.Anything("('name', {options})")),
    'data.workers': ranges.PROCESSES,
    'data.threads': ranges.Number(int, low=1, high=1024),
    'protocol.name': ranges.Text(tuple(PROTOCOLS)),
    'fresh': PATTERNS,
    'compute_dtype': ranges.Text(COMPUTE_DTYPES),
    'seed': ranges.SEED,
    'seeds': ranges.COUNT,
    'seeds_by': ranges.Text(SEEDS_BY),
    'data_seed': ranges.NUMPY_SEED,
    'epochs': ranges.COUNT,
    'label_smoothing': ranges.BELOW_1,
    'mixup': ranges.NOT_NEGATIVE,
    'accumulate': ranges.COUNT,
    'optimizer.name': ranges.Text(OPTIMIZERS),
    'optimizer.learning_rate': ranges.POSITIVE,
    'optimizer.schedule': ranges.Text(SCHEDULES),
    'optimizer.warmup': ranges.FRACTION,
    'optimizer.weight_decay': ranges.NOT_NEGATIVE,
    'optimizer.b1': ranges.BELOW_1,
    'optimizer.b2': ranges.BELOW_1,
    'optimizer.momentum': ranges.BELOW_1,
    'optimizer.freeze': PATTERNS,
    'optimizer.no_decay': PATTERNS,
    'optimizer.layer_decay': ranges.Number(float, above=0, high=1),
    'optimizer.clip_norm': ranges.NOT_NEGATIVE,
    'optimizer.clip_alone': PATTERNS,
    'optimizer.clip_value': ranges.NOT_NEGATIVE,
    'optimizer.average': ranges.BELOW_1,
    'selection.metric': ranges.NAME,
    'selection.folds': ranges.Number(int, low=2, high=ranges.LARGEST, also=(0,)),
    'selection.patience': ranges.COUNT_OR_0,
    'selection.plateau_patience': ranges.COUNT_OR_0,
    'selection.plateau_factor': ranges.BETWEEN_0_AND_1,
    'search': ranges.Items(ranges.Anything(space.WORDS)),
    'mesh.seed': ranges.COUNT,
    'mesh.data': ranges.Number(int, low=1, high=ranges.LARGEST, also=(-1,)),
    'log_every': ranges.COUNT,
    'checkpoint_every': ranges.COUNT_OR_0,
    'tensorboard': ranges.FLAG,
    'tracker': ranges.Text(TRACKERS),
    'headline': NAMES,
    'evaluate_train': ranges.FLAG,
}
OPEN = ('data.max_length', 'protocol.options', 'model', 'pretrained', 'start_from', 'losses', 'published')
# Options of protocols and augmentations, by name; where two of one name differ, by (function, name).
OPTIONS: dict[Any, ranges.Kind] = {
    'folds': ranges.Number(int, low=2, high=ranges.LARGEST),
    ('speaker_disjoint_random', 'folds'): ranges.COUNT,
    'validation_sessions': ranges.COUNT,
    'test_sessions': ranges.COUNT,
    'validation_speakers': ranges.COUNT,
    'speakers_per_fold': ranges.COUNT,
    'max_folds': ranges.Number(int, low=2, high=ranges.LARGEST),
    'balance': ranges.NAME,
    'test_fraction': ranges.BETWEEN_0_AND_1,
    'validation_fraction': ranges.BETWEEN_0_AND_1,
    ('random_clips_shared_speakers', 'validation_fraction'): ranges.BELOW_1,
    'seed': ranges.NUMPY_SEED,
    'selection': ranges.Text(('validation', 'test')),
    'modality': ranges.Text(MODALITIES),
    'steps': ranges.COUNT,
    'count': ranges.COUNT,
    'bins': ranges.COUNT,
    ('frequency_shift', 'bins'): ranges.POSITIVE,
    'size': ranges.COUNT,
    'scale': ranges.Items(ranges.POSITIVE, 2),
    ('gaussian_noise', 'scale'): ranges.POSITIVE,
    'ratio': ranges.Items(ranges.POSITIVE, 2),
    'probability': ranges.FRACTION,
    'per': ranges.Text(('clip', 'frame')),
}
ONE_BY_ONE = {  # why a key does not go with inner folds
    'selection.patience': 'curves of unequal length have no mean',
    'selection.plateau_patience': 'the final training has no validation to lower its rate by',
}
PUBLISHED = ranges.optional(ranges.FINITE)


def check_config_values(config: Any, *, own_model: bool = False) -> None:
    """ValueError, one line naming every key whose value is outside its range, unknown or missing.

    own_model: a module is given instead of config.model, which is then not looked at.
    """
    faults = list(config_faults(config.to_dict(), own_model=own_model))
    if faults:
        raise ValueError('; '.join(faults))


def config_faults(values: Mapping[str, Any], *, own_model: bool = False) -> Iterator[str]:
    """The faults of a whole config, one line each, in the order of its keys."""
    flat = dict(leaves(values))
    for key in flat:
        if key not in KEYS and key not in OPEN:
            yield f'config.{key} is no key{suggestion(key, [*KEYS, *OPEN])}; configs/base.py has all of them'
    missing = [key for key in [*KEYS, *OPEN] if key not in flat]
    if missing:
        yield f'the config lacks {", ".join(missing)}; begin it with get_base of configs/base.py'
    for key, kind in KEYS.items():
        if key in flat and (fault := kind.fault(flat[key])):
            yield f'config.{key}: {fault}'
    for key in OPEN:
        if key in flat and not isinstance(flat[key], Mapping):
            yield f'config.{key}: found {flat[key]!r}, expected a dictionary'
        elif key in flat and not (key == 'model' and own_model):
            yield from OPEN_FAULTS[key](flat[key], flat)
    if not missing:
        yield from _together(flat)


def leaves(values: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """('data.batch_size', 32), ... of nested dictionaries; an open dictionary is one value."""
    for name, value in values.items():
        key = f'{prefix}{name}'
        if isinstance(value, Mapping) and key not in OPEN:
            yield from leaves(value, f'{key}.')
        else:
            yield key, value


def suggestion(key: str, known: Sequence[str]) -> str:
    """' (did you mean ...?)' for a misspelt key, or ''."""
    near = difflib.get_close_matches(key, known, 1, 0.75)
    return f' (did you mean {near[0]}?)' if near else ''


def option_kinds(function: Callable, name: str, skip: int = 0) -> dict[str, ranges.Kind]:
    """What the options of a protocol or augmentation may be; None too where it is the default."""
    kinds = {}
    for option, parameter in list(inspect.signature(function).parameters.items())[skip:]:
        kind = OPTIONS.get((name, option), OPTIONS.get(option))
        if kind is None:
            simple: dict[Any, ranges.Kind] = {'bool': ranges.FLAG, 'str': ranges.TEXT}
            kind = simple.get(getattr(parameter.annotation, '__name__', parameter.annotation), ranges.Anything())
        kinds[option] = ranges.optional(kind) if parameter.default is None else kind
    return kinds


def _losses() -> Sequence[str]:
    from mmer_jax.losses import LOSSES  # with jax, for which a command's help does not wait

    return tuple(LOSSES)


def _model_faults(values: Mapping[str, Any]) -> Iterator[str]:
    from mmer_jax.settings import model_fields  # with flax and all models

    return model_fields.faults(values)


def protocol_kinds(name: str) -> dict[str, ranges.Kind]:
    return option_kinds(PROTOCOLS[name], name, skip=1) if name in PROTOCOLS else {}


def _each(where: str, values: Mapping[str, Any], kinds: Mapping[str, ranges.Kind], whose: str) -> Iterator[str]:
    """Faults of the values of one dictionary, whose known names are those of `kinds`."""
    for name, value in values.items():
        if name not in kinds:
            near, known = suggestion(name, list(kinds)), ranges.join(list(kinds))
            yield f'{where}.{name}: {whose} has no {name}{near}; known: {known}'
        elif fault := kinds[name].fault(value):
            yield f'{where}.{name}: {fault}'


def open_kinds(key: str, flat: Mapping[str, Any]) -> Mapping[str, ranges.Kind] | None:
    """The kinds by name below an open dictionary other than the model; None where any name is good."""
    if key == 'losses':
        return dict.fromkeys((*_losses(), TASK), ranges.NOT_NEGATIVE)
    if key == 'data.max_length':
        return dict.fromkeys(MODALITIES, ranges.COUNT)
    if key == 'protocol.options':
        return protocol_kinds(flat['protocol.name'])
    return None


def named_kind(key: str, name: str) -> ranges.Kind:
    """What a value of an open dictionary with free names may be: weights, runs, published numbers."""
    if key == 'published':
        return ranges.NAME if name in ('source', 'dataset') else PUBLISHED
    return ranges.NAME


def _open_faults(key: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Iterator[str]]:
    def faults(values, flat):
        kinds = open_kinds(key, flat)
        whose = f'protocol {flat["protocol.name"]}' if key == 'protocol.options' else f'config.{key}'
        if key == 'protocol.options' and flat['protocol.name'] not in PROTOCOLS:
            return  # named already
        known = {name: named_kind(key, name) for name in values} if kinds is None else kinds
        yield from _each(f'config.{key}', values, known, whose)

    return faults


OPEN_FAULTS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Iterator[str]]] = {
    **{key: _open_faults(key) for key in OPEN if key != 'model'},
    'model': lambda values, flat: _model_faults(values),
}


def _together(flat: Mapping[str, Any]) -> Iterator[str]:
    """What several keys must be together."""
    size, parts, seed, seeds = (flat[key] for key in ('data.batch_size', 'accumulate', 'seed', 'seeds'))
    if _whole(size, parts) and size % parts:
        yield f'config.accumulate: found {parts}, expected a divisor of config.data.batch_size = {size}'
    if _whole(seed + 1 if type(seed) is int else seed, seeds) and seed + seeds - 1 > ranges.LARGEST:
        yield f'config.seed: found {seed} and {seeds} seeds, expected a last seed of at most {ranges.LARGEST}'
    if _whole(seeds, flat['mesh.seed']) and seeds % flat['mesh.seed']:
        yield f'config.mesh.seed: found {flat["mesh.seed"]}, expected a divisor of config.seeds = {seeds}'
    if flat['selection.folds']:
        for key in ONE_BY_ONE:
            if flat[key]:
                yield f'config.{key}: found {flat[key]!r}, expected none with config.selection.folds: {ONE_BY_ONE[key]}'
    if flat['data.normalize_by'] == 'speaker' and not flat['data.normalize']:
        yield "config.data.normalize: found (), expected what is normalised by speaker, such as ('audio',)"
    weights = flat['losses']
    if isinstance(weights, Mapping) and not any(weights.values()):
        yield f'config.losses: found {dict(weights)}; name one or more of {", ".join(_losses())}, with a weight above 0'
    modalities = flat['modalities']
    if isinstance(modalities, tuple | list):
        wrong = [m for m in modalities if m not in MODALITIES]
        if wrong or len(set(modalities)) < len(modalities):
            yield f'config.modalities: found {tuple(modalities)}, expected one to three of {", ".join(MODALITIES)}'
    if isinstance(flat['data.augment'], tuple | list):
        yield from _augment_faults(flat['data.augment'])
    if isinstance(flat['search'], tuple | list):
        yield from space.faults(flat['search'], lambda key: kind_of(flat, key), flat['selection.metric'])


def _whole(*values: Any) -> bool:
    return all(type(value) is int and value > 0 for value in values)


def _augment_faults(entries: Sequence[Any]) -> Iterator[str]:
    for number, entry in enumerate(entries):
        where = f'config.data.augment[{number}]'
        if not isinstance(entry, tuple | list) or len(entry) != 2 or not isinstance(entry[1], Mapping):
            yield f"{where}: found {entry!r}, expected ('name', {{'modality': ..., ...}})"
        elif entry[0] not in AUGMENTATIONS:
            yield f'{where}: found {entry[0]!r}, expected one of {", ".join(AUGMENTATIONS)}'
        else:
            function = AUGMENTATIONS[entry[0]]
            yield from _each(where, entry[1], option_kinds(function, entry[0]), entry[0])
            needed = [n for n, p in inspect.signature(function).parameters.items() if p.default is p.empty]
            if absent := [name for name in needed if name not in entry[1]]:
                yield f'{where}: {entry[0]} needs {", ".join(absent)}'


# ---- one key ---------------------------------------------------------------------------------------------------


def kind_of(values: Mapping[str, Any], key: str) -> ranges.Kind | None:
    """What config.<key> may be, None for an open dictionary as a whole; ValueError lists the known keys."""
    if key in KEYS:
        return KEYS[key]
    if key in OPEN:
        return None
    above = next((name for name in OPEN if key.startswith(f'{name}.')), None)
    if above == 'model':
        return _kind_of_field(values['model'], key)
    if above is not None:
        name, flat = key[len(above) + 1 :], dict(leaves(values))
        kinds = open_kinds(above, flat)
        if kinds is None:
            return named_kind(above, name)
        if name not in kinds:
            whose = f'protocol {flat["protocol.name"]}' if above == 'protocol.options' else f'config.{above}'
            near = suggestion(name, list(kinds))
            raise ValueError(f'config.{key}: {whose} has no {name}{near}; known: {ranges.join(list(kinds))}')
        return kinds[name]
    raise ValueError(_no_key(values, key))


def _no_key(values: Mapping[str, Any], key: str) -> str:
    known = [*KEYS, *OPEN]
    below = [name for name in known if name.startswith(f'{key}.')]
    if below:
        return f'config.{key} holds several values; set one of {", ".join(below)}'
    whole = next((name for name in KEYS if key.startswith(f'{name}.')), None)
    if whole:
        return f'config.{key} is no key: config.{whole} is one value, {KEYS[whole].words}'
    parent = key.rpartition('.')[0]
    while parent and not any(name.startswith(f'{parent}.') for name in known):
        parent = parent.rpartition('.')[0]
    inside = [name for name in known if name.startswith(f'{parent}.')] if parent else known
    shown = dict.fromkeys(name.removeprefix(f'{parent}.').split('.')[0] for name in inside)
    group = f'config.{parent}' if parent else 'config'
    return f'config.{key} is no key{suggestion(key, known)}; {group} has {", ".join(shown)}'


def _kind_of_field(model: Mapping[str, Any], key: str) -> ranges.Kind | None:
    """What a field of config.model may be, by the modules that are named above it."""
    from mmer_jax.settings import model_fields  # with flax and all models

    path, where, node, of = key.split('.')[1:], 'model', model, 'model'
    for number, part in enumerate(path):
        what, table = model_fields.table_of(of)
        if part == 'name' and number == len(path) - 1:
            return ranges.Text(tuple(table))
        module = table.get(node.get('name', ''))
        if module is None:
            named = f'config.{where}.name to one of {", ".join(table)}'
            raise ValueError(f'config.{key}: config.{where} names no {what}; set {named}')
        fields = model_fields.fields_of(module)
        if part in model_fields.GIVEN:
            raise ValueError(f'config.{key} cannot be set: the data and config.compute_dtype decide it')
        if part not in fields:
            found = f'{module.__name__} has no field {part}{suggestion(part, list(fields))}'
            raise ValueError(f'config.{key}: {found}; {model_fields.known_words(module)}')
        if number == len(path) - 1:
            return None if model_fields.is_module(fields[part]) else model_fields.kind_of(part, fields[part])
        if not model_fields.is_module(fields[part]):
            words = model_fields.kind_of(part, fields[part]).words
            raise ValueError(f'config.{key} is no key: config.{where}.{part} is one value, {words}')
        below = node.get(part)
        node, where, of = below if isinstance(below, Mapping) else {}, f'{where}.{part}', part
    raise AssertionError(key)
