"""Weights from a local file: safetensors, or a torch checkpoint without anything but tensors in it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from timm.models import load_state_dict
from torch import Tensor, nn

from mtframe.backbones import is_plain, missing_tensors, read_weights, unfit_weights

from ._stages import plain_name, unwrapped


def load_weights(network: nn.Module, whole: nn.Module, path: Path, member: str) -> None:
    """Fills a feature extractor with the weights of a complete model, or of its backbone alone.

    timm's filter for the architecture is applied first: it knows the names that the authors' own files use,
    and resizes position embeddings. Weights that the network does not have (the classifier) are left out.

    Args:
        network: timm's feature extractor.
        whole: The complete model; it may be on the meta device.
        path: A `.safetensors`, or a `.pth` that `torch.load(weights_only=True)` accepts.
        member: The model's name, for messages.

    Raises:
        RecipeError: there is no such file.
        CheckpointError: the file cannot be read, or holds weights of another architecture.
    """
    given = read_weights(
        path, f"timm/{member}", lambda file: _filtered(load_state_dict(str(file), weights_only=True), whole)
    )
    outer, _ = unwrapped(network)
    by_plain_name = {plain_name(name): tensor for name, tensor in given.items() if is_plain(tensor)}
    needed = network.state_dict()
    found = {
        name: by_plain_name[plain]
        for name in needed
        if (plain := plain_name(name.removeprefix(outer))) in by_plain_name
    }
    _check_fit(found, needed, outer, path, member)
    network.load_state_dict(needed | found)


def _filtered(given: Mapping[str, Tensor], whole: nn.Module) -> Mapping[str, Tensor]:
    """Through the filter that timm keeps beside the model's class, if it has one."""
    module = sys.modules[type(whole).__module__]
    filter_fn = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    return filter_fn(given, whole) if filter_fn else given


def _check_fit(found: Mapping[str, Tensor], needed: Mapping[str, Tensor], outer: str, path: Path, member: str) -> None:
    problems = missing_tensors((name.removeprefix(outer) for name in needed if name not in found), len(needed))
    misshapen = [name for name in found if found[name].shape != needed[name].shape]
    if misshapen:
        name = misshapen[0]
        problems.append(
            f"{len(misshapen)} have another shape, such as {name.removeprefix(outer)!r}: expected "
            f"{tuple(needed[name].shape)}, found {tuple(found[name].shape)}"
        )
    if problems:
        raise unfit_weights(path, f"timm/{member}", problems)
