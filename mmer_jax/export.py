"""A finished run as a folder that runs without this toolkit: `python -m mmer_jax.export RUN --output model/`.

    python -m mmer_jax.export runs/mine --output model
    python -m mmer_jax.export runs/mine --output model --fold 0 --seed 0
    python -m mmer_jax.export runs/by_speaker --output her_model --enrol neutral_1.wav neutral_2.wav

Writes model.jax_export (a program for CPU, CUDA and TPU, normalisation inside), params.safetensors (the models of all
folds and seeds, whose scores it averages), preprocess.json (how a clip becomes arrays), run.py (which imports jax and
numpy alone) and README.md (a model card). What is written was run once, and compared with the run itself.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from mmer_jax.settings import command, ranges


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m mmer_jax.export', description='A finished run as a folder that runs without this toolkit.'
    )
    add = parser.add_argument
    add('workdir', type=Path, metavar='RUN', help='a finished run, or one of its fold folders')
    add('--output', type=Path, required=True, help='folder to write; an earlier export there is replaced')
    add('--fold', type=ranges.COUNT_OR_0, help='the models of one fold; all by default')
    add('--seed', type=ranges.SEED, help='the models of one seed; all by default')
    add('--calibrate', action='store_true', help='fit the probabilities to the validation split, by a temperature')
    add('--tokenizer', default='', help='folder of the tokenizer, where it is not where preparation found it')
    add('--glove', default='', help='file of word vectors, likewise')
    add('--enrol', type=Path, nargs='+', default=[], metavar='CLIP', help='clips of the one speaker it will be for')
    add(
        '--features',
        nargs='+',
        default=[],
        metavar='MODALITY=FOLDER',
        help='of the clips to enrol, extracted elsewhere',
    )
    add('--no_cache', action='store_true', help='compile anew')
    arguments = parser.parse_args(argv)
    if arguments.features and not arguments.enrol:
        parser.error('--features are of the clips to enrol: give --enrol, or leave them out')
    arguments.features = dict(command.feature_place(parser, text) for text in arguments.features)
    return arguments


def work(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec('flatbuffers') is None:
        raise ValueError(
            "jax.export writes programs with flatbuffers, which is missing: pip install 'mmer_jax[export]'"
        )
    from mmer_jax.prediction import clips, exported, load_predictor, model_card
    from mmer_jax.results.runs import read_run
    from mmer_jax.run import cache
    from mmer_jax.run.places import workdir_of

    cache.keep_programs(keep=not arguments.no_cache)
    exported.check(arguments.output)
    names = ('fold', 'seed', 'calibrate', 'tokenizer', 'glove')
    enrol = clips.find_to_enrol(arguments.enrol, arguments.features)
    predictor = load_predictor(arguments.workdir, enrol=enrol, **{name: getattr(arguments, name) for name in names})
    run = read_run(workdir_of(arguments.workdir))
    folder, program = exported.write(
        arguments.output, predictor, lambda program: model_card.write(predictor, program, run)
    )
    size = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    models = sum(len(member.seeds) for member in predictor.members)
    rows = 'any batch' if program.any_batch else 'one clip at a time'
    fixed = ', '.join(f'{m} of {steps} steps' for m, steps in program.steps.items() if steps)
    print(f'{folder}: {models} models, {rows}, {fixed or "any length"}, {", ".join(program.exported.platforms)}')
    print('  ' + ', '.join(f'{name} {bytes_ / 1e6:.2f} MB' for name, bytes_ in size.items()))
    print(f'  a random clip: within {program.difference:.1g} of the run')
    return command.OK


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return command.run(work, parse(argv))


if __name__ == '__main__':
    sys.exit(main())
