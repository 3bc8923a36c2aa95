"""Films that tests make: a bar that moves a pixel a frame, and what it is seen at."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

# Width and height.
SIZE = 64, 48

# At odd distances, as of a telephone in the dark.
UNEVEN = [0, 7, 47, 60, 61, 100, 180, 181, 300, 400, 520, 521, 522, 600, 680, 700, 900, 990, 1000, 1500]


def pixels(number: int) -> np.ndarray:
    """Frame `number`: black, red on the left up to 2 pixels a number, and green in the upper 8 lines."""
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    picture[:, : 2 * number] = (255, 0, 0)
    picture[:8] = (0, 255, 0)
    return picture


def number_of(image: Tensor) -> int:
    """Which frame an image (3, 48, 64) is."""
    return round(int((image[0, 16:].float().mean(0) > 128).sum()) / 2)


def film(
    path: Path,
    frames: int = 20,
    *,
    times: Sequence[int] | None = None,
    unit: Fraction = Fraction(1, 1000),
    sound: str | None = "aac",
    rotation: float | None = None,
    mirrored: bool = False,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixel: Fraction = Fraction(1),
) -> Path:
    """Writes a film.

    Args:
        path: Where; the suffix says in which format.
        frames: How many.
        times: Of the frames, in units; 40 apart if None.
        unit: Seconds.
        sound: Coding of a second of silence; None for none.
        rotation: Degrees that a player turns it by, against the clock.
        mirrored: Whether a player mirrors it.
        codec: Of the pictures.
        options: Of the encoder.
        pixel: How wide a pixel is by its height.
    """
    import av

    given = times or [40 * number for number in range(frames)]
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=25, options={"crf": "1", "g": "6", **(options or {})})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        video.time_base = video.codec_context.time_base = unit
        video.codec_context.sample_aspect_ratio = pixel
        if rotation is not None or mirrored:
            video.set_display_rotation(rotation or 0, hflip=mirrored)
        audio: Any = container.add_stream(sound, rate=44100, layout="mono") if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(pixels(number), format="rgb24")
            frame.pts, frame.time_base = given[number], unit
            container.mux(video.encode(frame))
            if audio is not None:
                _silence(av, container, audio, number)
        container.mux(video.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    return path


def _silence(av: Any, container: Any, audio: Any, number: int) -> None:
    planar = audio.codec_context.format.is_planar
    kind = {"fltp": np.float32, "s16p": np.int16, "s16": np.int16}[audio.codec_context.format.name]
    size = 1764
    block = av.AudioFrame.from_ndarray(np.zeros((1, size), kind), format=audio.codec_context.format.name, layout="mono")
    assert planar or kind is np.int16
    block.sample_rate, block.pts, block.time_base = 44100, size * number, Fraction(1, 44100)
    container.mux(audio.encode(block))
