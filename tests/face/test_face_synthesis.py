"""Synthetic people: LFW's format, same bytes from a seed, no way around the faces."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtframe.errors import DataError, RecipeError
from mtframe_face import synthesis as _synthesis
from mtframe_face._render import Person, View, render_face
from mtframe_face.lfw import LFW
from mtframe_face.synthesis import synthesize_people

SMALL = {"people": 2, "images": 3, "test_people": 4, "pairs": 10, "size": 64}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("people")
    synthesize_people(root, seed=3, people=2, images=6, test_people=20, pairs=200, size=128, workers=1)
    return root


def _digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    options = {**SMALL, "people": 10, "size": 32}
    counts = synthesize_people(tmp_path / "one", **options, workers=1)
    assert counts == {"people": 10, "test_people": 4, "images": 42, "pairs": 20}
    synthesize_people(tmp_path / "two", **options, workers=2)
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two")
    assert len(_digests(tmp_path / "one")) == 42 + 4


def test_another_seed_gives_other_people(tmp_path: Path) -> None:
    synthesize_people(tmp_path / "a", seed=0, **SMALL, workers=1)
    synthesize_people(tmp_path / "b", seed=1, **SMALL, workers=1)
    assert not set(_digests(tmp_path / "a").values()) & set(_digests(tmp_path / "b").values())


def test_text_files_are_as_published(root: Path) -> None:
    train = (root / "peopleDevTrain.txt").read_text(encoding="utf-8").splitlines()
    assert train[0] == "2"
    assert [line.split("\t")[1] for line in train[1:]] == ["6", "6"]
    test = (root / "peopleDevTest.txt").read_text(encoding="utf-8").splitlines()
    assert test[0] == "20"
    assert not {line.split("\t")[0] for line in train[1:]} & {line.split("\t")[0] for line in test[1:]}
    pairs = (root / "pairsDevTest.txt").read_text(encoding="utf-8").splitlines()
    assert pairs[0] == "200"
    assert [len(line.split("\t")) for line in pairs[1:]] == [3] * 200 + [4] * 200
    assert len(set(pairs[1:])) == 400
    assert all(line.split("\t")[1] < line.split("\t")[2] for line in pairs[1:201])


def test_the_reader_reads_it(root: Path) -> None:
    train, val = LFW("train", root=root), LFW("val", root=root)
    assert (len(train), len(train.info.classes)) == (12, 2)
    assert val.pairs is not None
    assert val.pairs.same.sum() == 200
    assert len(val.pairs.same) == 400
    assert tuple(val[0].image.shape) == (3, 128, 128)


def _best_accuracy(features: np.ndarray, val: LFW) -> float:
    """Of the best threshold on distances, chosen on the very pairs: more than any honest protocol gives."""
    assert val.pairs is not None
    distances = np.linalg.norm(features[val.pairs.first] - features[val.pairs.second], axis=1)
    return max(((distances <= limit) == val.pairs.same).mean() for limit in distances)


@pytest.fixture(scope="module")
def val(root: Path) -> LFW:
    return LFW("val", root=root)


@pytest.fixture(scope="module")
def crops(val: LFW) -> np.ndarray:
    """(N, 3, 72, 72): the crops that a network is shown."""
    return np.stack([sample.image[:, 28:100, 28:100].numpy() for sample in val]).astype(np.float32)


def test_raw_pixels_do_not_tell_people_apart(val: LFW, crops: np.ndarray) -> None:
    assert 0.5 < _best_accuracy(crops.reshape(len(crops), -1), val) < 0.70


def test_small_grey_normalised_pixels_do_not_tell_people_apart(val: LFW, crops: np.ndarray) -> None:
    grey = crops.mean(1).reshape(len(crops), 12, 6, 12, 6).mean((2, 4)).reshape(len(crops), -1)
    grey = grey - grey.mean(1, keepdims=True)
    assert _best_accuracy(grey / np.linalg.norm(grey, axis=1, keepdims=True), val) < 0.70


def test_colours_do_not_tell_people_apart(val: LFW, crops: np.ndarray) -> None:
    histograms = [[np.histogram(channel, 16, (0, 256))[0] for channel in crop] for crop in crops]
    assert _best_accuracy(np.array(histograms, float).reshape(len(crops), -1), val) < 0.68
    means = np.concatenate([crops.mean((2, 3)), crops.std((2, 3))], axis=1)
    assert _best_accuracy((means - means.mean(0)) / means.std(0), val) < 0.68


def test_a_face_is_its_shape_not_its_colours() -> None:
    """In one view people differ more than one person under two draws of hair, clothes and background."""
    view = View.draw(np.random.default_rng(0))

    def face(person: int, drawn: int) -> np.ndarray:
        someone = Person.draw(np.random.default_rng(person))
        image = render_face(someone, view, 96, np.random.default_rng(drawn)).clip(0, 1)
        return image[:, 36:66, 30:66]  # eyes to mouth

    between = [np.abs(face(a, 0) - face(b, 0)).mean() for a, b in ((1, 2), (3, 4), (5, 6))]
    within = [np.abs(face(a, 0) - face(a, 1)).mean() for a in (1, 3, 5)]
    assert np.mean(between) > 2 * np.mean(within)


def test_a_head_turns_to_the_side_of_its_yaw() -> None:
    """The nose moves to the image's right for a positive yaw: a mirrored rotation would show another face."""
    from mtframe_face._render._head import rotation

    view = View.draw(np.random.default_rng(0))
    turned = View(**{**view.__dict__, "yaw": 0.3, "pitch": 0.0, "roll": 0.0})
    tip = rotation(turned) @ [0.0, 0.0, 1.0]
    np.testing.assert_allclose(tip, [np.sin(0.3), 0, np.cos(0.3)])


def test_a_stopped_call_leaves_nothing_that_reads_as_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthesize_people(tmp_path / "whole", **SMALL, workers=1)
    synthesize_people(tmp_path / "data", **{**SMALL, "people": 3}, workers=1)

    write = _synthesis._write_image

    def stop(*arguments: Any) -> None:
        # After all images of those who train and some of the others.
        if arguments[-1] == 10:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_synthesis, "_write_image", stop)
        with pytest.raises(KeyboardInterrupt):
            synthesize_people(tmp_path / "data", **SMALL, workers=1)
    with pytest.raises(DataError, match="found no person"):
        LFW("train", root=tmp_path / "data")
    synthesize_people(tmp_path / "data", **SMALL, workers=1)
    assert _digests(tmp_path / "data") == _digests(tmp_path / "whole")


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RecipeError, match="expected a new or empty folder"):
        synthesize_people(tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("seed", -1, "seed=-1: expected at least 0"),
        ("workers", -3, "workers=-3: expected at least 1"),
        ("people", 0, "people=0: expected at least 2"),
        ("images", 1, "images=1: expected at least 2"),
        ("size", 8, "size=8: expected at least 32"),
        ("pairs", 13, "pairs=13: test_people=4 with images=3 each give only 12 different pairs"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_made(
    tmp_path: Path, option: str, value: int, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        synthesize_people(tmp_path / "data", **{**SMALL, option: value})
    assert not (tmp_path / "data").exists()


def test_workers_need_no_torch() -> None:
    code = "import sys, mtframe_face.synthesis; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
