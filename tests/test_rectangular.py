"""Inputs that are no squares: from a transform of one's own through training, scores and predictions of every kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from mtframe.assembly import assemble
from mtframe.data import DataInfo, DecodeSize, Inputs, Placement, Sample
from mtframe.inference import load_run
from mtframe.kinds import FeatureSpec
from mtframe.recipe import Recipe
from mtframe.testing._transform import CHECKS
from mtframe.testing._violation import Skip, Violation
from mtframe.training import Trainer
from mtframe_classification.image_folder import ImageFolder
from mtframe_detection.dense import DenseHead
from mtframe_segmentation.semantic_masks import SemanticMasks
from small import Small


class Wide:
    """Fits each image into an input that is 5 units wide and 3 high; mirrors every other one in training."""

    fixed_size = False

    def __init__(self, size: int, train: bool) -> None:
        self.shape, self.train = (size * 3 // 5, size), train
        self.decode_size = DecodeSize(longer=size)

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        """Images of any sizes to (B, 3, 3/5 S, S) uint8."""
        images, placements = zip(*(self._fit(number, sample) for number, sample in enumerate(samples)), strict=True)
        return Inputs(torch.stack(images), [(placement,) for placement in placements])

    def _fit(self, number: int, sample: Sample) -> tuple[Tensor, Placement]:
        (rows, columns), (height, width) = self.shape, sample.size
        factor = min(rows / height, columns / width)
        part = max(1, round(height * factor)), max(1, round(width * factor))
        top, left = (rows - part[0]) // 2, (columns - part[1]) // 2
        image = torch.full((3, rows, columns), 114, dtype=torch.uint8)
        image[:, top : top + part[0], left : left + part[1]] = functional.resize(
            sample.image, list(part), antialias=True
        )
        scale = part[1] / width, part[0] / height
        placement = Placement.scaled(sample.size, self.shape, scale, (left, top), sample=number)
        if self.train and number % 2:
            image, placement = functional.horizontal_flip(image), placement.flipped()
        return image, replace(placement, min_visible=0.2 if self.train else None)


class Swapped(Wide):
    """Takes the placement's height for its width."""

    def _fit(self, number: int, sample: Sample) -> tuple[Tensor, Placement]:
        image, placement = super()._fit(number, sample)
        return image, replace(placement, input_size=(placement.input_size[1], placement.input_size[0]))


@pytest.fixture(scope="module")
def plain(small: Small, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe of every kind of task on such inputs, and one whose inputs are squares."""
    root = tmp_path_factory.mktemp("rectangular")
    ImageFolder.synthesize(root / "places", train=8, val=8, size=48, workers=1)
    SemanticMasks.synthesize(root / "masks", train=4, val=3, size=48, workers=1)
    tasks = {
        "faces": ("face-recognition", small.faces),
        "objects": ("object-detection", small.objects),
        "places": ("image-classification", root / "places"),
        "masks": ("semantic-segmentation", root / "masks"),
        "square": ("image-classification", root / "places"),
    }
    written: dict[str, Any] = {
        task: {
            "preset": preset, "dataset": {"root": str(data)}, "transform": Wide, "size": 160, "batch_size": 2,
            "flip_test": True, "test_scales": [1.0, 1.4],
        } for task, (preset, data) in tasks.items()
    }  # fmt: skip
    written["objects"]["head"] = {"width": 16, "score_threshold": 0, "max_detections": 5}
    del written["square"]["transform"]
    train = {"steps": 2, "workers": 0, "precision": "fp32", "ema": None, "log_every": 1}
    backbone = {"name": "timm/test_resnet.r160_in1k", "pretrained": False}
    return {"backbone": backbone, "tasks": written, "train": train}


@pytest.fixture(scope="module")
def trained(plain: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    path = tmp_path_factory.mktemp("rectangular-run") / "run"
    found = Trainer(assemble(Recipe.from_plain(plain)), path).fit()
    return found, path


def test_every_kind_of_task_trains_and_is_scored(trained: tuple[dict[str, Any], Path]) -> None:
    scores, path = trained
    assert list(scores) == ["faces", "objects", "places", "masks", "square"]
    predictor = load_run(path, device="cpu", components=[Wide])
    for task, score in scores.items():
        again = predictor.evaluate(task)
        assert again.images == score.images
        for name, value in again.values.items():
            if name.endswith("@kept"):
                # Of the threshold that the training has kept.
                continue
            torch.testing.assert_close(value, score.values[name], rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("size", [(96, 160), (160, 96), (37, 200), (1, 1)])
def test_predictions_are_in_pixels_of_the_picture(trained: tuple[dict[str, Any], Path], size: tuple[int, int]) -> None:
    predictor = load_run(trained[1], device="cpu", components=[Wide])
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    said = predictor.predict(picture)
    assert said["masks"]["mask"].shape == size
    boxes = said["objects"]["boxes"]
    assert len(boxes)
    assert boxes.min() >= 0
    assert (boxes <= torch.tensor([size[1], size[0]] * 2)).all()
    assert said["faces"]["embedding"].norm().item() == pytest.approx(1, abs=1e-5)
    assert said["places"]["probabilities"].sum().item() == pytest.approx(1, abs=1e-5)


def test_the_kit_takes_a_transform_that_makes_rectangles() -> None:
    """Also one that is wrong by the height, where squares would not show it."""

    for part, wrong in ((Wide, ""), (Swapped, "its placement is in one of (64, 38), not (38, 64)")):
        found = {}
        for check in CHECKS:
            try:
                check.run(subject_of(part))
            except Skip:
                # It says that another check fails.
                assert wrong
            except Violation as error:
                found[check.name] = str(error)
        assert any(wrong in said for said in found.values()) if wrong else found == {}


def subject_of(part: Any) -> Any:
    """What the kit's checks of transforms ask of a component, with samples of its own."""

    class Subject:
        def __init__(self) -> None:
            noise = np.random.default_rng(0).integers(0, 255, (4, 3, 60, 80), np.uint8)
            self.samples = [
                Sample(torch.from_numpy(pixels), {}, (60, 80), number, f"{number}.png")
                for number, pixels in enumerate(noise)
            ]
            self.kit = self

        def companions(self, subject: Any) -> Any:
            return self

        def build(self, **wired: Any) -> Any:
            return part(**wired)

    return Subject()


@pytest.mark.parametrize("size", [(96, 160), (160, 96), (104, 168)])
def test_the_points_of_a_detector_are_the_middles_of_its_cells(size: tuple[int, int]) -> None:
    """By hand: of the level of stride s, row by row, ((column + 1/2) s, (row + 1/2) s)."""
    features = tuple(FeatureSpec(f"stride{stride}", 8, stride) for stride in (8, 16, 32))
    head = DenseHead(features, DataInfo("boxes", ("cat",)), width=8, depth=1, strides=[8, 16, 32])
    maps = [torch.zeros(1, 8, math.ceil(size[0] / stride), math.ceil(size[1] / stride)) for stride in (8, 16, 32)]
    wanted = [
        ((column + 0.5) * stride, (row + 0.5) * stride, stride)
        for stride, feature in zip((8, 16, 32), maps, strict=True)
        for row in range(feature.shape[2])
        for column in range(feature.shape[3])
    ]
    assert head(maps)["points"].tolist() == [list(map(float, point)) for point in wanted]
