"""What the kit knows of the kinds of target that are in use: nothing known, a perfect prediction, a score."""

# Shapes: N boxes of an image, C classes, K numbers, D numbers in an embedding.

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from mtframe.data import DataInfo, Sample

from ._violation import Skip, expect

# The name of the target's tensor that says what is known, by kind of target.
_LABEL = {"label": "label", "identity": "label", "labels": "labels", "value": "value"}

# Numbers in a made-up embedding: so many that those of two people are nearly orthogonal.
_DIM = 128


def unlabelled(sample: Sample, info: DataInfo, dataset: Any) -> Sample:
    """The sample of an image of which nothing is known, or on which nothing is.

    Of a kind that the kit does not know the data set's `target_of` says it, and else it is as for all targets of whole
    images: −1 in whole numbers, NaN in others.

    Raises:
        Skip: Neither is so.
    """
    target = dict(sample.target)
    if info.target == "boxes":
        number = len(target["boxes"])
        target = {name: value[:0] if value.ndim and len(value) == number else value for name, value in target.items()}
    elif (name := _LABEL.get(info.target)) is not None:
        unknown = -1 if name == "label" else float("nan")
        target[name] = torch.full_like(target[name], unknown)
    elif hasattr(dataset, "target_of"):
        target = dataset.target_of("no such image")
    else:
        target = {name: _unknown(value) for name, value in target.items()}
        if not target or not any(map(_can_be_unknown, target.values())) or not _of_whole_images(dataset):
            raise Skip(
                f"nobody says what a target of kind {info.target!r} looks like of which nothing is known: it has "
                "not one shape for all images, or nothing that may be −1 or NaN; give the data set `target_of(id)`"
            )
    return replace(sample, target=target)


