"""Pictures of what a model says: one picture with all tasks' answers, and sheets of one task's."""

# Shapes: N boxes, D embedding dimensions.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import nms

from mtframe.data import DecodeSize, Sample, read_image

from ._draw import Ranking, contact_sheet, draw_boxes, draw_ranking, nearest, similarity_sheet, to_pil
from ._gallery import Gallery
from ._predictor import Predictor

# Boxes of different classes that overlap more than this (IoU) are drawn as one.
_SAME_THING = 0.6

# Pixels of a picture on the sheet of one task's predictions.
_TILE = 320

# Rows of the sheet of similar pictures. All files are compared; more rows are only in the JSON.
_SHEET_ROWS = 12
_NEIGHBOURS = 4

# Lines that one task's answer takes.
_LINES = 5

Prediction = Mapping[str, Tensor]


def picture_of(
    predictor: Predictor,
    picture: Image.Image,
    predictions: Mapping[str, Prediction],
    *,
    threshold: float = 0.3,
    galleries: Mapping[str, Gallery] | None = None,
) -> Image.Image | None:
    """A picture with what all tasks say of it: boxes on it, classes, numbers and identities below it.

    Args:
        predictor: A loaded run.
        picture: The picture.
        predictions: By task.
        threshold: Least score of a box that is drawn.
        galleries: By task, whom embeddings are compared with.

    Returns:
        None where there is nothing to draw: an embedding alone shows nothing.
    """
    boxed = {task: prediction for task, prediction in predictions.items() if "boxes" in prediction}
    lists = [
        ranking
        for task, prediction in predictions.items()
        if (ranking := _ranking(predictor, task, prediction, (galleries or {}).get(task))) is not None
    ]
    if boxed:
        picture = _boxed(predictor, picture, boxed, threshold)
    if lists:
        picture = draw_ranking(picture, lists)
    return picture if boxed or lists else None


def similar_files(files: Sequence[Path], embeddings: Tensor) -> Image.Image:
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
    """One task's predictions for some samples on one sheet.

    Args:
        predictor: A loaded run.
        task: The task.
        samples: With their images.
        threshold: Least score of a box that is drawn.
        rows: Of embeddings, numbers of the samples that get a row of similar ones; all if None.
    """
    predictions = [predictor.predict(sample.image, [task])[task] for sample in samples]
    pictures = [to_pil(sample.image) for sample in samples]
    names = [Path(sample.id).stem for sample in samples]
    if "embedding" in predictions[0]:
        return similarity_sheet(pictures, names, torch.stack([p["embedding"] for p in predictions]), rows=rows)
    tiles, captions = [], []
    for picture, name, prediction in zip(pictures, names, predictions, strict=True):
        ranking = _ranking(predictor, task, prediction, None)
        boxed = {task: prediction} if "boxes" in prediction else {}
        tiles.append(_boxed(predictor, picture, boxed, threshold, longest=_TILE))
        said = [f"{text} {value}" for text, value, _ in ranking.rows[:2]] if ranking else []
        captions.append("\n".join([name, *said]))
    return contact_sheet(tiles, captions, columns=4, tile=_TILE)


def _ranking(predictor: Predictor, task: str, prediction: Prediction, gallery: Gallery | None) -> Ranking | None:
    """What a task says of the whole picture, for the panel below it."""
    info = predictor.infos[task]
    if "probabilities" in prediction:
        values, order = prediction["probabilities"].topk(min(_LINES, len(info.classes)))
        pairs = zip(order.tolist(), values.tolist(), strict=True)
        return Ranking(task, [(info.classes[label], f"{value:.2f}", value) for label, value in pairs])
    if "values" in prediction:
        pairs = zip(info.classes, prediction["values"].tolist(), strict=True)
        return Ranking(task, [(name, f"{value:.4g}", None) for name, value in pairs])
    if "embedding" in prediction and gallery is not None:
        found = gallery.nearest(prediction["embedding"], _LINES)
        return Ranking(f"{task}: most similar", [(name, f"{value:.2f}", max(0.0, value)) for name, value in found])
    return None


def _boxed(
    predictor: Predictor,
    picture: Image.Image,
    boxed: Mapping[str, Prediction],
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
