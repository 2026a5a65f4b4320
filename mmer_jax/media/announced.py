"""How long a media file says it is, and how much of it lies there.

Every container states its length somewhere, and a file whose copy or recording was broken off says more than it holds:
most decoders then give what is there without a word. Other files say nothing that counts: a stream to which nobody
could write the length back (a WAV file of a pipe: 0, or the largest number), an MP3 file without its first frame of
counts, whose length players guess from the bit rate. Those are read to their end.

What is stated is the size of the data chunk (WAV, RF64, W64, AIFF, AU, CAF), the granule of the last page (Ogg), the
counts of the index (MP4, AVI), the header's duration (FLV, Matroska, WebM, ASF) and the frames of the Xing, Info or
VBRI frame (MP3). FLAC's own count is checked by its decoder.
"""

import dataclasses
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from av.stream import Disposition

from mmer_jax.media import MediaError

# Seconds that may be missing of what is stated: the last packet's own duration, priming and padding of a codec, a
# duration rounded to a frame of 4 a second. A data chunk states bytes, so there a single sample counts.
TOLERANCE = 0.25
COUNTED = 0.1  # where the frames of an MP3 are counted; some coders count the frame that says so too
EXACT = 0.02  # where the file itself is known to be cut
STREAMED = 0x7FFFF000  # sizes from here on are written by recorders that do not know theirs (SoX, FFmpeg, ALSA)
HEAD = 1 << 16  # bytes of a container in which its header's duration stands
AGAIN = 'copy or download it again'


# ---- sound files in chunks -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Chunk:
    """The samples of a sound file: where they begin, the bytes announced (None: a stream), and those that are there."""

    offset: int
    announced: int | None
    available: int


def find_samples(path: Path) -> Chunk | None:
    """The chunk with the samples of a WAV, RF64, W64, AIFF, AU or CAF file; None for anything else."""
    size = path.stat().st_size
    with open(path, 'rb') as file:
        head = file.read(40)
        if head[:4] == b'.snd' and len(head) >= 12:
            offset, announced = struct.unpack('>II', head[4:12])
            return Chunk(offset, None if announced >= STREAMED else announced, max(size - offset, 0))
        if head[:4] in (b'RIFF', b'RIFX', b'RF64', b'BW64') and head[8:12] == b'WAVE':
            return _walk_wav(file, size, '>' if head[:4] == b'RIFX' else '<', head[:4] in (b'RF64', b'BW64'))
        if head[:4] == b'FORM' and head[8:12] in (b'AIFF', b'AIFC'):
            return _walk(file, size, 12, b'SSND', '>4sI')
        if head[:4] == b'caff':
            return _walk(file, size, 8, b'data', '>4sq')
        if head[:4] == b'riff' and head[24:28] == b'wave':  # W64: names of 16 bytes, sizes that count their own 24
            return _walk(file, size, 40, b'data', '<4s12xQ', inside=24, align=8)
    return None


def _walk(
    file: IO[bytes], size: int, position: int, name: bytes, form: str, *, inside: int = 0, align: int = 2
) -> Chunk | None:
    """The first chunk `name`; `form` is that of a chunk's head, `inside` how much of it the size counts."""
    width = struct.calcsize(form)
    while position + width <= size:
        file.seek(position)
        found, length = struct.unpack(form, file.read(width))
        position += width
        if found == name:
            unknown = length < 0 or (form == '>4sI' and length >= STREAMED)
            return Chunk(position, None if unknown else length - inside, size - position)
        position += max(length - inside, 0)
        position += -position % align if form != '>4sq' else 0  # the chunks of CAF are not padded
    return None


