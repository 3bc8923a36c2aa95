"""Checks of sharing schemes."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtframe.kinds import FeatureSpec

from ._check import checks
from ._companions import build_backbone
from ._gradients import check_gradients
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


def maps(subject: Subject) -> None:
    """Every task gets maps of its own images that are as `features` says, in groups of different sizes."""
    sharing, images = make(subject).eval(), _images()
    with torch.no_grad():
        found = sharing(images)
    expect(set(found) == set(images), f"expected maps of {', '.join(images)}, got those of {', '.join(found)}")
    for task, pixels in images.items():
        _check_shapes(task, sharing.features, found[task], pixels)


def images_of_another_task(subject: Subject) -> None:
    """A task in `also` gets maps of the images of the task that it looks at."""
    sharing, images = make(subject).eval(), _images()
    with torch.no_grad():
        found = sharing(images, _ALSO)
    expect(set(found) == {*images, *_ALSO}, f"expected maps of {', '.join((*images, *_ALSO))}, got {', '.join(found)}")
    for task, lender in _ALSO.items():
        shapes = [[tuple(feature.shape) for feature in found[name]] for name in (task, lender)]
        expect(shapes[0] == shapes[1], f"{task!r} gets maps {shapes[0]} of images of which {lender!r} gets {shapes[1]}")


def tasks_alone(subject: Subject) -> None:
    """A step of one task only, as schedules make it, gives the same maps in evaluation as one of all."""
    sharing, images = make(subject).eval(), _images()
    with torch.no_grad():
        together, alone = sharing(images), {task: sharing({task: images[task]})[task] for task in images}
    for task, found in alone.items():
        same = all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(found, together[task], strict=True))
        expect(same, f"the maps of {task!r} depend on which other tasks are in the step")


def gradients(subject: Subject) -> None:
    """In training gradients reach every parameter that is trained."""
    sharing, seeds = make(subject).train(), itertools.count()

    def found() -> dict[tuple[str, int], Tensor]:
        maps = sharing(_images(next(seeds)), _ALSO)
        return {(task, number): feature for task, several in maps.items() for number, feature in enumerate(several)}

    check_gradients(sharing, found)


def _images(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"faces": (2, SIZE), "people": (3, SIZE), "objects": (2, SIZE * 3 // 2)}
    return {task: torch.randn(count, 3, side, side, generator=generator) for task, (count, side) in sizes.items()}


def _backbone(subject: Subject) -> Any:
    """That of the same distribution, or mtframe's; single ones before families, which are large."""
    for other in sorted(subject.kit.neighbours("backbone"), key=lambda found: found.member is not None):
        try:
            backbone, _ = build_backbone(other)
            # Some take one size only.
            for pixels in _images().values():
                backbone.eval()(pixels)
            return backbone.train()
        except Exception:
            continue
    raise Skip("no backbone can be built here")


def _check_shapes(task: str, features: Sequence[FeatureSpec], found: Sequence[Tensor], images: Tensor) -> None:
    expect(len(found) == len(features), f"{task!r} gets {len(found)} maps, {len(features)} features are declared")
    for feature, spec in zip(found, features, strict=True):
        wanted = (len(images), spec.channels, images.shape[2] // spec.stride, images.shape[3] // spec.stride)
        expect(tuple(feature.shape) == wanted, f"{task!r}: expected {wanted} from {spec}, got {tuple(feature.shape)}")


CHECKS = checks(maps, images_of_another_task, tasks_alone, gradients)
