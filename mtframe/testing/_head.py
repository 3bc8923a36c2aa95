"""Checks of heads."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtframe.data import DataInfo, Placement
from mtframe.errors import MtframeError
from mtframe.kinds import FeatureSpec, MergesViews, Target

from ._check import checks, passes_first
from ._companions import build_head, random_maps
from ._form import check_finite, check_prediction
from ._gradients import check_gradients
from ._subject import SIZE
from ._violation import Skip, Violation, expect

if TYPE_CHECKING:
    from ._subject import Subject

# (height, width) of inputs.
_SQUARE, _RECTANGLES = (SIZE, SIZE), ((SIZE, SIZE * 3 // 2), (SIZE * 3 // 2, SIZE))


def _views_in(size: tuple[int, int]) -> tuple[Placement, ...]:
    """Where three originals lie in an input: as it is; twice as large, with a bar above and below; half as large and
    mirrored.
    """
    height, width = size
    return (
        Placement.scaled(size, size, (1.0, 1.0)),
        Placement.scaled((height // 4, width // 2), size, (2.0, 2.0), (0.0, height / 4)),
        Placement.scaled((height * 2, width * 2), size, (-0.5, 0.5), (float(width), 0.0)),
    )


_VIEWS = _views_in(_SQUARE)


@dataclass
class Setup:
    """A head and what it is given.

    Attributes:
        head: On `features`.
        features: The maps that it takes.
        info: Of a data set of its kind of target.
        target: That kind.
    """

    head: Any
    features: tuple[FeatureSpec, ...]
    info: DataInfo
    target: Target

    def maps(self, images: int = len(_VIEWS), seed: int = 0, size: tuple[int, int] = _SQUARE) -> list[Tensor]:
        """(B, C, H, W) of noise, one per feature, for inputs of this size."""
        return random_maps(self.features, images, seed, size)

    def predictions(
        self, outputs: Mapping[str, Tensor], head: Any = None, views: Sequence[Placement] = _VIEWS
    ) -> list[dict[str, Tensor]]:
        """What a head predicts, in pixels of the originals."""
        found = (head or self.head).predict(outputs, _bounds(views))
        expect(len(found) == len(_VIEWS), f"expected a prediction for each of {len(_VIEWS)} images, got {len(found)}")
        for said in found:
            check_finite("a prediction", said)
        return [self.target.restored([pair]) for pair in zip(found, views, strict=True)]


def make(subject: Subject) -> Setup:
    """A head for the data set that is its companion."""
    companions = subject.kit.companions(subject)
    head, features = build_head(subject, companions.info)
    return Setup(head, features, companions.info, companions.target)


def static_shapes(subject: Subject) -> None:
    """Its outputs are tensors of the same shapes whatever is on the images."""
    setup = make(subject)
    head, empty = setup.head.eval(), [torch.zeros_like(feature) for feature in setup.maps()]
    shapes = [_shapes(_outputs(head, maps)) for maps in (setup.maps(), setup.maps(seed=1), empty)]
    for other in shapes[1:]:
        expect(other == shapes[0], f"outputs of {shapes[0]} for some maps, of {other} for others")


def exports(subject: Subject) -> None:
    """torch.export takes it, and what is exported gives the same outputs."""
    setup = make(subject)
    head, maps = setup.head.eval(), setup.maps()
    with torch.no_grad(), warnings.catch_warnings():
        # torch warns of its own code there.
        warnings.simplefilter("ignore")
        program = torch.export.export(head, (maps,)).module()
        exported, outputs = program(setup.maps(seed=1)), _outputs(head, setup.maps(seed=1))
    expect(set(exported) == set(outputs), f"outputs {', '.join(outputs)}, exported {', '.join(exported)}")
    different = [name for name, value in outputs.items() if not _close(exported[name], value)]
    expect(not different, f"what is exported gives other {', '.join(different)}: does the code look at values?")


def batch_of_one(subject: Subject) -> None:
    """In evaluation one image alone gets what it gets among others."""
    setup = make(subject)
    head, maps = setup.head.eval(), setup.maps()
    several, alone = _outputs(head, maps), _outputs(head, [feature[:1] for feature in maps])
    for name, value in alone.items():
        # Some outputs are of no image, such as the places of a grid.
        per_image = value.ndim > 0 and value.shape[0] == 1 and several[name].shape[:1] == (len(_VIEWS),)
        wanted = several[name][:1] if per_image else several[name]
        same = value.shape == wanted.shape and _close(value, wanted)
        expect(same, f"{name} of an image alone is another than among others; it depends on the rest of the batch")


def predictions(subject: Subject) -> None:
    """`predict` gives a prediction for each image, finite and of the right form, whatever the head has learned."""
    setup = make(subject)
    for seed in range(3):
        # Untrained heads say nothing; one of random weights says anything.
        head = _wild(setup.head.eval(), seed)
        _check_predictions(setup, setup.predictions(_outputs(head, setup.maps(seed=seed)), head))


def rectangles(subject: Subject) -> None:
    """Of inputs that are wide or tall, too, it predicts for each image what is finite and of the right form."""
    passes_first(predictions, subject)
    setup = make(subject)
    for size in _RECTANGLES:
        head, views = _wild(setup.head.eval(), 0), _views_in(size)
        try:
            outputs = _outputs(head, setup.maps(size=size))
        except MtframeError as refused:
            raise Skip(f"it takes squares only, and says so: {refused}") from refused
        _check_predictions(setup, setup.predictions(outputs, head, views), views)


def gradients(subject: Subject) -> None:
    """In training gradients reach every parameter that is trained."""
    setup, seeds = make(subject), itertools.count()
    head = setup.head.train()
    # As those of a backbone that is trained.
    check_gradients(head, lambda: head([feature.requires_grad_() for feature in setup.maps(seed=next(seeds))]))


def bf16(subject: Subject) -> None:
    """Under bf16 autocast its outputs are finite, and `predict` takes them."""
    setup = make(subject)
    head = setup.head.eval()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = _outputs(head, [feature.bfloat16() for feature in setup.maps()])
    strange = [name for name, value in outputs.items() if value.is_floating_point() and not value.isfinite().all()]
    expect(not strange, f"{', '.join(strange)} not finite in bf16")
    for prediction in head.predict(outputs, _bounds()):
        check_finite("a prediction in bf16", prediction)


def views(subject: Subject) -> None:
    """`merge_views`, where there is one, makes one prediction of several, of the same form."""
    setup = make(subject)
    head = _wild(setup.head.eval(), 0)
    if not isinstance(head, MergesViews):
        raise Skip("it has no merge_views; its kind of target merges views")
    some, others = (setup.predictions(_outputs(head, setup.maps(seed=seed)), head) for seed in (0, 1))
    try:
        _check_predictions(setup, some)
    except Violation as error:
        raise Skip("its predictions are not valid; see the check predictions") from error
    for one, other, view in zip(some, others, _VIEWS, strict=True):
        merged = head.merge_views([one, other])
        expect(set(merged) == set(one), f"expected {', '.join(one)} of merged views, got {', '.join(merged)}")
        check_prediction("merged views", setup.target, merged, view.size)


def _outputs(head: Any, maps: Sequence[Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        outputs: dict[str, Tensor] = head(maps)
    expect(isinstance(outputs, dict), f"expected tensors by name, got {type(outputs).__name__}")
    return outputs


def _check_predictions(
    setup: Setup, found: Sequence[Mapping[str, Tensor]], views: Sequence[Placement] = _VIEWS
) -> None:
    for prediction, view in zip(found, views, strict=True):
        check_prediction("a prediction, restored", setup.target, prediction, view.size)


def _shapes(outputs: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in outputs.items()}


def _bounds(views: Sequence[Placement] = _VIEWS) -> Tensor:
    return torch.tensor([view.bounds for view in views])


def _wild(head: Any, seed: int) -> Any:
    """The head with random weights of a size that makes its outputs large."""
    head = copy.deepcopy(head)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5)
    return head


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-3)


CHECKS = checks(static_shapes, exports, batch_of_one, predictions, rectangles, gradients, bf16, views)
