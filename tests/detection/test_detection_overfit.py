"""The detector alone, on 16 real photographs, until it knows them: what cannot overfit cannot learn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mtframe.assembly import Assembly
from mtframe.recipe import assemble_recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer

IMAGES = 16


def first_images(source: Path, root: Path) -> None:
    """The first 16 training images that have boxes and no crowd, as both splits of a COCO folder."""
    document = json.loads((source / "annotations" / "instances_train2017.json").read_text(encoding="utf-8"))
    boxed = {thing["image_id"] for thing in document["annotations"]}
    crowded = {thing["image_id"] for thing in document["annotations"] if thing.get("iscrowd")}
    images = [image for image in document["images"] if image["id"] in boxed - crowded][:IMAGES]
    chosen = {image["id"] for image in images}
    things = [thing for thing in document["annotations"] if thing["image_id"] in chosen]
    text = json.dumps({"images": images, "annotations": things, "categories": document["categories"]})
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / "annotations" / f"instances_{split}.json").write_text(text, encoding="utf-8")
        (root / split).mkdir()
        for image in images:
            shutil.copy(source / "train2017" / image["file_name"], root / split)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("head", ["dense", "rfcn"])
def test_the_detector_alone_learns_16_real_images_by_heart(shared_data: Path, tmp_path: Path, head: str) -> None:
    first_images(shared_data / "coco", tmp_path / "coco")
    recipe = assemble_recipe(
        "timm/resnet18",
        [f"objects=object-detection:{tmp_path / 'coco'}"],
        [
            "backbone.pretrained=false",
            f"tasks.objects.head={{name: {head}, width: 64, strides: [4, 8, 16, 32]}}",
            "tasks.objects.transform={flip: 0, scale: [1, 1], brightness: 0, contrast: 0, saturation: 0}",
            "tasks.objects.size=256",
            "tasks.objects.batch_size=8",
            "train={steps: 240, lr: 2e-3, ema: null, evaluate_every: null}",
        ],
    )
    assembly = Assembly(recipe)
    results = Trainer(assembly, RunFolder(tmp_path / "run").create(recipe, assembly.infos)).fit()
    print(results["objects"].values)
    assert results["objects"].values["AP50"] >= 0.90
