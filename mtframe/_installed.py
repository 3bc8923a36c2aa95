"""What installed distributions offer, read from their metadata; importing one thing of it.

Importing is guarded: a plugin that raises, exits or prints hurts only those who name it.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import inspect
import io
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import (
    Distribution,
    EntryPoint,
    PackageNotFoundError,
    distribution,
    distributions,
    entry_points,
)
from pathlib import Path
from typing import Any

from mtframe import __version__
from mtframe import _notes as notes
from mtframe.errors import PluginError, described, one_line, pasted
from mtframe.kinds import KINDS

# Seconds: an import that takes longer is marked in listings. Importing torch itself can take a few.
SLOW_IMPORT = 15.0

# A requirement of mtframe itself, not of mtframe-something.
REQUIRES_MTFRAME = re.compile(r"mtframe\b(?![-_.])", re.IGNORECASE)

# Standard output is the whole process's: two threads that divert it at once could leave it diverted.
_DIVERTING = threading.RLock()


@dataclass(frozen=True, slots=True)
class Component:
    """One line of an entry-point group: a named thing that some distribution offers.

    Attributes:
        kind: Name of its kind.
        name: As a recipe writes it.
        dist: Name of the distribution that offers it.
        version: That distribution's version.
        value: Where it lives, `package.module:Class`.
        unmet: What its distribution requires of mtframe and this one does not meet, as `mtframe>=9`; empty if nothing.
        damaged: What is wrong with its distribution's metadata; empty if nothing.
    """

    kind: str
    name: str
    dist: str
    version: str
    value: str
    unmet: str = ""
    damaged: str = ""

    @property
    def qualified(self) -> str:
        """The name that stays unambiguous when another distribution offers the same one."""
        return f"{self.name}@{self.dist}"

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.kind} {self.name!r} of {self.dist} {self.version}"

    @property
    def broken(self) -> str | None:
        """Why it cannot work, as far as that shows without importing it; None if nothing shows."""
        if self.damaged:
            return self.damaged
        if self.unmet:
            return f"{self.dist} {self.version} needs {self.unmet}, and this is mtframe {__version__}"
        if strange := re.search(r"[/@:\s]", self.name):
            return f"a name with {strange[0]!r} in it cannot be written in a recipe"
        match = re.fullmatch(r"([\w.]+)\s*:\s*[\w.]+\s*(?:\[.*\])?", self.value)
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
        if self.unmet or self.damaged:
            raise PluginError(
                f"{self.label} cannot be used: {self.broken}. "
                f"Install a version of it that fits: pip install --upgrade {self.dist}"
            )
        check_entry_points()
        entry = EntryPoint(self.name, self.value, KINDS[self.kind].group)
        begun, fresh = time.monotonic(), self.value.partition(":")[0].strip() not in sys.modules
        try:
            with quiet() as printed:
                component = entry.load()
        # A plugin that exits at import, or raises what is no Exception, is as broken as one that raises one.
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            said = described(error)
            notes.note(self.label, f"its import failed: {said}")
            raise PluginError(
                f"{self.label} cannot be imported from {self.value!r}: {said}\n"
                f"See its traceback with: mtframe plugins show {self.kind} {self.qualified}"
            ) from error
        seconds = time.monotonic() - begun
        if fresh:
            slow = [f"takes {seconds:.0f} s to import"] if seconds > SLOW_IMPORT else []
            notes.note(self.label, "; ".join(slow + (["prints on import"] if printed.getvalue() else [])))
        return checked_callable(component, self.label)

    def summary(self) -> str:
        """First line of the docstring; empty while its module is not imported, as a listing imports none."""
        module, _, attribute = self.value.partition(":")
        component = getattr(sys.modules.get(module.strip()), attribute.strip(), None)
        return (inspect.getdoc(component) or "").partition("\n")[0] if component is not None else ""


@dataclass(frozen=True, slots=True)
class StrayGroup:
    """An entry-point group that begins as ours do and is no kind's: what stands in it, nobody finds.

    Attributes:
        group: Its name.
        names: What stands in it.
        dist: Name of the distribution.
        version: That distribution's version.
    """

    group: str
    names: tuple[str, ...]
    dist: str
    version: str

    def __str__(self) -> str:
        offers = f"{self.dist} {self.version} offers {', '.join(self.names)} in group {self.group}"
        if self.group in _RENAMED:
            group, since = _RENAMED[self.group]
            return f"{offers}, which is called {group} since {since}; rename it in pyproject.toml"
        # Without what all begin with, which makes any two alike.
        near = difflib.get_close_matches(self.group.removeprefix("mtframe."), KINDS, n=1)
        hint = f"did you mean mtframe.{near[0]}?" if near else f"the kinds are {', '.join(KINDS)}"
        return f"{offers}, which is no kind of component; {hint}"


# Groups that had another name: the one of today, and since when.
_RENAMED = {"mtframe.task": ("mtframe.preset", "0.2")}


def stray_groups() -> tuple[StrayGroup, ...]:
    """The groups of installed distributions that look like ours and are none, by distribution."""
    kinds = {kind.group for kind in KINDS.values()}
    found = []
    for dist, text in _offering():
        name, version, _, _ = _metadata_of(dist)
        strays: dict[str, list[str]] = {}
        for group, key, _ in _entries(text):
            if group.startswith("mtframe.") and group not in kinds:
                strays.setdefault(group, []).append(key)
        if strays and not _hidden(name, dist):
            found += [StrayGroup(group, tuple(names), name, version) for group, names in strays.items()]
    # A distribution may be found twice, as where its folder is on the path twice.
    return tuple(sorted(dict.fromkeys(found), key=lambda stray: (stray.dist, stray.group)))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A distribution whose entry points Python cannot read: whoever asks for those of all gets its exception.

    Attributes:
        dist: Name of the distribution.
        version: That distribution's version.
        folder: Where its metadata lie.
        why: The exception.
    """

    dist: str
    version: str
    folder: str
    why: str

    def __str__(self) -> str:
        return f"{self.dist} {self.version}: its entry_points.txt cannot be read ({self.why}), in {self.folder}"


