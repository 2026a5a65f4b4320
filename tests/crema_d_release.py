"""A folder in CREMA-D's layout from real clips of a face: RAVDESS's, renamed, for tests of the whole pipeline.

The pictures become flash video of the codec that CREMA-D has, the sound stays with them and is written as wav too.
All clips are of one actor; the clips of each emotion are dealt to several made-up actors, so that folds by speaker
exist. What is learned on them says nothing, for a made-up actor that is tested looks like one that was trained on.
"""

import csv
import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

from data_prep import crema_d_layout as layout
from mmer_jax.media import audio

# RAVDESS's number of an emotion -> CREMA-D's code. Surprise, which CREMA-D has not, is what fear is most taken for.
CODES = {'01': 'NEU', '03': 'HAP', '04': 'SAD', '05': 'ANG', '06': 'FEA', '07': 'DIS', '08': 'FEA'}
LEVELS = {'01': 'LO', '02': 'HI'}  # RAVDESS's intensity, normal and strong
SENTENCES = ('IEO', *(sentence for sentence in layout.SENTENCES if sentence != 'IEO'))  # IEO alone has levels
RATE = 16000
VOTES = 10  # by everybody who heard, saw, or both; the tables' votes are made up


@dataclasses.dataclass(frozen=True)
class Renamed:
    """A clip's name here, and the file that it was made from."""

    id: str
    source: Path


def choose(folder: Path, clips: int | None, actors: int) -> list[Renamed]:
    """The first `clips` of the mp4 files in `folder`, emotions in turn, dealt to `actors` with their new names."""
    by_code: dict[str, list[Path]] = {code: [] for code in layout.CODES}
    for path in sorted(folder.glob('*.mp4')):
        by_code[CODES[path.stem.split('-')[2]]].append(path)
    longest = max(map(len, by_code.values()))
    turns = [(code, turn) for turn in range(longest) for code in layout.CODES if turn < len(by_code[code])]
    found: list[Renamed] = []
    for code, turn in turns[:clips]:
        path, place = by_code[code][turn], turn // actors
        sentence = SENTENCES[place]
        level = LEVELS[path.stem.split('-')[3]] if sentence == 'IEO' else 'XX'
        found.append(Renamed(f'{1001 + turn % actors}_{sentence}_{code}_{level}', path))
    return found


def write_release(
    folder: Path, source: Path, *, clips: int | None = None, actors: int = 6, size: int = 224
) -> list[Renamed]:
    """Writes VideoFlash, AudioWAV and the csv tables into `folder` from the mp4 files of `source`.

    clips: how many, all by default; the first ones are the six emotions of the first actor, of the second, and so
    on. size: side of the square pictures.
    """
    for name in layout.FOLDERS:
        (folder / name).mkdir(parents=True)
    chosen = choose(source, clips, actors)
    for clip in chosen:
        samples, rate = audio.load_audio(clip.source, RATE)
        soundfile.write(folder / 'AudioWAV' / f'{clip.id}.wav', samples, rate, subtype='PCM_16')
        write_flv(clip.source, folder / 'VideoFlash' / f'{clip.id}.flv', size)
    write_tables(folder, chosen)
    return chosen


def write_flv(source: Path, path: Path, size: int) -> None:
    """Flash video of all frames of `source` at their times, and its sound without coding it again."""
    with av.open(str(source)) as clip, av.open(str(path), 'w') as container:
        pictures, sound = clip.streams.video[0], clip.streams.audio[0]
        made = container.add_stream('flv', rate=round(float(pictures.average_rate)))
        made.width = made.height = size
        made.pix_fmt, made.bit_rate = 'yuv420p', 2_000_000
        made.codec_context.time_base = made.time_base = Fraction(1, 1000)
        copied = container.add_stream_from_template(sound)
        for packet in clip.demux(pictures, sound):
            if packet.stream is sound and packet.dts is not None:
                packet.stream = copied
                container.mux(packet)
                continue
            for frame in packet.decode() if packet.stream is pictures else ():
                scaled = frame.reformat(width=size, height=size, format='yuv420p')
                scaled.pts, scaled.time_base = round(1000 * frame.time), Fraction(1, 1000)
                scaled.pict_type = av.video.frame.PictureType.NONE
                container.mux(made.encode(scaled))
        container.mux(made.encode(None))


def write_tables(folder: Path, chosen: list[Renamed]) -> None:
    """The csv tables of CREMA-D for these clips. Votes are made up: what is meant gets more by those who see it."""
    (folder / 'processedResults').mkdir()
    actors = sorted({clip.id[:4] for clip in chosen})
    votes, winners = [], []
    for number, clip in enumerate(chosen, 1):
        row = ['', clip.id]
        for prefix, right in (('1', 4), ('2', 6), ('3', 7)):
            counts = np.zeros(len(layout.CODES), int)
            intended = layout.CODES.index(clip.id[9:12])
            counts[intended] = right
            counts[(intended + 1 + number % 5) % 6] += VOTES - right - 1
            counts[(intended + 1 + (number + 1) % 5) % 6] += 1
            votes.append([f'{prefix}{number:05d}', *counts.tolist(), clip.id, VOTES])
            row += [':'.join(layout.CODES[k][0] for k in layout.winners(tuple(counts.tolist()))), '50']
        winners.append([str(number), *row[1:]])
    modalities = [f'{m}{part}' for m in ('Voice', 'Face', 'MultiModal') for part in ('Vote', 'Level')]
    tables = {
        'SentenceFilenames.csv': (['Stimulus_Number', 'Filename'], [[n, c.id] for n, c in enumerate(chosen, 1)]),
        'VideoDemographics.csv': (
            ['ActorID', 'Age', 'Sex', 'Race', 'Ethnicity'],
            [[actor, 33, 'Male', 'Caucasian', 'Not Hispanic'] for actor in actors],
        ),
        'processedResults/tabulatedVotes.csv': (
            ['', *(code[0] for code in layout.CODES), 'fileName', 'numResponses'],
            votes,
        ),
        'processedResults/summaryTable.csv': (['', 'FileName', *modalities], winners),
    }
    for name, (header, rows) in tables.items():
        with open(folder / name, 'w', newline='', encoding='utf-8') as file:
            csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerows([header, *rows])
