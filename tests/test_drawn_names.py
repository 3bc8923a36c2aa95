"""Names of any letters on pictures: each is drawn as one line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from command import mtframe
from mtframe import drawing
from mtframe.drawing import caption, contact_sheet, draw_marks, similarity_sheet
from mtframe.drawing._text import draw_text, extent_of, font_of, shorten, width_of
from mtframe.marks import Bar, Box, Mark, Mask, Point, Polyline, Text
from mtframe.palette import as_drawn

ODD = ("a\x85b", "b\nc", "d\re", "f\u2029g", "h\x1ci", "\udcffj", "\x00")
LETTERS = {"text", "textbbox", "textlength", "getlength", "getbbox", "multiline_text"}


@pytest.mark.parametrize("name", ODD)
def test_marks_of_any_name_are_drawn(name: str) -> None:
    picture = Image.new("RGB", (200, 200))
    marks: list[Mark] = [
        Box((10, 10, 60, 60), name), Point((90, 90), name), Polyline([(1, 1), (90, 90)], text=name), Text(name),
        Bar(name, name, 0.5), Mask(torch.zeros(200, 200), {0: name}),
    ]  # fmt: skip
    drawn = draw_marks(picture, {name: marks})
    assert drawn.size[0] == 480
    assert caption(marks[3:4], 3).isprintable()
    # Its line breaks are none of the caption's.
    sheets = [contact_sheet([picture], [caption([Text(text)], 3)], columns=1) for text in (name, "a")]
    assert sheets[0].size == sheets[1].size
    similar = [similarity_sheet([picture] * 2, [text] * 2, torch.eye(2)) for text in (name, "a")]
    assert similar[0].size == similar[1].size


@given(st.text(max_size=8))
@settings(max_examples=60, deadline=None)
def test_every_text_is_drawn_as_one_line(text: str) -> None:
    draw, font = ImageDraw.Draw(Image.new("RGB", (300, 40))), font_of(13)
    draw_text(draw, (0, 0), text, "white", font)
    assert extent_of(draw, text, font)[3] <= 40
    assert width_of(text, font) >= 0
    assert len(shorten(text, font, 40).splitlines()) <= 1
    assert "\n" not in as_drawn(text)


def test_letters_are_drawn_in_one_place() -> None:
    for file in Path(drawing.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        called = {ast.unparse(node.func).rpartition(".")[2] for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert file.name == "_text.py" or not called & LETTERS, file


def test_pictures_of_any_name_are_predicted(small_run: Path, tmp_path: Path) -> None:
    for name in ODD[:-2]:
        Image.new("RGB", (32, 32), "red").save(tmp_path / f"{name}.png")
        (tmp_path / "gallery" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), "red").save(tmp_path / "gallery" / name / "a.png")
    result = mtframe("predict", small_run, *tmp_path.glob("*.png"), "--gallery", tmp_path / "gallery",
                     "--out", tmp_path / "out")  # fmt: skip
    assert result.code == 0, result.err
    assert len(list((tmp_path / "out").iterdir())) == len(ODD[:-2]) + 1


def test_classes_of_any_name_are_previewed(tmp_path: Path) -> None:
    for name in ODD[:-1]:
        (tmp_path / "data" / "train" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32), "red").save(tmp_path / "data" / "train" / name / f"{number}.png")
    result = mtframe("data", "preview", "image-folder", tmp_path / "data", "size=32", "batch_size=8", "--out",
                     tmp_path / "sheet.png")  # fmt: skip
    assert result.code == 0, result.err


def test_plots_take_any_name() -> None:
    assert as_drawn("a\nb\udcff$c$") == r"a\nb\udcff\$c\$"