def unreadable() -> tuple[Unreadable, ...]:
    """The installed distributions whose entry points keep those of all others from being read, ours or not."""
    try:
        entry_points(group="torch.backends")
        return ()
    # A line without "=" raises a TypeError.
    except Exception:
        faults = [(dist, _fault(dist)) for dist in distributions()]
    found = [Unreadable(*_metadata_of(dist)[:2], one_line(_folder(dist)), fault) for dist, fault in faults if fault]
    return tuple(dict.fromkeys(found))


def check_entry_points() -> None:
    """Raises PluginError if torch could not be imported, which asks for the entry points of all distributions.

    Such an import is best not begun: what it leaves can end the process when it is tried again.
    """
    if "torch" not in sys.modules and (broken := unreadable()):
        raise PluginError(
            f"{broken[0]}\nUntil then torch, which reads those of all distributions, cannot be imported. Try: "
            f"pip install --force-reinstall {pasted(broken[0].dist)}, or pip uninstall {pasted(broken[0].dist)}"
        )


def versions_of(name: str) -> list[str]:
    """The versions of a distribution that are on the path."""
    return sorted({_metadata_of(dist)[1] for dist in distributions(name=name)})


@lru_cache(maxsize=1)
def installed(path: tuple[str, ...]) -> tuple[Component, ...]:
    """What the distributions on a path offer, by kind and name.

    Keyed by `sys.path`, which decides what is installed: reading metadata takes tens of milliseconds each time.
    """
    kinds = {kind.group: kind.name for kind in KINDS.values()}
    found = set()
    for dist, text in _offering():
        name, version, unmet, damaged = _metadata_of(dist)
        if not _hidden(name, dist):
            found |= {
                Component(kinds[group], key, name, version, value, unmet, damaged)
                for group, key, value in _entries(text)
                if group in kinds
            }
    order = list(KINDS)
    return tuple(sorted(found, key=lambda c: (order.index(c.kind), c.name, c.dist, c.value)))


def _offering() -> Iterator[tuple[Distribution, str]]:
    """Distributions with groups that begin as ours do, and the text of their entry points."""
    for dist in distributions():
        # Most distributions are not for us: only the text of their entry points is read, nothing is parsed.
        text = _entry_points(dist)
        if "[mtframe." in text:
            yield dist, text


