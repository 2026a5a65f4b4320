"""The folder of CREMA-D -> its clips, its actors and its votes; no media is opened.

Cao et al. 2014, https://github.com/CheyneyComputerScience/CREMA-D (ODbL 1.0 / DbCL 1.0). In the folder:

    VideoFlash/1001_IEO_ANG_HI.flv     picture and sound: actor, sentence, emotion, level
    AudioWAV/1001_IEO_ANG_HI.wav       the sound, 16 kHz
    SentenceFilenames.csv              the names of all 7,442 clips
    VideoDemographics.csv              ActorID, Age, Sex, Race, Ethnicity of the 91 actors
    processedResults/tabulatedVotes.csv    single votes by emotion; its index begins with 1 voice, 2 face, 3 both

The tables may lie in the folder itself, in processedResults, or in a folder of their own. Not read: summaryTable.csv
holds the winners of tabulatedVotes.csv once more, finishedResponses.csv the answers they were counted from.
The media are git-LFS files: a clone made without git-lfs has text files of 130 bytes in their place.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from data_prep.pool import PreparationError, Skipped
from mmer_jax.files import links
from mmer_jax.media import MediaError
from mmer_jax.media.textfile import read_table

# One order for all; the report's code has two that differ (2-D and 3-D). It is that of the tables' vote columns too.
CODES = ('ANG', 'DIS', 'FEA', 'HAP', 'NEU', 'SAD')
EMOTIONS = ('anger', 'disgust', 'fear', 'happy', 'neutral', 'sad')
SENTENCES = ('DFA', 'IEO', 'IOM', 'ITH', 'ITS', 'IWL', 'IWW', 'MTI', 'TAI', 'TIE', 'TSI', 'WSI')
LEVELS = {'LO': 'low', 'MD': 'medium', 'HI': 'high', 'XX': 'unspecified'}
NAME = re.compile(rf'(10\d\d)_({"|".join(SENTENCES)})_({"|".join(CODES)})_(LO|MD|HI|XX?)')
FOLDERS = {'AudioWAV': ('.wav',), 'VideoFlash': ('.flv', '.mp4')}
LAYOUT = 'expected the folders AudioWAV and VideoFlash of CREMA-D in it, with files such as 1001_IEO_ANG_HI.wav'
# Clips that cannot be used, with the reason; the report dropped the first three and kept the fourth.
RECORDING, SILENT = 'recording error, dropped by the report too', 'silent and without a face'
BAD = {
    '1064_IEO_DIS_MD': RECORDING,
    '1064_TIE_SAD_XX': RECORDING,
    '1076_MTI_NEU_XX': RECORDING,
    '1076_MTI_SAD_XX': SILENT,
}
DROPS = {'known': set(BAD), 'published': {name for name in BAD if BAD[name] == RECORDING}, 'none': set()}
SEEN = {'1': 'voice', '2': 'face', '3': 'both'}  # first digit of the index of tabulatedVotes.csv: what raters had
PUBLISHED = {'voice': 40.9, 'face': 58.2, 'both': 63.6}  # Cao et al. 2014, % of single votes
DEMOGRAPHICS = {'age': 'Age', 'sex': 'Sex', 'race': 'Race', 'ethnicity': 'Ethnicity'}

Votes = dict[str, dict[str, tuple[int, ...]]]  # clip -> 'voice', 'face', 'both' -> votes in the order of CODES


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip and the fields of its name."""

    id: str
    wav: Path
    flv: Path

    @property
    def actor(self) -> str:
        return self.id[:4]

    @property
    def intended(self) -> int:
        """The number of the emotion that the actor was asked for."""
        return CODES.index(self.id[9:12])

    def columns(self) -> dict[str, str]:
        """The manifest columns that the name gives."""
        emotion, level = EMOTIONS[self.intended], LEVELS[self.id[13:]]
        fields = {'speaker': self.actor, 'session': '', 'split': ''}
        return {**fields, 'emotion': emotion, 'level': level, 'sentence': self.id[5:8]}


