"""Sheets of pictures: what a model says of some samples, and what training sees of them."""

# Shapes: D embedding dimensions.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from mtframe.assembly import Assembly
from mtframe.data import MixedBatches, Sample
from mtframe.drawing import caption, contact_sheet, draw_marks, similarity_sheet, to_pil
from mtframe.errors import RecipeError, one_line
from mtframe.kinds import Embeds
from mtframe.marks import Bar, Mark, Text

from ._predictor import Predictor

# Pixels of a picture with marks on it, and of one with none.
_TILE, _PLAIN_TILE = 340, 160

# Lines below a picture that say what is said of all of it.
_LINES = 3


def prediction_sheet(
    predictor: Predictor,
    task: str,
    samples: Sequence[Sample],
    *,
    threshold: float = 0.3,
    rows: Sequence[int] | None = None,
) -> Image.Image:
    """One task's predictions for some samples on one sheet.

    Args:
        predictor: A loaded run.
        task: The task.
        samples: With their images.
        threshold: Least score of a mark that is drawn.
        rows: Of embeddings, numbers of the samples that get a row of similar ones; all if None.
    """
    target = predictor.targets[task]
    found = [said[task] for said in predictor.predict_many((sample.image for sample in samples), [task])]
    pictures = [to_pil(sample.image) for sample in samples]
    names = [one_line(Path(sample.id).stem) for sample in samples]
    if isinstance(target, Embeds):
        return similarity_sheet(pictures, names, torch.stack([target.embedding(said) for said in found]), rows=rows)
    tiles, captions = [], []
    for picture, name, said in zip(pictures, names, found, strict=True):
        marks = target.marks(said)
        tiles.append(draw_marks(picture, {task: marks}, threshold=threshold, longest=_TILE))
        whole = [mark for mark in marks if isinstance(mark, Text | Bar)]
        captions.append(f"{name}\n{caption(whole, _LINES - 1)}" if whole else name)
    return contact_sheet(tiles, captions, columns=4, tile=_TILE)


def preview(assembly: Assembly, task: str, *, images: int = 24, step: int = 0) -> Image.Image:
    """A contact sheet of what training sees: augmented images with their targets.

    Args:
        assembly: The recipe's parts.
        task: The task.
        images: Pictures on the sheet.
        step: From which training step on.

    Raises:
        RecipeError: The task is not trained, so training sees nothing of it.
        MtframeError: The data set cannot be read.
    """
    trained = assembly.recipe.trained
    if task not in trained:
        raise RecipeError(f"{task!r} is not trained, so training sees nothing of it; trained are {', '.join(trained)}")
    lender = assembly.recipe.tasks[task].images or task
    # In every step, since it is alone.
    source = replace(assembly.sources()[lender], every=1)
    batches, target = MixedBatches({lender: source}, assembly.recipe.train.seed), assembly.target(task)
    viewer = source.viewers[task]
    drawn: list[tuple[Image.Image, list[Mark]]] = []
    while len(drawn) < images:
        samples, inputs, _ = batches.inputs(lender, step)
        labels = viewer.placed(viewer.labels(samples)[0], inputs)
        drawn += [
            (to_pil(image), target.label_marks(label)) for image, label in zip(inputs.images, labels, strict=True)
        ]
        step += 1
    drawn = drawn[:images]
    plain = all(isinstance(mark, Text | Bar) for _, marks in drawn for mark in marks)
    tile = _PLAIN_TILE if plain else _TILE
    tiles = [draw_marks(picture, {task: marks}, longest=tile) for picture, marks in drawn]
    captions = [caption(marks, _LINES) for _, marks in drawn]
    return contact_sheet(tiles, captions, columns=min(6, images), tile=tile)