def _walk_wav(file: IO[bytes], size: int, order: str, is_large: bool) -> Chunk | None:
    chunk = _walk(file, size, 12, b'data', f'{order}4sI')
    if chunk is None:
        return None
    file.seek(chunk.offset - 4)
    length = struct.unpack(f'{order}I', file.read(4))[0]
    if is_large:
        large = _walk(file, size, 12, b'ds64', f'{order}4sI')
        if large is None or large.available < 16:
            return Chunk(chunk.offset, None, chunk.available)
        file.seek(large.offset + 8)
        return Chunk(chunk.offset, struct.unpack(f'{order}Q', file.read(8))[0], chunk.available)
    behind = chunk.offset + length + length % 2
    if length >= STREAMED and behind > size:
        return Chunk(chunk.offset, None, chunk.available)
    # Sound goes on behind the end of a chunk whose length was written too early, or never: chunks do not follow there.
    if behind < size and not _are_chunks(file, behind, size, order) and (length == 0 or size - behind > 4096):
        return Chunk(chunk.offset, None, chunk.available)
    return Chunk(chunk.offset, length, chunk.available)


def _are_chunks(file: IO[bytes], position: int, size: int, order: str) -> bool:
    """Whether the rest of the file is a list of chunks, each with a name of letters, that ends where the file does."""
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack(f'{order}4sI', file.read(8))
        if not all(32 <= byte < 127 for byte in name):
            return False
        position += 8 + length + length % 2
    return position - 1 <= size  # the last byte of padding is often left out


def with_true_size(path: Path, chunk: Chunk) -> bytes:
    """The bytes of a streamed WAV file with the size of its data chunk as it is."""
    content = bytearray(path.read_bytes())
    form = '>I' if content[:4] == b'RIFX' else '<I'
    if content[:4] in (b'RF64', b'BW64'):
        content[:4] = b'RIFF'
    struct.pack_into(form, content, 4, min(len(content) - 8, 0xFFFFFFFF))
    struct.pack_into(form, content, chunk.offset - 4, min(chunk.available, 0xFFFFFFFF))
    return bytes(content)


def cut_page(path: Path) -> int | None:
    """The granule (samples from the beginning) of the last page of an Ogg file that ends within it, else None.

    0 where the granule itself is cut away, or the page ends no packet.
    """
    size = path.stat().st_size
    with open(path, 'rb') as file:
        start = max(size - 2 * 65307, 0)  # two pages of the largest size
        file.seek(start)
        tail = file.read()
    place = tail.rfind(b'OggS')
    if place < 0:
        return None
    page = tail[place:]
    segments = page[26] if len(page) > 26 else 255
    length = 27 + segments + sum(page[27 : 27 + segments])
    if len(page) >= length and len(page) >= 27 + segments:
        return None
    return max(struct.unpack('<q', page[6:14])[0], 0) if len(page) >= 14 else 0


# ---- containers that FFmpeg opens ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Span:
    """The packets of a stream: seconds on the file's own clock, how many, and whether the last one is cut short."""

    start: float
    end: float
    packets: int
    is_cut: bool


def origin(container: Any) -> float:
    """Second 0 of a file, on FFmpeg's clock: where its first sound or picture begins.

    Sound that a coder puts in front to begin with has times below 0 and is no beginning.
    """
    return max(container.start_time or 0, 0) / 1e6


def streams_of(container: Any) -> list[Any]:
    """The sound and the pictures of a container; the picture on the cover of a piece of music is none."""
    found = (*container.streams.audio, *container.streams.video)
    return [stream for stream in found if not stream.disposition & Disposition.attached_pic]


def scan(path: Path, container: Any) -> dict[int, Span]:
    """{number of the stream: its Span} from all packets, which are read but not decoded, up to the file's end.

    MediaError 'truncated' where a stream, or the whole container, ends before what is stated.
    """
    zero, streams = origin(container), streams_of(container)
    times: dict[int, list[tuple[int, int]]] = {stream.index: [] for stream in streams}
    last: dict[int, bool] = {}
    for packet in container.demux(*streams):
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or not packet.size:
            continue
        times[packet.stream.index].append((time, packet.duration or 0))
        last[packet.stream.index] = packet.is_corrupt
    spans = {}
    for stream in streams:
        found = times[stream.index]
        if not found:
            spans[stream.index] = Span(0.0, 0.0, 0, False)
            continue
        base, first, (latest, length) = float(stream.time_base), min(found)[0], max(found)
        mean = (latest - first) / max(len(found) - 1, 1)
        end = (latest + (length or mean)) * base - zero
        spans[stream.index] = Span(first * base - zero, end, len(found), last[stream.index])
    _check_whole(path, container, streams, spans)
    return spans


