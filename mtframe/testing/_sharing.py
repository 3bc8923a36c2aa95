"""Checks of sharing schemes."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._check import checks
from ._companions import build_backbone
from ._gradients import check_gradients, weighted
from ._subject import SIZE
from ._violation import Skip, expect

if TYPE_CHECKING:
    from ._subject import Subject

# Two tasks whose images go through together, a third that looks at those of the first, and one of another size.
_GROUPS = (("faces", "people", "scenes"), ("objects",))
_ALSO = {"scenes": "faces"}


def make(subject: Subject) -> Any:
    """A sharing scheme over a real backbone."""
    return subject.build(backbone=_backbone(subject), groups=_GROUPS)


def maps_as_declared(subject: Subject) -> None:
    """Every task gets maps of its own images that are as `features` says, in groups of different sizes."""
    sharing, images = make(subject).eval(), _images()
    with torch.no_grad():
        maps = sharing(images)
    expect(set(maps) == set(images), f"expected maps of {', '.join(images)}, got those of {', '.join(maps)}")
    _check_shapes(sharing, maps, {task: task for task in images}, images)


def images_of_another_task(subject: Subject) -> None:
    """A task in `also` gets maps of the images of the task that it looks at."""
    sharing, images = make(subject).eval(), _images()
    with torch.no_grad():
        maps = sharing(images, _ALSO)
    expect(set(maps) == {*images, *_ALSO}, f"expected maps of {', '.join((*images, *_ALSO))}, got {', '.join(maps)}")
    _check_shapes(sharing, maps, _ALSO, images)


def tasks_alone(subject: Subject) -> None:
    """A step of one task only, as schedules make it, gives the same maps in evaluation as one of all."""
    sharing, images = make(subject).eval(), _images()
    with torch.no_grad():
        together, alone = sharing(images), {task: sharing({task: images[task]})[task] for task in images}
    for task, maps in alone.items():
        same = all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(maps, together[task], strict=True))
        expect(same, f"the maps of {task!r} depend on which other tasks are in the step")


def gradients(subject: Subject) -> None:
    """In training gradients reach every parameter."""
    sharing = make(subject).train()
    maps = sharing(_images(), _ALSO)
    weighted({(task, n): found for task, several in maps.items() for n, found in enumerate(several)}).backward()
    check_gradients(sharing)


def _images() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"faces": (2, SIZE), "people": (3, SIZE), "objects": (2, SIZE * 3 // 2)}
    return {task: torch.randn(count, 3, side, side, generator=generator) for task, (count, side) in sizes.items()}


def _backbone(subject: Subject) -> Any:
    """That of the same distribution, or mtframe's; single ones before families, which are large."""
    for other in sorted(subject.kit.neighbours("backbone"), key=lambda found: found.member is not None):
        try:
            return build_backbone(other)
        except (Skip, Exception):
            continue
    raise Skip("no backbone can be built here")


def _check_shapes(
    sharing: Any, maps: Mapping[str, Sequence[Tensor]], of: Mapping[str, str], images: Mapping[str, Tensor]
) -> None:
    for task, looked_at in of.items():
        found, pixels = maps[task], images[looked_at]
        expect(len(found) == len(sharing.features), f"{task}: {len(found)} maps of {len(sharing.features)} features")
        for feature, spec in zip(found, sharing.features, strict=True):
            wanted = (len(pixels), spec.channels, pixels.shape[2] // spec.stride, pixels.shape[3] // spec.stride)
            expect(tuple(feature.shape) == wanted, f"{task}: expected {wanted} from {spec}, got {tuple(feature.shape)}")


CHECKS = checks(maps_as_declared, images_of_another_task, tasks_alone, gradients)
