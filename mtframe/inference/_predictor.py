"""A trained model that takes pictures, and loading it from its run."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import Batch, evaluation_batch, exact_inputs
from mtframe.device import lay_out_channels_last, pick_device
from mtframe.errors import DataError, RecipeError, one_line
from mtframe.evaluation import Evaluation, Passes, evaluate, finite
from mtframe.kinds import Embeds
from mtframe.metrics import Thresholds
from mtframe.model import MultiTaskModel
from mtframe.registry import name_of
from mtframe.run import RunFolder, read_learned
from mtframe.survey import learned_notes
from mtframe.video import Cut, Film

from ._films import PredictedFrame, predicted_frames
from ._pictures import Picture, SamplesOf, Transforms, samples_of

LOG = logging.getLogger("mtframe")

# Pictures in a pass: more take more memory, and are hardly faster.
BATCH_SIZE = 8

Prediction = dict[str, Tensor]

# By task, what is said of one picture, in pixels of the picture.
Predictions = dict[str, Prediction]


class Predictor:
    """A trained model that takes pictures. It may be called from several threads at once.

    Args:
        assembly: The run's parts.
        model: With trained weights.
        device: Where the model is.
        thresholds: By task, those that were chosen with these weights.
        run: The run's folder, which knows the images that the model has learned from; None if nobody does.
    """

    def __init__(
        self,
        assembly: Assembly,
        model: MultiTaskModel,
        device: torch.device,
        thresholds: Mapping[str, Thresholds] | None = None,
        run: Path | None = None,
    ) -> None:
        self.assembly = assembly
        self._run = run
        self.thresholds = dict(thresholds or {})
        self.model = model.eval()
        self.device = device
        self.infos = assembly.infos
        self.targets = {task: assembly.target(task) for task in assembly.tasks}
        self.passes = Passes.of(self.model, assembly)

    @overload
    def predict(self, image: Picture, tasks: Sequence[str] | None = None, *, name: str = "") -> Predictions: ...

    @overload
    def predict(
        self, image: list[Any] | tuple[Any, ...], tasks: Sequence[str] | None = None, *, name: str = ""
    ) -> list[Predictions]: ...

    def predict(
        self, image: Picture | list[Any] | tuple[Any, ...], tasks: Sequence[str] | None = None, *, name: str = ""
    ) -> Predictions | list[Predictions]:
        """What each task says of one picture; tasks that look at the same input share a pass of the backbone.

        Args:
            image: A file; a Pillow image; an array (H, W) or (H, W, C); a tensor (H, W) or (C, H, W), with the colours
                and numbers that `mtframe.data.to_rgb` takes. Files and Pillow images are turned upright as their EXIF
                orientation says. Or a list or tuple of these.
            tasks: Only these; all if None.
            name: What errors call the picture; a file has one.

        Returns:
            By task, the prediction in the form that its kind of target documents; what has a place in it is in pixels
            of the picture. Of a list, one of these for each picture.

        Raises:
            BadImageError: A file cannot be read, a picture is none that `to_rgb` takes, or a task's transform can make
                nothing of it.
            RecipeError: It is nothing of the kind, the list is empty, or there is no such task.
        """
        if isinstance(image, list | tuple):
            if not image:
                raise RecipeError("predict: expected a picture or a list of pictures, got an empty list")
            return list(self.predict_many(image, tasks))
        if isinstance(image, Iterator):
            raise RecipeError(
                f"predict: expected a picture or a list of pictures, got {_kind(image)}; predict_many takes "
                "any iterable"
            )
        transforms = self.transforms(tasks)
        return next(self._predict([samples_of(image, transforms, name)], transforms))

    def predict_many(
        self, images: Iterable[Picture], tasks: Sequence[str] | None = None, *, batch_size: int = BATCH_SIZE
    ) -> Iterator[Predictions]:
        """What `predict` says of each picture, several in a pass; they are asked for as they are needed.

        Args:
            images: As of `predict`, in any number: a list, a generator, a batch (B, C, H, W) of tensors, or
                (B, H, W, C) of arrays.
            tasks: Only these; all if None.
            batch_size: Pictures in a pass.

        Raises:
            BadImageError: When its turn comes: as of `predict`.
            RecipeError: Likewise; or, at once, there is no such task, or `images` is a single picture or nothing that
                can be iterated over.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise RecipeError(f"predict_many: batch_size must be a positive integer, got {batch_size!r}")
        single = isinstance(images, str | bytes | os.PathLike | Image.Image)
        if single or (isinstance(images, np.ndarray | Tensor) and images.ndim != 4):
            raise RecipeError(
                f"predict_many: expected several pictures, got {_kind(images)}; predict takes a single one"
            )
        if not isinstance(images, Iterable):
            raise RecipeError(f"predict_many: expected several pictures, got {_kind(images)}")
        return self._predict_many(iter(images), self.transforms(tasks), batch_size)

    def _predict_many(self, left: Iterator[Picture], transforms: Transforms, batch_size: int) -> Iterator[Predictions]:
        # Numbered for errors: what is in memory has no name.
        numbered = enumerate(left)
        while some := list(islice(numbered, batch_size)):
            yield from self._predict(
                [
                    samples_of(image, transforms, "" if isinstance(image, str | os.PathLike) else f"picture {number}")
                    for number, image in some
                ],
                transforms,
            )

    def predict_film(
        self,
        film: str | os.PathLike[str],
        tasks: Sequence[str] | None = None,
        *,
        every: int | str = 1,
        start: float = 0.0,
        end: float | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[PredictedFrame]:
        """What `predict` says of each frame of a film, several in a pass; they are read as they are needed.

        A thread reads frames while the network works. Memory does not grow with the film's length. The film is closed
        after its last frame, or when the iterator is.

        Args:
            film: A film's file, or a camera as `/dev/video0`, which has no end.
            tasks: Only these; all if None.
            every: `5` for every fifth frame, `0.5s` for one each half second.
            start: Seconds of the film from which on frames are predicted.
            end: Seconds before which they are; None for the film's end.
            batch_size: Frames in a pass; of a camera, one frame is.

        Raises:
            RecipeError: At once: there is no such task, or the numbers make no sense.
            DataError: At once: the file is no film, or PyAV is not installed. When its turn comes: a frame of too many
                pixels, or one of which a transform can make nothing; after the last frame that can be read: the film is
                cut off, or parts of it are damaged.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise RecipeError(f"predict_film: batch_size must be a positive integer, got {batch_size!r}")
        transforms, cut = self.transforms(tasks), Cut.of(every, start, end)
        return self._predict_film(Film(film), transforms, cut, batch_size)

    def _predict_film(self, film: Film, transforms: Transforms, cut: Cut, batch_size: int) -> Iterator[PredictedFrame]:
        with film:
            for item in predicted_frames(self, film, cut, transforms, batch_size):
                if isinstance(item, PredictedFrame):
                    yield item
            if problem := film.problem():
                raise DataError(problem)

    def predict_batches(self, batches: Mapping[tuple[str, ...], Batch]) -> Iterator[Predictions]:
        """What tasks say of each image of some batches of the same images, by the tasks that look at these."""
        found = self.passes.predict(batches)
        order = [task for task in self.assembly.tasks if task in found]
        for place in range(len(next(iter(batches.values()), ()))):
            yield {task: found[task][place] for task in order}

    def evaluate(self, task: str, split: str = "val", *, details: bool = False) -> Evaluation:
        """Scores one task on one split by its field's own protocol; as `evaluate_many`."""
        return self.evaluate_many([task], split, details=details)[task]

    def evaluate_many(
        self, tasks: Sequence[str] | None = None, split: str = "val", *, details: bool = False
    ) -> dict[str, Evaluation]:
        """Scores tasks on one split by their fields' own protocols.

        Tasks on the same images are scored together: each image is read once and passes the backbone once. Thresholds
        that are kept with the weights are scored too, with a note where they were chosen on this very split. Further
        notes say how many of the images the model has learned from, by content.

        Args:
            tasks: Which; all if None.
            split: One of the splits of their data sets.
            details: Whether to ask the metrics for curves and the like as well.

        Raises:
            CheckpointError: What the run keeps of the images that it has learned from is damaged.
            DataError: More images than `train.max_unreadable` cannot be read.
            RecipeError: There is no such task.
        """
        learned = (read_learned(self._run) if self._run is not None else None) or {}
        most = self.assembly.recipe.train.max_unreadable
        results = evaluate(self.model, self.assembly, self.chosen(tasks), split, details=details, kept=self.thresholds)
        for task, result in results.items():
            if len(result.skipped) > most:
                raise DataError(
                    f"tasks.{task}.dataset: {len(result.skipped)} images of {split} cannot be read, more than "
                    f"train.max_unreadable={most}:\n  " + "\n  ".join(map(one_line, result.skipped[:10]))
                )
            result.notes += learned_notes(self.assembly.dataset(task, split), split, learned)
            kept = self.thresholds.get(task)
            if result.thresholds is not None and kept is not None and self.assembly.is_validation(task, split):
                told = ", ".join(filter(None, (kept.data, kept.gallery.data if kept.gallery is not None else "")))
                result.notes.append(
                    f"the run's threshold was chosen on this split ({told}), so what it does here is better than "
                    "what it will do elsewhere; evaluate it on another split, or on other data"
                )
        return results

    def describe(self, task: str, prediction: Prediction) -> Any:
        """A prediction in plain numbers and names, ready for JSON: None stands for what is no number."""
        return finite(self.targets[task].plain(prediction))

    def embedding(self, task: str, prediction: Prediction) -> Tensor:
        """The embedding (D,) in a prediction. Raises RecipeError if the task gives none."""
        target = self.targets[task]
        if not isinstance(target, Embeds):
            raise RecipeError(f"{task}: gives no embeddings")
        return target.embedding(prediction)

    def threshold(self, task: str, accept: str | None = None) -> float | None:
        """From which similarity of their embeddings on two pictures show the same.

        Args:
            task: One that gives embeddings.
            accept: A cosine, `0.4`, or the name of one of the run's thresholds, as `far=1e-2`; the one that the run has
                chosen if None.

        Returns:
            None if the run has chosen none, and none is asked for.

        Raises:
            RecipeError: The run has none of that name, or it is no cosine.
        """
        known = self.thresholds.get(task)
        if accept is None:
            return None if known is None else known.value
        if known is not None and accept in known.values:
            return known.values[accept]
        try:
            value = float(accept)
        except ValueError:
            value = math.nan
        if not -1 <= value <= 1:
            both = (
                [] if known is None else [*known.values, *(known.gallery.values if known.gallery is not None else ())]
            )
            names = f"those for {', '.join(both)}" if both else "none"
            raise RecipeError(
                f"--accept: expected a similarity, -1 to 1, or the name of one of the run's thresholds, got {accept!r}"
                f"; for task {task} it has {names}"
            )
        return value

    def gallery_threshold(self, task: str, size: int, accept: str | None = None) -> float | None:
        """From which similarity on the most similar of so many identities is a match.

        Args:
            task: One that gives embeddings.
            size: How many there are.
            accept: A cosine, or the name of one of the run's thresholds, for galleries (`fpir=1e-1`) or for pairs; the
                one that it has chosen for galleries if None, or, without one, that for pairs.

        Returns:
            None if the run has chosen none, and none is asked for.

        Raises:
            RecipeError: The run has none of that name, or it is no cosine.
        """
        known = self.thresholds.get(task)
        gallery = None if known is None else known.gallery
        if gallery is not None and (accept is None or accept in gallery.values):
            value = gallery.value(size, accept)
            if value is not None:
                return value
        return self.threshold(task, accept)

    def chosen(self, tasks: Sequence[str] | None) -> Sequence[str]:
        """These tasks, each once, or all if None. Raises RecipeError if there is no such task, or none is named."""
        if tasks is None:
            return self.assembly.tasks
        if isinstance(tasks, str) or not tasks:
            raise RecipeError(
                f"tasks: expected a list of one or more of {', '.join(self.assembly.tasks)}, or None for all, got "
                f"{tasks!r}"
            )
        for task in tasks:
            if task not in self.assembly.tasks:
                raise RecipeError(
                    f"-t {task}: no such task; the tasks of this run are {', '.join(self.assembly.tasks)}"
                )
        return tuple(dict.fromkeys(tasks))

    def transforms(self, tasks: Sequence[str] | None = None) -> Transforms:
        """What makes inputs of pictures, by the tasks that look at these. Raises RecipeError for a task not there."""
        groups = self.assembly.input_groups(self.chosen(tasks))
        return {group: self.assembly.transform(group[0], train=False) for group in groups}

    def _predict(self, pictures: Sequence[SamplesOf], transforms: Transforms) -> Iterator[Predictions]:
        batches = {
            tasks: evaluation_batch(exact_inputs(transform, [picture[tasks] for picture in pictures]), {})
            for tasks, transform in transforms.items()
        }
        return self.predict_batches(batches)


def _kind(thing: object) -> str:
    """What something is, for a message."""
    shape = f" of {' x '.join(map(str, thing.shape))}" if isinstance(thing, np.ndarray | Tensor) else ""
    text = f" {one_line(repr(thing))}" if isinstance(thing, str) and len(thing) < 100 else ""
    return f"{type(thing).__name__}{shape}{text}"


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
    checked = run.checked_recipe(overrides)
    assembly = Assembly(checked, run.infos(), trained=run.recipe())
    model = assembly.model(restoring=True)
    _, thresholds = run.load_weights(model, checkpoint)
    where = pick_device(device)
    model.to(where)
    if checked.recipe.train.channels_last:
        lay_out_channels_last(model)
    trained = run.recipe()
    for task in thresholds:
        if task in trained.tasks and trained.seeing(task) != checked.recipe.seeing(task):
            LOG.warning(
                "task %s looks at pictures otherwise than when its threshold was chosen, which may not fit", task
            )
    return Predictor(assembly, model, where, thresholds, run.path)
