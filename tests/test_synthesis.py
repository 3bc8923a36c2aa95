"""The framework's part of synthetic data: folders that are safe to fill, processes, antialiasing."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from mtframe.errors import DataError, RecipeError
from mtframe.files import partial_beside
from mtframe.synthesis import MARKER, coverage, grid, noise, open_root, paint, render_all, span, write_jpeg
from mtframe_segmentation.semantic_masks import SemanticMasks


def _square(offset: int, index: int) -> int:
    return index * index + offset


def _fail(index: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "image.jpg")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    assert render_all(partial(_square, 3), 40, workers) == [index * index + 3 for index in range(40)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_named(workers: int) -> None:
    with pytest.raises(DataError, match=r"image\.jpg: cannot be written \(No space left on device\)"):
        render_all(_fail, 40, workers)


def test_a_folder_with_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("four years", encoding="utf-8")
    with pytest.raises(RecipeError, match="expected a new or empty folder"):
        open_root(tmp_path, "people", ("images",), {})
    assert (tmp_path / "thesis.tex").read_text(encoding="utf-8") == "four years"
    assert not (tmp_path / MARKER).exists()


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("", encoding="utf-8")
    with pytest.raises(RecipeError, match="expected a new or empty folder"):
        open_root(tmp_path / "data", "people", (), {})


@pytest.mark.parametrize("marker", ['{"what": "scenes"}', "[]", "not json"])
def test_another_makers_folder_is_refused(tmp_path: Path, marker: str) -> None:
    (tmp_path / MARKER).write_text(marker, encoding="utf-8")
    with pytest.raises(RecipeError, match="synthesized people"):
        open_root(tmp_path, "people", (), {})


def test_ones_own_folder_is_emptied_of_what_one_made_only(tmp_path: Path) -> None:
    open_root(tmp_path, "people", ("images", "pairs.txt"), {"seed": 1})
    (tmp_path / "images" / "A").mkdir(parents=True)
    (tmp_path / "pairs.txt").write_text("1", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    open_root(tmp_path, "people", ("images", "pairs.txt"), {"seed": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", MARKER]


def test_images_are_on_the_disk_before_what_makes_them_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[set[str]] = []
    monkeypatch.setattr(os, "sync", lambda: there.append({file.name for file in tmp_path.rglob("*") if file.is_file()}))
    SemanticMasks.synthesize(tmp_path / "made", train=1, val=1, size=32, workers=1)
    assert there == [{MARKER, "000000.jpg", "000000.png"}] * 2
    assert (tmp_path / "made" / "classes.txt").is_file()


def test_a_call_that_was_killed_at_once_is_in_nobodys_way(tmp_path: Path) -> None:
    partial_beside(tmp_path / MARKER).touch()
    open_root(tmp_path, "people", (), {})
    assert (tmp_path / MARKER).is_file()
    # What is the user's own is not.
    (tmp_path / MARKER).unlink()
    (tmp_path / "mine.partial").touch()
    with pytest.raises(RecipeError, match="expected a new or empty folder"):
        open_root(tmp_path, "people", (), {})


def test_coverage_of_half_a_pixel_is_a_half() -> None:
    np.testing.assert_allclose(coverage(np.array([-2.0, -0.25, 0.0, 0.5, 9.0])), [1, 0.75, 0.5, 0, 0])


def test_coverage_adds_up_to_the_area_of_a_disc() -> None:
    y, x = grid(64, 64)
    assert coverage(np.hypot(x - 31.3, y - 32.8) - 20).sum() == pytest.approx(np.pi * 400, rel=1e-3)


def test_paint_blends_by_the_mask() -> None:
    image = np.ones((3, 1, 3), np.float32)
    paint(image, np.array([[0.0, 0.5, 1.0]]), (0.0, 0.5, 1.0))
    np.testing.assert_allclose(image[:, 0], [[1, 0.5, 0], [1, 0.75, 0.5], [1, 1, 1]])


def test_noise_is_smooth_within_a_cell_and_in_range() -> None:
    texture = noise(np.random.default_rng(0), (80, 40), (4, 2))
    assert texture.shape == (80, 40)
    assert 0 <= texture.min() < texture.max() <= 1
    # 1.5 is the steepest slope of the interpolation, in grid values a cell of 20 pixels.
    assert np.abs(np.diff(texture, axis=0)).max() <= 1.5 / 20


def test_span_stays_on_the_axis() -> None:
    assert span(-5.5, 2.2, 10) == slice(0, 3)
    assert span(7.9, 99, 10) == slice(7, 10)
    assert span(50, 60, 10) == slice(9, 10)


def test_a_jpeg_is_rgb_and_clipped(tmp_path: Path) -> None:
    image = np.zeros((3, 16, 24), np.float32)
    image[0], image[2] = 2.0, -1.0
    write_jpeg(tmp_path / "red.jpg", image)
    back = simplejpeg.decode_jpeg((tmp_path / "red.jpg").read_bytes())
    assert back.shape == (16, 24, 3)
    assert np.abs(back.astype(int) - [255, 0, 0]).max() <= 3
