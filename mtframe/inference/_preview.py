"""Training batches as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import MixedBatches
from mtframe.errors import MtframeError

from ._draw import contact_sheet, draw_boxes, to_pil

# Pixels of a picture with boxes on the sheet.
_TILE = 360

# Lines below a picture that say what is wanted of it.
_LINES = 3


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
    lender = assembly.recipe.tasks[task].images or task
    # In every step, since it is alone.
    source = replace(assembly.sources()[lender], every=1)
    batches = MixedBatches({lender: source}, assembly.recipe.train.seed)
    info = assembly.infos[task]
    tiles: list[Image.Image] = []
    captions: list[str] = []
    while len(tiles) < images:
        item = batches[step]
        if isinstance(item, MtframeError):
            raise item
        batch = item[lender]
        wanted = batch.targets if lender == task else batch.also[task]
        for n in range(min(len(batch), images - len(tiles))):
            picture = to_pil(batch.images[n])
            targets = {name: tensor[n] for name, tensor in wanted.items()}
            if "boxes" in targets:
                picture, caption = _draw(picture, targets, info.classes)
            else:
                caption = _caption(targets, info.classes)
            tiles.append(picture)
            captions.append(caption)
        step += 1
    return contact_sheet(tiles, captions, columns=min(6, images), tile=_TILE if "boxes" in wanted else 160)


def _caption(targets: Mapping[str, Tensor], classes: Sequence[str]) -> str:
    """What is wanted of a whole image, in up to three lines; what is not known is left out."""
    if "probabilities" in targets:
        values, order = targets["probabilities"].topk(min(2, len(classes)))
        pairs = zip(order.tolist(), values.tolist(), strict=True)
        said = [f"{value:.2f} {classes[label]}" for label, value in pairs if value > 0]
    elif "labels" in targets:
        said = [name for name, value in zip(classes, targets["labels"].tolist(), strict=True) if value == 1]
    elif "value" in targets:
        numbers = zip(classes, targets["value"].tolist(), strict=True)
        said = [f"{name} {number:.3g}" for name, number in numbers if not math.isnan(number)]
    else:
        said = [classes[int(targets["label"])]] if int(targets.get("label", -1)) >= 0 else []
    shown = said if len(said) <= _LINES else [*said[: _LINES - 1], f"and {len(said) - _LINES + 1} more"]
    return "\n".join(shown) or "-"


def _draw(picture: Image.Image, targets: Mapping[str, Tensor], classes: Sequence[str]) -> tuple[Image.Image, str]:
    """Boxes that are to be found, and in grey the regions where nothing is asked for; how many there are."""
    boxes, labels = targets["boxes"][targets["valid"]], targets["labels"][targets["valid"]].tolist()
    regions = targets["ignore"][targets["ignore_valid"]] if "ignore" in targets else boxes[:0]
    names = [classes[label] for label in labels] + ["ignored"] * len(regions)
    colours = [*labels, *[None] * len(regions)]
    counted = "1 object" if len(labels) == 1 else f"{len(labels)} objects"
    return draw_boxes(picture, torch.cat([boxes, regions]), names, colours, longest=_TILE), counted
