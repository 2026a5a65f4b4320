"""A small IEMOCAP release with every kind of file of the real one, for the tests that prepare it.

Each dialog's avi is split down the middle: the left half is red, the right half blue, and the green of both says which
utterance is being spoken, `green(k)` for the k-th, 0 between two of them.
"""

import dataclasses
import json
from pathlib import Path

import av
import numpy as np
import soundfile
from safetensors.numpy import save_file

DIALOGS = ('F_impro01', 'M_script01_1')  # after Ses01, and so on: the letter says who wears the markers
LABELS = ('neu', 'exc', 'ang', 'sad', 'hap', 'fru', 'xxx', 'sur')
WORDS = ('good', 'bad', 'so', 'very', 'really', 'never', 'always', 'maybe')
FIRST, STEP, LENGTH = 1.2, 0.8, 0.6  # seconds: start of the first utterance, from start to start, of each
HEIGHT, WIDTH, FPS = 48, 96, 10
RED, BLUE = 200, 200
VALUES = (2.5, 3.25, 4.0)  # valence, activation, dominance; valence is raised by the label's number
POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'


@dataclasses.dataclass(frozen=True)
class Spoken:
    """What was written of one utterance; `place` is k, its number in the dialog."""

    id: str
    label: str
    start: float
    end: float
    text: str
    place: int
    wav: Path
    avi: Path


def green(place: int) -> int:
    return 40 + 20 * place


def write_release(
    folder: Path,
    *,
    sessions: tuple[int, ...] = (1, 2, 3, 4, 5),
    dialogs: tuple[str, ...] = DIALOGS,
    labels: tuple[str, ...] = LABELS,
    sample_rate: int = 16000,
) -> list[Spoken]:
    """Writes Session1 .. Session5 below `folder`: in each dialog one utterance a label, by M and F in turn."""
    written = []
    for session in sessions:
        for dialog in dialogs:
            written += _write_dialog(folder / f'Session{session}', f'Ses0{session}{dialog}', labels, sample_rate)
    return written


def _write_dialog(folder: Path, dialog: str, labels: tuple[str, ...], sample_rate: int) -> list[Spoken]:
    texts = {name: folder / 'dialog' / name for name in ('EmoEvaluation', 'transcriptions')}
    wavs, avi = folder / 'sentences' / 'wav' / dialog, folder / 'dialog' / 'avi' / 'DivX' / f'{dialog}.avi'
    for path in (*texts.values(), texts['EmoEvaluation'] / 'Categorical', wavs, avi.parent):
        path.mkdir(parents=True, exist_ok=True)
    spoken = []
    for place, label in enumerate(labels):
        start = FIRST + STEP * place
        identity = f'{dialog}_{"FM"[place % 2]}{place // 2:03d}'
        text = f'{WORDS[place % len(WORDS)]}, {" ".join(WORDS[: 1 + place % 3])}.'
        wav = wavs / f'{identity}.wav'
        spoken.append(Spoken(identity, label, round(start, 4), round(start + LENGTH, 4), text, place, wav, avi))
        write_wav(wav, LENGTH, sample_rate, pitch=200 + 40 * place)
        wav.with_name(f'._{wav.name}').write_bytes(b'\0\5\x16\7')
    line = '\r\n' if dialog[5] == 'M' else '\n'  # the release has both
    for name, content in (('EmoEvaluation', _evaluation(spoken)), ('transcriptions', _transcription(dialog, spoken))):
        (texts[name] / f'{dialog}.txt').write_bytes(line.join(content).encode())
        (texts[name] / f'._{dialog}.txt').write_bytes(b'\0\5\x16\7Mac OS X\xff\xfe')
    (texts['EmoEvaluation'] / 'Categorical' / f'{dialog}_e2_cat.txt').write_text(f'{spoken[0].id} :Neutral; ()\n')
    write_avi(avi, spoken[-1].end + 0.5, [(one.start, one.end, green(one.place)) for one in spoken])
    avi.with_name(f'._{avi.name}').write_bytes(b'\0\5\x16\7')
    return spoken


def _evaluation(spoken: list[Spoken]) -> list[str]:
    lines = ['% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]', '']
    for one in spoken:
        values = ', '.join(f'{value:.4f}' for value in (VALUES[0] + 0.1 * one.place, *VALUES[1:]))
        lines.append(f'[{one.start:.4f} - {one.end:.4f}]\t{one.id}\t{one.label}\t[{values}]')
        lines += ['C-E2:\tNeutral;\t()', 'C-M1:\tNeutral state;\t(curious)', 'A-E3:\tval 3; act 2; dom  2;\t()', '']
    return lines


def _transcription(dialog: str, spoken: list[Spoken]) -> list[str]:
    lines = [f'{dialog}_MXX0 [000.5000-000.9000]: [BREATHING]', 'M: Excuse me?', '']
    return lines + [f'{one.id} [{one.start:08.4f}-{one.end:08.4f}]: {one.text}' for one in spoken]


def write_wav(path: Path, seconds: float, rate: int = 16000, *, pitch: float = 220.0) -> None:
    times = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * pitch * times), rate, subtype='PCM_16')


def write_avi(path: Path, seconds: float, spans: list[tuple[float, float, int]]) -> None:
    """An avi of MPEG-4, red on the left and blue on the right, with the green of each span (start, end, green)."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=FPS, options={'g': '12', 'bf': '0'})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, 'yuv420p', 10**6
        for number in range(round(seconds * FPS)):
            time = (number + 0.5) / FPS
            level = next((value for start, end, value in spans if start <= time < end), 0)
            picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            picture[:, : WIDTH // 2] = (RED, level, 0)
            picture[:, WIDTH // 2 :] = (0, level, BLUE)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode(None))


def write_tokenizer(folder: Path) -> Path:
    """A folder as data preparation takes it: a BERT tokenizer of a few words beside weights (one zero)."""
    folder.mkdir(parents=True)
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', ',', *WORDS]
    (folder / 'vocab.txt').write_text('\n'.join(words) + '\n')
    (folder / 'config.json').write_text(json.dumps({'model_type': 'bert', 'vocab_size': len(words)}))
    settings = {'tokenizer_class': 'BertTokenizer', 'do_lower_case': True, 'model_max_length': 512}
    (folder / 'tokenizer_config.json').write_text(json.dumps(settings))
    save_file({'zero': np.zeros(1, np.float32)}, folder / 'params.safetensors')
    return folder
