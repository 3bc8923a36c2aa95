"""Checks of losses."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtframe.data import Batch
from mtframe.kinds import RatesPredictions

from ._check import checks, passes_first
from ._companions import TASK, Companions, build_head, random_maps
from ._metric import primary_of
from ._violation import Skip, expect

if TYPE_CHECKING:
    from ._subject import Subject

# Enough to begin to fit a handful of images; faster, detectors lose what they began with.
_STEPS = 30
_RATE = 3e-3

# How much more right predictions must be afterwards, where 1 is perfect.
_LEAST = 0.02


@dataclass
class Setup:
    """A loss and what it is given.

    Attributes:
        companions: Data of its kind of target.
        head: Whose outputs it takes.
        loss: The loss.
        maps: What the head is given, one per feature.
    """

    companions: Companions
    head: Any
    loss: Any
    maps: list[Tensor]

    def total(self, batch: Batch) -> Tensor:
        """The sum of the loss's terms."""
        terms: Mapping[str, Tensor] = self.loss(self.head(self.maps), batch.targets[TASK])
        expect(isinstance(terms, dict) and terms, f"expected scalars by name, got {terms!r}")
        for name, term in terms.items():
            expect(isinstance(term, Tensor) and term.ndim == 0, f"expected a scalar, got {name} = {term!r}")
        return torch.stack([term.float() for term in terms.values()]).sum()


def make(subject: Subject) -> Setup:
    """A loss, with the first head for whose outputs it can be computed."""
    companions = subject.kit.companions(subject)
    batch, refused = companions.batch(), list[Exception]()
    for candidate in companions.candidates("head"):
        try:
            head, features = build_head(candidate, companions.info)
        except Exception:
            continue
        try:
            loss = subject.build(head=head, info=companions.info, restoring=True)
            setup = Setup(companions, head.train(), loss.train(), random_maps(features, len(batch)))
            setup.total(batch)
            return setup
        except Exception as error:
            # It may be made for another head; if it is for none, the likeliest one's error tells most.
            if isinstance(error, Skip):
                raise
            refused.append(error)
    if refused:
        raise refused[0]
    raise Skip(f"no head for targets of kind {companions.info.target!r} is at hand")


def finite(subject: Subject) -> None:
    """It is named scalars, finite, and differentiable by the head's outputs."""
    setup = make(subject)
    _check_step(setup, setup.companions.batch())
    reached = [p.grad for p in setup.head.parameters() if p.grad is not None]
    expect(any(gradient.any() for gradient in reached), "no gradient of it reaches the head's parameters")


def an_unknown_image(subject: Subject) -> None:
    """It is finite, with its gradients, where nothing is known of one image."""
    passes_first(finite, subject)
    setup = make(subject)
    _check_step(setup, setup.companions.batch(unknown=[0]))


def unknown_takes_no_part(subject: Subject) -> None:
    """No gradient goes to an image of which nothing is known: it is not one of no class, or on which nothing is."""
    passes_first(an_unknown_image, subject)
    setup = make(subject)
    # What BatchNorm makes of one image depends on all of them.
    setup.head.eval()
    setup.maps = [feature.clone().requires_grad_() for feature in setup.maps]
    total = setup.total(setup.companions.batch(unknown=[0]))
    gradients = torch.autograd.grad(total, setup.maps, allow_unused=True)
    pulls = [float(gradient[0].abs().max()) for gradient in gradients if gradient is not None]
    expect(
        max(pulls, default=0.0) == 0,
        f"the gradient is up to {max(pulls, default=0.0):.3g} at an image of which nothing is known, expected 0",
    )


def nothing_known(subject: Subject) -> None:
    """It is finite, with its gradients, where nothing is known of a whole batch."""
    passes_first(finite, subject)
    setup = make(subject)
    _check_step(setup, setup.companions.batch(unknown=range(len(setup.companions.samples))))


def teaches(subject: Subject) -> None:
    """Descending on it makes it fall, and predictions of the images that were learned more right."""
    passes_first(finite, subject)
    setup = make(subject)
    batch = setup.companions.batch()
    (before, least), loss_before = _score(setup, batch), float(setup.total(batch).detach())
    _learn(setup, batch)
    (after, _), loss_after = _score(setup, batch), float(setup.total(batch).detach())
    when = f"after {_STEPS} steps on {len(batch)} images"
    expect(loss_after < loss_before, f"the loss went from {loss_before:.4g} to {loss_after:.4g} {when}")
    right = f"predictions were right by {before:.3f}, and by {after:.3f} {when}"
    expect(after > before + least, f"{right}; is its sign wrong?")


def _check_step(setup: Setup, batch: Batch) -> None:
    total = setup.total(batch)
    expect(total.isfinite(), f"expected a finite loss, got {total.item()}")
    expect(total.requires_grad, "the loss has no gradient; give 0 as the outputs' sum times 0, not as a constant")
    total.backward()
    parameters = {**dict(setup.head.named_parameters()), **dict(setup.loss.named_parameters())}
    strange = [name for name, p in parameters.items() if p.grad is not None and not p.grad.isfinite().all()]
    expect(not strange, f"the gradient of {', '.join(strange[:3])} is not finite")


def _learn(setup: Setup, batch: Batch) -> None:
    """Fits the head, the loss's own parameters, and the maps, which stand for a backbone's."""
    setup.maps = [nn.Parameter(feature) for feature in setup.maps]
    parameters = [*setup.head.parameters(), *setup.loss.parameters(), *setup.maps]
    optimizer = torch.optim.Adam(parameters, lr=_RATE)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        setup.total(batch).backward()
        optimizer.step()


def _score(setup: Setup, batch: Batch) -> tuple[float, float]:
    """How right predictions are, larger is better, and by how much more they must be later."""
    head, target, samples = setup.head.eval(), setup.companions.target, setup.companions.samples
    with torch.no_grad():
        found = head.predict(head(setup.maps), batch.bounds)
    head.train()
    predictions = [target.restored([pair]) for pair in zip(found, batch.placements, strict=True)]
    if isinstance(target, RatesPredictions):
        rightness = target.rightness(predictions, samples)
        if rightness is not None:
            return rightness, _LEAST
    # In what unit a metric is, nobody knows.
    score = primary_of(setup.companions, predictions, samples)
    return score, _LEAST * abs(score)


CHECKS = checks(finite, an_unknown_image, unknown_takes_no_part, nothing_known, teaches)