def _of_whole_images(dataset: Any) -> bool:
    """Whether labels of some images have the same shapes: what is in an image there is once, or ten times."""
    some = [dataset[place].target for place in sorted({0, len(dataset) // 2, len(dataset) - 1})]
    return all({k: v.shape for k, v in target.items()} == {k: v.shape for k, v in some[0].items()} for target in some)


def _can_be_unknown(value: Tensor) -> bool:
    return value.numel() > 0 and (value.is_floating_point() or (value.dtype.is_signed and not value.is_complex()))


def _unknown(value: Tensor) -> Tensor:
    if not _can_be_unknown(value):
        return value
    return torch.full_like(value, float("nan") if value.is_floating_point() else -1)


def check_target(sample: Sample, info: DataInfo) -> None:
    """Raises Violation unless the labels are such as `info` describes."""
    of, target, classes = f"sample {sample.index}", sample.target, len(info.classes)
    name = "boxes" if info.target == "boxes" else _LABEL.get(info.target)
    if name is None:
        return
    expect(name in target, f"{of}: a target of kind {info.target!r} has {name!r}, got {', '.join(target) or 'nothing'}")
    value = target[name]
    if name == "label":
        expect(value.ndim == 0 and not value.is_floating_point(), f"{of}: expected a whole number, got {value}")
        expect(-1 <= value < classes, f"{of}: expected a label of -1 to {classes - 1}, got {value}")
    elif name == "boxes":
        _check_boxes(of, target, sample.size, classes)
    else:
        expect(value.shape == (classes,), f"{of}: expected {name} ({classes},), got {tuple(value.shape)}")
        in_range = value.isnan() | (value.isfinite() if name == "value" else (value >= 0) & (value <= 1))
        expect(in_range.all(), f"{of}: expected {'numbers' if name == 'value' else '0 to 1'} or NaN, got {value}")


def check_prediction(prediction: Mapping[str, Tensor], info: DataInfo, size: tuple[int, int]) -> None:
    """Raises Violation unless what the framework knows of a prediction is as `mtframe.kinds.Head` says."""
    classes = len(info.classes)
    check_finite(prediction)
    if "boxes" in prediction:
        _check_boxes("a prediction", prediction, size, classes)
        scores = prediction.get("scores")
        expect(scores is not None and scores.shape == prediction["labels"].shape, "expected a score for each box")
        assert scores is not None
        expect(((scores >= 0) & (scores <= 1)).all(), f"expected scores of 0 to 1, got {_span(scores)}")
    if "embedding" in prediction:
        norm = prediction["embedding"].float().norm().item()
        expect(abs(norm - 1) < 1e-2, f"expected an embedding of unit length, got length {norm:.3g}")
    if "probabilities" in prediction:
        values = prediction["probabilities"]
        expect(values.shape == (classes,), f"expected probabilities ({classes},), got {tuple(values.shape)}")
        expect(((values >= 0) & (values <= 1)).all(), f"expected probabilities of 0 to 1, got {_span(values)}")
    if "values" in prediction:
        shape = tuple(prediction["values"].shape)
        expect(shape == (classes,), f"expected values ({classes},), got {shape}")


def check_finite(prediction: Mapping[str, Tensor]) -> None:
    """Raises Violation unless a prediction is of tensors of finite numbers."""
    for name, value in prediction.items():
        expect(isinstance(value, Tensor), f"expected {name!r} to be a tensor, got {type(value).__name__}")
        strange = int((~value.isfinite()).sum()) if value.is_floating_point() else 0
        expect(not strange, f"expected finite numbers, but {strange} of {value.numel()} in {name!r} are not")


def perfect(sample: Sample, info: DataInfo) -> dict[str, Tensor] | None:
    """What a head would say that knows everything; None if the kit does not know the kind of target."""
    target = sample.target
    if info.target == "label":
        label = target["label"]
        return {"probabilities": F.one_hot(label.clamp(min=0), len(info.classes)).float(), "label": label}
    if info.target == "labels":
        return {"probabilities": target["labels"].float().nan_to_num()}
    if info.target == "value":
        return {"values": target["value"].float().nan_to_num()}
    if info.target == "identity":
        return {"embedding": _embedding(sample)}
    if info.target == "boxes":
        kept = ~target["crowd"] if "crowd" in target else torch.ones(len(target["boxes"]), dtype=torch.bool)
        return {
            "boxes": target["boxes"][kept],
            "scores": torch.ones(int(kept.sum())),
            "labels": target["labels"][kept],
        }
    return None


def truth(predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample], info: DataInfo) -> float | None:
    """How right predictions are, larger is better and 1 is perfect; None if the kit cannot tell.

    `label`: mean probability of the right class; `labels`: likewise of each known label; `value`: falls with the
    error; `identity`: how much more alike are two images of one person than of two; `boxes`: mean over the boxes of
    the best score times IoU among predictions of the right class.
    """
    pairs = list(zip(predictions, samples, strict=True))
    if info.target == "identity" and "embedding" in predictions[0]:
        return _apart(predictions, samples)
    score = {
        ("label", "probabilities"): _right_class,
        ("labels", "probabilities"): _right_labels,
        ("value", "values"): _nearness,
        ("boxes", "boxes"): _found,
    }
    fitting = [how for (kind, key), how in score.items() if kind == info.target and key in predictions[0]]
    if not fitting:
        return None
    scores = [value for pair in pairs for value in fitting[0](*pair)]
    return sum(scores) / len(scores) if scores else None


def _check_boxes(of: str, target: Mapping[str, Tensor], size: tuple[int, int], classes: int) -> None:
    boxes, labels = target["boxes"], target.get("labels")
    expect(boxes.ndim == 2 and boxes.shape[1] == 4, f"{of}: expected boxes (N, 4), got {tuple(boxes.shape)}")
    expect(labels is not None and labels.shape == boxes.shape[:1], f"{of}: expected a label for each box")
    assert labels is not None
    if not len(boxes):
        return
    height, width = size
    limit = boxes.new_tensor([width, height])
    # Half a pixel: what was rounded is not outside.
    inside = (boxes[:, :2] >= -0.5).all() and (boxes[:, 2:] <= limit + 0.5).all()
    reach = f"{_span(boxes[:, 0::2])} by {_span(boxes[:, 1::2])}"
    expect(inside, f"{of}: expected boxes inside the image, 0..{width} by 0..{height} pixels, got {reach}")
    expect((boxes[:, :2] <= boxes[:, 2:]).all(), f"{of}: expected boxes XYXY, got one whose end is before its start")
    whole = not labels.is_floating_point()
    expect(whole and ((labels >= 0) & (labels < classes)).all(),
           f"{of}: expected labels of 0 to {classes - 1}, got {_span(labels)}")  # fmt: skip


def _embedding(sample: Sample) -> Tensor:
    """A direction for each person: by label, or where it is not known by the folder that the image is in."""
    label = int(sample.target["label"])
    person = str(label) if label >= 0 else str(PurePosixPath(sample.id).parent)
    generator = torch.Generator().manual_seed(zlib.crc32(person.encode()))
    return F.normalize(torch.randn(_DIM, generator=generator), dim=0)


def _apart(predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
    labels = torch.stack([sample.target["label"] for sample in samples])
    embeddings = F.normalize(torch.stack([prediction["embedding"].float() for prediction in predictions]))
    alike, known = embeddings @ embeddings.T, labels >= 0
    both = known[:, None] & known & ~torch.eye(len(labels), dtype=torch.bool)
    same = labels[:, None] == labels
    if not (both & same).any() or not (both & ~same).any():
        return None
    return float(alike[both & same].mean() - alike[both & ~same].mean())


def _right_class(prediction: Mapping[str, Tensor], sample: Sample) -> list[float]:
    label = int(sample.target["label"])
    return [float(prediction["probabilities"][label])] if label >= 0 else []


def _right_labels(prediction: Mapping[str, Tensor], sample: Sample) -> list[float]:
    wanted = sample.target["labels"].float()
    right = 1 - (prediction["probabilities"].float() - wanted).abs()
    return right[~wanted.isnan()].tolist()


def _nearness(prediction: Mapping[str, Tensor], sample: Sample) -> list[float]:
    wanted = sample.target["value"].float()
    # Relative, as numbers of different units stand beside each other.
    error = (prediction["values"].float() - wanted).abs() / (1 + wanted.abs())
    return (1 / (1 + error[~error.isnan()])).tolist()


def _found(prediction: Mapping[str, Tensor], sample: Sample) -> list[float]:
    wanted = perfect(sample, DataInfo("boxes", ()))
    assert wanted is not None
    overlap = box_iou(wanted["boxes"].float(), prediction["boxes"].float())
    right = wanted["labels"][:, None] == prediction["labels"]
    marks = overlap * right * prediction["scores"].float()
    return [float(row.max()) if len(row) else 0.0 for row in marks]


def _span(values: Tensor) -> str:
    return f"{values.min().item():g}..{values.max().item():g}" if values.numel() else "nothing"
