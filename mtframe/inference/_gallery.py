"""People who are known by name, to look for in pictures."""

# Shapes: G identities, D embedding dimensions.

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mtframe.errors import RecipeError, one_line
from mtframe.folders import folders_in
from mtframe.kinds import Embeds

from ._pictures import FilePictures, find_pictures
from ._predictor import BATCH_SIZE, Predictor


@dataclass(frozen=True, slots=True)
class Gallery:
    """Identities and what they look like to a model.

    Attributes:
        names: Name of each.
        templates: (G, D), of unit length: the mean of the embeddings of an identity's pictures.
        unreadable: Pictures that could not be read, with the reason.
        files: All its pictures.
        threshold: The least similarity of a match; None rejects nobody.
    """

    names: tuple[str, ...]
    templates: Tensor
    unreadable: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    threshold: float | None = None

    @classmethod
    def read(
        cls, predictor: Predictor, task: str, folder: str | os.PathLike[str], accept: str | None = None
    ) -> Gallery:
        """Embeds the pictures of a folder that has a folder of pictures for each identity.

        Args:
            predictor: A loaded run.
            task: One that gives embeddings.
            folder: The folder.
            accept: What threshold a match takes, as of `Predictor.gallery_threshold`.

        Raises:
            RecipeError: There is no identity in it.
        """
        # Before the work, since `accept` may be wrong.
        predictor.gallery_threshold(task, 1, accept)
        people, unreadable = _people(Path(folder))
        files = [(file, name) for name, its in people.items() for file in its]
        embeddings: dict[str, list[Tensor]] = {}
        owner = {str(file): name for file, name in files}
        batches = FilePictures([file for file, _ in files], predictor.transforms([task]), BATCH_SIZE)
        for pictures in batches.batches(predictor.assembly.recipe.train.workers):
            unreadable += pictures.unreadable
            for file, found in zip(pictures.names, predictor.predict_batches(pictures.batches), strict=True):
                embeddings.setdefault(owner[file], []).append(predictor.embedding(task, found[task]))
        names = [name for name in people if name in embeddings]
        templates = [F.normalize(torch.stack(embeddings[name]).mean(0), dim=0) for name in names]
        if not names:
            why = "\n  ".join(map(one_line, unreadable[:3]))
            raise RecipeError(f"--gallery: no picture in {folder} can be read:\n  {why}")
        threshold = predictor.gallery_threshold(task, len(names), accept)
        return cls(tuple(names), torch.stack(templates), tuple(unreadable), tuple(file for file, _ in files), threshold)

    def nearest(self, embedding: Tensor, most: int = 5) -> list[tuple[str, float]]:
        """The most similar identities with their cosine similarity, falling.

        Args:
            embedding: (D,), of unit length.
            most: How many at most.
        """
        values, order = (self.templates @ embedding).topk(min(most, len(self.names)))
        return [(self.names[n], value) for n, value in zip(order.tolist(), values.tolist(), strict=True)]

    def match(self, embedding: Tensor) -> str | None:
        """The most similar identity, if it is as similar as the threshold asks; None for somebody unknown."""
        (name, similarity), *_ = self.nearest(embedding, 1)
        return name if self.threshold is None or similarity >= self.threshold else None


def gallery_pictures(folder: str | os.PathLike[str]) -> list[Path]:
    """The pictures that a gallery in a folder is made of. Raises RecipeError if there is no identity in it."""
    people, _ = _people(Path(folder))
    return [file for files in people.values() for file in files]


def _people(root: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Pictures by identity, and the identities without any, with the reason."""
    folders = [root / name for name in folders_in(root)]
    if not folders:
        raise RecipeError(f"--gallery: expected a folder for each identity in {root}, as in {root}/NAME/photo.jpg")
    people, wrong = dict[str, list[Path]](), list[str]()
    for folder in folders:
        try:
            people[folder.name] = [source.file for source in find_pictures([folder])]
        except RecipeError as error:
            wrong.append(str(error))
    return people, wrong


def embedding_tasks(predictor: Predictor, tasks: Sequence[str], option: str) -> list[str]:
    """The ones of these that give embeddings. Raises RecipeError, naming the option that wants one, if none does."""
    found = [task for task in tasks if isinstance(predictor.targets[task], Embeds)]
    if not found:
        raise RecipeError(f"{option}: none of the tasks {', '.join(tasks)} gives embeddings")
    return found
