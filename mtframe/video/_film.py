"""Reading films: the frames of the best stream as a player shows them, with their times."""

# Shapes: H height, W width of a frame.

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from mtframe.data import most_pixels
from mtframe.errors import DataError, one_line
from mtframe.paths import regular

from ._av import pyav
from ._cut import Cut

# What FFmpeg may take a file for: containers of films, none that opens other files or addresses as playlists do.
_FORMATS = (
    "mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "asf", "flv", "ogg", "mxf", "gxf", "dv",
    "ivf", "h264", "hevc", "m4v", "mjpeg", "nut", "wtv", "rm",
)  # fmt: skip

# Of a file, nothing else is opened, by no protocol; what FFmpeg itself would open is refused.
_NO_PROTOCOL = "none"

# Linux' number of the devices of cameras (Documentation/admin-guide/devices.txt: video4linux), and what reads them.
_CAMERA_MAJOR, _CAMERA_FORMAT = 81, "v4l2"

# Threads that decode: more hardly help beside a network, and each keeps a frame.
_THREADS = 4

# From this height on a film that does not say so has the colours of HDTV (ITU-R BT.709), as players take it.
_HD = 720
_UNSPECIFIED, _BT709 = 2, "ITU709"

# Seconds that the sound of a place may lie behind its pictures in the file.
_INTERLEAVED = 5.0

# Seconds that may be missing at a film's end before it is said to be cut off.
_MISSING = 1.0

# A matrix of a display (ISO/IEC 14496-12, 6.2.2) is nine numbers; of these four turn.
_TURNING = (0, 1, 3, 4)


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a film.

    Attributes:
        number: Its place among all frames of the film, from 0 on.
        time: Seconds since the film began: `ticks` in the film's unit, or since a cut began plus that.
        ticks: Its time in units of `Film.unit`, since the film or the cut began.
        image: (3, H, W) uint8, RGB, as a player shows it: turned upright, with square pixels.
    """

    number: int
    time: float
    ticks: int
    image: Tensor


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of a film's sound, still coded.

    Attributes:
        packet: PyAV's, with its times since the film or the cut began.
    """

    packet: Any


