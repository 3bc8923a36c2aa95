"""Where a model runs, and what becomes of the memory that it frees."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from mtframe.device import keep_freed_memory, pick_device
from mtframe.errors import RecipeError

# Pages that the system had to map for forty megabytes which were there before.
FAULTS = """
import resource, torch
from mtframe.device import pick_device
pick_device("cpu")
def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
# A hole is a little too small for an aligned block of its size, until it grows by a neighbour.
for _ in range(40):
    use()
print(use())
"""


def test_the_first_device_that_is_there_is_picked_and_an_unknown_one_is_an_error() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(RecipeError, match=r"train\.device: 'gpu' cannot be used here"):
        pick_device("gpu")
    # A tensor can be made there, but holds nothing.
    with pytest.raises(RecipeError, match=r"train\.device: 'meta' cannot be used here"):
        pick_device("meta")


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 35),
    reason="glibc 2.35 and later keep blocks of any size",
)
def test_on_a_cpu_memory_that_was_freed_is_used_again_unless_the_user_set_malloc() -> None:
    def faults(**variables: str) -> int:
        ours = {name: v for name, v in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        command = [sys.executable, "-c", FAULTS]
        return int(
            subprocess.run(command, check=True, capture_output=True, encoding="utf-8", env=ours | variables).stdout
        )

    assert faults() < faults(GLIBC_TUNABLES="glibc.malloc.check=0") / 10


def test_variables_of_malloc_are_the_users_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
