"""Training batches as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import MixedBatches
from mtframe.errors import MtframeError

from ._draw import contact_sheet, draw_boxes, to_pil

# Pixels of a picture with boxes on the sheet.
_TILE = 360


def preview(assembly: Assembly, task: str, *, images: int = 24, step: int = 0) -> Image.Image:
    """A contact sheet of what training sees: augmented images with their targets.

    Args:
        assembly: The recipe's parts.
        task: The task.
        images: Pictures on the sheet.
        step: From which training step on.

    Raises:
        MtframeError: The data set cannot be read.
    """
    batches = MixedBatches({task: assembly.sources()[task]}, assembly.recipe.train.seed)
    classes = assembly.infos[task].classes
    tiles: list[Image.Image] = []
    captions: list[str] = []
    while len(tiles) < images:
        item = batches[step]
        if isinstance(item, MtframeError):
            raise item
        batch = item[task]
        for n in range(min(len(batch), images - len(tiles))):
            picture = to_pil(batch.images[n])
            targets = {name: tensor[n] for name, tensor in batch.targets.items()}
            if "boxes" in targets:
                picture, caption = _draw(picture, targets, classes)
                captions.append(caption)
            else:
                captions.append(classes[int(targets["label"])] if "label" in targets else "")
            tiles.append(picture)
        step += 1
    return contact_sheet(tiles, captions, columns=min(6, images), tile=_TILE if "boxes" in batch.targets else 160)


def _draw(picture: Image.Image, targets: Mapping[str, Tensor], classes: Sequence[str]) -> tuple[Image.Image, str]:
    """Boxes that are to be found, and in grey the regions where nothing is asked for; how many there are."""
    boxes, labels = targets["boxes"][targets["valid"]], targets["labels"][targets["valid"]].tolist()
    regions = targets["ignore"][targets["ignore_valid"]] if "ignore" in targets else boxes[:0]
    names = [classes[label] for label in labels] + ["ignored"] * len(regions)
    colours = [*labels, *[None] * len(regions)]
    counted = "1 object" if len(labels) == 1 else f"{len(labels)} objects"
    return draw_boxes(picture, torch.cat([boxes, regions]), names, colours, longest=_TILE), counted