def is_camera(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a camera of this machine, which only Linux has among its files."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(status.st_mode) and hasattr(os, "major") and os.major(status.st_rdev) == _CAMERA_MAJOR


class Film:
    """A film file or a camera, open for one reading; a context manager, which closes it.

    Nothing but the file itself is opened: no address, no playlist, no second file.

    Args:
        path: A file in one of FFmpeg's formats for films, or a camera as `/dev/video0`.

    Attributes:
        name: What errors call it.
        camera: Whether it is a camera, which has no end.
        unit: Seconds of a tick.
        rate: Frames a second on the average; None if unknown.
        duration: Seconds; None if unknown.
        sound: PyAV's stream of the best sound; None if there is none.
        damaged: Pieces so far that could not be decoded.
        broken: Why reading ended before the film did; empty if it did not.

    Raises:
        DataError: It cannot be read, holds no moving pictures, or has frames of more pixels than
            `mtframe.data.most_pixels`; or PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        av = pyav()
        self.name = os.fspath(path)
        self.camera = is_camera(path)
        self.damaged, self.broken = 0, ""
        # Seconds by the film's own clock at which it begins.
        self._zero = Fraction(0)
        self._errors: type[BaseException] = av.error.FFmpegError
        with ExitStack() as stack:
            try:
                self._container = stack.enter_context(_opened(av, Path(path), self.camera, stack))
            except av.error.FFmpegError as error:
                why = "is no film, or one whose beginning is damaged"
                raise self._bad(f"{self._why(error)}" if self.camera else f"{why} ({self._why(error)})") from None
            except OSError as error:
                raise self._bad(error.strerror or str(error)) from None
            self._video = self._container.streams.best("video")
            if self._video is None or self._video.disposition & av.stream.Disposition.attached_pic:
                raise self._bad("has no moving pictures")
            self.sound = self._container.streams.best("audio")
            context = self._video.codec_context
            if context is None:
                raise self._bad("its pictures are coded in a way that PyAV does not know")
            self._check_size(context.width, context.height)
            self._video.thread_type, self._video.thread_count = "AUTO", _THREADS
            self.unit: Fraction = self._video.time_base or Fraction(1, 1000)
            self.rate: Fraction | None = self._video.average_rate or self._video.guessed_rate
            self.duration = None if self.camera else self._duration()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, cut: Cut, *, sound: bool = False) -> Iterator[Frame | Sound]:
        """The wanted frames as they are shown, and between them the sound of the same time.

        What cannot be decoded is left out and counted in `damaged`; a film that is cut off ends, and `broken` says so.

        Args:
            cut: Which frames.
            sound: Whether to give the sound.

        Raises:
            DataError: A frame has more pixels than `mtframe.data.most_pixels`.
        """
        numbers = self._seek(cut.start) if cut.start and not self.camera else _Numbers()
        begin = self._begin()
        first = None if begin is None else begin + _ticks(cut.start, self.unit)
        streams = [self._video, *([self.sound] if sound and self.sound is not None else [])]
        wanted = _Wanted(cut)
        over, last = False, -1
        for packet in self._packets(streams):
            if packet.stream_index != self._video.index:
                piece = self._sound_in(packet, cut)
                if piece is not None:
                    yield piece
                elif over:
                    return
                continue
            if over:
                if packet.dts is None or packet.dts * self.unit - self._zero > (cut.end or 0.0) + _INTERLEAVED:
                    return
                continue
            for frame in self._decoded(packet):
                number, ticks = numbers.of(frame, self.unit, self.rate)
                if begin is None or first is None:
                    # A camera's times are those since it was switched on, or of day.
                    begin = ticks
                    self._zero = begin * self.unit
                    first = begin + _ticks(cut.start, self.unit)
                if ticks < first:
                    continue
                # Players show frames in order, and so must a film that is written: times that do not grow are mended.
                ticks = max(ticks - first, last + 1)
                time = float((ticks + first - begin) * self.unit)
                if cut.end is not None and time >= cut.end:
                    over = True
                    break
                last = ticks
                if wanted(number, time):
                    try:
                        image = self._image(frame)
                    except self._errors:
                        self.damaged += 1
                        continue
                    yield Frame(number, time, ticks, image)
            if over and not sound:
                return
        self._check_end(cut, numbers, last if first is None or begin is None else last + first - begin)

    def problem(self) -> str:
        """What is to be said of what has been read: cut off, damaged; empty for nothing."""
        said = [self.broken] if self.broken else []
        if self.damaged:
            said.append(f"{self.damaged} {'pieces are' if self.damaged > 1 else 'piece is'} damaged")
        return f"{one_line(self.name)}: {'; '.join(said)}" if said else ""

    def _packets(self, streams: list[Any]) -> Iterator[Any]:
        """The film's packets, until it ends or breaks off."""
        try:
            yield from self._container.demux(*streams)
        except self._errors as error:
            self.broken = f"breaks off ({self._why(error)})"

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            frames = packet.decode()
        except self._errors:
            # The pieces after it may be whole.
            self.damaged += 1
            return []
        self.damaged += sum(bool(frame.is_corrupt) for frame in frames)
        return frames

    def _begin(self) -> int | None:
        """The tick of the film's beginning; None of a camera, which is known with its first frame."""
        if self.camera:
            self._zero = Fraction(0)
            return None
        start = self._container.start_time
        begin = 0 if start is None else round(Fraction(start, 1_000_000) / self.unit)
        self._zero = begin * self.unit
        return begin

    def _seek(self, start: float) -> _Numbers:
        """Goes to the last key frame before a time; says how frames are numbered from there on.

        Which number a frame has, only the packets before it tell; they are counted without being decoded.
        """
        begin = self._begin() or 0
        goal, before, times = begin + _ticks(start, self.unit), 0, True
        for packet in self._packets([self._video]):
            if packet.size == 0:
                continue
            times &= packet.pts is not None
            if packet.dts is not None and packet.dts > goal:
                break
            before += packet.pts is not None and packet.pts < goal
        try:
            if times:
                self._container.seek(goal, stream=self._video, backward=True)
                return _Numbers(goal, before)
            self._container.seek(0)
        except self._errors as error:
            raise self._bad(f"cannot be read from {start:g} s on ({self._why(error)}); leave out --from") from None
        return _Numbers()

    def _sound_in(self, packet: Any, cut: Cut) -> Sound | None:
        """A piece of sound, if it is of the time that is wanted, with times since that began."""
        if packet.pts is None or packet.size == 0:
            return None
        unit = packet.time_base
        time = packet.pts * unit - self._zero
        length = (packet.duration or 0) * unit
        if (cut.start and time + length <= cut.start) or (cut.end is not None and time >= cut.end):
            return None
        shift = round((self._zero + Fraction(cut.start)) / unit)
        packet.pts -= shift
        packet.dts = packet.pts if packet.dts is None else packet.dts - shift
        return Sound(packet)

    def _image(self, frame: Any) -> Tensor:
        """A frame's pixels as they are to be seen."""
        height, width = frame.height, frame.width
        ratio = self._video.sample_aspect_ratio
        if ratio is not None and ratio > 0 and ratio != 1:
            width = max(1, round(width * ratio))
        self._check_size(width, height)
        options: dict[str, Any] = {"width": width, "height": height, "format": "rgb24"}
        if frame.colorspace == _UNSPECIFIED and frame.height >= _HD:
            options["src_colorspace"] = _BT709
        return _turned(torch.from_numpy(frame.reformat(**options).to_ndarray()).permute(2, 0, 1), _matrix(frame))

    def _check_size(self, width: int, height: int) -> None:
        if width * height > (most := most_pixels()):
            raise self._bad(
                f"has frames of {width} x {height} pixels, more than the limit of {most:,}; MTFRAME_MAX_PIXELS sets "
                "another"
            )

    def _duration(self) -> float | None:
        """As its header has it."""
        if self._video.duration:
            return float(self._video.duration * self.unit)
        # Matroska has the length of each stream in a tag.
        if found := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", self._video.metadata.get("DURATION", "")):
            return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])
        return self._container.duration / 1_000_000 if self._container.duration else None

    def _check_end(self, cut: Cut, numbers: _Numbers, last: int) -> None:
        """Notes that a film ended before its header says it does."""
        if self.camera or self.broken:
            return
        if not numbers.count:
            self.broken = f"has no frame from {cut.start:g} s on" if cut.start else "has no frame that can be decoded"
            return
        reached = float((last + 1) * self.unit) + (1 / float(self.rate) if self.rate else 0.0)
        own = self._video.duration or "DURATION" in self._video.metadata
        wanted = self.duration if cut.end is None or self.duration is None else min(self.duration, cut.end)
        if own and wanted is not None and reached < wanted - _MISSING and cut.start < wanted:
            self.broken = f"breaks off after {max(reached, 0.0):.2f} of {self.duration:.2f} s: it is cut off"

    def _bad(self, why: str) -> DataError:
        return DataError(f"{one_line(self.name)}: {why}")

    def _why(self, error: Any) -> str:
        return str(error.strerror or error)


