"""Enrolment at prediction: clips of the speaker, by which a run normalises that was trained to (data/enrolment.py)."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mmer_jax.data.enrolment import LEAST, Enrolment, of_config
from mmer_jax.data.schema import RecordError
from mmer_jax.media import MediaError
from mmer_jax.readers import Clip, Reader, read_record

Arrays = Mapping[str, Sequence[np.ndarray]]  # of the enrolment clips, by modality
Of = str | Path | Clip


def read_clips(config: ConfigDict, enrol: Iterable[Of], readers: Sequence[Reader], where: Path) -> Arrays:
    """The arrays of the clips to enrol, files or Clips, by the modalities that are normalised; {} for a run that needs
    none.

    ValueError in one line where the run in `where` needs clips and there are too few, or needs none and there are
    some, or one cannot be read.
    """
    known, clips = of_config(config.data), [_clip(one) for one in enrol]
    if known is None or not known.is_known:
        if clips:
            raise ValueError(f'{where} was not trained with clips of the speaker: leave --enrol out')
        return {}
    if not clips:
        raise ValueError(
            f'{where} was trained with {known.marks[0]}: give {_wanted(known)} or more clips of the speaker, '
            'mmer_jax.predict --enrol CLIP ..., or in Python load_predictor(RUN, enrol=[...])'
        )
    found: dict[str, list[np.ndarray]] = {m: [] for m in config.data.normalize}
    for clip in clips:
        if clip.path is not None and not clip.path.is_file():
            raise ValueError(f'{clip.path}: the clip to enrol is {"a folder" if clip.path.is_dir() else "missing"}')
        try:
            arrays, _, _ = read_record(clip, readers)
        except (MediaError, RecordError) as error:
            raise ValueError(f'the clip to enrol cannot be read: {error}') from error
        for m in found:
            if arrays[m] is not None:
                found[m].append(np.asarray(arrays[m]))
    for m, arrays_of_m in found.items():
        if len(arrays_of_m) < _wanted(known):
            raise ValueError(
                f'{where} was trained with {known.marks[0]}: {len(arrays_of_m)} of {len(clips)} clips to enrol have '
                f'{m}, expected {_wanted(known)} or more'
            )
    return found


def _wanted(known: Enrolment) -> int:
    return known.clips if known.mode == 'enrolled' else LEAST


def _clip(one: Of) -> Clip:
    return one if isinstance(one, Clip) else Clip(str(one), Path(one))


def statistics_for(config: ConfigDict, statistics: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    """By modality (mean, deviation): those of the run, or by a run's and the speaker's clips."""
    known = of_config(config.data)
    if known is None or not arrays:
        return dict(statistics)
    return {m: found.of_arrays(arrays[m], known.mode) for m, found in statistics.items()}
