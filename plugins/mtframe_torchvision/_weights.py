"""Weights of the whole torchvision model, published or from a file, into a model that may be of another size."""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings

from mtframe.backbones import is_plain, missing_tensors, unfetched, unfit_weights, unpublished
from mtframe.errors import CheckpointError


def fetch(weights: WeightsEnum | None, member: str) -> Mapping[str, Tensor]:
    """The published weights, fetched once and then taken from torch's cache.

    Raises:
        RecipeError: There are none.
        MtframeError: They cannot be fetched.
    """
    if weights is None:
        raise unpublished("torchvision", member)
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise unfetched(f"torchvision/{member} from {weights.url}", error) from error


def read(path: Path) -> Mapping[str, Tensor]:
    """The weights in a `.safetensors`, or in a `.pth`. Raises RuntimeError for anything but tensors by name."""
    given = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    if not (isinstance(given, Mapping) and all(isinstance(name, str) and is_plain(given[name]) for name in given)):
        raise RuntimeError("it holds other things than tensors of real numbers by name")
    return given


def load(model: nn.Module, given: Mapping[str, Tensor], needed: Collection[str], source: object) -> None:
    """Fills a whole model, and insists on what its feature maps need.

    torchvision's own modules translate the names that older files have, and position embeddings are resized.

    Args:
        model: torchvision's, not on the meta device.
        given: Weights of the whole model or of what is needed.
        needed: Names of the parameters and buffers that the feature maps come from.
        source: For messages.

    Raises:
        CheckpointError: Weights of another architecture.
    """
    # Of the classifier and of side branches nothing is kept: their shapes do not matter.
    unneeded = set(model.state_dict()) - set(needed)
    state = {_renamed(name): tensor for name, tensor in given.items() if name not in unneeded}
    try:
        loaded = model.load_state_dict(_resized(model, state), strict=False)
    except (RuntimeError, ValueError) as error:
        # ValueError of position embeddings that have no square of places.
        reason = " ".join(str(error).split("\n\t")[1:2])
        raise CheckpointError(f"{source}: not weights of this backbone: {reason or error}") from None
    if problems := missing_tensors((name for name in loaded.missing_keys if name in needed), len(needed)):
        raise unfit_weights(source, "this backbone", problems)


def _renamed(name: str) -> str:
    """DenseNet's published files have names of an older torch: `norm.1` for `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)", r"\1", name)


def _resized(model: Any, state: dict[str, Tensor]) -> Mapping[str, Tensor]:
    """Position embeddings of a plain ViT at the model's size."""
    if "encoder.pos_embedding" not in state or not hasattr(model, "patch_size"):
        return state
    return interpolate_embeddings(model.image_size, model.patch_size, state)