@dataclasses.dataclass(frozen=True)
class Tables:
    """What the csv tables say; each is empty where its file is not there. `actors` holds manifest columns."""

    names: frozenset[str]
    actors: Mapping[str, Mapping[str, str]]
    votes: Votes

    def columns(self, clip: Clip) -> dict[str, str]:
        """Manifest columns of a clip: the actor's, and the votes in the order of CODES with their winners."""
        columns = {key: self.actors.get(clip.actor, {}).get(key, '') for key in DEMOGRAPHICS if self.actors}
        for seen in SEEN.values() if self.votes else ():
            counts = self.votes.get(clip.id, {}).get(seen, ())
            columns[f'votes_{seen}'] = ' '.join(map(str, counts))
            columns[f'voted_{seen}'] = ':'.join(EMOTIONS[k] for k in winners(counts))
        return columns


def parse_name(stem: str) -> str | None:
    """The id of a clip's name, None where it is no such name; one file of old clones ends in _X instead of _XX."""
    match = NAME.fullmatch(stem)
    if match is None or not 1 <= int(match[1]) - 1000 <= 91:
        return None
    return f'{stem}X' if match[4] == 'X' else stem


def winners(counts: tuple[int, ...]) -> list[int]:
    """The numbers of the emotions with the most votes: several where they tie, none without votes."""
    most = max(counts, default=0)
    return [number for number, count in enumerate(counts) if count == most > 0]


def choose_label(clip: Clip, votes: Votes, labels: str = 'intended', voted_by: str = 'both') -> int | Skipped:
    """The number of the clip's emotion, 'intended' or 'voted'; Skipped where the votes have no single winner."""
    if labels == 'intended':
        return clip.intended
    most = winners(votes.get(clip.id, {}).get(voted_by, ()))
    if len(most) == 1:
        return most[0]
    if not most:
        return Skipped('no votes', f'{clip.id}: tabulatedVotes.csv has no votes by {voted_by}')
    return Skipped('the votes tie', f'{clip.id} by {voted_by}: {", ".join(EMOTIONS[number] for number in most)}')


def list_clips(source: Path, drop: str = 'known') -> tuple[list[Clip], list[tuple[str, Skipped]]]:
    """The clips with sound and pictures, sorted by name, and what is skipped as (name, Skipped).

    PreparationError where the folder or one of its two folders is missing.
    """
    if not source.is_dir():
        raise PreparationError(f'source folder {source} {"is a file" if source.exists() else "is missing"}; {LAYOUT}')
    found: dict[str, dict[str, Path]] = {}
    skipped: list[tuple[str, Skipped]] = []
    for folder, suffixes in FOLDERS.items():
        if not (source / folder).is_dir():
            raise PreparationError(f'source folder {source} holds no folder {folder}; {LAYOUT}')
        for path in sorted((source / folder).iterdir()):
            if path.name.startswith('.') or path.is_dir():
                continue
            if links.leads_out(path, source):
                skipped.append((path.name, Skipped(links.OUT, str(path))))
                continue
            name = parse_name(path.stem)
            if path.suffix.lower() not in suffixes:
                skipped.append((path.name, Skipped(f'not a {" or ".join(suffixes)} file in {folder}', str(path))))
            elif name is None:
                skipped.append((path.name, Skipped('the name is not actor_sentence_emotion_level', str(path))))
            elif (first := found.setdefault(name, {}).setdefault(folder, path)) != path:
                skipped.append((path.name, Skipped('a second copy of the same clip', f'{path}: {first} was taken')))
    clips = []
    for name in sorted(found):
        absent = [folder for folder in FOLDERS if folder not in found[name]]
        if name in DROPS[drop]:
            skipped.append((name, Skipped(BAD[name], f'{name}: use --drop to choose')))
        elif absent:
            skipped.append((name, Skipped(f'no file in {absent[0]}', f'{source / absent[0] / name} is missing')))
        else:
            clips.append(Clip(name, found[name]['AudioWAV'], found[name]['VideoFlash']))
    return clips, skipped


