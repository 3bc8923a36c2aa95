"""Training batches as pictures."""

from __future__ import annotations

from PIL import Image

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
                keep = targets["valid"]
                labels = targets["labels"][keep].tolist()
                names = [classes[label] for label in labels]
                picture = draw_boxes(picture, targets["boxes"][keep], names, labels, longest=_TILE)
                captions.append(f"{len(labels)} objects")
            else:
                captions.append(classes[int(targets["label"])] if "label" in targets else "")
            tiles.append(picture)
        step += 1
    return contact_sheet(tiles, captions, columns=min(6, images), tile=_TILE if "boxes" in targets else 160)
