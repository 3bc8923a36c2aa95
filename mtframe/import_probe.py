"""What importing a component does besides importing it, seen from a process of its own.

`python -m mtframe.import_probe FOLDER MODULE:CLASS ...` imports classes one after the other, and appends a line of
JSON about each to `FOLDER/report`; what it writes to its standard streams is expected in `FOLDER/output`.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from mtframe.errors import described

# What torch's settings are compared with: those of torch alone.
_TORCH = "torch:Tensor"

# A process that died says why at the end of what it wrote.
_TAIL = 4000


@dataclass(frozen=True, slots=True)
class Probe:
    """What importing one component did.

    Attributes:
        value: Where it lives, `package.module:Class`.
        seconds: How long the import took, with everything that it imports in turn; what an earlier component of the
            same module has imported takes no time again.
        output: What was written to standard output and standard error.
        warnings: Warnings that Python shows by default, as `Category: message`.
        network: Calls that would have gone out to the network; all were refused.
        changed: What it changed of the process: seeds, torch's settings, the environment, the working directory, what
            is done with signals and log records, threads that would keep it alive.
        torch: Whether torch was imported.
        error: `ExceptionType: message` where it cannot be imported, or why its process ended; None if it can.
        traceback: Of that exception.
        settings: torch's, by name, as they are afterwards.
    """

    value: str
    seconds: float = 0.0
    output: str = ""
    warnings: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    torch: bool = False
    error: str | None = None
    traceback: str = ""
    settings: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def problems(self) -> tuple[str, ...]:
        """What an import must not do, each in a few words; none for a quiet one."""
        said = self.output.strip()
        return (
            *([f"cannot be imported: {self.error}"] if self.error else []),
            *([f"prints {said[:200]!r}"] if said else []),
            *(f"warns {warning!r}" for warning in self.warnings),
            *(f"calls the network: {call}" for call in self.network),
            *(f"changes {change}" for change in self.changed),
        )


def probe(values: Sequence[str], timeout: float = 60.0) -> list[Probe]:
    """Imports components in processes of their own, one a module, without a network.

    Args:
        values: Where they live, `package.module:Class`.
        timeout: Seconds that a module may take, with all its components; then its process is ended.

    Returns:
        One probe a value, in their order. Where a process exits, dies or hangs, that is the `error` of what it had
        not imported yet.
    """
    modules: dict[str, list[str]] = {}
    for value in values:
        modules.setdefault(value.partition(":")[0].strip(), []).append(value)
    # The threads only wait for processes.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        groups = list(pool.map(lambda group: _in_process(group, timeout), modules.values()))
    found = {one.value: one for group in groups for one in group}
    return [_compared(found[value]) for value in values]


def _compared(one: Probe) -> Probe:
    """The same with what it changed of torch's settings, and without what importing torch alone changes."""
    if not one.settings:
        return one
    alone = _torch_alone()
    changes = [
        f"{name} from {alone.settings[name]} to {now}"
        for name, now in one.settings.items()
        if alone.settings.get(name) != now
    ]
    return replace(one, changed=(*(change for change in one.changed if change not in alone.changed), *changes))


@cache
def _torch_alone() -> Probe:
    return _in_process([_TORCH], timeout=120)[0]


def _in_process(values: Sequence[str], timeout: float) -> list[Probe]:
    """Probes of one module's components."""
    with TemporaryDirectory() as folder:
        report, output = Path(folder, "report"), Path(folder, "output")
        report.touch()
        # What can be imported here can be so there.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"}
        for name in ("PYTHONWARNINGS", "PYTHONWARNDEFAULTENCODING"):
            environment.pop(name, None)
        command = [sys.executable, "-X", "faulthandler", "-m", __name__, folder, *values]
        with output.open("wb") as file:
            try:
                done = subprocess.run(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=timeout
                )
                ended = f"the process that imported it ended with exit code {done.returncode}"
            except subprocess.TimeoutExpired:
                ended = f"it was not imported within {timeout:g} s"
        probes = [_read(line) for line in report.read_text(encoding="utf-8").splitlines()]
        tail = output.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
    return [*probes, *(Probe(value, error=ended, traceback=tail) for value in values[len(probes) :])]


def _read(line: str) -> Probe:
    plain = json.loads(line)
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    return Probe(**fields)


def _main(folder: Path, values: Iterable[str]) -> None:
    """Imports components in this process and reports on each."""
    # A process started in the background inherits an ignored SIGINT: an import that ignores it would change nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    calls, seeded, seeds = _refuse_network(), _watch_seeds(), _watch_torch()
    with (folder / "report").open("a", encoding="utf-8") as report:
        for value in values:
            before = _process()
            calls.clear()
            seeded.clear()
            seen = _imported(value, folder / "output")
            after = _process()
            moved = [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]
            seen = replace(
                seen,
                network=tuple(dict.fromkeys(calls)),
                changed=(*dict.fromkeys(seeded), *moved),
                torch="torch" in sys.modules,
                settings=_torch_settings(seeds),
            )
            report.write(json.dumps(asdict(seen)) + "\n")
            report.flush()


