"""The component that is checked, and how it is built."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mtframe import options
from mtframe._fit import targets_of
from mtframe.errors import PluginError
from mtframe.kinds import KINDS, Family, HasExampleMember, HasExamples, Synthesizes
from mtframe.registry import Component, qualified

from ._synthesized import synthesized
from ._violation import Skip, Violation

if TYPE_CHECKING:
    from ._kit import Kit

# Pixels of the square images that everything is built for.
SIZE = 64


def can(part: object, ability: type) -> bool:
    """Whether a part has an optional ability, one of the protocols of `mtframe.kinds`.

    Not by `isinstance` where it is asked: to a type checker the part would then be nothing else.
    """
    return isinstance(part, ability)


class Subject:
    """One component in one of its variations.

    Args:
        kit: Knows its companions, and the options to build it with.
        component: What is checked.
        variation: For a component of several kinds of target which one, or the name of one of its `examples`; empty
            where there is no choice.

    Attributes:
        part: The one that was built last, if any could be.
    """

    def __init__(self, kit: Kit, component: Component, variation: str = "") -> None:
        self.kit, self.component, self.variation = kit, component, variation
        self.part: Any = None
        self._made: dict[str, Any] = {}

    def __str__(self) -> str:
        tail = f"[{self.variation}]" if self.variation else ""
        return f"{self.component.kind}:{self.component.name}{tail}"

    @property
    def kind(self) -> str:
        """Name of its kind."""
        return self.component.kind

    @cached_property
    def cls(self) -> Any:
        """The class. Raises Skip where it cannot be imported, which a check of its own says."""
        try:
            return self.component.load()
        except PluginError as error:
            raise Skip("it cannot be imported; see the check imports-silently") from error

    @property
    def target(self) -> str | None:
        """The kind of target that it is tried with, or is; None if it speaks of none."""
        if self.kind == "target":
            return qualified("target", self.component.name, self.component.dist)
        speaks = targets_of(self.cls)
        return self.variation if self.variation in speaks else next(iter(speaks), None)

    @cached_property
    def member(self) -> str | None:
        """Of a family, the member that is tried: its `example`, or the first."""
        if not isinstance(self.cls, Family):
            return None
        return self.cls.example if isinstance(self.cls, HasExampleMember) else self.cls.members("*")[0]

    @property
    def required(self) -> list[str]:
        """Names of the options that it has no defaults for."""
        return [option.name for option in options.describe(self.cls, self.kind) if option.default is None]

    @cached_property
    def options(self) -> dict[str, Any]:
        """What it is built with: as given to the kit, else one of its `examples`; and a folder of synthetic data.

        Raises:
            Skip: Options are required that nothing tells.
        """
        given = self.kit.options.get(f"{self.kind}:{self.component.name}")
        examples = self.cls.examples if isinstance(self.cls, HasExamples) else {}
        chosen = dict(examples.get(self.variation, {}) if given is None else given)
        if "root" in self.required and "root" not in chosen and can(self.cls, Synthesizes):
            chosen["root"] = str(synthesized(self.cls))
        if missing := [name for name in self.required if name not in chosen]:
            key = f"{self.kind}:{self.component.name}"
            raise Skip(
                f"it needs {', '.join(missing)}: give the class `examples`, or pass "
                f"options={{{key!r}: {{{missing[0]!r}: ...}}}}, or {key}.{missing[0]}=... on the command line"
            )
        return chosen

    def build(self, **wired: Any) -> Any:
        """Constructs it, as a recipe does.

        Raises:
            Skip: Its signature cannot be read, which a check of its own says, or options are missing.
            Violation: It lacks something that its kind gives.
        """
        try:
            options.schema(self.cls, self.kind)
        except PluginError as error:
            raise Skip("its signature cannot be used; see the check signature") from error
        part = options.build(self.cls, self.kind, self.options, {"member": self.member, **wired}, str(self))
        if missing := KINDS[self.kind].missing(part):
            raise Violation(f"it has no {', '.join(missing)}, which a {self.kind} gives (mtframe.kinds)")
        self.part = part
        return part

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for all checks of this component."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]
