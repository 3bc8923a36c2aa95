"""Real photographs: COCO's boxes and masks of the same images together, and CamVid's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import mtframe
from mtframe.assembly import Assembly
from mtframe.inference import load_run
from mtframe.recipe import load_recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from mtframe_segmentation.semantic_masks import SemanticMasks

RECIPES = Path(__file__).resolve().parents[2] / "docs" / "recipes"


def data_of(shared_data: Path, name: str) -> Path:
    """A folder of the real data, or a skip that says what is missing."""
    if not (shared_data / name).is_dir():
        pytest.skip(f"no real data at {shared_data / name}")
    return shared_data / name


def test_camvid_is_read_as_its_recipe_says(shared_data: Path) -> None:
    options = load_recipe(RECIPES / "camvid.yaml").tasks["road"].dataset.options
    root = data_of(shared_data, "camvid")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    splits = {split: SemanticMasks(split, **{**given, "root": root}) for split in ("train", "val", "test")}
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 367, "val": 101, "test": 233}
    sample = splits["val"][0]
    classes = set(sample.target["mask"].unique().tolist())
    assert sample.size == (360, 480)
    assert {0, 1, 3} < classes <= {*range(11), 255}


def test_a_fifth_of_cocos_masks_validates(shared_data: Path) -> None:
    options = load_recipe(RECIPES / "coco-boxes-masks.yaml").tasks["regions"].dataset.options
    root = data_of(shared_data, "coco/semantic").parent
    given = {**options, "root": root, "unknown": tuple(options["unknown"])}
    train, val = (SemanticMasks(split, **given) for split in ("train", "val"))
    assert (len(train), len(val), set(train.ids()) & set(val.ids())) == (78, 20, set())
    assert len(train.info.classes) == 129
    assert train.notes[0].startswith("train: 237 of 335 images have no mask")
    for place in range(0, 78, 13):
        sample = train[place]
        assert sample.target["mask"].shape == sample.size


@pytest.mark.slow
def test_boxes_and_masks_of_photographs_train_and_predict_together(shared_data: Path, tmp_path: Path) -> None:
    """A few steps from random weights: what matters is that all of it goes through, not what is learned."""
    root = data_of(shared_data, "coco/semantic").parent
    overrides = [
        "backbone=timm/resnet18", "backbone.pretrained=false",
        f"tasks.objects.dataset.root={root}", f"tasks.regions.dataset.root={root}",
        "tasks.objects.size=128", "tasks.objects.batch_size=8", "tasks.objects.transform.mosaic=0.5",
        "tasks.objects.head.width=32", "tasks.regions.head.width=32", "train.steps=8", "train.log_every=1",
        "train.workers=0",
    ]  # fmt: skip
    recipe = load_recipe(RECIPES / "coco-boxes-masks.yaml", overrides)
    assembly = Assembly(recipe.check())
    run = RunFolder(tmp_path / "run").create(assembly.recipe, assembly.infos)
    trainer = Trainer(assembly, run)
    seen: list[tuple[int, ...]] = []
    trainer.model.sharing.backbone.register_forward_hook(  # type: ignore[union-attr]
        lambda _, images, __: seen.append(tuple(images[0].shape)) if trainer.model.training else None
    )
    evaluations = trainer.fit()
    assert seen == [(8, 3, 128, 128)] * 8
    assert evaluations["objects"].images == 103
    assert evaluations["regions"].images == 20
    assert 0 <= evaluations["regions"].score <= 1
    photograph = root / "train2017" / "000000000009.jpg"
    said = load_run(run.path).predict(photograph)
    assert set(said) == {"objects", "regions"}
    result = mtframe("predict", run.path, photograph, "--out", tmp_path / "seen", "--format", "png")
    assert (result.code, result.err) == (0, "")
    with Image.open(tmp_path / "seen/000000000009_regions_mask.png") as mask, Image.open(photograph) as plain:
        assert mask.size == plain.size
        assert np.array(mask).max() < 129
    with Image.open(tmp_path / "seen/000000000009.png") as drawn:
        assert drawn.width == 640
        assert drawn.height > 480
