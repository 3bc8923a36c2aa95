"""Weights as safetensors, and what of them a model can take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import nn

from mtframe.errors import CheckpointError


def weights_of(data: bytes, file: object) -> dict[str, torch.Tensor]:
    """Tensors by name, of the bytes of a file of weights. Raises CheckpointError if they are none, or NaN."""
    try:
        weights = safetensors.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file}: cannot be read as safetensors ({error})") from None
    check_finite(weights, file)
    return weights


def bytes_of_weights(weights: Mapping[str, Any]) -> bytes:
    """Tensors by name as safetensors."""
    return safetensors.save(_apart(weights))


def take_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Loads tensors by name, in place; what is not among them stays."""
    state = model.state_dict()
    # For the versions of modules, which a state dict has and a safetensors file lacks: without them BatchNorm takes the
    # file for an old one, and looks for counters where `layers` has taken them away.
    state.update(weights)
    model.load_state_dict(state)


def check_fit(model: nn.Module, weights: Mapping[str, torch.Tensor], source: object) -> None:
    """Raises CheckpointError, naming the first differences, if weights are not of this model's architecture."""
    state = model.state_dict()
    odd = [name for name in weights if name in state and _kind(weights[name]) != _kind(state[name])]
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected == found and not odd:
        return
    problems = [f"{name}: the model has {state[name].dtype}, the checkpoint {weights[name].dtype}" for name in odd]
    problems += [f"{name}: the model has {expected[name]}, the checkpoint {found[name]}"
                for name in expected if name in found and expected[name] != found[name]]  # fmt: skip
    problems += [f"{name}: not in the checkpoint" for name in expected if name not in found]
    problems += [f"{name}: not in the model" for name in found if name not in expected]
    more = f"\n  ... and {len(problems) - 5} more" if len(problems) > 5 else ""
    raise CheckpointError(
        f"{source}: a checkpoint of another architecture:\n  " + "\n  ".join(problems[:5]) + more
        + "\nUse the recipe that the checkpoint was trained with."
    )  # fmt: skip


def _kind(tensor: torch.Tensor) -> tuple[bool, bool]:
    """Of numbers that one can be turned into another: whole, real or complex ones."""
    return tensor.is_floating_point(), tensor.is_complex()


def check_finite(weights: Mapping[str, torch.Tensor], file: object) -> None:
    """Raises CheckpointError if there is a NaN among tensors by name."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and (count := int(tensor.isnan().sum())):
            raise CheckpointError(
                f"{file}: {count} of {tensor.numel()} values of {name} are NaN, so nothing computed with them means "
                "anything. Use another checkpoint"
            )


def _apart(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, each with memory of its own: some models use one weight in two places, safetensors takes none."""
    apart: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in weights.items():
        shared = tensor.numel() > 0 and tensor.untyped_storage().data_ptr() in seen
        seen.add(tensor.untyped_storage().data_ptr())
        apart[name] = tensor.clone(memory_format=torch.contiguous_format) if shared else tensor.contiguous()
    return apart