class _Numbers:
    """Numbers and times of frames as they come.

    Args:
        goal: Before this tick, frames are not counted, as their packets have been.
        before: Packets of frames before that.
    """

    def __init__(self, goal: int | None = None, before: int = 0) -> None:
        self.count = 0
        self._goal, self._before = goal, before

    def of(self, frame: Any, unit: Fraction, rate: Fraction | None) -> tuple[int, int]:
        """The number of the next frame, and its tick; of one without a time by the film's rate."""
        ticks = frame.pts
        if ticks is None:
            ticks = round(self.count / (rate or Fraction(25)) / unit)
        if self._goal is not None and ticks < self._goal:
            return -1, ticks
        self.count += 1
        return self._before + self.count - 1, ticks


class _Wanted:
    """Whether a frame is one of those that a cut asks for; asked of each in order."""

    def __init__(self, cut: Cut) -> None:
        self._cut, self._next, self._count = cut, cut.start, 0

    def __call__(self, number: int, time: float) -> bool:
        if self._cut.interval is None:
            self._count += 1
            return (self._count - 1) % self._cut.frames == 0
        # Half a microsecond: what was rounded is not too early.
        if time < self._next - 5e-7:
            return False
        steps = int((time + 5e-7 - self._cut.start) / self._cut.interval) + 1
        self._next = self._cut.start + steps * self._cut.interval
        return True


def _opened(av: Any, path: Path, camera: bool, stack: ExitStack) -> Any:
    """PyAV's container. Raises OSError, of which FFmpeg's errors are some."""
    # Both are asked of every decoder, too, also while the film is opened: a header may name any size.
    options = {"max_pixels": str(most_pixels())}
    if camera:
        return av.open(os.fspath(path), "r", format=_CAMERA_FORMAT, options=options)
    file = stack.enter_context(regular(path).open("rb"))
    if not os.fstat(file.fileno()).st_size:
        raise OSError(errno.EINVAL, "is an empty file")
    options |= {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": _NO_PROTOCOL}
    # Titles and the like may be in any encoding, or damaged; none of them is used.
    return av.open(file, "r", options=options, metadata_errors="replace")


def _ticks(time: float, unit: Fraction) -> int:
    """The first tick that is not before a time, to half a microsecond."""
    return -((-Fraction(time) + Fraction(1, 2_000_000)) // unit) if time else 0


def _matrix(frame: Any) -> tuple[int, ...]:
    """Signs of the four numbers of a display matrix that turn a frame; upright's for none, and for a slanting one."""
    with suppress(KeyError, ValueError):
        values = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32)
        signs = tuple(int(np.sign(round(values[place] / 65536))) for place in _TURNING)
        if signs[0] * signs[3] * (signs[1] == signs[2] == 0) or signs[1] * signs[2] * (signs[0] == signs[3] == 0):
            return signs
    return 1, 0, 0, 1


def _turned(image: Tensor, matrix: tuple[int, ...]) -> Tensor:
    """An image (3, H, W) as a matrix turns and mirrors it: (x, y) goes to (ax + cy, bx + dy)."""
    a, b, c, d = matrix
    if b:
        image, across, down = image.transpose(1, 2), c, b
    else:
        across, down = a, d
    flipped = [axis for axis, sign in ((1, down), (2, across)) if sign < 0]
    return image.flip(flipped) if flipped else image