def _imported(value: str, output: Path) -> Probe:
    """Imports a component, and says how that went."""
    error, shown, written = None, "", output.stat().st_size
    # Recording leaves Python's filters as they are: what users would not see does not count.
    with warnings.catch_warnings(record=True) as caught:
        start = time.perf_counter()
        try:
            EntryPoint("component", value, "mtframe").load()
        # Exiting and interrupting are as bad as raising.
        except BaseException as raised:
            error, shown = described(raised), traceback.format_exc()
        seconds = time.perf_counter() - start
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return Probe(
        value,
        seconds,
        output.read_bytes()[written:].decode("utf-8", "replace"),
        tuple(f"{warning.category.__name__}: {warning.message}" for warning in caught),
        error=error,
        traceback=shown,
    )


def _refuse_network() -> list[str]:
    """Makes every call to the network fail; the list is of the calls that are made from now on."""
    calls: list[str] = []

    def refusing(name: str) -> Callable[..., NoReturn]:
        def refuse(*arguments: Any, **_: Any) -> NoReturn:
            # A socket's own method gets the socket first.
            shown = [repr(argument) for argument in arguments if not isinstance(argument, socket.socket)]
            calls.append(f"{name}({', '.join(shown)})")
            raise OSError("an import must not use the network")

        return refuse

    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, refusing(name))
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        setattr(socket, name, refusing(name))
    return calls


def _watch_seeds() -> list[str]:
    """Records when random's or numpy's own generator is seeded; the list names those that are from now on.

    States are not compared: they change with every draw, and drawing is harmless (rich does, as it is imported).
    """
    import numpy as np

    seeded: list[str] = []

    def watching(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            seeded.append(name)
            return function(*arguments, **named)

        return watched

    modules: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
        ("random", random, ("seed", "setstate")),
        ("numpy.random", np.random, ("seed", "set_state")),
    )
    for name, module, functions in modules:
        for function in functions:
            setattr(module, function, watching(f"the seed of {name}", getattr(module, function)))
    return seeded


def _watch_torch() -> set[int]:
    """The seeds that `torch.manual_seed` is called with from now on; torch may be imported later, or never."""
    seeds: set[int] = set()

    class Finder(MetaPathFinder):
        """Finds the module that manual_seed is defined in, before torch copies it to where it is called from."""

        def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
            found = PathFinder.find_spec(fullname, path, target) if fullname == "torch.random" else None
            if found is not None and found.loader is not None:
                loader: Any = found.loader
                loader.exec_module = partial(self.execute, loader.exec_module)
            return found

        def execute(self, execute: Callable[[Any], None], module: Any) -> None:
            execute(module)
            original = module.manual_seed

            @wraps(original)
            def manual_seed(seed: Any) -> Any:
                generator = original(seed)
                seeds.add(module.initial_seed())
                return generator

            module.manual_seed = manual_seed

    sys.meta_path.insert(0, Finder())
    return seeds


def _process() -> dict[str, Any]:
    """What of this process an import must leave as it is, by the words that a change of it is reported in."""
    try:
        folder = os.getcwd()
    except OSError as error:
        folder = str(error)
    return {
        **{f"{name} in the environment": value for name, value in os.environ.items()},
        "the working directory": folder,
        "what SIGINT does": signal.getsignal(signal.SIGINT),
        "what SIGTERM does": signal.getsignal(signal.SIGTERM),
        "the handlers of the root logger": list(logging.getLogger().handlers),
        "which threads keep the process alive": [thread for thread in threading.enumerate() if not thread.daemon],
    }


def _torch_settings(seeds: Container[int]) -> dict[str, str]:
    """What of torch is global, by name; nothing where it is not imported. `seeds` are those that it was given."""
    if (torch := sys.modules.get("torch")) is None:
        return {}
    settings = {
        # torch seeds itself with 64 random bits: a number as small as this was set by somebody.
        "torch's seed": seed if (seed := torch.initial_seed()) < 2**32 or seed in seeds else "a random one",
        "torch's threads": torch.get_num_threads(),
        "torch's threads between operations": torch.get_num_interop_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "whether torch tracks gradients": torch.is_grad_enabled(),
        "whether torch is deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch's precision of float32 products": torch.get_float32_matmul_precision(),
        "whether cuDNN searches for algorithms": torch.backends.cudnn.benchmark,
    }
    return {name: str(value) for name, value in settings.items()}


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
    # At once: a thread that was left running would keep the process.
    os._exit(0)
