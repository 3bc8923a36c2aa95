"""Synthetic scenes: same bytes from a seed, tables with gaps, no way around the layout."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mtframe.errors import RecipeError
from mtframe_classification.csv_images import CsvImages
from mtframe_classification.image_folder import ImageFolder
from mtframe_classification.rendering import SCENES, Scene, render_scene
from mtframe_classification.synthesis import synthesize_folders, synthesize_table

SMALL = {"train": 24, "val": 10, "size": 32}


def _digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("table")
    synthesize_table(root, seed=1, train=320, val=160, size=48, workers=1)
    return root


def test_same_seed_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    assert synthesize_folders(tmp_path / "a", **SMALL, workers=1) == {"train": 24, "val": 10, "classes": 8}
    synthesize_folders(tmp_path / "b", **SMALL, workers=2)
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")
    synthesize_table(tmp_path / "c", **SMALL, workers=1)
    synthesize_table(tmp_path / "c", **SMALL, workers=1)
    assert len(list((tmp_path / "c" / "images").iterdir())) == 34
    folders, table = (set(_digests(tmp_path / name).values()) for name in "ac")
    assert len(folders - table) == 1, "both draw the same scenes; only the marker files differ"


def test_another_seed_gives_other_scenes_and_no_scene_is_in_both_splits(tmp_path: Path) -> None:
    synthesize_folders(tmp_path / "a", **SMALL, workers=1)
    synthesize_folders(tmp_path / "b", seed=1, **SMALL, workers=1)
    first, second = (set(_digests(tmp_path / name).values()) for name in "ab")
    assert not first & second
    assert len(first) == 24 + 10 + 1


def test_the_folder_reader_reads_it(tmp_path: Path) -> None:
    synthesize_folders(tmp_path / "a", **SMALL, workers=1)
    train, val = (ImageFolder(split, root=tmp_path / "a") for split in ("train", "val"))
    assert (len(train), len(val), train.info.classes) == (24, 10, tuple(SCENES))
    assert tuple(train[0].image.shape) == (3, 32, 32)


def test_the_table_reader_reads_it(table: Path) -> None:
    train = CsvImages("train", root=table, label="scene")
    assert train.info.classes == tuple(SCENES)
    assert 260 < len(train) < 310, "a tenth of the labels is unknown"
    for options in ({"labels": ("sun", "birds", "fence")}, {"values": ("horizon", "tilt")}):
        assert len(CsvImages("val", root=table, **options)) > 150  # type: ignore[arg-type]
    with (table / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cells = [row[name] for row in rows for name in ("scene", "sun", "birds", "fence", "horizon", "tilt")]
    assert 0.07 < np.mean([cell == "" for cell in cells]) < 0.13


def test_numbers_are_those_of_the_picture() -> None:
    # The sky ends where the horizon is, and it falls to the right where the tilt is positive.
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        scene = Scene("road", rng.uniform(0.4, 0.65), rng.uniform(-12, 12), frozenset())
        image = render_scene(scene, 96, rng)
        edge = [int(np.abs(np.diff(image[:, 8:-8, x], axis=1)).sum(0)[8:50].argmax()) for x in (4, 91)]
        found.append((scene.horizon, scene.tilt, edge))
    rises = np.array([right - left for _, _, (left, right) in found])
    expected = 87 * np.tan(np.radians([tilt for _, tilt, _ in found]))
    assert np.median(np.abs(rises - expected)) < 2.5
    middle = np.array([(left + right) / 2 + 16.5 for _, _, (left, right) in found]) / 96
    assert np.median(np.abs(middle - [horizon for horizon, _, _ in found])) < 0.02


@pytest.mark.parametrize("what", ["colours", "pixels"])
def test_what_does_not_solve_it(table: Path, what: str) -> None:
    splits = [CsvImages(split, root=table, label="scene") for split in ("train", "val")]
    features, labels = [], []
    for data in splits:
        images = np.stack([data[index].image.numpy() for index in range(len(data))]).astype(np.float32) / 255
        if what == "colours":
            features.append(np.concatenate([images.mean((2, 3)), images.std((2, 3))], axis=1))
        else:
            features.append(images[:, :, ::4, ::4].reshape(len(images), -1))
        labels.append([int(data[index].target["label"]) for index in range(len(data))])
    scaler = StandardScaler().fit(features[0])
    train, val = (scaler.transform(part) for part in features)
    for model in (KNeighborsClassifier(5), LogisticRegression(max_iter=300, C=0.01), SVC()):
        accuracy = model.fit(train, labels[0]).score(val, labels[1])
        print(f"{what}, {type(model).__name__}: {accuracy:.2f}")
        assert accuracy < 0.45, f"{what}: {accuracy}"


def test_mistakes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="train=3: expected at least 8"):
        synthesize_folders(tmp_path / "a", train=3)
    (tmp_path / "mine.jpg").write_bytes(b"")
    for make in (synthesize_folders, synthesize_table):
        with pytest.raises(RecipeError, match="expected a new or empty folder"):
            make(tmp_path)
