"""RAVDESS clips with one vector of OpenFace action units each -> record shards.

    python -m data_prep.ravdess_openface --table openface_au.npz --source <RAVDESS> --output data/ravdess_openface
    python -m data_prep.ravdess_openface --table openface_au.npz --source <RAVDESS> --audio log_mel --output DIR
    python -m data_prep.ravdess_openface --table openface_au.npz --audio values --output data/ravdess_openface_values

--table holds `ids` (N,), names MM-CC-EE-II-SS-RR-AA, and `feats` float32 (N, 294): 35 action-unit values (OpenFace 2.0,
Baltrusaitis et al. 2018: 17 intensities and 18 presences, one vector a clip), then 259 audio values. Only the first
35 are vision; the rest never enters it. The sound comes from the clips below --source (files are found by what was
performed, whatever their first field says), with the flags and defaults of data_prep.ravdess; with --audio values it
is the 259 values of the table, and no clips are needed.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import ravdess, sound_flags
from data_prep.pool import (
    PreparationError,
    Remark,
    Skipped,
    holds_nothing,
    missing,
    nothing_usable,
    process,
    run_command,
    summary,
)
from mmer_jax.data.records import Feature, Label, RecordWriter, Schema
from mmer_jax.files.npy import FAULTS, check_zip, why
from mmer_jax.media import MediaError
from mmer_jax.media.download import check_download
from mmer_jax.settings import ranges

ACTION_UNITS, VALUES = 35, 259
OF_CLIPS = tuple(features for features in ravdess.FEATURES if features != 'none')
CONFIGS = {
    'mfcc': 'configs/audio_visual_ravdess_openface.py:concat_fc',
    'log_mel': 'configs/tdnn_ravdess_openface.py:concat_fc',
}


def read_table(path: str | os.PathLike) -> dict[tuple[str, ...], np.ndarray]:
    """{take (ravdess.Clip.take): float32 (294,)}; PreparationError where the file is not such a table."""
    path, size = Path(path), ACTION_UNITS + VALUES
    try:
        check_download(path, 'arrays of NumPy (.npz)', but='zip archive')
        with open(path, 'rb') as opened:
            check_zip(opened)
        with open(path, 'rb') as opened, np.load(opened, allow_pickle=False) as file:
            missing = [key for key in ('ids', 'feats') if key not in file]
            if missing:
                raise PreparationError(f'{path} has no array {", ".join(missing)}; it has {", ".join(file) or "none"}')
            ids, features = file['ids'], file['feats']
    except PreparationError:
        raise
    except FAULTS as error:
        raise PreparationError(
            str(error) if isinstance(error, MediaError) else f'{path}: no .npz: {why(error)}'
        ) from error
    if ids.ndim != 1 or features.shape != (len(ids), size) or features.dtype.kind != 'f':
        found = f'ids {ids.shape} and feats {features.dtype} {features.shape}'
        raise PreparationError(f'{path} has {found}, expected (N,) and float32 (N, {size})')
    rows: dict[tuple[str, ...], np.ndarray] = {}
    for name, row in zip(ids.tolist(), features.astype(np.float32), strict=True):
        take = take_of(str(name))
        if take is None:
            raise PreparationError(f'{path}: id {name!r} is not MM-CC-EE-II-SS-RR-AA with known codes')
        if take in rows:
            raise PreparationError(f'{path}: id {name!r} occurs twice')
        if not np.isfinite(row).all():
            raise PreparationError(f'{path}: {name} has {int((~np.isfinite(row)).sum())} values that are not finite')
        rows[take] = row
    return rows


def take_of(name: str) -> tuple[str, ...] | None:
    """A file's name without suffix -> ravdess.Clip.take; None where it is no RAVDESS name."""
    match = ravdess.NAME.fullmatch(name)
    if match is None:
        return None
    _, channel, emotion, intensity, statement, repetition, actor = match.groups()
    return (actor, channel, emotion, intensity, statement, repetition)


def make_schema(settings: ravdess.Settings | None) -> Schema:
    """audio as data_prep.ravdess makes it under these settings, or of the table (259,) with None; vision (35,)."""
    vision = Feature((ACTION_UNITS,), description='OpenFace action units, one vector a clip', optional=True)
    info: dict[str, Any] = {'dataset': 'ravdess', 'made_by': 'data_prep.ravdess_openface'}
    if settings is None:
        sound = Feature((VALUES,), description='audio values of the table, one vector a clip', optional=True)
        name, info['audio'] = 'values', 'values'
    else:
        sound, name = ravdess.make_schema(settings).features['audio'], settings.features
        info |= {'audio': name, **{key: getattr(settings, key) for key in sound_flags.NAMES}}
    name = 'ravdess_openface' if name == 'mfcc' else f'ravdess_openface_{name}'
    return Schema(name, {'audio': sound, 'vision': vision}, Label('classes', ravdess.EMOTIONS), info)


