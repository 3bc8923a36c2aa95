"""What an import does is seen from outside, and hurts nobody."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mtframe.import_probe import Probe, probe

# What a module does, and what is said of it.
NOISY = {
    "prints": ("print('hello')", "prints 'hello'"),
    "writes": ("import os; os.write(2, b'from C')", "prints 'from C'"),
    "logs": ("import logging; logging.getLogger('mine').warning('look')", "prints 'look'"),
    "warns": ("import warnings; warnings.warn('mind')", "warns 'UserWarning: mind'"),
    "connects": (
        "import urllib.request as r\ntry: r.urlopen('http://weights.example/x', timeout=1)\nexcept OSError: pass",
        "calls the network: ",
    ),
    "seeds": ("import random; random.seed(3)", "changes the seed of random"),
    "seeds_numpy": ("import numpy; numpy.random.seed(3)", "changes the seed of numpy.random"),
    "limits_threads": ("import os; os.environ['OMP_NUM_THREADS'] = '7'", "changes OMP_NUM_THREADS in the environment"),
    "hides_gpus": ("import os; os.environ['HIDDEN_FROM'] = 'torch'", "changes HIDDEN_FROM in the environment"),
    "forgets_path": ("import os; del os.environ['PATH']", "changes PATH in the environment"),
    "moves": ("import os; os.chdir('/')", "changes the working directory"),
    "catches": ("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)", "changes what SIGINT does"),
    "survives": ("import signal; signal.signal(signal.SIGTERM, lambda *_: None)", "changes what SIGTERM does"),
    "configures": ("import logging; logging.basicConfig()", "changes the handlers of the root logger"),
    "lingers": (
        "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()",
        "changes which threads keep the process alive",
    ),
    "raises": ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError: No module named 'nothing_of"),
    "exits": ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    "leaves": ("import os; os._exit(3)", "cannot be imported: the process that imported it ended with exit code 3"),
}

QUIET = """
import logging, random, threading, time
random.random()
logging.getLogger("quiet").addHandler(logging.NullHandler())
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""

TORCH = """
import torch
torch.manual_seed(3)
torch.set_num_threads(torch.get_num_threads() + 1)
torch.set_default_dtype(torch.float64)
"""

LAZY = """
def __getattr__(name):
    if name not in ("One", "Two"):
        raise AttributeError(name)
    print(name)
    return object
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(folder: Path, name: str, code: str) -> str:
    (folder / f"probed_{name}.py").write_text(f"{code}\n\nclass Thing:\n    pass\n", encoding="utf-8")
    return f"probed_{name}:Thing"


def test_what_an_import_does_is_said_and_only_that(modules: Path) -> None:
    values = [write(modules, name, code) for name, (code, _) in NOISY.items()]
    found = probe([*values, write(modules, "quiet", QUIET)])
    assert [one.value for one in found] == [*values, "probed_quiet:Thing"]
    for (code, said), one in zip(NOISY.values(), found[:-1], strict=True):
        (problem,) = one.problems
        assert said in problem, code
        assert not one.torch
    assert (found[-1].problems, found[-1].error, found[-1].traceback) == ((), None, "")
    assert "nothing_of_that_name" in found[list(NOISY).index("raises")].traceback.splitlines()[-1]


def test_signals_that_the_caller_ignores_are_probed_all_the_same(modules: Path) -> None:
    # As in `pytest &`: a shell without job control starts background commands with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        (found,) = probe([write(modules, "ignores", NOISY["catches"][0])])
    finally:
        signal.signal(signal.SIGINT, before)
    assert found.changed == ("what SIGINT does",)


def test_settings_of_torch_are_compared_with_those_of_torch_alone(modules: Path) -> None:
    changed, plain = probe([write(modules, "sets", TORCH), write(modules, "uses", "import torch")])
    assert [problem.partition(" from ")[0] for problem in changed.problems] == [
        "changes torch's seed",
        "changes torch's threads",
        "changes torch's default dtype",
    ]
    assert changed.problems[0].endswith("to 3")
    assert (plain.problems, plain.torch) == ((), True)
    assert plain.seconds > 0.01


def test_a_large_seed_of_torch_is_told_from_a_random_one(modules: Path) -> None:
    restored = "import torch\nwith torch.random.fork_rng(): torch.manual_seed(2**40)"
    found = probe(
        [write(modules, "seeds_far", "import torch; torch.manual_seed(2**40)"), write(modules, "restores", restored)]
    )
    assert found[0].problems == (f"changes torch's seed from a random one to {2**40}",)
    assert found[1].problems == ()


def test_one_that_hangs_is_ended_and_others_are_told_of(modules: Path) -> None:
    slow, quick = probe([write(modules, "sleeps", "import time; time.sleep(600)"), write(modules, "quick", "")], 3)
    assert slow.error == "it was not imported within 3 s"
    assert quick.problems == ()


def test_components_of_one_module_are_told_apart(modules: Path) -> None:
    (modules / "probed_lazily.py").write_text(LAZY, encoding="utf-8")
    first, missing, second = probe(["probed_lazily:One", "probed_lazily:Three", "probed_lazily:Two"])
    assert (first.output, second.output) == ("One\n", "Two\n")
    assert (first.error, missing.error, second.error) == (None, "AttributeError: Three", None)


def test_a_malformed_value_is_an_error_of_its_own() -> None:
    (found,) = probe(["not a module"])
    assert found.error is not None
    assert probe([]) == []


def test_a_probe_is_quiet_by_default() -> None:
    assert Probe("package:Class").problems == ()


def test_the_prober_itself_imports_no_torch() -> None:
    code = "import sys; from mtframe.import_probe import probe; probe(['json:loads']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
