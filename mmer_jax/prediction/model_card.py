"""README.md beside an exported model: what it is, what it was measured to do, what it is for and where it ends."""

from collections.abc import Mapping
from typing import Any

from mmer_jax.prediction.exported import Program
from mmer_jax.prediction.predictor import Predictor
from mmer_jax.results.page import Block, Code, Heading, Notes, Table, Text, markdown
from mmer_jax.results.runs import Run, caution
from mmer_jax.results.summary import column_title, finite_mean, format_number, format_summary, summarise

CAVEATS = (
    'It says what an actor or a speaker shows, or what annotators called it, not what a person feels.',
    'Its numbers hold for clips like those of its data set. Other languages, ages, microphones, cameras, rooms and '
    'classes are another task: measure before you rely on it.',
    'It is not for decisions on people: hiring, schooling, insurance, policing, medicine.',
)


FLOOR = 'The floor is the best constant answer.'
AVERAGE = (
    ' Each model was measured on its own test records. The average of all of them, which is exported, was not: each '
    'has seen test records of the others in training.'
)


def write(predictor: Predictor, program: Program, run: Run) -> str:
    """The card of a finished run."""
    results = run.results
    models = [f'{member.name}, seed {seed}' for member in predictor.members for seed in member.seeds]
    inputs = [_input(predictor, program, m) for m in predictor.modalities]
    rows = 'a batch of any size' if program.any_batch else 'one clip at a time'
    size = sum(array.nbytes for array in program.params.values())
    blocks: list[Block] = [
        Heading(f'{run.name} on {results["dataset"]}', 1),
        Text('An emotion recognition model, made by mmer_jax.export. It needs jax, and nothing of mmer_jax:'),
        Code('pip install jax flatbuffers\npython run.py clip.npz'),
        Text('`clip.npz` holds one array per modality, as `preprocess.json` says; the scores are printed as JSON.'),
        Heading('What it is'),
        Table(
            ['', ''],
            [
                ['answers', ', '.join(predictor.class_names) or 'a number (score)'],
                *[[f'input, {m}', text] for m, text in zip(predictor.modalities, inputs, strict=True)],
                ['network', f'{results["model"]}, {results["parameters"]:,} parameters'],
                ['models', f'{len(models)}, whose scores are averaged: {"; ".join(models)}'],
                ['shapes', f'{rows}; platforms {", ".join(program.exported.platforms)}'],
                ['size', f'{size / 1e6:.1f} MB of parameters in params.safetensors, float32'],
                ['config', run.name],
                ['made with', f'mmer_jax {results.get("version", "unknown")}, jax {results.get("jax", "unknown")}'],
                *_origin(results.get('provenance')),
            ],
        ),
        Heading('What it was measured to do'),
        *_metrics(run),
        Heading('What it is for'),
        Text(
            'Research on emotion recognition, and applications whose clips are like those of the data set and whose '
            'errors harm nobody.'
        ),
        Heading('Limits'),
        Notes('Known before you use it:', [*_of_speaker(predictor), *CAVEATS, *_of_scores(predictor)]),
    ]
    return markdown(blocks)


def _of_speaker(predictor: Predictor) -> list[str]:
    if not predictor.enrolled:
        return []
    clips = f'{predictor.enrolled} {"clip" if predictor.enrolled == 1 else "clips"}'
    return [f'It is for one speaker alone: features are normalised by {clips} of that speaker.']


def _of_scores(predictor: Predictor) -> list[str]:
    if predictor.schema.label.kind == 'regression':
        return ['The score is on the scale of the data set, and its errors are largest at the ends of that scale.']
    warm = any((member.temperatures != 1).any() for member in predictor.members)
    how = 'calibrated on the validation split' if warm else 'not calibrated: a score of 90 % may be right less often'
    return [
        'It knows the classes above and no others; a clip without an emotion gets scores too, and so does noise.',
        f'Scores are averages over models, {how}.',
    ]


def _input(predictor: Predictor, program: Program, modality: str) -> str:
    feature, steps = predictor.schema.features[modality], program.steps[modality]
    length = 'any number of steps' if steps is None else f'{steps} steps, padded; longer clips are cut'
    return f'{feature.description or "features"}; {feature.dtype}, {length}'


def _origin(provenance: Any) -> list[list[str]]:
    """Commit of the toolkit and checksum of the data, where the run remembers them; no paths, for a card is shared."""
    if not isinstance(provenance, Mapping):
        return []
    toolkit = (provenance.get('git') or {}).get('toolkit') or {}
    changed = '' if toolkit.get('clean') else ', or changed since'
    rows = [['commit of the toolkit', f'{toolkit["commit"]}{changed}']] if toolkit.get('commit') else []
    return rows + ([['checksum of the data', str(provenance['data'])]] if provenance.get('data') else [])


def _metrics(run: Run) -> list[Block]:
    """Test metrics of the whole run beside the floor, and what makes them dishonest."""
    rows = []
    for metric in run.results['headline']:
        floor = finite_mean(run.values(metric, 'floor'))
        rows.append(
            [column_title(metric), format_summary(metric, summarise(run.values(metric))), format_number(metric, floor)]
        )
    folds, seeds = run.values(run.results['headline'][0]).shape
    blocks: list[Block] = [
        Table(['metric', 'test', 'floor'], rows, numbers=True),
        Text(
            f'Protocol {run.results["protocol"]}, {folds} folds x {seeds} seeds. {FLOOR}{AVERAGE if folds > 1 else ""}'
        ),
    ]
    marks = list(dict.fromkeys(mark for row in run.results['rows'] for mark in row['marks']))
    return [*blocks, *([Notes('Marks of the protocol', [caution(marks)])] if marks else [])]
