"""What the labels of a run's tasks mean, kept with its weights; and the run that a file of weights is of."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mtframe.data import DataInfo
from mtframe.errors import CheckpointError, RecipeError
from mtframe.options import problems
from mtframe.paths import regular
from mtframe.registry import split_local

_LABELS = TypeAdapter(dict[str, DataInfo])


def read_labels(run: Path) -> dict[str, DataInfo]:
    """DataInfo by task of the run in a folder. Raises CheckpointError if the file that says so is damaged."""
    file = run / "labels.json"
    try:
        stored = json.loads(regular(file).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read as the labels of a run ({error})") from None
    try:
        infos = _LABELS.validate_python(stored)
    except ValidationError as error:
        wrong = "; ".join(problems(error, stored, "", lambda _: ["target", "classes", "counts"])[:5])
        raise CheckpointError(f"{file}: not the labels of a run: {wrong}") from None
    for task, info in infos.items():
        if split_local(info.target) is not None:
            raise CheckpointError(
                f"{file}: {task}.target: {info.target!r} is a Python file, and labels run none. One of your own is "
                f"named in the recipe: tasks.{task}.target"
            )
    return infos


def run_of(start: str) -> Path | None:
    """The folder of the run that `train.start` names, itself or by a file in it; None for a file that is in no run.

    Raises:
        RecipeError: There is no such folder or file, or it is neither a run nor weights.
    """
    path = Path(start)
    if path.is_file() and path.suffix == ".safetensors":
        # RUN/checkpoints/NAME/weights.safetensors
        folder = path.resolve().parents[2] if len(path.resolve().parents) > 2 else None
        return folder if folder is not None and (folder / "recipe.yaml").is_file() else None
    if (path / "recipe.yaml").is_file():
        return path
    what = "no run and no .safetensors file" if path.exists() else "no such run or file"
    raise RecipeError(
        f"train.start: {start}: {what}. Expected the folder of a run, or RUN/checkpoints/NAME/weights.safetensors"
    )
