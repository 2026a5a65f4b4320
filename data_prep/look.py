"""A picture of a prepared data set: a row a record, its label, its frames in order, its sound or features drawn.

    python -m data_prep.look DIR --output grid.png [--records 12] [--columns 10]

Pictures go by the record's order of time, values (T, D) are drawn with time to the right and each feature's range of
colours from its 2nd to its 98th percentile; a waveform is drawn as its mel spectrum, what is missing is grey.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from data_prep.pool import run_command
from mmer_jax.data.records import Feature, RecordSource
from mmer_jax.files.outputs import MADE_BY, check_file
from mmer_jax.media import audio
from mmer_jax.settings import ranges

TILE = 72  # pixels of a frame's height
DRAWN = 2 * TILE  # width of the picture of a sequence of values
MARGIN, GAP, APART = 4, 2, 14  # pixels left of the text, between two pictures, and between two features
HEAD = 18  # height of the line with the features' names
WHITE, GREY, BLACK = (255, 255, 255), (128, 128, 128), (0, 0, 0)


def pick(count: int, wanted: int) -> np.ndarray:
    """Numbers of `wanted` of `count` things, evenly spread, in order."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))


def draw_values(array: np.ndarray) -> Image.Image:
    """(T, D) or (S,) -> a picture DRAWN x TILE: time to the right, the first feature at the bottom."""
    array = np.asarray(array, np.float32)
    if not len(array):  # missing in this record
        return Image.new('RGB', (DRAWN, TILE), GREY)
    if array.ndim == 1 and len(array) >= 2048:
        peak = max(float(np.abs(array).max()), 1.0)
        array = audio.log_mel(array / peak, 16000, num_mels=40)
    array = array.reshape(len(array), -1)
    low, high = np.percentile(array, 2, axis=0), np.percentile(array, 98, axis=0)
    scaled = np.clip((array - low) / np.where(high > low, high - low, 1), 0, 1)
    blue_to_yellow = np.stack([scaled, scaled, 1 - scaled], -1)
    picture = Image.fromarray((255 * blue_to_yellow.transpose(1, 0, 2)[::-1]).astype(np.uint8))
    return picture.resize((DRAWN, TILE), Image.Resampling.NEAREST)


def draw_feature(array: np.ndarray, feature: Feature, columns: int) -> list[Image.Image]:
    """The pictures that stand for one feature of a record."""
    array = array if array.ndim > len(feature.step_shape) else array[None]
    if not feature.is_image or not len(array):
        return [draw_values(array)]
    frames = array
    frames = np.repeat(frames, 3, -1) if frames.shape[-1] == 1 else frames
    width = max(round(TILE * frames.shape[2] / frames.shape[1]), 4)  # as narrow as it is stored
    return [Image.fromarray(frames[number]).resize((width, TILE)) for number in pick(len(frames), columns)]


def describe(source: RecordSource, number: int, record: dict[str, Any]) -> str:
    """Id, label, speaker and lengths, a line each."""
    label = source.schema.label
    shown = label.names[int(record['label'])] if label.kind == 'classes' else source.manifest['label'][number]
    lengths = ', '.join(f'{key} {record[key].shape[0]}' for key, f in source.schema.features.items() if f.is_sequence)
    return f'{record["id"]}\n{shown}\nspeaker {source.manifest["speaker"][number]}\n{lengths}'


def make_grid(source: RecordSource, records: int = 12, columns: int = 10) -> Image.Image:
    """The picture: `records` rows spread evenly over the data set, up to `columns` frames each."""
    rows = []
    for number in pick(len(source), records):
        record = source[int(number)]
        features = [draw_feature(record[key], feature, columns) for key, feature in source.schema.features.items()]
        rows.append((describe(source, int(number), record), features))
    measure = ImageDraw.Draw(Image.new('RGB', (1, 1)))
    widest = max(measure.multiline_textbbox((MARGIN, 0), text)[2] for text, _ in rows)
    lefts = [int(widest) + 1 + APART]  # of each feature
    for key, drawn in zip(source.schema.features, zip(*(features for _, features in rows), strict=True), strict=True):
        width = max(sum(tile.width + GAP for tile in tiles) for tiles in drawn)
        lefts.append(lefts[-1] + APART + max(width, int(measure.textlength(key))))
    grid = Image.new('RGB', (lefts[-1], HEAD + len(rows) * (TILE + 2 * GAP)), WHITE)
    draw = ImageDraw.Draw(grid)
    for key, left in zip(source.schema.features, lefts, strict=False):
        draw.text((left, 2), key, BLACK)
    for row, (text, features) in enumerate(rows):
        top = HEAD + row * (TILE + 2 * GAP)
        draw.multiline_text((MARGIN, top), text, BLACK)
        for tiles, start in zip(features, lefts, strict=False):
            left = start
            for tile in tiles:
                grid.paste(tile, (left, top))
                left += tile.width + GAP
    return grid


def save(grid: Image.Image, path: Path) -> None:
    """Writes the picture with the mark by which it may be replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == '.png':
        about = PngInfo()
        about.add_text('Software', MADE_BY)
        grid.save(path, pnginfo=about)
    else:
        grid.save(path, comment=MADE_BY)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m data_prep.look', description=__doc__.split('\n')[0])
    parser.add_argument('directory', type=Path, help='shard directory')
    parser.add_argument('--output', type=Path, required=True, help='picture to write, .png or .jpg')
    parser.add_argument('--records', type=ranges.Number(int, low=1, high=1000), default=12, help='rows')
    parser.add_argument('--columns', type=ranges.Number(int, low=1, high=1000), default=10, help='frames of a row')
    arguments = parser.parse_args(argv)
    if arguments.output.suffix.lower() not in ('.png', '.jpg', '.jpeg'):
        parser.error(f'--output must end in .png or .jpg, found {arguments.output}')
    return arguments


def work(arguments: argparse.Namespace) -> None:
    source = RecordSource(arguments.directory)
    check_file(arguments.output, MADE_BY.encode())
    grid = make_grid(source, arguments.records, arguments.columns)
    save(grid, arguments.output)
    print(
        f'{arguments.output}: {min(arguments.records, len(source))} of {len(source)} records of {arguments.directory}'
    )


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_command(work, parse_arguments(argv))


if __name__ == '__main__':
    sys.exit(main())
