"""Finding components by name.

Discovery reads the metadata of installed distributions and imports nothing; a component is imported when it
is resolved. A broken plugin stays listed and hurts only those who name it. The environment variable
`MTFRAME_PLUGINS=a,b` hides all distributions but these and mtframe's own.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from mtframe._installed import Component as Component
from mtframe._installed import StrayGroup as StrayGroup
from mtframe._installed import Unreadable as Unreadable
from mtframe._installed import check_entry_points as check_entry_points
from mtframe._installed import checked_callable, installed, quiet, stray_groups
from mtframe._installed import normalised as normalised
from mtframe._installed import unreadable as unreadable
from mtframe.errors import PluginError, RecipeError, described
from mtframe.kinds import KINDS, Family, Kind
from mtframe.paths import regular

_LOCAL = re.compile(r"(?P<file>.+\.py):(?P<attribute>[A-Za-z_]\w*)(?:/(?P<member>.+))?")
_PYTHON = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<attribute>[A-Za-z_][\w.]*)(?:/(?P<member>.+))?")

# The framework's own distribution: `MTFRAME_PLUGINS` never leaves it out, and its names cannot be taken.
OURS = "mtframe"

# Letters of a name, and names, that are compared to find what was meant.
_COMPARED_LETTERS, _COMPARED_NAMES = 100, 5000

# Classes that the program itself has given in place of names, by the name that a recipe then has.
_GIVEN: dict[str, Any] = {}

# The files that may be run now; any if None.
_ONLY: ContextVar[Collection[Path] | None] = ContextVar("_ONLY", default=None)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a component came from: a distribution and its version, a file, or a module of the running program.

    Attributes:
        dist: The distribution's name; None for others.
        version: Its version; None for others.
        file: The file named in the recipe; None for others.
        module: That of a class which the program has given; None for others.
    """

    dist: str | None = None
    version: str | None = None
    file: Path | None = None
    module: str | None = None

    def __str__(self) -> str:
        return self.module or (str(self.file) if self.file else f"{self.dist} {self.version}")


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

    @property
    def label(self) -> str:
        """What messages call it."""
        # Without member and distribution, as listings have it; the name of one in a file is a path.
        name = re.split("[/@]", self.name)[0] if self.origin.dist else self.name
        return f"{self.kind} {name!r} of {self.origin}"


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
    return [
        component
        for component in installed(tuple(sys.path))
        if kind in (None, component.kind) and _is_shown(component.dist)
    ]


def strays() -> list[StrayGroup]:
    """Entry-point groups of installed distributions that begin with `mtframe.` and are no kind's."""
    return [stray for stray in stray_groups() if _is_shown(stray.dist)]


def _is_shown(dist: str) -> bool:
    allowed = os.environ.get("MTFRAME_PLUGINS")
    return allowed is None or normalised(dist) in {normalised(name.strip()) for name in (*allowed.split(","), OURS)}


def at_hand(kind: str) -> Iterator[tuple[str, Any]]:
    """Components of a kind to suggest, by name: built in, or of plugins that are in use.

    Not all that are installed: importing a stranger's package for a hint may take long, or fail.
    """
    for component in discover(kind):
        package = re.split("[.:]", component.value, maxsplit=1)[0]
        if component.dist == OURS or package in sys.modules:
            with contextlib.suppress(PluginError):
                yield component.name, component.load()


def resolve(kind: str, name: str, base: Path | None = None) -> Resolved:
    """Finds and imports the component that a recipe names.

    Args:
        kind: Name of the kind.
        name: `dense`; `timm/resnet18` for a member of a family; `arcface@their-dist` where two distributions
            offer the name; `./heads.py:MyHead` for a file; `my_module:MyHead` for a class that the program has given
            itself (`name_of`).
        base: Folder that a file's path is relative to; the current one if None.

    Raises:
        PluginError: The name is unknown, ambiguous, has no such form, or its plugin cannot be imported.
    """
    local = _LOCAL.fullmatch(name)
    python = None if local else _PYTHON.fullmatch(name)
    if local is not None:
        path = ((base or Path()) / local["file"]).resolve()
        component, origin = _from_file(kind, path, local["attribute"]), Origin(file=path)
        member = local["member"]
    elif python is not None:
        component = _from_program(kind, f"{python['module']}:{python['attribute']}")
        origin = Origin(module=python["module"])
        member = python["member"]
    else:
        found, member = _find(kind, name)
        component, origin = found.load(), Origin(found.dist, found.version)
    if member is not None and not isinstance(component, Family):
        alone = name.removesuffix(f"/{member}")
        raise PluginError(f"{kind} {name!r}: {alone!r} is no family and has no members")
    return Resolved(kind, name, component, member, origin)


