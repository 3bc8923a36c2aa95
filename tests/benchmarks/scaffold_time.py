"""From nothing to a trained model: what `mtframe plugins new` takes a stranger, kind by kind.

    OMP_NUM_THREADS=1 python tests/benchmarks/scaffold_time.py [KIND ...]

For each kind, in a fresh environment beside mtframe: write the package, build its wheel, install it, run its own tests,
train its recipe. Wall seconds each, and the processor's seconds in all. What the recipes train on is made once, and is
no part of it.
"""

from __future__ import annotations

import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fresh import Fresh, bash_blocks
from mtframe.kinds import KINDS
from mtframe.registry import kind_of

STEPS = ("write", "build", "install", "test", "train")


def main() -> None:
    """Prints a line a kind."""
    kinds = [kind_of(name).name for name in sys.argv[1:]] or list(KINDS)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'kind':10}", *(f"{step:>8}" for step in STEPS), f"{'all':>8} {'CPU':>8}  seconds")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_data(root)
        for kind in kinds:
            before = processor_seconds()
            times = from_nothing(root, kind)
            spent = processor_seconds() - before
            print(f"{kind:10}", *(f"{seconds:8.1f}" for seconds in (*times, sum(times), spent)))


def make_data(root: Path) -> None:
    """Renders the images, by the command that a README names."""
    fresh = Fresh(root / "env")
    fresh.run("mtframe plugins new kite --kind head", root)
    fresh.run(bash_blocks(root / "kite" / "README.md")["Try"].partition("&&")[0], root)


def from_nothing(root: Path, kind: str) -> list[float]:
    """Seconds of each step."""
    fresh, name = Fresh(root / f"env-{kind}"), f"kite-{kind}"
    times = [timed(fresh, f"mtframe plugins new {name} --kind {kind}", root)]
    folder = root / name
    (folder / "data").symlink_to(root / "data")
    blocks = bash_blocks(folder / "README.md")
    train = blocks["Try"].rpartition("&&")[2]
    commands = (blocks["Publish"], "python -m pip install --no-deps dist/*.whl", blocks["Test"], train)
    return times + [timed(fresh, command, folder) for command in commands]


def timed(fresh: Fresh, command: str, cwd: Path) -> float:
    """Wall seconds of a command that must go well."""
    start = time.perf_counter()
    fresh.run(command, cwd)
    return time.perf_counter() - start


def processor_seconds() -> float:
    """Of all processes that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