def read_tables(folder: Path) -> Tables:
    """The tables of a folder, empty ones where it has no such file. PreparationError where one is damaged."""
    names = frozenset(row['Filename'] for _, row in read_rows(folder, 'SentenceFilenames.csv', ('Filename',)))
    actors = {}
    for _, row in read_rows(folder, 'VideoDemographics.csv', ('ActorID', *DEMOGRAPHICS.values())):
        actors[row['ActorID']] = {key: row[column] for key, column in DEMOGRAPHICS.items()}
    return Tables(names, actors, read_votes(folder))


def read_votes(folder: Path) -> Votes:
    """tabulatedVotes.csv, {} where it is not there: how many raters chose each emotion, by clip and what they had."""
    columns = [code[0] for code in CODES]
    votes: Votes = {}
    for where, row in read_rows(folder, 'tabulatedVotes.csv', ('', *columns, 'fileName')):
        name, seen = parse_name(row['fileName']), SEEN.get(row[''][:1])
        try:
            counts = tuple(int(row[column]) for column in columns)
        except ValueError as error:
            raise PreparationError(f'{where}: expected whole numbers of votes ({error})') from error
        if name is None or seen is None or min(counts) < 0:
            found = f'{row[""]!r} and {row["fileName"]!r}'
            raise PreparationError(f'{where}: expected an index that begins with 1, 2 or 3, and a clip; found {found}')
        if votes.setdefault(name, {}).setdefault(seen, counts) is not counts:
            raise PreparationError(f'{where}: a second row of {name} by {seen}; download the table again')
    return votes


def read_rows(folder: Path, name: str, columns: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """(file and line, row) of each row of a table; [] where it is not there."""
    path = next((p for p in (folder / name, folder / 'processedResults' / name) if p.exists()), None)
    if path is None:
        return []
    try:
        return [(f'{path}, line {line}', row) for line, row in read_table(path, columns, 'a table of CREMA-D')]
    except MediaError as error:
        raise PreparationError(f'{error}; copy the table again') from error


def human_rows(votes: Votes) -> list[dict]:
    """The human rows of a table, one each for voice, face and both: how often single votes name the intended emotion.

    Each row: 'seen', 'votes', 'accuracy' (share of all votes, %), 'recall' (% by emotion, in the order of CODES),
    'uar' (their mean) and 'majority' (% of clips whose one winner is the intended emotion; a tie is no hit).
    """
    rows = []
    for seen in SEEN.values():
        cast, named, clips, won = [0] * len(CODES), [0] * len(CODES), 0, 0
        for name, by_seen in votes.items():
            counts, intended = by_seen.get(seen, ()), CODES.index(name[9:12])
            if sum(counts):
                cast[intended] += sum(counts)
                named[intended] += counts[intended]
                clips, won = clips + 1, won + (winners(counts) == [intended])
        if not all(cast):
            raise PreparationError(f'the votes by {seen} leave an emotion out: {dict(zip(CODES, cast, strict=True))}')
        recall = [100 * part / whole for part, whole in zip(named, cast, strict=True)]
        row = {'seen': seen, 'votes': sum(cast), 'accuracy': 100 * sum(named) / sum(cast), 'recall': recall}
        rows.append({**row, 'uar': sum(recall) / len(recall), 'majority': 100 * won / clips})
    return rows


def human_table(folder: Path) -> str:
    """human_rows as text, beside the published numbers. PreparationError where the votes are not there."""
    votes = read_votes(folder)
    if not votes:
        raise PreparationError(f'{folder} holds no tabulatedVotes.csv; expected the tables of CREMA-D')
    lines = [
        f'{len(votes)} clips; % of single votes that name the intended emotion (majority: % of clips)',
        'seen   votes  accuracy  published   uar  majority  ' + '  '.join(f'{name:>7}' for name in EMOTIONS),
    ]
    for row in human_rows(votes):
        published = PUBLISHED[row['seen']]
        numbers = f'{row["accuracy"]:8.1f}  {published:9.1f}  {row["uar"]:4.1f}  {row["majority"]:8.1f}'
        recall = '  '.join(f'{part:7.1f}' for part in row['recall'])
        lines.append(f'{row["seen"]:5}  {row["votes"]:5}  {numbers}  {recall}')
    return '\n'.join(lines)
