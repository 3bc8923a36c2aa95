"""How long `mtframe --help` and `mtframe plugins list` take, against a bare program of typer and rich.

    python tests/benchmarks/startup.py

Interleaved rounds in one run, as processes of their own: the bare program's help and its table, our help and our
listing, these without and with 50 more distributions installed that offer components, 5 of them broken. Printed are the
medians, their quartiles, and their ratio to the bare program's help.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fake_dist import make_dist
from mtframe.kinds import KINDS

# One command, a table: the least that is a program of these two.
BARE = """
import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer()

@app.command()
def show(name: str = "x") -> None:
    table = Table("a", "b")
    for number in range(60):
        table.add_row(str(number), name)
    Console().print(table)

app()
"""

# What is wrong with five of the fifty: an import that raises, exits, takes long, a module that is not there, an mtframe
# that is not there.
BROKEN = ("raise RuntimeError", "import sys; sys.exit(1)", "import time; time.sleep(30)", None, "")


def install_fifty(folder: Path) -> None:
    """50 distributions with three components each."""
    kinds = list(KINDS)
    for number in range(50):
        module = f"kit_{number}"
        entries = {
            f"mtframe.{kinds[(number + k) % len(kinds)]}": {f"part-{number}": f"{module}:Part"} for k in range(3)
        }
        source = BROKEN[number // 10] if number % 10 == 0 else "class Part: pass"
        requires = ["mtframe>=99"] if source == "" else ["mtframe>=0.1", "torch>=2"]
        make_dist(folder, f"kit-{number}", entries, {} if source is None else {module: source}, requires=requires)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    with TemporaryDirectory() as folder:
        bare, site = Path(folder, "bare.py"), Path(folder, "site")
        bare.write_text(BARE, encoding="utf-8")
        install_fifty(site)
        ours = [sys.executable, "-c", "from mtframe.cli import main; main()"]
        more = {**os.environ, "PYTHONPATH": str(site)}
        calls = {
            "typer+rich --help": ([sys.executable, str(bare), "--help"], None),
            "typer+rich, a table": ([sys.executable, str(bare)], None),
            "mtframe --help": ([*ours, "--help"], None),
            "mtframe --help, 50 more": ([*ours, "--help"], more),
            "mtframe plugins list": ([*ours, "plugins", "list"], None),
            "mtframe plugins list, 50 more": ([*ours, "plugins", "list"], more),
        }
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(rounds + 1):
            for name, (command, environment) in calls.items():
                begun = time.perf_counter()
                subprocess.run(command, env=environment, capture_output=True, check=True)
                # The first round fills the file cache.
                if number:
                    seconds[name].append(time.perf_counter() - begun)
    base = statistics.median(seconds["typer+rich --help"])
    print(f"{'':32}{'median':>9}{'quartiles':>18}{'ratio':>8}")
    for name, times in seconds.items():
        low, median, high = statistics.quantiles(times, n=4)
        print(f"{name:32}{median * 1e3:7.0f} ms{low * 1e3:9.0f} to {high * 1e3:3.0f} ms{median / base:8.2f}")
    versions = ", ".join(f"{name} {version(name)}" for name in ("mtframe", "typer", "rich", "pydantic"))
    print(f"{rounds} rounds; Python {platform.python_version()}, {versions}; {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
