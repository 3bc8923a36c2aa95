"""What installed distributions offer, read from their metadata; importing one thing of it.

Importing is guarded: a plugin that raises, exits or prints hurts only those who name it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, distributions
from typing import Any

from mtframe import __version__
from mtframe import _notes as notes
from mtframe.errors import PluginError
from mtframe.kinds import KINDS

# Seconds: an import that takes longer is marked in listings. Importing torch itself can take a few.
_SLOW = 15.0


@dataclass(frozen=True, slots=True)
class Component:
    """One line of an entry-point group: a named thing that some distribution offers.

    Attributes:
        kind: Name of its kind.
        name: As a recipe writes it.
        dist: Name of the distribution that offers it.
        version: That distribution's version.
        value: Where it lives, `package.module:Class`.
        unmet: What its distribution requires of mtframe and this one is not, e.g. `mtframe>=9`; empty if nothing.
    """

    kind: str
    name: str
    dist: str
    version: str
    value: str
    unmet: str = ""

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
        if self.unmet:
            return f"{self.dist} {self.version} needs {self.unmet}, and this is mtframe {__version__}"
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
        if self.unmet:
            raise PluginError(
                f"{self.label} cannot be used: {self.broken}. "
                f"Install a version of it that fits: pip install --upgrade {self.dist}"
            )
        entry = EntryPoint(self.name, self.value, KINDS[self.kind].group)
        begun, fresh = time.monotonic(), self.value.partition(":")[0].strip() not in sys.modules
        try:
            with quiet() as printed:
                component = entry.load()
        # A plugin that exits at import is as broken as one that raises.
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}"
            notes.note(self.label, f"its import failed: {said}")
            raise PluginError(
                f"{self.label} cannot be imported from {self.value!r}: {said}\n"
                f"See its traceback with: mtframe plugins show {self.kind} {self.qualified}"
            ) from error
        seconds = time.monotonic() - begun
        if fresh:
            slow = [f"takes {seconds:.0f} s to import"] if seconds > _SLOW else []
            notes.note(self.label, "; ".join(slow + (["prints on import"] if printed.getvalue() else [])))
        return checked_callable(component, self.label)

    def summary(self) -> str:
        """First line of the docstring; empty while its module is not imported, as a listing imports none."""
        module, _, attribute = self.value.partition(":")
        component = getattr(sys.modules.get(module.strip()), attribute.strip(), None)
        return (inspect.getdoc(component) or "").partition("\n")[0] if component is not None else ""


@lru_cache(maxsize=1)
def installed(path: tuple[str, ...]) -> tuple[Component, ...]:
    """Keyed by `sys.path`, which decides what is installed: reading metadata takes tens of milliseconds each time."""
    kinds = {kind.group: kind.name for kind in KINDS.values()}
    found = set()
    for dist in distributions():
        # Most distributions are not for us: only the text of their entry points is read, nothing is parsed.
        text = _read(dist, "entry_points.txt")
        if "[mtframe." not in text:
            continue
        name, version, unmet = _told(dist)
        if name and not _hidden(name, text):
            found |= {
                Component(kinds[group], key, name, version, value, unmet)
                for group, key, value in _entries(text)
                if group in kinds
            }
    order = list(KINDS)
    return tuple(sorted(found, key=lambda c: (order.index(c.kind), c.name, c.dist, c.value)))


def _read(dist: Distribution, file: str) -> str:
    try:
        return dist.read_text(file) or ""
    except (OSError, UnicodeDecodeError):
        return ""


def _told(dist: Distribution) -> tuple[str | None, str, str]:
    """Name and version of a distribution, and what it requires of mtframe that this one is not."""
    # Fields only: the description behind the first empty line can be long. None where an installation broke off.
    fields = [line.partition(":") for line in _read(dist, "METADATA").partition("\n\n")[0].splitlines()]
    one = {key: value.strip() for key, _, value in reversed(fields)}
    required = [value.strip() for key, _, value in fields if key == "Requires-Dist"]
    ours = [text for text in required if re.match(r"mtframe\b(?![-_.])", text, re.IGNORECASE)]
    return one.get("Name"), one.get("Version", "?"), ", ".join(filter(None, map(_unmet, ours)))


def _unmet(requirement: str) -> str:
    """The requirement, if this mtframe does not meet it; or what is wrong with it."""
    # Imported where somebody requires us: it is not needed to list what is built in.
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        needed = Requirement(requirement)
    except InvalidRequirement as error:
        return f"{requirement!r} ({str(error).splitlines()[0]})"
    # An extra of the plugin's own may need another mtframe.
    applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
    met = not applies or needed.specifier.contains(__version__, prereleases=True)
    return "" if met else f"mtframe{needed.specifier}"


def _hidden(name: str, text: str) -> bool:
    """Whether another distribution of that name stands first on the path, and hides this one as it does for imports."""
    try:
        return _read(distribution(name), "entry_points.txt") != text
    except (PackageNotFoundError, ValueError):
        return False


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
    """Keeps what an import prints out of standard output, where a command's results go."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield printed
    finally:
        if printed.getvalue():
            sys.stderr.write(printed.getvalue())


def checked_callable(component: Any, label: str) -> Any:
    """The component. Raises PluginError if it is nothing that can be built."""
    if not callable(component):
        raise PluginError(f"{label}: expected a class, got {type(component).__name__}")
    return component
