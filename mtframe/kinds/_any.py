"""What components of several kinds may have: members of a family, examples, migrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable


@runtime_checkable
class Family(Protocol):
    """A component whose name stands for many: `timm/resnet18` is member `resnet18` of `timm`."""

    @classmethod
    def members(cls, pattern: str, *, pretrained: bool = False) -> list[str]:
        """Names of members that match a shell pattern, without the family's own name in front."""
        ...


@runtime_checkable
class DescribesMembers(Protocol):
    """A family that takes more members than it lists, and can say something of each."""

    @classmethod
    def describe_member(cls, member: str) -> dict[str, Any]:
        """What `mtframe plugins show` shows of a member. Raises RecipeError for one that is not there."""
        ...


@runtime_checkable
class HasExampleMember(Protocol):
    """A family that says with which member the conformance kit tries it; else with the first."""

    example: ClassVar[str]


@runtime_checkable
class Migrates(Protocol):
    """A component whose options have changed since an earlier version."""

    @staticmethod
    def migrate(options: dict[str, Any], version: str) -> dict[str, Any]:
        """Options (plain YAML values) of a run that was trained with that version of its distribution, made today's."""
        ...


@runtime_checkable
class HasExamples(Protocol):
    """A component that says with which options the conformance kit tries it; else with its defaults.

    Attributes:
        examples: Options by a name.
    """

    examples: ClassVar[Mapping[str, Mapping[str, Any]]]


@runtime_checkable
class HasNotes(Protocol):
    """A data set or a metric that has more to say, in words.

    Attributes:
        notes: Sentences: what a data set has left out, what is to stand below a metric's scores.
    """

    notes: Sequence[str]
