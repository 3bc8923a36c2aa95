"""Films are read as players show them: in order, at their times, upright; and no further than the file itself."""

from __future__ import annotations

import os
import stat
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from films import UNEVEN, film, number_of, pixels
from mtframe.errors import DataError, RecipeError
from mtframe.video import Cut, Film, Frame, Sound, is_camera, read_ahead, seconds
from mtframe.video import _film as film_module

pytest.importorskip("av", reason="films are read by PyAV (pip install 'mtframe[video]')")


def frames_of(path: Path, cut: Cut | None = None) -> list[Frame]:
    with Film(path) as opened:
        found = [item for item in opened.read(cut or Cut()) if isinstance(item, Frame)]
        assert opened.problem() == ""
    return found


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts", "a.avi"])
def test_frames_come_in_order_at_their_times(tmp_path: Path, name: str) -> None:
    unit = {"a.ts": Fraction(1, 90_000), "a.avi": Fraction(1, 25)}.get(name, Fraction(1, 1000))
    step = Fraction(1, 25) / unit
    # An AVI has no times of frames that are coded before others, as players must guess.
    options = {"bf": "0"} if name == "a.avi" else {}
    times = [int(step * number) for number in range(20)]
    found = frames_of(film(tmp_path / name, times=times, unit=unit, options=options))
    assert [frame.number for frame in found] == list(range(20))
    assert [number_of(frame.image) for frame in found] == list(range(20))
    first = found[0].time
    # The sound of a transport stream may begin before the pictures.
    assert 0 <= first < 0.1
    assert [frame.time - first for frame in found] == pytest.approx([0.04 * number for number in range(20)], abs=1e-6)


def test_times_at_odd_distances_are_the_films_own(tmp_path: Path) -> None:
    found = frames_of(film(tmp_path / "a.mp4", times=UNEVEN, sound=None))
    assert [frame.time for frame in found] == [time / 1000 for time in UNEVEN]
    half = frames_of(tmp_path / "a.mp4", Cut.of("0.5s"))
    assert [frame.time for frame in half] == [0.0, 0.52, 1.0, 1.5]


@pytest.mark.parametrize(
    ("rotation", "mirrored", "turn"),
    [
        (90, False, lambda image: image.rot90(1, (1, 2))),
        (180, False, lambda image: image.rot90(2, (1, 2))),
        (-90, False, lambda image: image.rot90(-1, (1, 2))),
        (0, True, lambda image: image.flip(2)),
        # No multiple of a quarter: players do not turn it either.
        (30, False, lambda image: image),
    ],
)
def test_a_display_matrix_is_honoured(tmp_path: Path, rotation: float, mirrored: bool, turn: object) -> None:
    found = frames_of(film(tmp_path / "a.mp4", 3, sound=None, rotation=rotation, mirrored=mirrored))
    stored = torch.from_numpy(pixels(2)).permute(2, 0, 1)
    wanted = turn(stored)  # type: ignore[operator]
    assert found[2].image.shape == wanted.shape
    assert (found[2].image.int() - wanted.int()).abs().float().mean() < 8


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    first, _ = frames_of(film(tmp_path / "a.mp4", 2, sound=None, pixel=Fraction(3, 2)))
    # Twice as wide as high: a pixel is 3/2 as wide.
    assert first.image.shape == (3, 48, 96)


@pytest.mark.parametrize("coding", [{"bf": "0"}, {"bf": "3"}, {"bf": "2", "open-gop": "1"}], ids=str)
def test_from_a_place_numbers_and_pictures_are_those_of_the_whole(tmp_path: Path, coding: dict[str, str]) -> None:
    options = {"x264-params": "open-gop=1", "bf": "2"} if "open-gop" in coding else coding
    path = film(tmp_path / "a.mkv", 30, options=options)
    whole = frames_of(path)
    for start in (0.04, 0.2, 0.41, 0.8, 1.16):
        part = frames_of(path, Cut(start=start))
        wanted = [frame for frame in whole if frame.time >= start - 1e-6]
        assert [(frame.number, frame.time) for frame in part] == [(frame.number, frame.time) for frame in wanted]
        assert [number_of(frame.image) for frame in part] == [frame.number for frame in part]
    part = frames_of(path, Cut.of(3, 0.2, 0.6))
    assert [frame.number for frame in part] == [5, 8, 11, 14]
    assert [frame.ticks for frame in part] == [0, 120, 240, 360], "of the cut"


def test_sound_is_of_the_same_time(tmp_path: Path) -> None:
    with Film(film(tmp_path / "a.mp4", 25)) as opened:
        items = list(opened.read(Cut.of(1, 0.4, 0.8), sound=True))
    sound = [item.packet for item in items if isinstance(item, Sound)]
    times = [float(packet.pts * packet.time_base) for packet in sound]
    # Pieces of 1,024 samples; that which is under way where it begins is there, too.
    assert -0.024 < times[0] <= 0
    assert 0.37 < times[-1] < 0.4
    assert np.diff(times) == pytest.approx([1024 / 44100] * (len(times) - 1), abs=1e-4)


