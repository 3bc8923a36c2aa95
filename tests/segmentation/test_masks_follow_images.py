"""Masks that are lent detection's images agree with the pixels, whatever letterbox has made of these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import MixedBatches
from mtframe.recipe import assemble_recipe

# By class, far from each other and from the grey of padding.
COLOURS = np.array([(230, 20, 20), (20, 230, 20), (20, 20, 230), (230, 230, 20), (20, 230, 230)], np.uint8)
PADDING = 114


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO's layout: images of flat rectangles in the colours of their classes, a box around each, a mask of all.

    Of every fourth image there is no mask.
    """
    root = tmp_path_factory.mktemp("flat")
    rng = np.random.default_rng(0)
    records: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    records["categories"] = [{"id": number, "name": f"class {number}"} for number in range(1, len(COLOURS))]
    for folder in ("annotations", "train2017", "masks/train2017"):
        (root / folder).mkdir(parents=True)
    for number in range(12):
        height, width = (64, 48) if number % 2 else (48, 64)
        mask = np.zeros((height, width), np.uint8)
        for place, kind in enumerate(rng.permutation(range(1, len(COLOURS)))):
            # No part is thinner than 8 pixels: what is, may be between the pixels of a smaller mask.
            top, left = height // 2 * (place // 2) + 8 * rng.integers(2), width // 2 * (place % 2) + 8 * rng.integers(2)
            mask[top : top + 16, left : left + 16] = kind
        name = f"{number:012d}"
        Image.fromarray(COLOURS[mask]).save(root / f"train2017/{name}.png")
        if number % 4 != 3:
            Image.fromarray(mask).save(root / f"masks/train2017/{name}.png")
        records["images"].append({"id": number, "file_name": f"{name}.png", "height": height, "width": width})
        for kind in np.unique(mask)[1:].tolist():
            rows, columns = np.nonzero(mask == kind)
            x, y = int(columns.min()), int(rows.min())
            box = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
            records["annotations"].append({
                "id": len(records["annotations"]), "image_id": number, "category_id": kind, "bbox": box,
                "area": box[2] * box[3], "iscrowd": 0,
            })  # fmt: skip
    (root / "annotations/instances_train2017.json").write_text(json.dumps(records), encoding="utf-8")
    return root


def batches(root: Path, **transform: Any) -> MixedBatches:
    """Boxes and, by `images: objects`, masks of the same images."""
    colours = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    overrides = [f"tasks.objects.transform.{name}={value}" for name, value in {**colours, **transform}.items()]
    overrides += [
        "tasks.objects.size=64", "tasks.objects.batch_size=12", "tasks.regions.images=objects",
        "tasks.regions.dataset.images=./{split}2017", "tasks.regions.dataset.masks=masks/{split}2017",
        "tasks.regions.dataset.val_part=0", "tasks.regions.dataset.classes=[ground,one,two,three,four]",
    ]  # fmt: skip
    tasks = [f"objects=object-detection:{root}", f"regions=semantic-segmentation:{root}"]
    return MixedBatches(Assembly(assemble_recipe("none", tasks, overrides)).sources(), seed=1)


def known_pixels(batch: Any) -> tuple[Tensor, Tensor]:
    """(N, 3) colours and (N,) classes of the pixels whose class is known."""
    mask = batch.targets["regions"]["mask"]
    known = mask != 255
    return batch.images.permute(0, 2, 3, 1)[known], mask[known]


@pytest.mark.parametrize("size", [64, 32], ids=["whole", "cut"])
def test_without_scaling_every_pixel_has_the_class_of_its_colour(flat: Path, size: int) -> None:
    found = batches(flat, scale=[64 / size, 64 / size])
    found.sources["objects"].transform.sizes = (size,)  # type: ignore[attr-defined]
    seen = set()
    for step in range(4):
        batch = found[step]["objects"]
        colours, classes = known_pixels(batch)
        assert torch.equal(colours, torch.from_numpy(COLOURS)[classes])
        # Three quarters of the images have a mask: of these all but the padding is known.
        unknown = batch.targets["regions"]["mask"] == 255
        padding = (batch.images == PADDING).all(1)
        whole = ~unknown.flatten(1).all(1)
        assert whole.sum() == 9
        assert torch.equal(unknown[whole], padding[whole])
        seen |= set(classes.tolist())
    assert seen == set(range(5))


@pytest.mark.parametrize(
    "transform",
    [{"scale": [0.5, 2.0]}, {"scale": [0.7, 1.5], "mosaic": 1.0}, {"scale": [0.7, 1.5], "sizes": [32, 96]}],
    ids=["scale", "mosaic", "sizes"],
)
def test_scaled_and_mixed_masks_agree_with_colours_off_the_edges(flat: Path, transform: dict[str, Any]) -> None:
    found = batches(flat, **transform)
    compared = 0
    for step in range(4):
        samples, inputs, _ = found.inputs("objects", step)
        regions = found.sources["objects"].viewers["regions"]
        labels = regions.placed(regions.labels(samples)[0], inputs)
        for image, label, placements in zip(inputs.images, labels, inputs.placements, strict=True):
            mask = label["mask"]
            assert (mask[(image == PADDING).all(0)] == 255).all()
            # Resizing blends what is at edges, of regions and of what is cut off.
            inner = torch.zeros_like(mask, dtype=torch.bool)
            for placement in placements:
                rows, columns = placement.seen_pixels
                seen = F.pad(mask[rows, columns].float(), (3, 3, 3, 3), value=999.0)[None]
                inner[rows, columns] = (F.max_pool2d(seen, 7, 1) == -F.max_pool2d(-seen, 7, 1))[0]
            inner &= mask != 255
            wanted = torch.from_numpy(COLOURS)[mask[inner].long()].int()
            assert inner.sum() == 0 or (image.permute(1, 2, 0)[inner].int() - wanted).abs().max() <= 1
            compared += int(inner.sum())
    assert compared > 15_000


def test_boxes_and_masks_of_one_input_are_of_the_same_things(flat: Path) -> None:
    found = batches(flat, scale=[0.7, 1.5], mosaic=0.5)
    agreeing = 0
    for step in range(4):
        targets = found[step]["objects"].targets
        boxes, mask = targets["objects"], targets["regions"]["mask"]
        for image, its in enumerate(mask):
            for box, label in zip(boxes["boxes"][image], boxes["labels"][image], strict=True):
                x0, y0, x1, y1 = (int(side) for side in box.round())
                inside = its[y0:y1, x0:x1]
                if (inside != 255).all() and inside.numel() > 30:
                    assert (inside == label + 1).any()
                    agreeing += 1
    assert agreeing > 40


def test_a_batch_of_images_without_masks_knows_nothing_of_regions(flat: Path) -> None:
    source = batches(flat).sources["objects"]
    samples = [source.dataset[number] for number in (3, 7, 11)]
    inputs = source.transform(samples, np.random.default_rng(0))
    regions, objects = (source.viewers[task] for task in ("regions", "objects"))
    assert regions.collated(regions.labels(samples)[0], inputs) is None
    assert objects.collated(objects.labels(samples)[0], inputs) is not None
