"""`mtframe predict` on films: the same frames at the same times, with marks, sound and lines; and what goes wrong."""

from __future__ import annotations

import json
import threading
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command import mtframe
from films import UNEVEN, film, number_of
from full_disk import fill
from mtframe.drawing import draw_marks, size_drawn, to_pil
from mtframe.errors import DataError, MtframeError, RecipeError
from mtframe.inference import Predictor, find_pictures, load_run, predict_files
from mtframe.marks import Bar, Mark, Mask, Text
from mtframe.video import Cut, Film, FilmWriter, Frame

av = pytest.importorskip("av", reason="films are read by PyAV (pip install 'mtframe[video]')")


@pytest.fixture(scope="module")
def predictor(small_run: Path) -> Predictor:
    return load_run(small_run, device="cpu")


def frames_of(path: Path) -> list[Frame]:
    with Film(path) as opened:
        return [item for item in opened.read(Cut()) if isinstance(item, Frame)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_film_becomes_a_film_and_lines(small_run: Path, tmp_path: Path) -> None:
    source = film(tmp_path / "walk.mp4", times=UNEVEN)
    result = mtframe("predict", small_run, source, "--out", tmp_path / "out", "-t", "objects", "--threshold", "0")
    assert (result.code, result.err) == (0, ""), result
    assert result.out == f"wrote {tmp_path}/out/walk.mp4\nwrote {tmp_path}/out/walk.jsonl\n"
    lines = lines_of(tmp_path / "out" / "walk.jsonl")
    assert [line["frame"] for line in lines] == list(range(20))
    assert [line["time"] for line in lines] == [time / 1000 for time in UNEVEN]
    assert {(line["source"], *line["size"]) for line in lines} == {(str(source), 48, 64)}
    assert all(len(line["tasks"]["objects"]) == 5 for line in lines)
    drawn = frames_of(tmp_path / "out" / "walk.mp4")
    assert [frame.time for frame in drawn] == [time / 1000 for time in UNEVEN]
    # As small pictures are, it is enlarged to be drawn on.
    assert drawn[0].image.shape == (3, 480, 640)


def test_the_film_is_one_that_browsers_play_with_its_sound(small_run: Path, tmp_path: Path) -> None:
    source = film(tmp_path / "a.mkv", 25)
    assert mtframe("predict", small_run, source, "--out", tmp_path, "-t", "objects").code == 0
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat"), "what describes it comes first"
    with av.open(str(tmp_path / "a.mp4")) as container, av.open(str(source)) as original:
        (video,), (sound,) = container.streams.video, container.streams.audio
        assert (video.codec_context.name, video.pix_fmt) == ("h264", "yuv420p")
        assert (video.width % 2, video.height % 2) == (0, 0)
        copied = [bytes(packet) for packet in container.demux(sound) if packet.size]
        given = [bytes(packet) for packet in original.demux(original.streams.audio[0]) if packet.size]
    assert copied == given
    assert len(given) > 20
    # MP4 would take it, but nobody would hear it.
    silent = mtframe(
        "predict", small_run, film(tmp_path / "b.mov", 3, sound="pcm_s16le"), "--out", tmp_path / "b", "-t", "objects"
    )
    assert silent.code == 0
    assert "b.mov: its sound (pcm_s16le) is not copied, as browsers do not play it in an MP4" in silent.err


def test_predictions_of_frames_are_those_of_the_pictures(predictor: Predictor, tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", 11, rotation=90)
    found = list(predictor.predict_film(source, ["objects"], batch_size=4))
    assert [frame.number for frame in found] == list(range(11))
    wanted = list(predictor.predict_many([frame.image for frame in found], ["objects"], batch_size=4))
    for frame, prediction in zip(found, wanted, strict=True):
        for name, values in prediction["objects"].items():
            torch.testing.assert_close(frame.predictions["objects"][name], values)
    part = list(predictor.predict_film(source, ["objects"], every=2, start=0.1, end=0.3))
    assert [(frame.number, frame.time) for frame in part] == [(3, 0.12), (5, 0.2), (7, 0.28)]


def test_the_iterator_is_lazy_and_leaves_nothing_behind(predictor: Predictor, tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", 60, sound=None)
    threads = threading.active_count()
    frames = predictor.predict_film(source, ["faces"], batch_size=2)
    assert threading.active_count() == threads
    assert [frame.number for frame in islice(frames, 3)] == [0, 1, 2]
    frames.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads
    with pytest.raises(DataError, match="No such file"):
        predictor.predict_film(tmp_path / "nowhere.mp4")
    with pytest.raises(RecipeError, match="--every: expected"):
        predictor.predict_film(source, every=0)
    with pytest.raises(RecipeError, match="no such task"):
        predictor.predict_film(source, ["cats"])


def test_pictures_and_films_in_one_call(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "c.png"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / "in" / name)
    film(tmp_path / "in" / "b.mp4", 3)
    film(tmp_path / "in" / "a.mkv", 2)
    result = mtframe(
        "predict", small_run, tmp_path / "in", "--out", tmp_path / "out", "--json-lines",
        "--embeddings", tmp_path / "e.npz",
    )  # fmt: skip
    assert result.code == 0, result
    said = [json.loads(line) for line in result.out.splitlines()]
    assert [(Path(one["source"]).name, one.get("frame")) for one in said] == [
        ("a.jpg", None), ("a.mkv", 0), ("a.mkv", 1), ("b.mp4", 0), ("b.mp4", 1), ("b.mp4", 2), ("c.png", None),
    ]  # fmt: skip
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert written == {
        "a_jpg.jpg", "a_mkv.mp4", "a_mkv.jsonl", "b.mp4", "b.jsonl", "c.jpg", "faces_similar.jpg",
    }  # fmt: skip
    kept = np.load(tmp_path / "e.npz")
    assert kept["frame"].tolist() == [-1, 0, 1, 0, 1, 2, -1]
    assert kept["time"][1:6].tolist() == [0, 0.04, 0, 0.04, 0.08]
    assert kept["faces.embedding"].shape == (7, 16)
    array = mtframe(
        "predict", small_run, tmp_path / "in" / "b.mp4", "--out", tmp_path / "out", "--json", "--every", "2"
    )
    assert [(one["frame"], one["time"]) for one in json.loads(array.out)] == [(0, 0.0), (2, 0.08)]


def test_what_goes_wrong_is_said_once_and_what_was_read_is_kept(small_run: Path, tmp_path: Path) -> None:
    whole = film(tmp_path / "cut.mkv", 100)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    (tmp_path / "no.mp4").write_bytes(b"nothing " * 99)
    result = mtframe("predict", small_run, whole, tmp_path / "no.mp4", "--out", tmp_path / "out", "-t", "objects")
    assert result.code == 1
    told = result.err.splitlines()
    assert len(told) == 2, told
    assert "cut.mkv: " in told[0]
    assert "no.mp4: is no film, or one whose beginning is damaged" in told[1]
    lines = lines_of(tmp_path / "out" / "cut.jsonl")
    assert 5 < len(lines) < 100
    assert len(frames_of(tmp_path / "out" / "cut.mp4")) == len(lines)
    assert not list((tmp_path / "out").glob("no*")), "of nothing there is nothing"
    late = mtframe("predict", small_run, film(tmp_path / "a.mp4", 5), "--from", "1:00", "--out", tmp_path / "out")
    assert (late.code, late.err) == (1, f"skipped {tmp_path}/a.mp4: has no frame from 60 s on\n")
    for arguments, why in (
        (["http://127.0.0.1/film.mp4"], "http://127.0.0.1/film.mp4: only files and cameras of this machine are read"),
        ([tmp_path / "a.mp4", "--every", "x"], "--every: expected a number of frames"),
        ([tmp_path / "a.mp4", "--json", "--json-lines"], "--json and --json-lines: expected one of them"),
        ([tmp_path / "a.mp4", "--out", tmp_path], "a.mp4 is one of the pictures to read, and would be written over"),
    ):
        refused = mtframe("predict", small_run, *arguments)
        assert refused.code == 2
        assert why in refused.err


def test_an_interruption_keeps_the_film_so_far(predictor: Predictor, tmp_path: Path) -> None:
    source = find_pictures([film(tmp_path / "a.mkv", 60)], films=True)

    def take(said: dict[str, Any], written: list[Path]) -> None:
        if said["frame"] == 30:
            raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, source, tmp_path / "out", ["objects"], take=take)
    assert threading.active_count() == threads
    assert [line["frame"] for line in lines_of(tmp_path / "out" / "a.jsonl")] == list(range(31))
    assert [frame.number for frame in frames_of(tmp_path / "out" / "a.mp4")] == list(range(31))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jsonl", "a.mp4"]


def test_without_pyav_a_film_is_told_of_and_pictures_are_predicted(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.jpg")
    film(tmp_path / "b.mp4", 3)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    result = mtframe("predict", small_run, tmp_path, "--out", tmp_path / "out", "-t", "objects")
    assert result.code == 1
    assert "skipped films and cameras are read by PyAV, which is not installed" in result.err
    assert "pip install 'mtframe[video]'" in result.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.jpg"]


def test_frames_of_a_film_are_of_one_size_whatever_is_said_of_them() -> None:
    """Texts, bars and the names of regions stand below; each frame has other ones."""
    names = {number: f"region {number}" for number in range(40)}
    values = torch.zeros(48, 64, dtype=torch.long)
    first: dict[str, list[Mark]] = {"a": [Bar("one", "1.0", 1.0), Text("two")], "b": [Mask(values, names)]}
    size = size_drawn((64, 48), first)
    assert size[0] == 640
    assert size[1] > 480
    values = torch.arange(48 * 64).reshape(48, 64) % 40
    more: dict[str, list[Mark]] = {"a": [Text("x")] * 9, "b": [Mask(values, names)]}
    picture = Image.new("RGB", (64, 48), "red")
    for marks in (first, more, {"a": [], "b": []}):
        drawn = draw_marks(picture, marks, drawn=size)
        assert drawn.size == size
        assert drawn.getpixel((320, 100)) != (255, 255, 255)
    # A film that goes on in another size.
    assert draw_marks(picture.resize((48, 64)), {"a": []}, drawn=size).size == size
    assert size_drawn((64, 48), {"a": []}) == (640, 480)


@pytest.mark.parametrize("size", [(64, 48), (63, 47)])
def test_a_written_film_has_the_colours_and_times_it_was_given(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    given = np.zeros((height, width, 3), np.uint8)
    given[:, : width // 2], given[:, width // 2 :] = (200, 30, 60), (20, 120, 220)
    with FilmWriter(tmp_path / "a.mp4", size, Fraction(1, 1000)) as writer:
        for ticks in (0, 1, 500, 2000):
            writer.add(given, ticks)
    found = frames_of(tmp_path / "a.mp4")
    assert [frame.time for frame in found] == [0.0, 0.001, 0.5, 2.0]
    assert found[0].image.shape == (3, 48, 64)
    for x, colour in ((10, (200, 30, 60)), (50, (20, 120, 220))):
        assert found[3].image[:, 20, x].tolist() == pytest.approx(colour, abs=4)


def test_a_film_takes_its_place_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")
    with FilmWriter(path, (64, 48), Fraction(1, 25)):
        pass
    assert path.read_bytes() == b"before", "of no frame there is no film"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def write() -> None:
        with FilmWriter(path, (64, 48), Fraction(1, 25)) as writer:
            writer.add(np.zeros((48, 64, 3), np.uint8), 0)
            monkeypatch.setattr(writer, "_container", _Failing(writer._container, mux=full))
            for ticks in range(1, 100):
                writer.add(np.zeros((48, 64, 3), np.uint8), ticks)

    with pytest.raises(MtframeError, match=r"a\.mp4 could not be written \(No space left on device\)"):
        write()
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


class _Failing:
    """PyAV's container, of which some methods fail."""

    def __init__(self, whole: object, **changed: object) -> None:
        self._whole = whole
        self.__dict__ |= changed

    def __getattr__(self, name: str) -> object:
        return getattr(self._whole, name)


def test_a_full_disk_ends_the_command(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film(tmp_path / "a.mkv", 3)
    assert number_of(frames_of(source)[2].image) == 2
    assert to_pil(frames_of(source)[0].image).size == (64, 48)
    fill(monkeypatch)
    monkeypatch.setattr("mtframe.inference._film_files.growing", _no_room)
    result = mtframe("predict", small_run, source, "--out", tmp_path / "out", "-t", "objects")
    assert result.code == 1
    assert "a.jsonl could not be written (No space left on device)" in result.err


def _no_room(path: Path) -> None:
    raise OSError(28, "No space left on device", str(path))
