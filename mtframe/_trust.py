"""Whose code is run: a run's own files, as the run recorded them, once the user has agreed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtframe import files
from mtframe.errors import Code, RecipeError, UntrustedError
from mtframe.paths import file_digest, regular
from mtframe.registry import local_file, split_local, texts_in

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# The folder of a run's own files.
COMPONENTS = "components"

# Digests that this process may run, besides those that the user has agreed to for good.
_AGREED: set[str] = set()


def named_in(plain: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    """Every text of a recipe's plain values that may name a component in a file, by its first key.

    Args:
        plain: The values.
        folder: What names of files are relative to.
    """
    for key, value in plain.items():
        for text in texts_in(value):
            if split_local(text) is not None:
                yield str(key), local_file(text, folder)


def within(named: Iterable[tuple[str, str]], run: Path) -> Iterator[tuple[str, str]]:
    """Those names of components that are in files of a run, by place."""
    for where, name in named:
        local = split_local(name)
        if local is not None and local[0].resolve().is_relative_to(run.resolve()):
            yield where, name


def recorded(run: Path) -> dict[str, str]:
    """SHA-256 of a run's own Python files, by path in its folder, as it has written them down; none if it has not."""
    try:
        found = json.loads(regular(run / "environment.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    files = found.get("files") if isinstance(found, dict) else None
    return {key: value for key, value in files.items() if isinstance(value, str)} if isinstance(files, dict) else {}


def code_of(named: Iterable[tuple[str, str]], run: Path, recorded: Mapping[str, str]) -> list[Code]:
    """The Python files that a run's recipe names: as parts, as presets, and in options.

    Args:
        named: Names of components, files in full, by place in the recipe.
        run: The run's folder.
        recorded: SHA-256 by file, relative to the folder, as the run has written it down.

    Raises:
        RecipeError: One lies outside of the run's `components/`, is not there, or is not what the run recorded.
    """
    # Not through a link: the folder itself may be one.
    home = run.resolve() / COMPONENTS
    found: dict[Path, Code] = {}
    for where, name in named:
        local = split_local(name)
        if local is None or local[0] in found:
            continue
        file = local[0].resolve()
        if not file.is_relative_to(home):
            raise RecipeError(
                f"{where}: {file} is outside of {run / COMPONENTS}; of a run, only files in there are run. If it is "
                "yours, install it as a package, or train a recipe of your own that names it"
            )
        try:
            digest = file_digest(file)
        except OSError as error:
            raise RecipeError(f"{where}: {file} cannot be read ({error.strerror or error})") from None
        relative = file.relative_to(run.resolve()).as_posix()
        if recorded.get(relative, digest) != digest:
            raise RecipeError(
                f"{where}: {file} is not what the run was trained with: its SHA-256 is {digest[:16]}…, and "
                f"environment.json has {recorded[relative][:16]}…. Put it back, or train a recipe of your own with it"
            )
        found[local[0]] = Code(file, digest)
    return list(found.values())


def check_trusted(code: Iterable[Code], run: Path) -> None:
    """Raises UntrustedError if the user has not agreed to run some of it."""
    known = _AGREED | _remembered()
    if unknown := [one for one in code if one.digest not in known]:
        files = ", ".join(f"{one.file} (SHA-256 {one.digest[:16]}...)" for one in unknown)
        raise UntrustedError(
            f"{run}: has Python code of its own, which loading it would run, and which this user has neither trained "
            f"nor agreed to: {files}. Read it; if you trust it, add --trust, or call mtframe.run.trust(...) in Python",
            unknown,
        )


def agree(code: Iterable[Code], *, for_good: bool) -> None:
    """Notes that the user agrees to run some code.

    Args:
        code: It; by content, so a file that changes is another one.
        for_good: Whether later processes may run it too. Where that cannot be written, this one may.
    """
    digests = {one.digest for one in code}
    _AGREED.update(digests)
    if not for_good or digests <= _remembered():
        return
    file = _memory()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with _alone(file.with_name(".trusted.lock")):
            # What others have agreed to by now stays.
            files.write_text(file, json.dumps(sorted(_remembered() | digests), indent=0), private=True)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Within it, no other process that asks is; on a file system without locks, or Windows, it may be."""
    number = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _memory() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(os.environ.get("MTFRAME_STATE") or os.path.join(home, "mtframe"), "trusted.json")


def _remembered() -> set[str]:
    file = _memory()
    try:
        # What others may write says nothing of what this user agreed to.
        if hasattr(os, "getuid") and file.stat().st_uid != os.getuid():
            return set()
        found = json.loads(regular(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    return {one for one in found if isinstance(one, str)} if isinstance(found, list) else set()
