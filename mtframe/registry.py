"""Finding components by name.

Discovery reads the metadata of installed distributions and imports nothing; a component is imported when it
is resolved. A broken plugin stays listed and hurts only those who name it.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any

from mtframe.errors import PluginError, RecipeError
from mtframe.kinds import KINDS, Kind

_LOCAL = re.compile(r"(?P<file>.+\.py):(?P<attribute>[A-Za-z_]\w*)(?:/(?P<member>.+))?")


@dataclass(frozen=True, slots=True)
class Component:
    """One line of an entry-point group: a named thing that some distribution offers.

    Attributes:
        kind: Name of its kind.
        name: As a recipe writes it.
        dist: Name of the distribution that offers it.
        version: That distribution's version.
        value: Where it lives, `package.module:Class`.
    """

    kind: str
    name: str
    dist: str
    version: str
    value: str

    @property
    def qualified(self) -> str:
        """The name that stays unambiguous when another distribution offers the same one."""
        return f"{self.name}@{self.dist}"

    @property
    def broken(self) -> str | None:
        """Why it cannot work, as far as that shows without importing it; None if nothing shows."""
        match = re.fullmatch(r"([\w.]+)\s*:\s*[\w.]+", self.value)
        if match is None:
            return f"expected 'package.module:Class', got {self.value!r}"
        package = match[1].partition(".")[0]
        try:
            found = package in sys.modules or importlib.util.find_spec(package) is not None
        except (ImportError, ValueError) as error:
            return str(error)
        return None if found else f"no module named {package!r}"

    def load(self) -> Any:
        """Imports it.

        Raises:
            PluginError: It cannot be imported; chained to the plugin's own exception.
        """
        try:
            component = EntryPoint(self.name, self.value, KINDS[self.kind].group).load()
        # A plugin that exits at import is as broken as one that raises.
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self.kind} {self.name!r} of {self.dist} {self.version} cannot be imported "
                f"from {self.value!r}: {type(error).__name__}: {error}\n"
                f"See its traceback with: mtframe plugins show {self.kind} {self.qualified}"
            ) from error
        return _callable(component, f"{self.kind} {self.name!r} of {self.dist} {self.version}")

    def summary(self) -> str:
        """First line of the docstring; empty while its module is not imported, as a listing imports none."""
        module, _, attribute = self.value.partition(":")
        component = getattr(sys.modules.get(module.strip()), attribute.strip(), None)
        return (inspect.getdoc(component) or "").partition("\n")[0] if component is not None else ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a component came from: a distribution and its version, or a file.

    Attributes:
        dist: The distribution's name; None for a file.
        version: Its version; None for a file.
        file: The file named in the recipe; None for an installed component.
    """

    dist: str | None = None
    version: str | None = None
    file: Path | None = None

    def __str__(self) -> str:
        return str(self.file) if self.file else f"{self.dist} {self.version}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A name and what it stands for.

    Attributes:
        kind: Name of the kind.
        name: As written in the recipe.
        component: The class.
        member: For a family, the part of the name after `family/`.
        origin: Who offers it.
    """

    kind: str
    name: str
    component: Any
    member: str | None
    origin: Origin


def kind_of(name: str) -> Kind:
    """The kind of that name. Raises RecipeError with a suggestion."""
    try:
        return KINDS[name]
    except KeyError:
        hint = did_you_mean(name, KINDS) or f"; the kinds are {', '.join(KINDS)}"
        raise RecipeError(f"no kind {name!r}{hint}") from None


def discover(kind: str | None = None) -> list[Component]:
    """What installed distributions offer, by kind and name, from their metadata alone.

    Args:
        kind: Only this kind; all kinds if None.
    """
    if kind is not None:
        kind_of(kind)
    return [component for component in _installed(tuple(sys.path)) if kind in (None, component.kind)]


def resolve(kind: str, name: str, base: Path | None = None) -> Resolved:
    """Finds and imports the component that a recipe names.

    Args:
        kind: Name of the kind.
        name: `dense`; `timm/resnet18` for a member of a family; `arcface@their-dist` where two distributions
            offer the name; `./heads.py:MyHead` for a file.
        base: Folder that a file's path is relative to; the current one if None.

    Raises:
        PluginError: The name is unknown, ambiguous, has no such form, or its plugin cannot be imported.
    """
    local = _LOCAL.fullmatch(name)
    if local is not None:
        path = ((base or Path()) / local["file"]).resolve()
        component, origin = _from_file(kind, path, local["attribute"]), Origin(file=path)
        member = local["member"]
    else:
        found, member = _find(kind, name)
        component, origin = found.load(), Origin(found.dist, found.version)
    if member is not None and not hasattr(component, "members"):
        alone = name.removesuffix(f"/{member}")
        raise PluginError(f"{kind} {name!r}: {alone!r} is no family and has no members")
    return Resolved(kind, name, component, member, origin)


def local_file(name: str, base: Path | None) -> str:
    """The name of a component in a file, made independent of the recipe's folder; other names as they are."""
    local = _LOCAL.fullmatch(name)
    if local is None:
        return name
    path = ((base or Path()) / local["file"]).resolve()
    return path.as_posix() + name[local.end("file") :]