@contextlib.contextmanager
def only_files(files: Collection[Path]) -> Iterator[None]:
    """Within it, in this thread, no component is taken from other files than these.

    A recipe, which may be a stranger's, is asked for its code before it is used. What it names only later, by an option
    or in a file of data, must not be more than was asked for.
    """
    token = _ONLY.set(files)
    try:
        yield
    finally:
        _ONLY.reset(token)


class Lookups:
    """What names stand for, each found once: a component that was checked is the one that is built and noted down."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, Path | None], Resolved] = {}

    def resolve(self, kind: str, name: str, base: Path | None = None) -> Resolved:
        """As the function of that name."""
        key = kind, name, base
        if key not in self._found:
            self._found[key] = resolve(kind, name, base)
        return self._found[key]

    def forget_files(self) -> None:
        """Looks what is in files up again when it is asked for next: they may have been edited."""
        self._found = {key: found for key, found in self._found.items() if found.origin.file is None}

    # What was found of it is nothing that makes a recipe another one, and no part of a copy of it in another process.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lookups)

    def __hash__(self) -> int:
        return hash(Lookups)

    def __deepcopy__(self, memo: object) -> Lookups:
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Lookups, ()


def local_file(name: str, base: Path | None) -> str:
    """The name of a component in a file, made independent of the recipe's folder; other names as they are."""
    local = _LOCAL.fullmatch(name)
    if local is None:
        return name
    path = ((base or Path()) / local["file"]).resolve()
    return path.as_posix() + name[local.end("file") :]


def split_local(name: str) -> tuple[Path, str] | None:
    """The file of a component in a file, and the rest of its name, `:MyHead`; None for other names."""
    local = _LOCAL.fullmatch(name)
    return None if local is None else (Path(local["file"]), name[local.end("file") :])


def in_texts(value: Any, change: Callable[[str], str]) -> Any:
    """An option with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key) if isinstance(key, str) else key: in_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [in_texts(item, change) for item in value]
    return value


def texts_in(value: Any) -> list[str]:
    """Every text in an option."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    in_texts(value, note)
    return found


def name_of(component: Any) -> str:
    """The name by which a recipe names a class or a function of the running program.

    That is its name as an installed component, if it is one, else `module:Class`, which means it from now on.

    Raises:
        ValueError: It is not at the top of a module, where it could be found by name.
    """
    module, name = getattr(component, "__module__", None), getattr(component, "__qualname__", None)
    if not module or not name or _attribute(sys.modules.get(module), name) is not component:
        raise ValueError(
            f"expected a name, or a class or function that a module has at its top, got {component!r}; what is made "
            "in a function cannot be found again by worker processes and when the run is loaded"
        )
    for offered in discover():
        package, _, attribute = offered.value.partition(":")
        ours = f"{module}.".startswith(f"{package}.") and _attribute(sys.modules.get(package), attribute) is component
        if ours:
            return qualified(offered.kind, offered.name, offered.dist)
    _GIVEN[f"{module}:{name}"] = component
    return f"{module}:{name}"


def qualified(kind: str, name: str, dist: str | None) -> str:
    """A name as a distribution means it: with `@dist` where it offers the name and others do too.

    Ours needs none: a name that is built in means that, unless it says otherwise.
    """
    plain, slash, member = name.partition("/")
    offers = {normalised(component.dist): component.dist for component in discover(kind) if component.name == plain}
    meant = offers.get(normalised(dist)) if dist else None
    return name if meant in (None, OURS) or len(offers) < 2 else f"{plain}@{meant}{slash}{member}"


