"""The text files of the IEMOCAP release -> its utterances: who speaks, when, what, and how; no media is opened.

Busso et al. 2008, https://sail.usc.edu/iemocap (a signed licence is needed). Below each of Session1 .. Session5:

    dialog/EmoEvaluation/<dialog>.txt    [6.2901 - 8.2357] <tab> Ses01F_impro01_F000 <tab> neu <tab> [2.5, 2.5, 2.5]
    dialog/transcriptions/<dialog>.txt   Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
    dialog/avi/DivX/<dialog>.avi         both actors, side by side
    sentences/wav/<dialog>/<utterance>.wav

The three values are valence, activation and dominance. Between the lines of the evaluation stand those of the single
annotators (C-E1:, A-E3: ...) and comments (%); some lines of a transcription have no id.
"""

import dataclasses
import os
import re
from pathlib import Path

from data_prep.pool import PreparationError, Skipped
from mmer_jax.files import links
from mmer_jax.media import MediaError
from mmer_jax.media.textfile import read_lines

SESSIONS = ('Session1', 'Session2', 'Session3', 'Session4', 'Session5')
SPLITS = ('train', 'train', 'train', 'validation', 'test')  # of the five sessions, in the pretrained-transformers paper
EMOTIONS = {
    'neu': 'neutral',
    'hap': 'happy',
    'ang': 'angry',
    'sad': 'sad',
    'exc': 'excited',
    'fru': 'frustrated',
    'fea': 'fearful',
    'sur': 'surprised',
    'dis': 'disgusted',
    'oth': 'other',
    'xxx': 'no agreement',
}
NUMBER = r'\s*(\d+(?:\.\d+)?)\s*'
EVALUATION = re.compile(rf'\[{NUMBER}-{NUMBER}\]\s+(\S+)\s+(\S+)\s+\[{NUMBER},{NUMBER},{NUMBER}\]\s*')
TRANSCRIPT = re.compile(rf'(\S+)\s+\[{NUMBER}-{NUMBER}\]\s*:?(.*)')
NAME = re.compile(r'Ses0([1-5])[FM]_\w+_[FM]\w{3}')
LAYOUT = 'expected the folders Session1 .. Session5 of IEMOCAP_full_release in it'


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One line of an evaluation: times in seconds of its dialog, the release's code of the emotion, its files.

    `text` is '' where the transcription does not have it; whether `wav` and `avi` exist is not checked here.
    """

    id: str
    session: str
    start: float
    end: float
    emotion: str
    valence: float
    activation: float
    dominance: float
    text: str
    wav: Path
    avi: Path

    @property
    def dialog(self) -> str:
        return self.id.rpartition('_')[0]

    @property
    def speaker(self) -> str:
        """Session and gender of who speaks: 'Ses01F'. The letter before the first _ says who wore the markers."""
        return self.id[:5] + self.id[-4]

    @property
    def on_left(self) -> bool:
        """Whether the speaker is in the left half of the pictures, where the actor with the markers is."""
        return self.id[5] == self.id[-4]

    def columns(self) -> dict[str, str | float]:
        """The manifest columns that the text files give."""
        return {
            'speaker': self.speaker,
            'session': self.session,
            'split': SPLITS[SESSIONS.index(self.session)],
            'dialog': self.dialog,
            'start': self.start,
            'end': self.end,
            'text': self.text,
            'emotion': self.emotion,
            'valence': self.valence,
            'activation': self.activation,
            'dominance': self.dominance,
        }


def find_release(source: str | os.PathLike) -> Path:
    """The folder with Session1 .. Session5: `source` or the one folder in it that has any. PreparationError if none."""
    source = Path(source)
    if not source.is_dir():
        raise PreparationError(f'source folder {source} {"is a file" if source.exists() else "is missing"}; {LAYOUT}')

    def has_session(folder: Path) -> bool:
        return any((folder / session).is_dir() for session in SESSIONS)

    if has_session(source):
        return source
    inside = [folder for folder in sorted(source.iterdir()) if folder.is_dir() and has_session(folder)]
    if len(inside) != 1:
        found = f'{len(inside)} folders with them ({", ".join(folder.name for folder in inside)})' if inside else 'none'
        raise PreparationError(f'source folder {source}: {LAYOUT}, or in one folder below it; found {found}')
    return inside[0]


def list_utterances(source: str | os.PathLike) -> tuple[list[Utterance], list[tuple[str, Skipped]]]:
    """Every utterance with an evaluation, by session, dialog and time, and what was skipped, as (name, Skipped).

    Labels are all kept here, 'xxx' (no agreement) too. PreparationError where no session is there.
    """
    release = find_release(source)
    utterances: list[Utterance] = []
    skipped: list[tuple[str, Skipped]] = []
    for session in SESSIONS:
        folder = release / session
        if not folder.is_dir():
            skipped.append((session, Skipped('missing session', f'{folder}: no such folder')))
            continue
        evaluations = _text_files(folder / 'dialog' / 'EmoEvaluation')
        if not evaluations:
            detail = f'expected .txt files in {folder / "dialog" / "EmoEvaluation"}'
            skipped.append((session, Skipped('no EmoEvaluation files', detail)))
            continue
        texts = _read_transcripts(folder, skipped)
        found: dict[str, Utterance] = {}
        for path in evaluations:
            _read_evaluation(path, session, folder, texts, found, skipped)
        utterances.extend(sorted(found.values(), key=lambda utterance: (utterance.dialog, utterance.start)))
    return [one for one in utterances if not _leads_out(one, release, skipped)], skipped


def _leads_out(utterance: Utterance, release: Path, skipped: list[tuple[str, Skipped]]) -> bool:
    outside = [path for path in (utterance.wav, utterance.avi) if links.leads_out(path, release)]
    skipped += [(utterance.id, Skipped(links.OUT, str(path))) for path in outside[:1]]
    return bool(outside)


def _text_files(folder: Path) -> list[Path]:
    """Those of the release, none by a link out of it; a copy made by macOS has a ._<name>.txt beside each."""
    release = folder.parents[2]
    files = [path for path in sorted(folder.glob('*.txt')) if not path.name.startswith('.')]
    return [path for path in files if not links.leads_out(path, release)]


def _lines(path: Path, skipped: list[tuple[str, Skipped]]) -> list[str]:
    """The lines of a file, without blanks at their ends; none, and an entry in `skipped`, where it cannot be used."""
    try:
        return [line.strip() for line in read_lines(path, 'a text file of the release')]
    except MediaError as error:
        skipped.append((f'{path.parent.name}/{path.name}', Skipped(error.reason, str(error))))
        return []


def _read_transcripts(folder: Path, skipped: list[tuple[str, Skipped]]) -> dict[str, str]:
    """{utterance id: its text}; lines of another form, such as 'M: text', belong to no utterance."""
    texts: dict[str, str] = {}
    for path in _text_files(folder / 'dialog' / 'transcriptions'):
        for line in _lines(path, skipped):
            match = TRANSCRIPT.fullmatch(line)
            if match is not None:
                texts.setdefault(match.group(1), match.group(4).strip())
    return texts


def _read_evaluation(
    path: Path,
    session: str,
    folder: Path,
    texts: dict[str, str],
    found: dict[str, Utterance],
    skipped: list[tuple[str, Skipped]],
) -> None:
    """Adds the utterances of one file to `found`, and what cannot be used of it to `skipped`."""
    for number, line in enumerate(_lines(path, skipped), start=1):
        if not line.startswith('['):  # comments and single annotators
            continue
        match = EVALUATION.fullmatch(line)
        if match is None:
            detail = f'{path}, line {number}: {line!r}, expected [start - end] id label [v, a, d]'
            skipped.append((f'{path.name}:{number}', Skipped('evaluation line of another form', detail)))
            continue
        identity, emotion = match.group(3), match.group(4)
        start, end, valence, activation, dominance = (float(match.group(place)) for place in (1, 2, 5, 6, 7))
        name, where = NAME.fullmatch(identity), f'{path}, line {number}: {identity}'
        fault = None
        if name is None:
            fault = Skipped('the id is not that of an utterance', f'{where}, expected such as Ses01F_impro01_F000')
        elif f'Session{name.group(1)}' != session:
            fault = Skipped("the id's session is not the folder's", f'{where} in {session}')
        elif emotion not in EMOTIONS:
            fault = Skipped('unknown label', f'{where} has {emotion!r}, expected one of {", ".join(EMOTIONS)}')
        elif end <= start:
            fault = Skipped('the end is not after the start', f'{where} from {start:g} to {end:g} s')
        elif identity in found:
            fault = Skipped('a second evaluation of the same utterance', f'{where}; the first was taken')
        if fault is not None:
            skipped.append((identity, fault))
            continue
        dialog = identity.rpartition('_')[0]
        found[identity] = Utterance(
            identity,
            session,
            start,
            end,
            emotion,
            valence,
            activation,
            dominance,
            texts.get(identity, ''),
            folder / 'sentences' / 'wav' / dialog / f'{identity}.wav',
            folder / 'dialog' / 'avi' / 'DivX' / f'{dialog}.avi',
        )
