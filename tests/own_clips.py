"""Sound, video and a table of them, as a user has his own clips: tones whose pitch is the label, and grey pictures."""

import csv
from pathlib import Path

import numpy as np
import soundfile

from tests.test_video import write_video

RATE = 16000
EMOTIONS = ('calm', 'angry', 'glad')


def write_tone(path: Path, label: int, seconds: float = 1.0, seed: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    samples = 0.3 * np.sin(2 * np.pi * (200 + 300 * label) * time) + 0.01 * generator.standard_normal(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.astype(np.float32), RATE, subtype='PCM_16')
    return path


def write_clips(folder: Path, count: int = 18, videos: int = 6, speakers: int = 3) -> Path:
    """labels.csv and its files below media/: `videos` mp4 with sound, the others wav; returns the table."""
    rows = []
    for number in range(count):
        label, seconds = number % 3, 0.6 + 0.1 * (number % 4)
        name = f's{number % speakers}/clip_{number:02d}'
        path = folder / 'media' / f'{name}.{"mp4" if number < videos else "wav"}'
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < videos:
            write_video(path, 12 + number % 3, sound=True, seconds=seconds)
        else:
            write_tone(path, label, seconds, number)
        text = f'I feel {EMOTIONS[label]} number {number}'
        relative = str(path.relative_to(folder / 'media'))
        rows.append([relative, EMOTIONS[label], text, f'sp{number % speakers}', 2.5 * label - 2.5 + number / 50])
    with open(folder / 'labels.csv', 'w', newline='', encoding='utf-8') as file:
        table = csv.writer(file)
        table.writerow(['path', 'label', 'text', 'speaker', 'valence'])
        table.writerows(rows)
    return folder / 'labels.csv'