def did_you_mean(word: str, known: Any) -> str:
    """`; did you mean 'num_levels'?` if something known is close to `word`, else nothing."""
    close = difflib.get_close_matches(word, [str(name) for name in known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> tuple[Component, ...]:
    """Keyed by `sys.path`, which decides what is installed: reading all metadata takes 50 ms each time."""
    kinds = {kind.group: kind.name for kind in KINDS.values()}
    found, seen = set(), set()
    for dist in distributions():
        # What an interrupted installation left behind may have no metadata at all.
        name = dist.metadata["Name"] if dist.metadata and "Name" in dist.metadata else None
        # The first of a name on the path hides the others, as it does for imports.
        if name is None or _normalised(name) in seen:
            continue
        seen.add(_normalised(name))
        for entry in dist.entry_points:
            if entry.group in kinds:
                found.add(Component(kinds[entry.group], entry.name, name, dist.version, entry.value))
    order = list(KINDS)
    return tuple(sorted(found, key=lambda c: (order.index(c.kind), c.name, c.dist, c.value)))


def _normalised(dist: str) -> str:
    """A distribution's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", dist).lower()


def _find(kind: str, name: str) -> tuple[Component, str | None]:
    """The one component of that name, and the member if the name has a family."""
    offered = discover(kind)
    plain, slash, rest = name.partition("/")
    member = rest if slash else None
    bare, _, dist = plain.partition("@")
    named = [component for component in offered if component.name == bare]
    found = [component for component in named if not dist or _normalised(component.dist) == _normalised(dist)]
    if len(found) == 1 and member != "":
        return found[0], member
    if len(found) > 1:
        tail = f"/{member}" if member else ""
        offers = " and ".join(f"{component.dist} {component.version}" for component in found)
        names = " or ".join(repr(component.qualified + tail) for component in found)
        raise PluginError(f"{kind} {name!r} is offered by {offers}; say which: {names}")
    if named and not found:
        offers = " and ".join(component.dist for component in named)
        raise PluginError(f"{kind} {bare!r} is not offered by {dist!r} but by {offers}")
    search = f"\nSearch by pattern with: mtframe backbones '*{rest or bare}*'" if kind == "backbone" else ""
    raise PluginError(
        f"no {kind} {name!r}{did_you_mean(bare, dict.fromkeys(c.name for c in offered))}\n"
        f"See what is installed with: mtframe plugins list {kind}{search}"
    )


def _from_file(kind: str, path: Path, attribute: str) -> Any:
    """The class `attribute` of the Python file at `path`."""
    label = f"{kind} '{path}:{attribute}'"
    try:
        source = path.read_bytes()
    except OSError as error:
        raise PluginError(f"{label}: cannot read {path}: {error.strerror}") from None
    # One module a content, so that an edited file is imported afresh and one named twice gives one class.
    digest = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()[:12]
    module_name = f"mtframe_local_{digest}_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
        try:
            # Not by the spec's loader, which leaves bytecode beside the file and takes that of a file edited twice
            # within a second for the newer one's.
            exec(compile(source, str(path), "exec"), vars(module))
        except (Exception, SystemExit) as error:
            del sys.modules[module_name]
            said = f"{type(error).__name__}: {error}"
            raise PluginError(f"{label} cannot be imported: {said}") from error
    if not hasattr(module, attribute):
        raise PluginError(f"{label}: no {attribute!r} in {path}{did_you_mean(attribute, vars(module))}")
    return _callable(getattr(module, attribute), label)


def _callable(component: Any, label: str) -> Any:
    if not callable(component):
        raise PluginError(f"{label}: expected a class, got {type(component).__name__}")
    return component
