"""A distribution's components, each with the checks of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mtframe._fit import targets_of
from mtframe._installed import normalised
from mtframe.errors import PluginError, RecipeError
from mtframe.import_probe import Probe, probe
from mtframe.kinds import AsksDataset, HasExamples
from mtframe.registry import OURS, Component, did_you_mean, discover, strays

from . import (
    _backbone,
    _balancer,
    _dataset,
    _every,
    _head,
    _hooks,
    _loss,
    _metric,
    _preset,
    _schedule,
    _sharing,
    _target,
    _transform,
)
from ._check import Check
from ._companions import Companions
from ._subject import Subject
from ._violation import Skip, Violation

# Seconds after which an import is as good as broken.
_TIMEOUT = 120.0

_MODULES: dict[str, Any] = {
    "backbone": _backbone,
    "sharing": _sharing,
    "head": _head,
    "loss": _loss,
    "dataset": _dataset,
    "target": _target,
    "transform": _transform,
    "metric": _metric,
    "balancer": _balancer,
    "schedule": _schedule,
    "preset": _preset,
    "hooks": _hooks,
}

# The checks by kind; under "every" those that all components get.
CHECKS: dict[str, tuple[Check, ...]] = {"every": _every.CHECKS} | {
    kind: module.CHECKS for kind, module in _MODULES.items()
}

# By where a component lives: importing is done once, however many kits ask.
_PROBED: dict[str, Probe] = {}


@dataclass(frozen=True)
class Case:
    """One check of one component.

    Attributes:
        subject: The component.
        check: The check.
    """

    subject: Subject
    check: Check

    @property
    def id(self) -> str:
        """Such as `head:dense-static-shapes`."""
        return f"{self.subject}-{self.check.name}"

    def run(self) -> None:
        """Makes the check, always with the same random numbers.

        Raises:
            Skip: It cannot be made.
            Exception: It failed: Violation where the component does something else than its contract says, and
                whatever the component itself raises.
        """
        __tracebackhide__ = True
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if not self.check.early and not self.subject.kit.sound(self.subject):
                raise Skip("it cannot be built; see the check builds")
            try:
                self.check.run(self.subject)
            except SystemExit as left:
                # It would end the run of all checks, or pass for a success.
                raise Violation(f"it ended the process: SystemExit: {left.code}") from left


class Kit:
    """A distribution whose components are checked.

    Args:
        dist: Its name.
        options: Options by component, `{"dataset:kites": {"root": path}}`, for those that cannot be built otherwise.

    Raises:
        RecipeError: No such distribution offers components, one of its entry-point groups is no kind's, or `options`
            names one that nobody offers.
    """

    def __init__(self, dist: str, options: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        everything = discover()
        self.dist, self.options = dist, dict(options or {})
        self.components = [component for component in everything if normalised(component.dist) == normalised(dist)]
        # In the order in which companions are sought.
        ours = [component for component in everything if component.dist == OURS]
        self._near = self.components + [component for component in ours if component not in self.components]
        self._far = [component for component in everything if component not in self._near]
        if lost := [str(stray) for stray in strays() if normalised(stray.dist) == normalised(dist)]:
            raise RecipeError("\n".join(lost))
        if not self.components:
            offering = sorted({component.dist for component in everything})
            hint = did_you_mean(dist, offering) or f"; these do: {', '.join(offering)}"
            raise RecipeError(f"no installed distribution {dist!r} offers components{hint}")
        keys = [f"{component.kind}:{component.name}" for component in everything]
        if unknown := [key for key in self.options if key not in keys]:
            raise RecipeError(f"{unknown[0]}: no such component{did_you_mean(unknown[0], keys)}")
        self._sound: dict[str, bool] = {}
        self._splits: dict[str, list[tuple[str, Any]]] = {}

    def cases(self) -> list[Case]:
        """Every check of every component, in the order of kinds and names."""
        return [
            Case(subject, check)
            for component in self.components
            for subject in self.subjects(component)
            for check in (*CHECKS["every"], *CHECKS.get(component.kind, ()))
        ]

    def subjects(self, component: Component) -> list[Subject]:
        """The component in its variations: each of its `examples`, or each kind of target that it speaks."""
        try:
            cls = component.load()
        except PluginError:
            return [Subject(self, component)]
        if f"{component.kind}:{component.name}" not in self.options and isinstance(cls, HasExamples) and cls.examples:
            return [Subject(self, component, name) for name in cls.examples]
        # Which kind of target a data set gives is for its options to say.
        speaks = targets_of(cls) if component.kind != "dataset" else ()
        return [Subject(self, component, name) for name in (speaks if len(speaks) > 1 else [""])]

    def neighbours(self, kind: str, *, own: bool = False, speaking: str | None = None) -> list[Subject]:
        """What may be a companion: components of this distribution, and then (unless `own`) of mtframe.

        Args:
            kind: Of the components.
            own: Only this distribution's.
            speaking: A kind of target; last come those of other distributions that offer it.
        """
        name = (speaking or "").partition("@")[0]
        offering = {component.dist for component in self._far if (component.kind, component.name) == ("target", name)}
        beyond = [component for component in self._far if component.dist in offering]
        return [
            subject
            for component in (self.components if own else [*self._near, *beyond])
            if component.kind == kind and _loads(component)
            for subject in self.subjects(component)
        ]

    def companions(self, subject: Subject) -> Companions:
        """What goes with a component that works on targets."""
        found: Companions = subject.once("companions", lambda: Companions(self, subject))
        return found

    def asked_of(self, subject: Subject) -> dict[type, str]:
        """The protocols, of whoever offers them, that metrics of its kind of target ask of a data set, and which do."""
        if subject.kind != "dataset":
            return {}
        metrics = self.neighbours("metric", speaking=subject.target)
        return {
            protocol: f"metric {metric.component.name!r}"
            for metric in metrics
            if isinstance(metric.cls, AsksDataset) and set(targets_of(metric.cls)) & set(targets_of(subject.cls))
            for protocol in metric.cls.asks
        }

    def named_together(self, subject: Subject, kind: str) -> set[str]:
        """Names of the components of a kind that presets use together with one."""
        together = [p for p in self.neighbours("preset") if subject.component.name in self.named_by(p, subject.kind)]
        return {name for preset in together for name in self.named_by(preset, kind)}

    def named_by(self, preset: Subject, kind: str) -> set[str]:
        """What a preset names of a kind, without qualifiers."""
        named = getattr(preset.cls, "metrics" if kind == "metric" else kind, ())
        parts = named if isinstance(named, tuple | list) else [named]
        names = [part.get("name") if isinstance(part, dict) else part for part in parts]
        # A check of presets refuses whatever is not a name.
        return {name.partition("@")[0] for name in names if isinstance(name, str)}

    def splits(self, dataset: Subject) -> list[tuple[str, Any]]:
        """The splits of a data set that can be opened, that for training first."""
        key = str(dataset)
        if key not in self._splits:
            self._splits[key] = _dataset.open_splits(dataset)
        return self._splits[key]

    def make(self, subject: Subject) -> Any:
        """Builds a component with its companions."""
        return _MODULES[subject.kind].make(subject)

    def sound(self, subject: Subject) -> bool:
        """Whether a component can be built. Raises Skip where there is nothing to build it with."""
        key = str(subject)
        if key not in self._sound:
            try:
                self.make(subject)
                self._sound[key] = True
            except Skip:
                raise
            except (Exception, SystemExit):
                self._sound[key] = False
        return self._sound[key]

    def probe(self, component: Component) -> Probe:
        """What importing a component does; all of its module are imported at once."""
        if component.value not in _PROBED:
            module = component.value.partition(":")[0]
            values = [c.value for c in self.components if c.value.partition(":")[0] == module]
            _PROBED.update((one.value, one) for one in probe(values, _TIMEOUT))
        return _PROBED[component.value]


def _loads(component: Component) -> bool:
    try:
        component.load()
    except PluginError:
        return False
    return True