def _check_whole(path: Path, container: Any, streams: list[Any], spans: dict[int, Span]) -> None:
    family = _family(container)
    with open(path, 'rb') as file:
        head = file.read(HEAD)
    is_cut = family == 'matroska' and _segment_is_cut(head, path.stat().st_size)
    whole = _stated_by_container(container, head)
    if whole is not None:
        found = max((span.end for span in spans.values()), default=0.0)
        if found < whole - (EXACT if is_cut else TOLERANCE):
            raise truncated(path, whole, found)
    for stream in streams:
        span = spans[stream.index]
        stated, found = _stated_by_stream(path, container, stream), span.end - max(span.start, 0)
        if span.is_cut and family in STATED:
            raise truncated(path, stated or whole, found)
        if stated is not None and found < stated - (COUNTED if family == 'mp3' else TOLERANCE):
            raise truncated(path, stated, found)


def truncated(path: Path, stated: float | None, found: float) -> MediaError:
    """What a file is that holds `found` seconds and says `stated`."""
    said = 'the last packet is cut short' if stated is None else f'{stated:.3f} s announced'
    return MediaError(path, 'truncated', f'{said}, {found:.3f} s found; {AGAIN}')


def _family(container: Any) -> str:
    """FFmpeg's name of the format; the first where one demuxer serves several: 'mov,mp4,m4a,...' is 'mov'."""
    return container.format.name.split(',')[0]


def _stated_by_stream(path: Path, container: Any, stream: Any) -> float | None:
    """Seconds that the file states for one stream, None where it states nothing."""
    family, base = _family(container), float(stream.time_base)
    if family == 'mov' or (family == 'mp3' and counts_its_frames(path)):
        return stream.duration * base if stream.duration else None
    if family == 'avi':  # FFmpeg shortens its duration by what is missing, but not the count of the header
        return stream.frames * base if stream.frames else None
    return None


def _stated_by_container(container: Any, head: bytes) -> float | None:
    """Seconds to the end of the longest stream; FFmpeg's number is a guess where the header has none."""
    says = STATED.get(_family(container))
    return container.duration / 1e6 if says is not None and container.duration and says(head) else None


def _flv_says(head: bytes) -> bool:
    place = head.find(b'\x00\x08duration\x00')
    return 0 <= place < len(head) - 19 and struct.unpack('>d', head[place + 11 : place + 19])[0] > 0


def _segment_is_cut(head: bytes, size: int) -> bool:
    """Whether the one big element of a Matroska file reaches beyond the end of the file."""
    place = head.find(b'\x18\x53\x80\x67')
    if not 0 <= place < len(head) - 12 or not head[place + 4]:
        return False
    width = 9 - head[place + 4].bit_length()  # the leading zeros of the first byte say how many bytes follow
    value = int.from_bytes(head[place + 4 : place + 4 + width], 'big') & ((1 << 7 * width) - 1)
    return value != (1 << 7 * width) - 1 and place + 4 + width + value > size  # all ones: a stream


# Containers whose last packet says whether it is whole, and whether the header states a duration.
STATED: dict[str, Callable[[bytes], bool]] = {
    'mov': lambda head: False,  # streams state their own
    'avi': lambda head: False,
    'flv': _flv_says,
    'matroska': lambda head: b'\x44\x89\x84' in head or b'\x44\x89\x88' in head,
    'asf': lambda head: True,
}


def counts_its_frames(path: str | os.PathLike) -> bool:
    """Whether an MP3 file begins with a frame that states how many follow (Xing and Info with their flag, VBRI)."""
    with open(path, 'rb') as file:
        head = file.read(10)
        start = 0
        while head[:3] == b'ID3' and len(head) == 10:
            start += 10 + sum((byte & 0x7F) << (7 * (3 - k)) for k, byte in enumerate(head[6:10]))
            file.seek(start)
            head = file.read(10)
        file.seek(start)
        frame = file.read(4096)
    for name in (b'Xing', b'Info'):
        place = frame.find(name)
        if 0 <= place < len(frame) - 8:
            return bool(frame[place + 7] & 1)
    return b'VBRI' in frame
