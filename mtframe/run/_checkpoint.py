"""A checkpoint: weights, and what going on from them takes, as one thing whose parts know each other."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mtframe import options
from mtframe.errors import CheckpointError
from mtframe.files import check_run_folder, to_disk
from mtframe.metrics import Thresholds
from mtframe.paths import regular

from ._files import digest, file_digest
from ._weights import bytes_of_weights, weights_of

# The checkpoint that a run goes on from, and the one before it.
LAST, KEPT = "last", "previous"

WEIGHTS, STATE, _MANIFEST = "weights.safetensors", "training.pt", "checkpoint.json"

# What was chosen with these very weights, on the validation data.
_THRESHOLDS = "thresholds.json"

# A training that saves beside a reader puts a checkpoint aside for a moment: tries, and seconds from one to the next.
_TRIES, _PAUSE = 20, 0.05

T = TypeVar("T")

_BY_TASK = TypeAdapter(dict[str, Thresholds])


class Manifest(BaseModel):
    """`checkpoint.json`: what a checkpoint is of.

    Attributes:
        format: Of this file.
        step: Steps done; None if the run was made of another one without training.
        files: SHA-256 by file of the checkpoint.
        labels: SHA-256 of the run's `labels.json`.
        recipe: What was trained, as plain YAML values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1] = 1
    step: int | None = Field(ge=0)
    files: dict[str, str]
    labels: str
    recipe: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        folder: Where it is.
        manifest: What it is of.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """The checkpoint in a folder. Raises CheckpointError if its `checkpoint.json` is missing or damaged."""
        file = folder / _MANIFEST
        try:
            return cls(folder, Manifest.model_validate_json(regular(file).read_bytes()))
        except FileNotFoundError:
            raise CheckpointError(f"{file}: missing, so nobody knows whether this checkpoint is whole") from None
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from None
        except ValidationError as error:
            said = "; ".join(options.problems(error, {}, "", lambda _: []))
            raise CheckpointError(f"{file}: damaged: {said}") from None

    def bytes_of(self, name: str) -> bytes:
        """One of its files. Raises CheckpointError if it is missing or not what was saved."""
        file = self.folder / name
        try:
            data = regular(file).read_bytes()
        except FileNotFoundError:
            raise CheckpointError(f"{file}: missing") from None
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from None
        self._compare(name, digest(data))
        return data

    def weights(self) -> dict[str, torch.Tensor]:
        """What evaluation uses: tensors by name. Raises CheckpointError if damaged, or NaN is in it."""
        return weights_of(self.bytes_of(WEIGHTS), self.folder / WEIGHTS)

    def thresholds(self) -> dict[str, Thresholds]:
        """By task, what was chosen with its weights, if they were scored. Raises CheckpointError if damaged."""
        if _THRESHOLDS not in self.manifest.files:
            return {}
        data = self.bytes_of(_THRESHOLDS)
        try:
            return _BY_TASK.validate_json(data)
        except ValidationError as error:
            plain: Any = {}
            with suppress(ValueError, RecursionError):
                plain = json.loads(data)
            said = "; ".join(options.problems(error, plain, "", lambda _: []))
            raise CheckpointError(f"{self.folder / _THRESHOLDS}: not thresholds by task: {said}") from None

    def state(self) -> dict[str, Any]:
        """What going on needs besides. Raises CheckpointError if damaged."""
        data = self.bytes_of(STATE)
        try:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{self.folder / STATE}: cannot be read ({error})") from None
        if not isinstance(state, dict):
            raise CheckpointError(f"{self.folder / STATE}: expected a mapping, got {type(state).__name__}")
        for tensor in _tensors(state):
            # Which torch reads as well, and which a step would fail on.
            if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
                raise CheckpointError(f"{self.folder / STATE}: expected dense tensors with values, got one without")
        return state

    @property
    def is_there(self) -> bool:
        """Whether it is still the one in its folder."""
        with suppress(CheckpointError):
            return Checkpoint.open(self.folder).manifest == self.manifest
        return False

    def check(self, *needed: str) -> None:
        """Raises CheckpointError unless all its files are what was saved, and those that are needed among them."""
        for name in dict.fromkeys((*needed, *self.manifest.files)):
            try:
                found = file_digest(self.folder / name)
            except FileNotFoundError:
                raise CheckpointError(f"{self.folder / name}: missing") from None
            except OSError as error:
                raise CheckpointError(f"{self.folder / name}: cannot be read ({error.strerror or error})") from None
            self._compare(name, found)

    def _compare(self, name: str, found: str) -> None:
        if (saved := self.manifest.files.get(name)) != found:
            raise CheckpointError(
                f"{self.folder / name}: not the file that was saved: its SHA-256 is {found[:12]}…, and "
                f"{_MANIFEST} beside it has {'none' if saved is None else f'{saved[:12]}…'}. It was damaged or changed "
                "since, or is of another checkpoint"
            )


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in mappings and lists, which may hold themselves."""
    left, seen = [value], set()
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            left += value.values() if isinstance(value, Mapping) else value


def read_weights(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Thresholds]]:
    """Tensors by name, of a file of weights that may lie in a checkpoint; and by task, what was chosen with them.

    Raises:
        CheckpointError: It is no safetensors, is not what its checkpoint was written with, or has NaN in it.
    """
    if ((there(file.parent) or file.parent) / _MANIFEST).is_file():
        # It may be replaced while it is read.
        data, thresholds = whole(
            file.parent, lambda checkpoint: (checkpoint.bytes_of(file.name), checkpoint.thresholds())
        )
        return weights_of(data, file), thresholds
    try:
        return weights_of(regular(file).read_bytes(), file), {}
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from None


def write(
    folder: Path,
    weights: Mapping[str, Any],
    state: Mapping[str, Any] | None,
    *,
    step: int | None,
    labels: str,
    recipe: Mapping[str, Any],
    thresholds: Mapping[str, Thresholds] | None = None,
    keep: Path | None = None,
) -> None:
    """Writes a checkpoint; the one that was there stays until the new one is complete and on the disk.

    Args:
        folder: Where.
        weights: Tensors by name.
        state: Tensors, numbers, text and containers of these.
        step: See `Manifest`, as `labels` and `recipe`.
        labels: SHA-256.
        recipe: Plain values.
        thresholds: By task, what was chosen with these weights.
        keep: Where the one that was there goes, in place of what is there; it is removed if None.

    Raises:
        OSError: The disk is full or cannot be written; what was there still is.
        RuntimeError: Likewise: torch.save reports a full disk so.
    """
    check_run_folder(folder.parent)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        data = bytes_of_weights(weights)
        (partial / WEIGHTS).write_bytes(data)
        files = {WEIGHTS: digest(data)}
        del data
        if state is not None:
            torch.save(dict(state), partial / STATE)
            files[STATE] = file_digest(partial / STATE)
        if thresholds:
            chosen = _BY_TASK.dump_json(dict(thresholds), indent=1) + b"\n"
            (partial / _THRESHOLDS).write_bytes(chosen)
            files[_THRESHOLDS] = digest(chosen)
        manifest = Manifest(step=step, files=files, labels=labels, recipe=dict(recipe))
        (partial / _MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        for file in (*partial.iterdir(), partial):
            to_disk(file)
        _swap(partial, folder, keep)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def whole(folder: Path, read: Callable[[Checkpoint], T]) -> T:
    """Reads a checkpoint that somebody may be writing anew: all of it is of one moment.

    Args:
        folder: Where it is.
        read: Reads it, and may raise CheckpointError.

    Raises:
        CheckpointError: What `read` raises of a checkpoint that stays as it is.
    """
    before = None
    for again in waiting():
        now = _manifest_of(folder)
        try:
            return read(Checkpoint.open(there(folder) or folder))
        except CheckpointError:
            # One that has just been replaced fails for no reason of its own.
            if not again or (now is not None and now == before):
                raise
        before = now
    raise AssertionError


def waiting() -> Iterator[bool]:
    """Turns to try again what a training that saves is in the way of for a moment; False for the last one."""
    for _ in range(_TRIES):
        yield True
        time.sleep(_PAUSE)
    yield False


def there(folder: Path) -> Path | None:
    """Where a checkpoint is: a process that was stopped between two renames has left it aside; None if nowhere."""
    return next((path for path in (folder, _aside(folder)) if path.is_dir()), None)


def _manifest_of(folder: Path) -> bytes | None:
    with suppress(OSError):
        return regular((there(folder) or folder) / _MANIFEST).read_bytes()
    return None


def _aside(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.old"


def _swap(new: Path, folder: Path, keep: Path | None) -> None:
    # A folder cannot be renamed over another, so the old one steps aside; see `there` for a kill in between.
    aside = keep or _aside(folder)
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    new.rename(folder)
    to_disk(folder.parent)
    if keep is None:
        shutil.rmtree(aside, ignore_errors=True)
