"""Boxes and two sorts of masks of the same images: one pass of the backbone in training, evaluation and prediction."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command import mtframe
from mtframe.assembly import Assembly
from mtframe.inference import Predictor, load_run
from mtframe.model import MultiTaskModel
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from mtframe_detection.coco import Coco
from mtframe_segmentation.semantic_masks import SemanticMasks

STEPS, BATCH = 120, 8


@pytest.fixture(scope="module")
def root(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes, with a box around each shape in COCO's format: no kind is on a scene twice."""
    root = tmp_path_factory.mktemp("together") / "data"
    shutil.copytree(scenes, root)
    names = (root / "classes.txt").read_text(encoding="utf-8").split()
    for split in ("train", "val"):
        records: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
        records["categories"] = [{"id": number, "name": name} for number, name in enumerate(names) if number]
        for number, file in enumerate(sorted((root / "masks" / split).iterdir())):
            mask = np.array(Image.open(file))
            height, width = mask.shape
            records["images"].append(
                {"id": number, "file_name": f"{file.stem}.jpg", "height": height, "width": width}
            )  # fmt: skip
            for kind in np.unique(mask[mask > 0]).tolist():
                rows, columns = np.nonzero(mask == kind)
                x, y = int(columns.min()), int(rows.min())
                records["annotations"].append({
                    "id": len(records["annotations"]), "image_id": number, "category_id": kind, "iscrowd": 0,
                    "bbox": [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
                })  # fmt: skip
        (root / f"{split}.json").write_text(json.dumps(records), encoding="utf-8")
    return root


def recipe(root: Path) -> Recipe:
    here = str(root)
    return Recipe.from_plain({
        "backbone": {"name": "timm/test_resnet.r160_in1k", "pretrained": False},
        "tasks": {
            "objects": {
                "preset": "object-detection",
                "dataset": {"root": here, "images": "images/{split}", "annotations": "{split}.json"},
                "transform": {"scale": [1.0, 1.3]},
                "head": {"width": 32, "score_threshold": 0.01},
                "size": 64, "batch_size": BATCH, "flip_test": True,
            },
            "shapes": {
                "preset": "semantic-segmentation", "images": "objects", "dataset": {"root": here},
                "head": {"width": 32},
            },
            "figure": {
                "preset": "semantic-segmentation", "images": "objects",
                "dataset": {"root": here, "classes": ["ground", "figure", "figure", "figure", "figure"]},
                "head": {"width": 16},
            },
        },
        "train": {"steps": STEPS, "lr": 4e-3, "precision": "fp32", "ema": None, "evaluate_every": None, "workers": 0,
                  "log_every": 10},
    })  # fmt: skip


class Passes:
    """Counts calls of backbones, with the shapes of what they are given."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, ...]] = []
        before = MultiTaskModel._normalised

        def counted(model: MultiTaskModel, pixels: torch.Tensor) -> torch.Tensor:
            # Once for each batch that goes through the backbone.
            self.shapes.append(tuple(pixels.shape))
            return before(model, pixels)

        patch.setattr(MultiTaskModel, "_normalised", counted)


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, ...]]]:
    """A run, and the shapes of what went through its backbone in training."""
    assembly = Assembly(recipe(root).check())
    run = RunFolder(tmp_path_factory.mktemp("runs") / "run").create(assembly.recipe, assembly.infos)
    trainer = Trainer(assembly, run)
    shapes: list[tuple[int, ...]] = []
    trainer.model.sharing.backbone.register_forward_hook(  # type: ignore[union-attr]
        lambda _, images, __: shapes.append(tuple(images[0].shape)) if trainer.model.training else None
    )
    trainer.fit()
    return run.path, shapes


@pytest.fixture(scope="module")
def predictor(trained: tuple[Path, list[tuple[int, ...]]]) -> Predictor:
    return load_run(trained[0])


def test_a_step_is_one_pass_for_boxes_and_both_masks(trained: tuple[Path, list[tuple[int, ...]]]) -> None:
    assert trained[1] == [(BATCH, 3, 64, 64)] * STEPS


def test_the_losses_of_all_tasks_fall(trained: tuple[Path, list[tuple[int, ...]]]) -> None:
    with (trained[0] / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for term, fallen in (("objects/box", 0.7), ("shapes/cross_entropy", 0.7), ("figure/cross_entropy", 0.5)):
        first, last = (float(rows[place][term]) for place in (0, -1))
        assert last < fallen * first, f"{term}: {first:.3f} to {last:.3f}"


def test_they_are_scored_together_each_image_read_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    for dataset in (Coco, SemanticMasks):
        before = dataset.__getitem__

        def counted(its: Any, index: int, before: Any = before) -> Any:
            read[type(its).__name__] += 1
            return before(its, index)

        monkeypatch.setattr(dataset, "__getitem__", counted)
    passes = Passes(monkeypatch)
    results = predictor.evaluate_many()
    assert read == {"Coco": 24}
    # Images and their mirror images together, a batch at a time.
    assert passes.shapes == [(2 * BATCH, 3, 64, 64)] * 3
    assert list(results) == ["objects", "shapes", "figure"]
    assert all(its.images == 24 for its in results.values())


def test_two_dense_tasks_on_the_same_images_both_learn(predictor: Predictor) -> None:
    results = predictor.evaluate_many(["shapes", "figure"])
    data = SemanticMasks("val", root=predictor.assembly.recipe.tasks["shapes"].dataset.options["root"])
    ground = np.mean([(data[index].target["mask"] == 0).float().mean().item() for index in range(len(data))])
    # Of one who says "ground" everywhere, of five classes and of two.
    shapes, figure = results["shapes"].values, results["figure"].values
    assert shapes["mIoU"] > 1.5 * ground / 5
    assert figure["mIoU"] > 1.5 * ground / 2
    assert figure["pixel_accuracy"] > ground + 0.1


def test_a_picture_is_predicted_to_json_masks_and_one_drawing(
    predictor: Predictor, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    trained: tuple[Path, list[tuple[int, ...]]],
) -> None:  # fmt: skip
    passes = Passes(monkeypatch)
    pictures = [root / f"images/val/{number:06d}.jpg" for number in range(3)]
    result = mtframe("predict", trained[0], *pictures, "--out", tmp_path, "--format", "png", "--json")
    assert (result.code, result.err) == (0, "")
    assert passes.shapes == [(6, 3, 64, 64)]
    described = json.loads(result.out)
    assert [its["source"] for its in described] == list(map(str, pictures))
    for number, its in enumerate(described):
        files = {task: [str(tmp_path / f"{number:06d}_{task}_mask.png")] for task in ("shapes", "figure")}
        assert its["files"] == files
        assert its["picture"] == str(tmp_path / f"{number:06d}.png")
        for task, classes in (("shapes", 5), ("figure", 2)):
            shares = its["tasks"][task]
            assert sum(row["share"] for row in shares) == pytest.approx(1, abs=1e-4)
            with Image.open(files[task][0]) as mask:
                counts = np.bincount(np.array(mask).ravel(), minlength=classes) / (64 * 64)
            assert [row["share"] for row in shares] == pytest.approx(sorted(counts[counts > 0], reverse=True), abs=1e-6)
        with Image.open(its["picture"]) as drawn, Image.open(pictures[number]) as plain:
            # Enlarged, with a list of regions below.
            assert drawn.width == 480
            assert drawn.height > 480
            assert np.abs(np.array(drawn.crop((0, 0, 480, 480))).astype(int) - plain.resize((480, 480))).max() > 50


def test_what_training_sees_is_shown_with_its_masks(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe(root).to_yaml(), encoding="utf-8")
    result = mtframe("data", "preview", file, "--images", 4, "--out", tmp_path / "seen.png")
    assert (result.code, result.err) == (0, "")
    for task in ("objects", "shapes", "figure"):
        with Image.open(tmp_path / f"seen-{task}.png") as sheet:
            assert sheet.width > 4 * 340


def test_a_mask_of_another_size_is_passed_over_as_in_the_tasks_own_data(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In training, where the task learns nothing of the image, and in evaluation; the other tasks keep it."""
    here = tmp_path / "data"
    shutil.copytree(root, here)
    held_out = here / "masks" / "val" / "000003.png"
    wrong = {*sorted((here / "masks" / "train").iterdir())[::4], held_out}
    for path in wrong:
        Image.new("L", (10, 10)).save(path)
    plain = recipe(here)
    plain = plain.model_copy(update={"train": plain.train.model_copy(update={"steps": 2, "allow": ["wrong-labels"]})})
    with caplog.at_level("WARNING", "mtframe"):
        scores = Trainer(Assembly(plain.check()), tmp_path / "run").fit()
    seen = [
        path for path in wrong if any(f"image: {path}: is 10x10, but its image" in said for said in caplog.messages)
    ]
    assert held_out in seen
    assert len(seen) > 1
    assert {task: (its.images, len(its.skipped)) for task, its in scores.items()} == {
        "objects": (24, 0), "shapes": (23, 1), "figure": (23, 1)
    }  # fmt: skip
