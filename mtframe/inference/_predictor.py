"""A trained model that takes pictures, and loading it from its run."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import IMAGE_SUFFIXES, Batch, Geometry, Sample, read_image, transform_batch
from mtframe.device import pick_device
from mtframe.errors import DataError, RecipeError
from mtframe.evaluation import Evaluation, evaluate_split, predict_batch
from mtframe.model import MultiTaskModel
from mtframe.registry import name_of
from mtframe.run import RunFolder

# Of a prediction, what can be drawn.
_DRAWN = {"boxes", "embedding", "probabilities", "values"}

# Classes that are told of a picture.
_TOP = 5


class Predictor:
    """A trained model that takes pictures.

    Args:
        assembly: The run's parts.
        model: With trained weights.
        device: Where the model is.
    """

    def __init__(self, assembly: Assembly, model: MultiTaskModel, device: torch.device) -> None:
        self.assembly = assembly
        self.model = model.eval()
        self.device = device
        self.infos = assembly.infos
        self._transforms = {task: assembly.transform(task, train=False) for task in assembly.tasks}

    def predict(
        self,
        image: str | os.PathLike[str] | Image.Image | Tensor,
        tasks: Sequence[str] | None = None,
        *,
        name: str = "",
    ) -> dict[str, dict[str, Tensor]]:
        """What each task says of one picture.

        Args:
            image: A file, a Pillow image, or a (3, H, W) uint8 RGB tensor. Files and Pillow images are turned
                upright as their EXIF orientation says.
            tasks: Only these; all if None.
            name: What errors call the picture; a file has one.

        Returns:
            By task, the head's prediction (see `mtframe.kinds.Head.predict`): for object detection `boxes`
            (N, 4) XYXY in pixels of the picture, `scores` and `labels`; for face recognition `embedding`.

        Raises:
            BadImageError: The file cannot be read, or a task's transform can make nothing of the picture.
            RecipeError: There is no such task.
        """
        pixels = _pixels(image)
        if isinstance(image, str | os.PathLike):
            name = name or os.fspath(image)
        sample = Sample(pixels, {}, (pixels.shape[1], pixels.shape[2]), id=name)
        return {task: self._predict(task, sample) for task in self.chosen(tasks)}

    def evaluate(self, task: str, split: str = "val", *, details: bool = False) -> Evaluation:
        """Scores one task on one split by its field's own protocol.

        Args:
            task: The task.
            split: One of its data set's splits.
            details: Whether to ask the metrics for curves and the like as well.

        Raises:
            DataError: More images than `train.max_unreadable` cannot be read.
        """
        most = self.assembly.recipe.train.max_unreadable
        result = evaluate_split(self.model, self.assembly, task, split, self.device, details=details)
        if len(result.skipped) > most:
            raise DataError(
                f"tasks.{task}.dataset: {len(result.skipped)} images of {split} cannot be read, more than "
                f"train.max_unreadable={most}:\n  " + "\n  ".join(result.skipped[:10])
            )
        return result

    def gives(self, task: str) -> set[str]:
        """The keys of a task's predictions, such as `embedding`."""
        size = self.assembly.recipe.tasks[task].size
        geometry = Geometry(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([[size, size]]))
        blank = Batch(torch.zeros(1, 3, size, size, dtype=torch.uint8), {}, geometry)
        return set(predict_batch(self.model, task, blank.to(self.device), flip=False, precision="fp32")[0])

    def undrawn(self, task: str) -> list[str]:
        """The keys of a task's predictions, if none of them is one that can be drawn."""
        gives = self.gives(task)
        return [] if gives & _DRAWN else sorted(gives)

    def describe(self, task: str, prediction: dict[str, Tensor]) -> Any:
        """A prediction in plain numbers and names, ready for JSON."""
        if "boxes" in prediction:
            rows = zip(*(prediction[key].tolist() for key in ("boxes", "scores", "labels")), strict=True)
            classes = self.infos[task].classes
            return [
                {"label": classes[label], "score": round(score, 4), "box": [round(side, 2) for side in box]}
                for box, score, label in rows
            ]
        classes = self.infos[task].classes
        if "probabilities" in prediction:
            # Of many classes that exclude each other, the most likely say it all.
            most = len(classes) if self.infos[task].target == "labels" else _TOP
            values, order = prediction["probabilities"].topk(min(most, len(classes)))
            return [
                {"label": classes[label], "probability": round(value, 6)}
                for label, value in zip(order.tolist(), values.tolist(), strict=True)
            ]
        if "values" in prediction:
            return dict(zip(classes, (round(value, 6) for value in prediction["values"].tolist()), strict=True))
        return {name: _rounded(value.tolist()) for name, value in prediction.items()}

    def chosen(self, tasks: Sequence[str] | None) -> Sequence[str]:
        """These tasks, or all if None. Raises RecipeError if there is no such task."""
        for task in tasks or ():
            if task not in self.assembly.tasks:
                raise RecipeError(
                    f"-t {task}: no such task; the tasks of this run are {', '.join(self.assembly.tasks)}"
                )
        return tasks or self.assembly.tasks

    def _predict(self, task: str, sample: Sample) -> dict[str, Tensor]:
        batch = transform_batch(self._transforms[task], [sample], np.random.default_rng(0)).to(self.device)
        part = self.assembly.recipe.tasks[task]
        return predict_batch(self.model, task, batch, flip=part.flip_test, scales=part.test_scales, precision="fp32")[0]


def load_run(
    path: str | os.PathLike[str],
    checkpoint: str = "best",
    device: str = "auto",
    *,
    overrides: Sequence[str] = (),
    components: Sequence[Any] = (),
) -> Predictor:
    """Loads a trained model from its run.

    Args:
        path: The run's folder.
        checkpoint: `best` (or the last one where none is best yet), `last`, or `best_TASK`.
        device: `auto`, `cpu`, `cuda`, ...
        overrides: `key=value` changes to the run's recipe, e.g. another data set root.
        components: The classes that the run's recipe was given from Python; needed in another program than that which
            trained it.

    Raises:
        RecipeError: No run there, or a wrong override.
        CheckpointError: No such checkpoint, or it is of another architecture.
    """
    for component in components:
        name_of(component)
    run = RunFolder.open(path)
    recipe = run.checked_recipe(overrides)
    assembly = Assembly(recipe, run.infos(), trained=run.recipe())
    model = assembly.model(restoring=True)
    run.load_weights(model, checkpoint)
    where = pick_device(device)
    return Predictor(assembly, model.to(where), where)


def find_images(sources: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    """The image files that sources name: files as they are, folders with all images below them, sorted.

    Raises:
        RecipeError: A source does not exist, or a folder holds no image.
    """
    for source in map(Path, sources):
        if source.is_dir():
            found = sorted(
                file for file in source.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
            )
            if not found:
                raise RecipeError(f"{source}: no image in this folder (looked for {', '.join(IMAGE_SUFFIXES)})")
            yield from found
        elif source.exists():
            yield source
        else:
            raise RecipeError(f"{source}: no such file or folder")


def _rounded(value: Any) -> Any:
    """Numbers, in lists as deep as the tensor was, with six digits; NaN, which JSON has not, as None."""
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else round(value, 6)


def _pixels(image: str | os.PathLike[str] | Image.Image | Tensor) -> Tensor:
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] != 3:
            raise ValueError(f"expected a (3, H, W) uint8 tensor, got {tuple(image.shape)} {image.dtype}")
        return image
    if isinstance(image, Image.Image):
        return torch.from_numpy(np.array(ImageOps.exif_transpose(image).convert("RGB"))).permute(2, 0, 1)
    return read_image(image, upright=True)[0]