def prepare(
    table: str | os.PathLike,
    output: str | os.PathLike,
    *,
    source: Path | None = None,
    settings: ravdess.Settings | None = None,
    workers: int = 0,
    num_shards: int = 4,
    overwrite: bool = False,
) -> tuple[int, list[tuple[str, Skipped]], list[tuple[str, Remark]]]:
    """Writes the shard directory: (number of records, what was skipped, remarks on records).

    source None: the table's own audio values; else the sound of its clips by `settings`, the MFCCs of data_prep.ravdess
    by default. A vector of zeros is a missing modality, as silence is. PreparationError where nothing can be written,
    FileExistsError where `output` exists without `overwrite`.
    """
    if source is None and settings is not None:
        raise ValueError('settings are of the sound of clips, whose folder is `source`')
    rows = read_table(table)
    settings = settings or ravdess.Settings()
    skipped: list[tuple[str, Skipped]] = []
    remarks: list[tuple[str, Remark]] = []
    schema, count = make_schema(None if source is None else settings), 0
    options: dict[str, Any] = {'num_shards': num_shards, 'overwrite': overwrite, 'sources': [table, source or table]}
    with RecordWriter(output, schema, **options) as writer:
        if source is None:
            for take, row in sorted(rows.items()):
                actor, channel, emotion, intensity, statement, repetition = take
                path = Path('-'.join(('01', *take[1:], actor)))
                clip = ravdess.Clip(actor, channel, emotion, intensity, statement, repetition, '01', path)
                record = {'id': clip.path.name, 'label': int(clip.emotion) - 1, 'audio': row[ACTION_UNITS:]}
                writer.write(_without_zeros({**record, 'vision': row[:ACTION_UNITS]}, remarks), **clip.columns())
                count += 1
        else:
            clips, skipped = ravdess.list_clips(source)
            found = {clip.take for clip in clips}
            skipped += [('-'.join(take), Skipped('in the table, but no clip')) for take in rows if take not in found]
            for job, result in process(
                ravdess.read_clip, _jobs(clips, rows, settings, skipped), workers=workers, description='openface'
            ):
                if isinstance(result, Skipped):
                    skipped.append((job.clip.path.name, result))
                    continue
                record = {**result['record'], 'vision': rows[job.clip.take][:ACTION_UNITS]}
                writer.write(_without_zeros(record, remarks), **result['columns'])
                count += 1
        if not count:
            raise nothing_usable(f'no clip below {source} is in {table} and can be read', skipped, ravdess.LAYOUT)
    return count, skipped, remarks


def _without_zeros(record: dict[str, Any], remarks: list[tuple[str, Remark]]) -> dict[str, Any]:
    """The record with None for what holds nothing, which the remarks say."""
    lacks = {}
    for m in ('audio', 'vision'):
        if record[m] is None:
            lacks[m] = 'silence'
        elif holds_nothing(record[m]):
            lacks[m], record[m] = 'zeros throughout', None
    remarks += [(record['id'], remark) for remark in missing(lacks, ('audio', 'vision'))]
    return record


def _jobs(clips: list[ravdess.Clip], rows: Mapping, settings: ravdess.Settings, skipped: list) -> list[ravdess.Job]:
    skipped += [(clip.path.name, Skipped('not in the table')) for clip in clips if clip.take not in rows]
    return [ravdess.Job(clip, settings) for clip in clips if clip.take in rows]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m data_prep.ravdess_openface',
        description='RAVDESS with OpenFace action units -> record shards.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('--table', type=Path, required=True, help='.npz with ids and feats')
    add('--source', type=Path, help='folder with Actor_XX folders somewhere below it; not with --audio values')
    add('--audio', choices=(*OF_CLIPS, 'values'), default='mfcc', help="of the clips, or the table's own values")
    add('--output', type=Path, required=True, help='shard directory to write')
    ravdess.add_sound_flags(parser, ravdess.chosen_features(argv, '--audio'))
    add('--workers', type=ranges.PROCESSES, default=os.cpu_count() or 1, help='processes; 0 or 1: this one')
    add('--num_shards', type=ranges.SHARDS, default=4, help='files to spread the records over')
    add('--overwrite', action='store_true', help='replace an existing output')
    arguments = parser.parse_args(argv)
    if arguments.audio == 'values' and arguments.source:
        parser.error('--audio values takes no --source: its sound is that of the table')
    if arguments.audio != 'values' and not arguments.source:
        parser.error(f'--audio {arguments.audio} needs --source, the folder of the clips')
    given = [name for name in sound_flags.NAMES if getattr(arguments, name) != parser.get_default(name)]
    if arguments.audio == 'values' and given:
        parser.error(f'--{given[0]} is of the sound of clips, and --audio values takes none')
    sound_flags.check_rate(parser, arguments.audio, arguments.sample_rate)
    return arguments


def work(arguments: argparse.Namespace) -> None:
    options = {name: getattr(arguments, name) for name in ('source', 'workers', 'num_shards', 'overwrite')}
    if arguments.audio != 'values':
        sound = {name: getattr(arguments, name) for name in sound_flags.NAMES}
        options['settings'] = ravdess.Settings(features=arguments.audio, **sound)
    count, skipped, remarks = prepare(arguments.table, arguments.output, **options)
    print(f'{count} clips -> {arguments.output}')
    summary(skipped, remarks)
    print(f'next: python -m mmer_jax.records verify {arguments.output}')
    if config := CONFIGS.get(arguments.audio):
        print(f'      python -m mmer_jax.main --config={config} --config.data.directory={arguments.output}')


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_command(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