def test_a_film_that_is_cut_off_gives_what_there_is_and_says_so(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mp4"):
        whole = film(tmp_path / name, 100, options={"movflags": "faststart"})
        data = whole.read_bytes()
        if name == "a.mp4":
            # With what describes the frames in front of them.
            import av

            fast = {"movflags": "+faststart"}
            with av.open(str(whole)) as container, av.open(str(tmp_path / "b.mp4"), "w", options=fast) as out:
                stream = container.streams.video[0]
                copied = out.add_stream_from_template(stream)
                for packet in container.demux(stream):
                    if packet.dts is not None:
                        packet.stream = copied
                        out.mux(packet)
            data = (tmp_path / "b.mp4").read_bytes()
        whole.write_bytes(data[: len(data) * 6 // 10])
        with Film(whole) as opened:
            found = [item for item in opened.read(Cut()) if isinstance(item, Frame)]
            assert 5 < len(found) < 95
            assert "a.m" in opened.problem()
            assert "breaks off" in opened.problem() or "damaged" in opened.problem()
        assert [number_of(frame.image) for frame in found[:5]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("empty.mp4", b"", "is an empty file"),
        ("text.mp4", b"no film at all " * 99, "is no film, or one whose beginning is damaged"),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://FILM\n#EXT-X-ENDLIST\n", "is no film"),
        ("list.mp4", b"ffconcat version 1.0\nfile 'FILM'\n", "is no film"),
    ],
)
def test_what_is_no_film_is_refused_and_opens_no_other_file(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    whole = film(tmp_path / "whole.mp4", 3)
    (tmp_path / name).write_bytes(content.replace(b"FILM", os.fsencode(whole)))
    with pytest.raises(DataError, match=rf"{name}: {why}"):
        Film(tmp_path / name)


def test_other_things_than_films_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="No such file"):
        Film(tmp_path / "nowhere.mp4")
    with pytest.raises(DataError, match="directory"):
        Film(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(DataError, match="is no regular file"):
        Film(tmp_path / "pipe.mp4")
    path = film(tmp_path / "a.mp4", 3)
    monkeypatch.setenv("MTFRAME_MAX_PIXELS", "3000")
    with pytest.raises(DataError, match=r"a\.mp4: .*64 x 48|is no film"):
        Film(path)


def test_a_camera_has_no_end_and_its_time_begins_when_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's own generator stands for one, of which no test machine has any."""
    monkeypatch.setattr(film_module, "is_camera", lambda path: True)
    monkeypatch.setattr(film_module, "_CAMERA_FORMAT", "lavfi")
    with Film("testsrc=size=64x48:rate=25,setpts=PTS+7/TB") as camera:
        assert (camera.camera, camera.duration) == (True, None)
        found = [item for item in camera.read(Cut.of(2, 0.2, 0.6)) if isinstance(item, Frame)]
    assert [frame.time for frame in found] == pytest.approx([0.2, 0.28, 0.36, 0.44, 0.52])
    assert [frame.number for frame in found] == [5, 7, 9, 11, 13]
    monkeypatch.undo()
    assert not is_camera("/dev/null")
    assert not is_camera("nowhere")
    status = SimpleNamespace(st_mode=stat.S_IFCHR, st_rdev=os.makedev(81, 0))
    monkeypatch.setattr(film_module.os, "stat", lambda path: status)
    assert is_camera("/dev/video0")


def test_times_and_distances_are_read_as_people_write_them() -> None:
    assert [seconds(text, "--to") for text in ("90", "1:30", "0:01:30.5", ".5")] == [90, 90, 90.5, 0.5]
    assert Cut.of("5") == Cut(5)
    assert Cut.of("0.5s", 1, 2) == Cut(1, 0.5, 1, 2)
    for wrong in ("0", "-1", "a", "0s", "1m", "1e9", ""):
        with pytest.raises(RecipeError, match=r"--every: expected a number of frames, as 5, or of seconds"):
            Cut.of(wrong)
    with pytest.raises(RecipeError, match=r"--from: expected seconds or a time"):
        seconds("1:2:3:4", "--from")
    with pytest.raises(RecipeError, match=r"--to: expected a time after 5 s"):
        Cut.of(1, 5, 5)


def test_reading_ahead_keeps_order_errors_and_bounds() -> None:
    started = threading.active_count()
    given: list[int] = []

    def count() -> object:
        for number in range(100):
            given.append(number)
            yield number
        raise DataError("the end")

    numbers = read_ahead(count(), 2)  # type: ignore[arg-type, var-annotated]
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    # Three were taken, two wait, and one is in the thread's hand.
    assert len(given) <= 6
    numbers.close()
    assert threading.active_count() == started
    with pytest.raises(DataError, match="the end"):
        list(read_ahead(count(), 2))  # type: ignore[arg-type, var-annotated]
    assert threading.active_count() == started
