"""Checks of backbones."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from mtframe.errors import MtframeError
from mtframe.kinds import NamesLayers

from ._check import checks
from ._companions import build_backbone
from ._gradients import check_gradients
from ._subject import can
from ._violation import expect

if TYPE_CHECKING:
    from ._subject import Subject


def make(subject: Subject) -> Any:
    """A backbone with random weights."""
    # A copy: building a large one takes longer than any check of it.
    return copy.deepcopy(_built(subject)[0])


def maps(subject: Subject) -> None:
    """Its maps have the declared channels and strides, on square images and on larger ones that are not."""
    backbone, size = make(subject).eval(), _built(subject)[1]
    _check_maps(backbone, size, size)
    # Some take the size only that they are built for, and say so.
    with contextlib.suppress(MtframeError):
        _check_maps(backbone, size, size * 3 // 2)


def deterministic(subject: Subject) -> None:
    """In evaluation the same images give the same maps, and each image its own, whatever is beside it."""
    backbone, images = make(subject).eval(), _images(subject, 3)
    with torch.no_grad():
        first, second, alone = backbone(images), backbone(images), backbone(images[:1])
    expect(all(map(torch.equal, first, second)), "the same images gave different maps; is something random in eval()?")
    expect(
        _close(alone, [feature[:1] for feature in first]), "an image's maps depend on the images beside it in eval()"
    )


def gradients(subject: Subject) -> None:
    """In training gradients reach every parameter that is trained."""
    backbone, seeds = make(subject).train(), itertools.count()
    check_gradients(backbone, lambda: dict(enumerate(backbone(_images(subject, 2, next(seeds))))))


def bf16(subject: Subject) -> None:
    """Under bf16 autocast its maps are finite and of the same shapes."""
    backbone, images = make(subject).eval(), _images(subject, 2)
    with torch.no_grad():
        plain = [tuple(feature.shape) for feature in backbone(images)]
        with torch.autocast("cpu", torch.bfloat16):
            found = list(backbone(images))
    shapes = [tuple(feature.shape) for feature in found]
    expect(shapes == plain, f"maps of {shapes} in bf16, of {plain} in fp32")
    expect(all(feature.isfinite().all() for feature in found), "maps that are not finite in bf16")


def saves_and_loads(subject: Subject) -> None:
    """Another instance with its weights, by way of a safetensors file, gives the same maps."""
    backbone, images = make(subject).eval(), _images(subject, 2)
    # Other random weights, and whatever else it draws.
    torch.manual_seed(1)
    other = build_backbone(subject)[0].eval()
    kept = save({name: tensor.clone().contiguous() for name, tensor in backbone.state_dict().items()})
    other.load_state_dict(load(kept))
    first, second = (_seeded(module, images) for module in (backbone, other))
    expect(
        _close(first, second),
        "the loaded maps differ: something that decides them is neither a parameter nor a persistent buffer",
    )


def stages(subject: Subject) -> None:
    """Every parameter and buffer is under exactly one prefix of its stages, and no stage is empty."""
    backbone = make(subject)
    names = [*dict(backbone.named_parameters()), *dict(backbone.named_buffers())]
    prefixes = [prefix for stage in backbone.stages for prefix in stage]
    for name in names:
        under = [prefix for prefix in prefixes if f"{name}.".startswith(f"{prefix}.")]
        expect(len(under) == 1, f"{name} is under {' and '.join(under) or 'no prefix'} of stages; expected one")
    empty = [
        n
        for n, stage in enumerate(backbone.stages)
        if not any(f"{k}.".startswith(f"{p}.") for k in names for p in stage)
    ]
    expect(not empty, f"stage {empty[:1]} has neither parameters nor buffers")


def lr_layers(subject: Subject) -> None:
    """If it names its layers for learning rates, no parameter is in two, and no layer is without."""
    backbone = make(subject)
    if not can(backbone, NamesLayers):
        return
    names = dict(backbone.named_parameters())
    held = [{n for n in names if any(f"{n}.".startswith(f"{p}.") for p in layer)} for layer in backbone.lr_layers]
    for number, layer in enumerate(held):
        expect(layer != set(), f"layer {number} of lr_layers has no parameter")
        twice = layer & set().union(*held[:number])
        expect(not twice, f"{min(twice, default='')} is in layer {number} of lr_layers and in one before it")


def normalisation(subject: Subject) -> None:
    """Its mean and std are three finite numbers each, the latter above 0."""
    backbone = make(subject)
    for name, least in (("mean", -math.inf), ("std", 0.0)):
        values = getattr(backbone, name)
        expect(len(values) == 3, f"{name}: expected a number for each of 3 channels, got {values!r}")
        right = all(math.isfinite(value) and value > least for value in values)
        expect(right, f"{name}: expected finite numbers{' above 0' if name == 'std' else ''}, got {values!r}")


def _built(subject: Subject) -> tuple[Any, int]:
    found: tuple[Any, int] = subject.once("backbone", lambda: build_backbone(subject))
    return found


def _images(subject: Subject, count: int, seed: int = 0) -> Tensor:
    size = _built(subject)[1]
    return _noise(count, size, size, seed)


def _noise(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def _seeded(backbone: Any, images: Tensor) -> list[Tensor]:
    """Maps that are the same even if the backbone is random, which another check asks about."""
    torch.manual_seed(0)
    with torch.no_grad():
        return list(backbone(images))


def _check_maps(backbone: Any, height: int, width: int) -> None:
    with torch.no_grad():
        found = list(backbone(_noise(2, height, width)))
    features = backbone.features
    expect(len(found) == len(features), f"{len(found)} maps, but {len(features)} features are declared")
    for feature, spec in zip(found, features, strict=True):
        wanted, shape = (2, spec.channels, height // spec.stride, width // spec.stride), tuple(feature.shape)
        expect(shape == wanted, f"{spec.name}: expected {wanted} of images of {height}×{width}, got {shape}")
    strides = [spec.stride for spec in features]
    expect(strides == sorted(strides), f"features: expected the finest map first, got strides {strides}")


def _close(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in zip(some, others, strict=True))


CHECKS = checks(maps, deterministic, gradients, bf16, saves_and_loads, stages, lr_layers, normalisation)
