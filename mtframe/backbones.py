"""What backbones made of another library's models need: sizes that fit, stages, frozen parts, weights from files.

Such a backbone has the library's network in `network` and, where it is a plain ViT, whose maps have one stride, a
simple pyramid on its last map in `pyramid`. A model's name in messages is `LIBRARY/MEMBER`.
"""

# Shapes: B images, H height, W width.

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mtframe.errors import CheckpointError, MtframeError, RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import SimplePyramid, freeze

FINEST = 4
"""Maps of a smaller stride are left out: they cost more than the rest together, and heads do without."""

Found = TypeVar("Found")
Stages = tuple[tuple[str, ...], ...]


class UnfitError(Exception):
    """The model cannot be built for, or run at, a size."""


def at_size(name: str, size: int, plan: Callable[[int], Found], candidates: set[int]) -> Found:
    """What `plan` finds out about a model for images of one size.

    Args:
        name: The model's.
        size: Pixels a side.
        plan: Takes a size; raises UnfitError where the model does not.
        candidates: Sizes of which the nearest that the model takes are named instead.

    Raises:
        RecipeError: The model does not take this size.
    """

    def fits(other: int) -> bool:
        try:
            plan(other)
        except UnfitError:
            return False
        return True

    try:
        return plan(size)
    except UnfitError as error:
        nearest = sorted(candidates - {size}, key=lambda other: abs(other - size))
        sizes = list(islice(filter(fits, nearest), 3))
        takes = f"it takes {either(sizes)}, for example" if sizes else "nor sizes near it"
        raise RecipeError(f"{name} cannot take images of {size}×{size} px; {takes} ({error})") from error


def run(network: nn.Module, images: Tensor, *, size: int, name: str) -> Any:
    """What a network gives for images (B, 3, H, W); it may have been built for images of one size.

    Raises:
        RecipeError: They are of another size than `size` × `size`, and the network does not take it.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        # Not guarded: what compiles or exports a network would have to follow the handler.
        return network(images)
    try:
        return network(images)
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        raise RecipeError(
            f"{name} was built for images of {size}×{size} px and does not take {height}×{width}; give all tasks one "
            f"size, or choose a backbone that takes any ({error})"
        ) from error


def stage_prefixes(module: nn.Module, stage_of: Mapping[str, int], prefix: str) -> Stages:
    """The parameters, buffers and modules of each stage, by few names: that of a module that is in one stage.

    Args:
        module: What is cut into stages.
        stage_of: The stage of each parameter, buffer and module in it that counts, by name.
        prefix: What to put in front of names.

    Returns:
        The names of each stage; stages that hold nothing are left out.
    """
    prefixes: list[list[str]] = [[] for _ in range(max(stage_of.values()) + 1)]

    def collect(part: nn.Module, path: str) -> None:
        for name in [*part._parameters, *part._buffers, *dict(part.named_children())]:
            whole = f"{path}{name}"
            inside = {stage for other, stage in stage_of.items() if f"{other}.".startswith(f"{whole}.")}
            if len(inside) == 1:
                prefixes[inside.pop()].append(f"{prefix}{whole}")
            elif inside:
                collect(part.get_submodule(name), f"{whole}.")

    collect(module, "")
    return tuple(tuple(names) for names in prefixes if names)


def freeze_stages(backbone: nn.Module, stages: Stages, *, frozen: bool, frozen_stages: int, name: str) -> None:
    """Puts a backbone into training mode, except its `network` or the first stages of that, which stay as they are.

    Raises:
        RecipeError: There are fewer stages.
    """
    if not 0 <= frozen_stages <= len(stages):
        raise RecipeError(f"frozen_stages: must be 0 to {len(stages)}, the stages of {name}, got {frozen_stages}")
    backbone.train()
    freeze(backbone, ("network",) if frozen else sum(stages[:frozen_stages], ()))


def describe(
    network: nn.Module, features: Sequence[FeatureSpec], stages: Stages, *, flat: bool, size: int, pretrained: bool
) -> dict[str, Any]:
    """What `describe_member` of a backbone gives, of a network that may be on the meta device.

    `flat` says that its one map gets a simple pyramid.

    Returns:
        `parameters` (a count, of what the backbone keeps), `size` (pixels, that of its pretraining), `strides`,
        `channels`, `stages` (how many `frozen_stages` counts) and `pretrained` (whether there are weights).
    """
    parts = nn.ModuleList([network])
    if flat:
        with torch.device("meta"):
            pyramid = SimplePyramid(features[-1])
        parts.append(pyramid)
        features = pyramid.features
    return {
        "parameters": sum(parameter.numel() for parameter in parts.parameters()),
        "size": size,
        "strides": tuple(feature.stride for feature in features),
        "channels": tuple(feature.channels for feature in features),
        "stages": len(stages),
        "pretrained": pretrained,
    }


def read_weights(path: Path, name: str, read: Callable[[Path], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The weights of the model `name` in a `.safetensors`, or in a `.pth` with nothing but tensors in it.

    Raises:
        RecipeError: There is no such file.
        CheckpointError: `read` cannot read it.
    """
    if not path.is_file():
        raise RecipeError(f"backbone.weights: no file {str(path)!r}; expected a .safetensors or .pth file")
    try:
        return read(path)
    except (MtframeError, MemoryError):
        raise
    except Exception as error:
        # Unpicklers, and filters of old names, raise whatever they like on garbage: KeyError, struct.error, ...
        raise CheckpointError(
            f"{path}: cannot be read as weights of {name}; expected tensors only, in safetensors or torch's format "
            f"({reason(error)})"
        ) from error


def is_plain(value: object) -> bool:
    """Whether what a file holds is a tensor of real numbers that are there: not sparse, quantised or on no device."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized or value.is_complex())
    )


def missing_tensors(missing: Iterable[str], needed: int) -> list[str]:
    """What is wrong with weights that lack tensors, for `unfit_weights`; nothing if they lack none that matters."""
    # Files older than torch 0.4.1 do not count batches, and nothing depends on it.
    names = [name for name in missing if not name.endswith("num_batches_tracked")]
    return [f"{len(names)} of {needed} tensors are missing, such as {names[0]!r}"] if names else []


def unfit_weights(source: object, name: str, problems: Sequence[str]) -> CheckpointError:
    """The error for weights from `source` that are not of the model `name`."""
    return CheckpointError(
        f"{source}: not weights of {name}: {'; '.join(problems)}. Name the backbone that the file was made for, or "
        "another file in backbone.weights"
    )


def unpublished(library: str, member: str) -> RecipeError:
    """The error for a model without published weights."""
    return RecipeError(f"{library} has no weights for {member!r}; start from random ones: backbone.pretrained=false")


def unfetched(what: str, why: object) -> MtframeError:
    """The error for published weights that cannot be fetched: whose, perhaps from where, and why not."""
    return MtframeError(
        f"cannot fetch the weights of {what}. Without a connection, give a local file: backbone.weights=FILE, or "
        f"start from random weights: backbone.pretrained=false ({why})"
    )


def perhaps_meant(name: str, known: Iterable[str], library: str) -> str:
    """A question about a name that a library, given with its version, does not know."""
    near = difflib.get_close_matches(name, list(known), n=3)
    return f"did you mean {either(near)}?" if near else f"is {library} too old for it?"


def either(names: Iterable[object]) -> str:
    """The first few, with `or` between them."""
    return " or ".join(str(name) for name in islice(names, 5))


def reason(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
