"""Every preset through the command line, and three tasks of which two look at the same images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from command import Result, mtframe
from mtframe_classification.csv_images import CsvImages
from mtframe_classification.image_folder import ImageFolder
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
    found = json.loads(_done(mtframe("evaluate", run, "--json")).out)
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
