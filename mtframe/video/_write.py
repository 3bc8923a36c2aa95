"""Writing films that browsers play: H.264 in MP4, its beginning first."""

# Shapes: H height, W width of a frame.

from __future__ import annotations

from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np

from mtframe.errors import MtframeError
from mtframe.files import make_folder, replacing

from ._av import pyav

# Constant quality, and how hard it is tried to be small: beside a network, slower is not worth its time.
# No frame is coded before one that is shown earlier: with times at odd distances MP4 would end before the last frame.
_CODER = {"crf": "20", "preset": "veryfast", "bf": "0"}

# What H.264 has in four bits of each frame (ITU-T H.273): BT.709, not all of 0..255.
_BT709, _LIMITED = 1, 1

# Sound that can be taken as it is. MP4 would take more, as PCM, which browsers do not play.
_SOUNDS = ("aac", "ac3", "alac", "eac3", "flac", "mp3", "opus")

# Frames a second that a camera may have, to an encoder that wants to know.
_RATE = Fraction(25)


class FilmWriter:
    """A film that is written frame by frame; a context manager. It takes its place once it is whole.

    Left by an error or an interruption it is finished, too: the frames so far are a film. If nothing was added there is
    none.

    Args:
        path: The file, `.mp4`.
        size: (width, height) of the frames; an odd one gets a line more.
        unit: Seconds of a tick.
        rate: Frames a second on the average, for the encoder; None if unknown.
        sound: PyAV's stream of sound to copy; None for none.

    Attributes:
        silent: Why sound is not copied; empty if it is, or there is none.
        frames: How many have been added.
        lost: Whether it cannot be written, and will not be there.

    Raises:
        DataError: PyAV is not installed.
        MtframeError: It cannot be written; also from the methods.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], unit: Fraction, rate: Fraction | None = None, sound: Any = None
    ) -> None:
        self._av, self.path = pyav(), path
        self._errors = (self._av.error.FFmpegError, OSError, ValueError)
        self.silent, self.frames, self.lost = "", 0, False
        self._unit, self._size = unit, (size[0] + size[0] % 2, size[1] + size[1] % 2)
        with ExitStack() as stack:
            try:
                make_folder(path.parent)
                file = stack.enter_context(replacing(path))
                # By its name: what is at the end is written again at the beginning, for which FFmpeg opens it twice.
                options = {"movflags": "+faststart"}
                self._container = self._av.open(str(file.name), "w", format="mp4", options=options)
                self._video = self._coder(rate or _RATE)
                self._sound = self._copied(sound)
            except self._errors as error:
                raise self._failed(error) from error
            self._stack = stack.pop_all()

    def _coder(self, rate: Fraction) -> Any:
        video = self._container.add_stream("libx264", rate=rate.limit_denominator(1001), options=_CODER)
        video.width, video.height, video.pix_fmt = *self._size, "yuv420p"
        context = video.codec_context
        video.time_base = context.time_base = self._unit
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        return video

    def _copied(self, sound: Any) -> Any:
        if sound is None:
            return None
        name = sound.codec_context.name if sound.codec_context is not None else "unknown"
        if not any(name.startswith(known) for known in _SOUNDS):
            self.silent = f"its sound ({name}) is not copied, as browsers do not play it in an MP4"
            return None
        return self._container.add_stream_from_template(sound)

    def add(self, pixels: np.ndarray, ticks: int) -> None:
        """The next frame.

        Args:
            pixels: (H, W, 3) uint8, RGB, of the film's size.
            ticks: Its time, greater than that of the frame before.
        """
        width, height = self._size
        across, down = width - pixels.shape[1], height - pixels.shape[0]
        if across or down:
            pixels = np.pad(pixels, ((0, down), (0, across), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = ticks, self._unit
        try:
            self._container.mux(self._video.encode(frame))
        except self._errors as error:
            raise self._failed(error) from error
        self.frames += 1

    def add_sound(self, packet: Any) -> None:
        """A piece of sound of the stream that is copied; of none if none is."""
        if self._sound is None:
            return
        packet.stream = self._sound
        try:
            self._container.mux(packet)
        except self._errors as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            try:
                # What could not be written will not be now.
                if self.frames and not self.lost:
                    self._container.mux(self._video.encode(None))
            finally:
                self._container.close()
        except self._errors as error:
            self._abandon()
            raise self._failed(error) from error
        if self.frames and not self.lost:
            try:
                self._stack.close()
            except OSError as error:
                raise self._failed(error) from error
        else:
            self._abandon()

    def _abandon(self) -> None:
        with suppress(_Abandoned), self._stack:
            raise _Abandoned

    def _failed(self, error: Exception) -> MtframeError:
        self.lost = True
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        return MtframeError(f"{self.path} could not be written ({said})")


class _Abandoned(Exception):
    """A film that is not finished: what was at its path stays there."""