def did_you_mean(word: str, known: Iterable[object]) -> str:
    """`; did you mean 'num_levels'?` if something known is close to `word`, else nothing.

    Comparing takes the time of both lengths multiplied: long names and what is beyond the first few thousand are left
    out.
    """
    names = (name for name in map(str, known) if len(name) <= _COMPARED_LETTERS)
    close = []
    if len(word) <= _COMPARED_LETTERS:
        close = difflib.get_close_matches(word, islice(names, _COMPARED_NAMES), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _find(kind: str, name: str) -> tuple[Component, str | None]:
    """The one component of that name, and the member if the name has a family."""
    offered = discover(kind)
    plain, slash, rest = name.partition("/")
    member = rest if slash else None
    bare, _, dist = plain.partition("@")
    named = [component for component in offered if component.name == bare]
    found = [component for component in named if not dist or normalised(component.dist) == normalised(dist)]
    # Installing a plugin changes the meaning of no name that is built in, and one that cannot work takes none.
    found = [c for c in found if c.dist == OURS] or [c for c in found if not c.broken] or found
    if len(found) == 1 and member != "":
        return found[0], member
    if len(found) > 1:
        tail = f"/{member}" if member else ""
        offers = " and ".join(f"{component.dist} {component.version}" for component in found)
        names = " or ".join(repr(component.qualified + tail) for component in found)
        raise PluginError(f"{kind} {name!r} is offered by {offers}; say which: {names}")
    if not named and (hidden := [c for c in installed(tuple(sys.path)) if (c.kind, c.name) == (kind, bare)]):
        raise PluginError(
            f"{kind} {name!r} is offered by {hidden[0].dist}, which --no-plugins or MTFRAME_PLUGINS leaves out"
        )
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
    only = _ONLY.get()
    if only is not None and path not in only:
        raise PluginError(
            f"{label}: the recipe names no such file, so it is not run. A component in a file is named in the recipe, "
            "as a part or in an option: FILE.py:NAME"
        )
    try:
        source = regular(path).read_bytes()
    except OSError as error:
        raise PluginError(f"{label}: cannot read {path}: {error.strerror}") from None
    # One thread at a time: a module that another one is importing is not whole.
    with quiet():
        module = _module_of(path, source, label)
    if not hasattr(module, attribute):
        raise PluginError(f"{label}: no {attribute!r} in {path}{did_you_mean(attribute, vars(module))}")
    return checked_callable(getattr(module, attribute), label)


def _module_of(path: Path, source: bytes, label: str) -> ModuleType:
    """The module of a file with this content, imported if it is not yet."""
    # One module for each content, so that an edited file is imported afresh and one named twice gives one class.
    digest = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()[:12]
    name = f"mtframe_local_{digest}_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        # Not by the spec's loader, which leaves bytecode in the file's folder and takes that of a file edited twice
        # within a second for the newer one's. Nor with the `from __future__` of this module.
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        sibling = isinstance(error, ImportError) and (path.parent / f"{error.name}.py").is_file()
        hint = ". A component's file is imported by itself: what lies beside it is not found" if sibling else ""
        raise PluginError(f"{label} cannot be imported: {described(error)}{hint}") from error
    return module


def _from_program(kind: str, name: str) -> Any:
    """A class that the program has given. Nothing is looked up in modules: a recipe is no program."""
    label = f"{kind} {name!r}"
    if name not in _GIVEN:
        raise PluginError(
            f"{label}: a class of a Python program, which this one has not given. In Python, give it again: "
            "load_run(..., components=[CLASS]). From elsewhere, put the class into a file and name it "
            "./FILE.py:CLASS, or give it an entry point"
        )
    return checked_callable(_GIVEN[name], label)


def _attribute(thing: Any, path: str) -> Any:
    """What a dotted path leads to, or None."""
    for name in path.split("."):
        thing = getattr(thing, name, None)
    return thing