def _read(dist: Distribution, file: str) -> str:
    try:
        return dist.read_text(file) or ""
    except (OSError, UnicodeDecodeError):
        return ""


def _entry_points(dist: Distribution) -> str:
    """Their text, even where some of it cannot be decoded: a plugin listed as broken can be found and mended."""
    try:
        return dist.read_text("entry_points.txt") or ""
    except UnicodeDecodeError:
        return (_folder(dist) / "entry_points.txt").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _fault(dist: Distribution) -> str:
    """Why a distribution's entry points cannot be read; empty if they can."""
    try:
        _ = dist.entry_points
    except Exception as error:
        return one_line(described(error))
    return ""


def _folder(dist: Distribution) -> Path:
    """Where a distribution's metadata lie: what is there to name it by when they are damaged."""
    return Path(str(getattr(dist, "_path", "unknown-0.dist-info")))


def _metadata_of(dist: Distribution) -> tuple[str, str, str, str]:
    """A distribution's name and version, what it requires of mtframe and is not met, and what of it is damaged."""
    # Fields only: the description behind the first empty line can be long. A field may go on in an indented line.
    # PKG-INFO is what setuptools writes beside sources (`.egg-info`).
    text = _read(dist, "METADATA") or _read(dist, "PKG-INFO")
    head = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    fields = [line.partition(":") for line in re.sub(r"\r?\n[ \t]+", " ", head).splitlines()]
    one = {key: value.strip() for key, _, value in reversed(fields)}
    required = [value.strip() for key, _, value in fields if key == "Requires-Dist"]
    ours = [text for text in required if REQUIRES_MTFRAME.match(text)]
    unmet = ", ".join(filter(None, map(_unmet, ours)))
    if one.get("Name") and one.get("Version"):
        return one["Name"], one["Version"], unmet, _undecodable(dist)
    # Where an installation broke off, or a file is no text.
    name, _, version = _folder(dist).stem.partition("-")
    damaged = f"its METADATA names no distribution ({one_line(_folder(dist))})"
    return one_line(name), one_line(version) or "?", unmet, damaged


def _undecodable(dist: Distribution) -> str:
    """What is wrong with entry points that are no text: their names and values are not what they were."""
    try:
        dist.read_text("entry_points.txt")
    except UnicodeDecodeError as error:
        return f"its entry_points.txt is not UTF-8 ({error.reason}, {one_line(_folder(dist))})"
    except OSError:
        pass
    return ""


def _unmet(requirement: str) -> str:
    """The requirement, if this mtframe does not meet it; or what is wrong with it."""
    # Imported where somebody requires us: it is not needed to list what is built in.
    from packaging.requirements import Requirement

    try:
        needed = Requirement(requirement)
        # An extra of the plugin's own may need another mtframe.
        applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
        met = not applies or needed.specifier.contains(__version__, prereleases=True)
    except Exception as error:
        return f"{requirement!r} ({described(error).splitlines()[0]})"
    return "" if met else f"mtframe{needed.specifier}"


def _hidden(name: str, dist: Distribution) -> bool:
    """Whether another distribution of that name stands first on the path, and hides this one as it does for imports."""
    try:
        first = distribution(name)
    except (PackageNotFoundError, ValueError):
        return False
    return any(_read(first, file) != _read(dist, file) for file in ("METADATA", "PKG-INFO", "entry_points.txt"))


def _entries(text: str) -> Iterator[tuple[str, str, str]]:
    """Group, name and value of each line; one without `=` has no value."""
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = line.strip("[] ")
        elif line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            yield group, name.strip(), value.strip()


def normalised(dist: str) -> str:
    """A distribution's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", dist).lower()


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Keeps what an import prints out of standard output, where a command's results go. One thread at a time."""
    printed = io.StringIO()
    try:
        with _DIVERTING, contextlib.redirect_stdout(printed):
            yield printed
    finally:
        if printed.getvalue():
            sys.stderr.write(printed.getvalue())


def checked_callable(component: Any, label: str) -> Any:
    """The component. Raises PluginError if it is nothing that can be built."""
    if not callable(component):
        raise PluginError(f"{label}: expected a class, got {type(component).__name__}")
    return component
