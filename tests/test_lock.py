"""`requirements.lock` has a version with hashes of everything that pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRA = "test"


def locked(text: str) -> list[tuple[Requirement, list[str]]]:
    """Entries and their hashes."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    entries = [entry.split() for entry in lines.replace("\\\n", " ").splitlines() if entry.strip()]
    return [
        (
            Requirement(" ".join(word for word in words if not word.startswith("--"))),
            [word.removeprefix("--hash=") for word in words if word.startswith("--")],
        )
        for words in entries
    ]


def asked(extra: str) -> list[Requirement]:
    """What an extra asks for, extras of our own among it written out."""
    found = []
    for text in PROJECT["project"]["optional-dependencies"][extra]:
        requirement = Requirement(text)
        ours = requirement.name == "mtframe"
        # In one order: processes that share the tests must agree on it.
        found += [one for each in sorted(requirement.extras) for one in asked(each)] if ours else [requirement]
    return found


LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
ENTRIES = locked(LOCK)
ASKED = [*map(Requirement, PROJECT["project"]["dependencies"]), *asked(EXTRA)]


@pytest.mark.parametrize("requirement", ASKED, ids=str)
def test_what_is_asked_for_is_locked_in_a_version_that_fits(requirement: Requirement) -> None:
    """In every variant: there may be one for each Python."""
    versions = [
        next(iter(entry.specifier)).version
        for entry, _ in ENTRIES
        if canonicalize_name(entry.name) == canonicalize_name(requirement.name)
    ]
    assert versions, "missing; CONTRIBUTING.md has the command that writes the file anew"
    assert all(requirement.specifier.contains(version) for version in versions), versions


def test_every_entry_is_one_version_with_hashes() -> None:
    assert len(ENTRIES) > len(ASKED)
    for entry, hashes in ENTRIES:
        assert re.fullmatch(r"==[^*,]+", str(entry.specifier)), entry
        assert hashes, f"{entry} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), entry
    # A package of another index would have to be named to pip.
    assert not re.search(r"^\s*(-|.* @ )", re.sub(r"^    --hash", "", LOCK, flags=re.MULTILINE), re.MULTILINE)


def test_the_lock_is_for_the_pythons_that_the_project_is_for() -> None:
    lowest = re.fullmatch(r">=(3\.\d+),<.*", PROJECT["project"]["requires-python"])
    assert lowest is not None
    assert f"--python-version {lowest[1]} " in LOCK.splitlines()[1]
    needed = [entry for entry, _ in ENTRIES if canonicalize_name(entry.name) in {one.name for one in ASKED}]
    for python in ("3.11", "3.12", "3.13"):
        running = {"python_version": python, "python_full_version": f"{python}.0"}
        there = [entry.name for entry in needed if entry.marker is None or entry.marker.evaluate(running)]
        assert len(there) == len(set(there)), f"two versions for Python {python}"


def test_the_command_that_keeps_it_is_documented() -> None:
    command = LOCK.splitlines()[1].removeprefix("#").strip()
    assert command.startswith("uv pip compile pyproject.toml ")
    assert f".venv/bin/{command}\n" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_what_is_missing_or_has_no_hash_is_noticed() -> None:
    ((entry, hashes), (bare, none)) = locked(
        "# uv\na-b==1.0 ; sys_platform == 'linux' \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n    # c\nc==2\n"
    )
    assert (entry.name, str(entry.specifier), str(entry.marker)) == ("a-b", "==1.0", 'sys_platform == "linux"')
    assert hashes == ["sha256:00", "sha256:11"]
    assert (bare.name, none) == ("c", [])
