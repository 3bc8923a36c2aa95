"""Every preset through the command line, and three tasks of which two look at the same images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from command import Result, mtframe
from mtframe.inference import load_run
from mtframe_classification.csv_images import CsvImages
from mtframe_classification.image_folder import ImageFolder
from mtframe_classification.weights import class_weights, positive_weights
from small import Small

PARTS = (
    "-b", "timm/test_resnet.r160_in1k", "backbone.pretrained=false",
    "train.steps=2", "train.workers=0", "train.precision=fp32", "train.ema=null", "train.log_every=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    ImageFolder.synthesize(root / "scenes", train=16, val=8, size=32, workers=1)
    CsvImages.synthesize(root / "table", train=16, val=8, size=32, workers=1)
    return root


def _done(result: Result) -> Result:
    assert (result.code, result.err) == (0, ""), result
    return result


def _scores(run: Path) -> dict[str, dict[str, float]]:
    """By task and metric's value."""
    result = mtframe("evaluate", run, "--json")
    # Notes go to the standard error.
    assert result.code == 0, result
    found = json.loads(result.out)
    return {task: values.get("values", values) for task, values in found.items()}


def test_every_preset_trains_is_scored_and_predicts(data: Path, tmp_path: Path) -> None:
    scenes, table, run = data / "scenes", data / "table", tmp_path / "run"
    small = ["size=32", "batch_size=3"]
    mixed = ["dataset={name: csv, label: scene}", f"dataset.root={table}", "transform.mixup=0.2", "transform.cutmix=1"]
    tasks = {
        "place": (f"scene-recognition:{scenes}", small),
        "mixed": (f"image-classification:{table}", [*mixed, *small]),
        "camera": (f"regression:{table}", ["dataset.values=[horizon, tilt]", *small]),
        # Of the images that `camera` reads: one pass through the backbone, two heads.
        "things": (f"multi-label-classification:{table}", ["dataset.labels=[sun, birds, fence]", "images=camera"]),
    }
    arguments: list[str] = []
    for name, (preset, changes) in tasks.items():
        arguments += ["-t", f"{name}={preset}", *(f"tasks.{name}.{change}" for change in changes)]
    _done(mtframe("train", *PARTS, *arguments, "--out", run))
    scores = _scores(run)
    names = {"top1", "top5", "ece", "nll"}
    assert {task: set(values) for task, values in scores.items()} == {
        "place": names, "mixed": names, "things": {"mAP", "f1_micro", "f1_macro"}, "camera": {"mae", "rmse", "r2"},
    }  # fmt: skip
    (described,) = json.loads(_done(mtframe("predict", run, next(table.rglob("*.jpg")), "--json")).out)
    said = described["tasks"]
    assert {row["label"] for row in said["place"]} < set(ImageFolder("val", root=scenes).info.classes)
    assert {row["label"] for row in said["things"]} == {"sun", "birds", "fence"}
    assert said["camera"].keys() == {"horizon", "tilt"}


@pytest.fixture
def attributes(small: Small, tmp_path: Path) -> Path:
    """Attributes of most of the small people's pictures: training people to learn, the others to validate."""
    listed = (small.faces / "peopleDevTrain.txt").read_text(encoding="utf-8").split()[1::2]
    rows = []
    for number, path in enumerate(sorted(small.faces.rglob("*.jpg"))):
        split = "train" if path.parent.name in listed else "val"
        beard, glasses = ("0", "1", "")[number % 3], "10"[number % 2]
        rows.append([path.relative_to(small.faces).as_posix(), split, beard, glasses])
    file = tmp_path / "attributes.csv"
    with file.open("w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows([["file", "split", "beard", "glasses"], *rows[1:]])
    return file


def test_faces_objects_and_attributes_of_the_same_faces(small: Small, attributes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _done(
        mtframe(
            "train", *small.parts, "-t", f"attributes=multi-label-classification:{small.faces}",
            "tasks.attributes.images=faces", "tasks.attributes.dataset.labels=[beard, glasses]",
            f"tasks.attributes.dataset.file={attributes}", "--out", run,
        )
    )  # fmt: skip
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(0 < float(row["attributes/binary_cross_entropy"]) < 3 for row in rows)
    assert _scores(run).keys() == {"faces", "objects", "attributes"}


def test_weights_of_how_often_classes_occur_come_back_with_the_run(data: Path, tmp_path: Path) -> None:
    run, small = tmp_path / "run", ("size=32", "batch_size=3")
    places, things = f"image-classification:{data / 'scenes'}", f"multi-label-classification:{data / 'table'}"
    weighed = "loss={name: cross-entropy, class_weights: effective, beta: 0.9, gamma: 2.0}"
    changes = [f"tasks.places.{change}" for change in (*small, weighed)]
    changes += [f"tasks.things.{change}" for change in (*small, "dataset.labels=[sun, birds, fence]",
                "loss={name: binary-cross-entropy, positive_weight: balanced, gamma: 1.5}")]  # fmt: skip
    _done(mtframe("train", *PARTS, "-t", f"places={places}", "-t", f"things={things}", *changes, "--out", run))
    folder = ImageFolder("train", root=data / "scenes")
    assert folder.info.counts is not None
    stored = json.loads((run / "labels.json").read_text(encoding="utf-8"))
    assert stored["places"]["counts"]["positive"] == list(folder.info.counts.positive)
    # Neither needs the training images.
    (data / "scenes" / "train").rename(tmp_path / "away")
    try:
        predictor = load_run(run)
    finally:
        (tmp_path / "away").rename(data / "scenes" / "train")
    assert predictor.infos["places"].counts == folder.info.counts
    given = predictor.model.losses["places"].weight_C
    torch.testing.assert_close(given, class_weights("effective", folder.info, 0.9))
    table = CsvImages("train", root=data / "table", labels=("sun", "birds", "fence"))
    torch.testing.assert_close(
        predictor.model.losses["things"].positive_weight, positive_weights("balanced", table.info)
    )
