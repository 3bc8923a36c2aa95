"""AP of what `mtframe predict --json` prints, scored by pycocotools, is AP of `mtframe evaluate`."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from mtframe.assembly import assemble
from mtframe.inference import Predictor, find_pictures, predict_files
from mtframe.kinds import FeatureSpec
from mtframe.recipe import Recipe

HERE = Path(__file__).resolve()
SIDE = 64


class Pixels(nn.Module):
    """The picture itself, at a quarter of its size."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    stages = (("pool",),)

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(3))
        self.features = (FeatureSpec("pool", 3, 2),)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.pool(images)]


class Bright(nn.Module):
    """Boxes around what is brighter than some limits; its score is how bright that is."""

    target = "boxes"

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"grey": maps[-1].mean(1)}

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        found = []
        for grey, whole in zip(outputs["grey"], bounds, strict=True):
            boxes, scores, labels = [], [], []
            for limit in (0.50, 0.55, 0.6, 0.65, 0.7, 0.75):
                for label, channel in enumerate((grey[:, : SIDE // 4], grey[:, SIDE // 4 :])):
                    rows, columns = (channel > limit).nonzero(as_tuple=True)
                    if len(rows):
                        left = columns.min() + label * (SIDE // 4)
                        right = columns.max() + 1 + label * (SIDE // 4)
                        # Within a pixel of what was decoded: IoUs depend on it.
                        inside = channel[channel > limit].mean()
                        boxes.append(torch.stack([left + inside, rows.min() + 0.3, right - inside / 3, rows.max() + 1]))
                        # Some are equal, others nearly so: four digits would not tell them apart.
                        scores.append(0.5 + 1e-4 * inside.bfloat16().float())
                        labels.append(label)
            table = torch.stack(boxes) * 2 if boxes else torch.zeros(0, 4)
            low, high = whole[:2].repeat(2), whole[2:].repeat(2)
            found.append({"boxes": table.maximum(low).minimum(high).float(), "labels": torch.tensor(labels).long(),
                          "scores": torch.tensor(scores).clamp(0, 1)})  # fmt: skip
        return found


class Nothing(nn.Module):
    """Is not trained with."""

    target = "boxes"

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO's layout with JPEGs large enough to be decoded at a part of their size, ids against the order of names."""
    root, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir()
        images, boxes = [], []
        for number in range(14):
            height, width = int(rng.integers(150, 420)), int(rng.integers(280, 420))
            picture = rng.integers(40, 150, (height, width, 3)).astype(np.uint8)
            id = 100 - 7 * number
            for label in range(int(rng.integers(1, 3))):
                w, h = rng.integers(40, 110, 2).tolist()
                x = int(rng.integers(0, width // 2 - w)) + label * (width // 2)
                y = int(rng.integers(0, height - h))
                picture[y : y + h, x : x + w] = rng.integers(150, 256)
                boxes.append({"id": len(boxes) + 1, "image_id": id, "category_id": 3 + label, "iscrowd": 0,
                              "bbox": [x, y, w, h], "area": w * h})  # fmt: skip
            name = f"{number:02d}.jpg"
            Image.fromarray(picture).save(root / f"{split}2017" / name, quality=60)
            images.append({"id": id, "file_name": name, "height": height, "width": width})
        content = {"images": images, "annotations": boxes,
                   "categories": [{"id": 3, "name": "left"}, {"id": 4, "name": "right"}]}  # fmt: skip
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def _reference(root: Path, described: Sequence[Mapping[str, Any]]) -> list[float]:
    """pycocotools' numbers of the JSON that `predict` prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations" / "instances_val2017.json"))
        ids = {image["file_name"]: image["id"] for image in truth.dataset["images"]}
        categories = {category["name"]: category["id"] for category in truth.dataset["categories"]}
        found = []
        for picture in json.loads(json.dumps(described)):
            for one in picture["tasks"]["things"]:
                x1, y1, x2, y2 = one["box"]
                found.append({"image_id": ids[Path(picture["source"]).name], "score": one["score"],
                              "category_id": categories[one["label"]], "bbox": [x1, y1, x2 - x1, y2 - y1]})  # fmt: skip
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.where(evaluation.stats < 0, np.nan, evaluation.stats).tolist()


def test_ap_of_the_json_is_ap_of_evaluate(scenes: Path, tmp_path: Path) -> None:
    recipe = Recipe.from_plain(
        {
            "backbone": f"{HERE}:Pixels",
            "tasks": {"things": {
                "preset": "object-detection", "dataset": {"root": str(scenes)}, "size": SIDE, "batch_size": 5,
                "head": f"{HERE}:Bright", "loss": f"{HERE}:Nothing",
            }},
            "train": {"epochs": 1, "workers": 0, "device": "cpu", "precision": "fp32"},
        }
    )  # fmt: skip
    assembly = assemble(recipe)
    predictor = Predictor(assembly, assembly.model(), torch.device("cpu"))
    scored = predictor.evaluate("things")
    found = predict_files(predictor, find_pictures([scenes / "val2017"]), tmp_path)
    assert 0.05 < scored.values["AP"] < 0.95
    assert list(scored.values.values()) == pytest.approx(_reference(scenes, found.described), abs=1e-9, nan_ok=True)
