"""Trains and evaluates one config: `python -m mmer_jax.main --config=configs/quickstart.py [--workdir=DIR]`.

`--config=FILE:VARIANT` takes a named variant, `--config.optimizer.learning_rate=1e-4` changes one value. On a pod,
start the same command once on every host with --distributed (or with the three coordinator flags).
"""

import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from mmer_jax.train import train_and_evaluate

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file('config', None, 'File of the experiment, with :variant.', lock_config=True)
flags.DEFINE_string('workdir', None, 'Folder of results and checkpoints; default runs/<config>[_<variant>].')
flags.DEFINE_list('folds', None, 'Numbers of the folds to run, all by default: --folds=0,2')
flags.DEFINE_bool('distributed', False, 'Join the other processes of a pod that the cluster describes.')
flags.DEFINE_string('coordinator', None, 'host:port of process 0, to join processes by hand.')
flags.DEFINE_integer('num_processes', None, 'Number of processes, with --coordinator.')
flags.DEFINE_integer('process_id', None, 'Number of this process, with --coordinator.')
flags.mark_flag_as_required('config')


def main(argv: list[str]) -> int:
    if len(argv) > 1:
        raise app.UsageError(f'unexpected arguments {argv[1:]}; options start with --')
    logging.set_verbosity(logging.WARNING)  # orbax and jax tell of every save
    if FLAGS.coordinator:
        jax.distributed.initialize(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    elif FLAGS.distributed:
        jax.distributed.initialize()
    config = FLAGS.config
    workdir = FLAGS.workdir or f'runs/{config.name}' + (f'_{config.variant}' if config.variant else '')
    folds = None if FLAGS.folds is None else [int(number) for number in FLAGS.folds]
    try:
        results = train_and_evaluate(config, workdir, folds=folds)
    except (ValueError, TypeError, FloatingPointError, FileNotFoundError) as error:
        if FLAGS.config.debug:
            raise
        print(f'error: {error}', file=sys.stderr)
        return 1
    if jax.process_index() == 0:
        for row in results['rows']:
            shown = ', '.join(f'{name} {row["test"][name]:.4f}' for name in results['headline'])
            print(f'{row["fold"]} seed {row["seed"]}: best epoch {row["best_epoch"]} of {row["epochs"]}, test {shown}')
        print(f'results in {workdir}; table and pictures: python -m mmer_jax.report {workdir}')
    return 0


if __name__ == '__main__':
    app.run(main)
