"""Checks of sharing schemes."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mtframe.kinds import FeatureSpec, NamesShared

from ._check import checks, passes_first
from ._companions import build_backbone
from ._gradients import check_gradients, some, wake
from ._lockstep import in_lockstep
from ._subject import SIZE, can
from ._violation import Skip, expect

if TYPE_CHECKING:
    from ._subject import Subject

# Two tasks whose images go through together, a third that looks at those of the first, and one of another size.
_GROUPS = (("faces", "people", "scenes"), ("objects",))
_LENDERS = {"scenes": "faces"}


def make(subject: Subject, *, batchnorm: bool = False) -> Any:
    """A sharing scheme over a real backbone; one with BatchNorm where that is asked for and there is one."""
    return subject.build(backbone=_backbone(subject, batchnorm), groups=_GROUPS)


def maps(subject: Subject) -> None:
    """Every task gets maps of its own images that are as `features` says, in groups of different sizes."""
    sharing, images = make(subject).eval(), _images()
    with torch.no_grad():
        found = sharing(images)
    expect(set(found) == set(images), f"expected maps of {', '.join(images)}, got those of {', '.join(found)}")
    for task, pixels in images.items():
        _check_shapes(task, sharing.features, found[task], pixels)


def images_of_another_task(subject: Subject) -> None:
    """A task in `lenders` gets maps of the images of the task that it looks at."""
    sharing, images = make(subject).eval(), _images()
    with torch.no_grad():
        found = sharing(images, _LENDERS)
    tasks = (*images, *_LENDERS)
    expect(set(found) == set(tasks), f"expected maps of {', '.join(tasks)}, got {', '.join(found)}")
    for task, lender in _LENDERS.items():
        shapes = [[tuple(feature.shape) for feature in found[name]] for name in (task, lender)]
        expect(shapes[0] == shapes[1], f"{task!r} gets maps {shapes[0]} of images of which {lender!r} gets {shapes[1]}")


def tasks_alone(subject: Subject) -> None:
    """A step of one task only, as schedules make it, gives the same maps in evaluation as one of all."""
    sharing, images = make(subject).eval(), _images()
    with torch.no_grad():
        together, alone = sharing(images), {task: sharing({task: images[task]})[task] for task in images}
    for task, found in alone.items():
        expect(_close(found, together[task]), f"the maps of {task!r} depend on which other tasks are in the step")


def gradients(subject: Subject) -> None:
    """In training gradients reach every parameter that is trained."""
    sharing, seeds = make(subject).train(), itertools.count()

    def found() -> dict[tuple[str, int], Tensor]:
        maps = sharing(_images(next(seeds)), _LENDERS)
        return {(task, number): feature for task, several in maps.items() for number, feature in enumerate(several)}

    check_gradients(sharing, found)


def own_parameters(subject: Subject) -> None:
    """`shared_parameters` names those that several tasks' gradients reach, and no task's own."""
    passes_first(images_of_another_task, subject)
    passes_first(gradients, subject)
    # In training BatchNorm's joint statistics lead from a task's images to another's maps.
    sharing = make(subject).eval()
    if not can(sharing, NamesShared):
        raise Skip("it does not say which parameters are shared (shared_parameters); all of them then count as such")
    named = set(sharing.shared_parameters())
    wake(sharing.parameters())
    trained = {name: parameter for name, parameter in sharing.named_parameters() if parameter.requires_grad}
    reaching = _reaching(sharing, trained)
    # A joint pass leads from every task to another's own parameters, with gradients of 0.
    hidden = [n for n, found in reaching.items() if sum(map(_any, found)) > 1 and trained[n] not in named]
    expect(not hidden, f"gradients of several tasks reach {some(hidden)}, which shared_parameters leaves out")
    alone = [n for n, found in reaching.items() if len(found) < 2 and trained[n] in named]
    expect(not alone, f"shared_parameters gives {some(alone)}, which the gradient of one task only reaches")


def threads(subject: Subject) -> None:
    """Two threads at once get what one gets alone, with images of two sizes and of one."""
    passes_first(tasks_alone, subject)
    sharing, images = make(subject, batchnorm=True).train(), _images()
    # So that it shows if a pass gets what is another task's: what begins at 0, statistics of other images.
    wake(sharing.parameters())
    for _ in range(3):
        _found(sharing, {task: pixels + number for number, (task, pixels) in enumerate(images.items())})
    sharing.eval()
    alone = {task: _found(sharing, {task: pixels})[task] for task, pixels in images.items()}
    for pair in (("faces", "objects"), ("faces", "people")):
        calls = [partial(_found, sharing, {task: images[task]}) for task in pair]
        for task, other, found in zip(pair, reversed(pair), in_lockstep(sharing, calls), strict=True):
            expect(
                _close(found[task], alone[task]),
                f"the maps of {task!r} differ while another thread asks for those of {other!r}: what belongs to one "
                "pass must not be kept on a module (see mtframe.model.PerPass)",
            )


def copies(subject: Subject) -> None:
    """A deep copy computes with its own weights, as averaged weights do, and the original stays as it is."""
    sharing, images = make(subject).eval(), _images()
    before = _found(sharing, images)
    twin = copy.deepcopy(sharing)
    same = all(map(_close, _found(twin, images).values(), before.values()))
    expect(same, "the maps of a deep copy differ")
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    changed = _found(twin, images)
    expect(
        not any(map(_close, changed.values(), before.values())),
        "the maps of a deep copy do not depend on the copy's weights; does something hold on to the original?",
    )
    same = all(map(_close, _found(sharing, images).values(), before.values()))
    expect(same, "the original's maps are others after its deep copy was changed")


def saves_and_loads(subject: Subject) -> None:
    """Another instance with its weights, by way of a safetensors file, gives the same maps."""
    sharing, images = make(subject).eval(), _images()
    torch.manual_seed(1)
    other = make(subject).eval()
    kept = save({name: tensor.clone().contiguous() for name, tensor in sharing.state_dict().items()})
    other.load_state_dict(load(kept))
    same = all(map(_close, _found(other, images).values(), _found(sharing, images).values()))
    expect(same, "the loaded maps differ: something that decides them is neither a parameter nor a persistent buffer")


def bf16(subject: Subject) -> None:
    """Under bf16 autocast its maps are finite and of the same shapes."""
    sharing, images = make(subject).eval(), _images()
    plain = _found(sharing, images)
    with torch.autocast("cpu", torch.bfloat16):
        found = _found(sharing, images)
    for task, several in found.items():
        shapes = [[tuple(feature.shape) for feature in each] for each in (several, plain[task])]
        expect(shapes[0] == shapes[1], f"{task!r} gets maps of {shapes[0]} in bf16, of {shapes[1]} in fp32")
        expect(all(feature.isfinite().all() for feature in several), f"{task!r} gets maps that are not finite in bf16")


def _reaching(sharing: Any, trained: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """Of each of these parameters the tasks' gradients, where there are any."""
    reaching: dict[str, list[Tensor]] = {name: [] for name in trained}
    for several in sharing(_images(), _LENDERS).values():
        total = torch.stack([feature.float().sum() for feature in several]).sum()
        found = torch.autograd.grad(total, list(trained.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(trained, found, strict=True):
            if gradient is not None:
                reaching[name].append(gradient)
    return reaching


def _any(gradient: Tensor) -> bool:
    return bool(gradient.any())


def _found(sharing: Any, images: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    with torch.no_grad():
        return {task: list(several) for task, several in sharing(images).items()}


def _close(these: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in zip(these, others, strict=True))


def _images(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"faces": (2, SIZE), "people": (3, SIZE), "objects": (2, SIZE * 3 // 2)}
    return {task: torch.randn(count, 3, side, side, generator=generator) for task, (count, side) in sizes.items()}


def _backbone(subject: Subject, batchnorm: bool) -> Any:
    """That of the same distribution, or mtframe's; single ones before families, which are large."""
    others = []
    for other in sorted(subject.kit.neighbours("backbone"), key=lambda found: found.member is not None):
        try:
            backbone, _ = build_backbone(other)
            # Some take one size only.
            for pixels in _images().values():
                backbone.eval()(pixels)
        except Exception:
            continue
        others.append(backbone.train())
        if not batchnorm or any(isinstance(module, _BatchNorm) for module in backbone.modules()):
            return others[-1]
    if not others:
        raise Skip("no backbone can be built here")
    return others[0]


def _check_shapes(task: str, features: Sequence[FeatureSpec], found: Sequence[Tensor], images: Tensor) -> None:
    expect(len(found) == len(features), f"{task!r} gets {len(found)} maps, {len(features)} features are declared")
    for feature, spec in zip(found, features, strict=True):
        wanted = (len(images), spec.channels, images.shape[2] // spec.stride, images.shape[3] // spec.stride)
        expect(tuple(feature.shape) == wanted, f"{task!r}: expected {wanted} from {spec}, got {tuple(feature.shape)}")


CHECKS = checks(
    maps, images_of_another_task, tasks_alone, gradients, own_parameters, copies, threads, saves_and_loads, bf16
)
