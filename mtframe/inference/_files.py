"""Predicting files, and sheets of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import nms

from mtframe.data import DecodeSize, Sample, read_image
from mtframe.errors import BadImageError

from ._draw import contact_sheet, draw_boxes, make_folder, nearest, save_picture, similarity_sheet, to_pil
from ._predictor import Predictor

# Boxes of different classes that overlap more than this (IoU) are drawn as one.
_SAME_THING = 0.6

# Pixels of a picture on the sheet of one task's predictions.
_TILE = 320

# Rows of the sheet of similar pictures. All files are compared; more rows are only in the JSON.
_SHEET_ROWS = 12
_NEIGHBOURS = 4


@dataclass
class FilePredictions:
    """What came of predicting files.

    Attributes:
        described: A dictionary a file: `source`, `size` (height, width) and `tasks`, ready for JSON.
        pictures: Files that were written.
        unreadable: Files that could not be read, with the reason.
    """

    described: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    tasks: Sequence[str] | None = None,
    threshold: float = 0.3,
) -> FilePredictions:
    """Predicts image files and draws the results.

    Args:
        predictor: A loaded run.
        files: The images.
        out: Folder for pictures: `STEM.png` with boxes, `TASK_similar.png` for embeddings of several images.
        tasks: Only these; all if None.
        threshold: Least score of a box that is drawn; JSON has them all.

    Returns:
        Predictions, written pictures and what could not be read.

    Raises:
        RecipeError: There is no such task, or `out` cannot be a folder.
        MtframeError: A picture cannot be written.
    """
    result = FilePredictions()
    tasks = predictor.chosen(tasks)
    make_folder(out)
    embeddings: dict[str, list[Tensor]] = {}
    read: list[Path] = []
    for file in files:
        try:
            pixels, size = read_image(file, upright=True)
        except BadImageError as error:
            result.unreadable.append(str(error))
            continue
        read.append(file)
        predictions = predictor.predict(pixels, tasks)
        described = {task: predictor.describe(task, prediction) for task, prediction in predictions.items()}
        result.described.append({"source": str(file), "size": list(size), "tasks": described})
        boxed = {task: prediction for task, prediction in predictions.items() if "boxes" in prediction}
        if boxed:
            result.pictures.append(_save(_draw(predictor, to_pil(pixels), boxed, threshold), out, file.stem))
        for task, prediction in predictions.items():
            if "embedding" in prediction:
                embeddings.setdefault(task, []).append(prediction["embedding"])
    for task, rows in embeddings.items():
        if len(rows) > 1:
            result.pictures.append(_save(_similar(read, torch.stack(rows)), out, f"{task}_similar"))
    return result


def _similar(files: Sequence[Path], embeddings: Tensor) -> Image.Image:
    """The first pictures, each beside those of all files that are most similar to it."""
    rows = range(min(len(files), _SHEET_ROWS))
    _, near = nearest(embeddings, rows, _NEIGHBOURS)
    # Only these are opened again: there may be thousands.
    shown = sorted({*rows, *near.flatten().tolist()})
    pictures = [to_pil(read_image(files[n], DecodeSize(shorter=400), upright=True)[0]) for n in shown]
    names = [files[n].stem for n in shown]
    return similarity_sheet(pictures, names, embeddings[shown], neighbours=_NEIGHBOURS, rows=rows)


def prediction_sheet(
    predictor: Predictor,
    task: str,
    samples: Sequence[Sample],
    *,
    threshold: float = 0.3,
    rows: Sequence[int] | None = None,
) -> Image.Image:
    """One task's predictions for some samples on one sheet: boxes, or each picture beside its most similar ones.

    Args:
        predictor: A loaded run.
        task: The task.
        samples: With their images.
        threshold: Least score of a box that is drawn.
        rows: Numbers of the samples that get a row of similar ones; all if None.
    """
    predictions = [predictor.predict(sample.image, [task])[task] for sample in samples]
    pictures = [to_pil(sample.image) for sample in samples]
    names = [Path(sample.id).stem for sample in samples]
    if "embedding" in predictions[0]:
        return similarity_sheet(pictures, names, torch.stack([p["embedding"] for p in predictions]), rows=rows)
    drawn = [
        _draw(predictor, picture, {task: prediction}, threshold, longest=_TILE)
        for picture, prediction in zip(pictures, predictions, strict=True)
    ]
    return contact_sheet(drawn, names, columns=4, tile=_TILE)


def _draw(
    predictor: Predictor,
    picture: Image.Image,
    boxed: dict[str, Any],
    threshold: float,
    *,
    longest: int | None = None,
) -> Image.Image:
    boxes, texts, colours = [], [], []
    for task, prediction in boxed.items():
        classes = predictor.infos[task].classes
        # Suppression is per class; a picture with two names on one thing is hard to read, so the surer one is drawn.
        shown = nms(prediction["boxes"], prediction["scores"], _SAME_THING)
        parts = (prediction[key][shown] for key in ("boxes", "scores", "labels"))
        for box, score, label in zip(*parts, strict=True):
            if score >= threshold:
                boxes.append(box)
                texts.append(f"{classes[int(label)]} {float(score):.2f}")
                colours.append(int(label))
    return draw_boxes(picture, torch.stack(boxes) if boxes else torch.empty(0, 4), texts, colours, longest=longest)


def _save(picture: Image.Image, out: Path, stem: str) -> Path:
    """Writes a PNG under a name that is free among those of this call and before."""
    path, count = out / f"{stem}.png", 1
    while path.exists():
        count += 1
        path = out / f"{stem}-{count}.png"
    save_picture(picture, path)
    return path
