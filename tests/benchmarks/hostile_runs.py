"""What becomes of a stranger's run that is made to do harm: outcomes counted.

    python tests/benchmarks/hostile_runs.py [--seconds 60]

Each trick is played on a copy of a run that this user has not trained, and each command that takes a run is called on
it, without `--trust` and, where it is about code, with it. Right: an answer or a message (exit code 0, 1 or 2), no
traceback, no code run that the user has not agreed to, no control character printed, no command to install from an
address, a run that is only read unchanged, nothing changed in the folder `victim` beside it, within the seconds and
8 GiB of addresses more than before.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from command import mtframe
from mtframe.assembly import Assembly
from mtframe.recipe import Recipe
from mtframe.run._files import file_digest
from mtframe.training import Trainer
from mtframe.yaml import dump_yaml, parse_yaml
from sealed import reseal
from stopped import train_until
from toy import toy_recipe

# What a component of ours does not do: leave a trace where it is imported.
EVIL = "\nfrom pathlib import Path as _Path\n_Path({trace!r}).touch()\n"

# Colours, a bell, a title, text that goes backwards, a carriage return.
STEERING = "\x1b[31mred\x07\x1b]0;title\x07\u202e\r"

FILES = ("recipe.yaml", "environment.json", "labels.json", "log.txt", "metrics.csv",
         "checkpoints/last/checkpoint.json", "checkpoints/last/weights.safetensors",
         "checkpoints/last/training.pt")  # fmt: skip

COMMANDS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", "{run}"),
    "predict": ("predict", "{run}", "{picture}", "--out", "{out}"),
    "predict in it": ("predict", "{run}", "{picture}"),
    "resume": ("train", "--resume", "{run}", "--with", "tensorboard"),
    "from": ("train", "{recipe}", "--from", "{run}", "--out", "{out}"),
    "add-task": ("add-task", "{run}", "more=image-classification:{empty}", "--out", "{out}"),
    "remove-task": ("remove-task", "{run}", "two", "--out", "{out}"),
}
READING = ("evaluate", "predict", "from")

Trick = Callable[[Path, Path], None]

# Code that is run by nobody, agreed to or not: its trace is a folder, in place of that of other code.
NEVER = """
import os
if os.path.isfile({trace!r}):
    os.unlink({trace!r})
os.makedirs({trace!r}, exist_ok=True)

class D:
    def __init__(self, *given, **named): pass
"""


class Reduces:
    """Unpickled, it would run code."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.trace,)


def edited(file: str, change: Callable[[Any], Any]) -> Trick:
    """Changes a JSON file."""

    def trick(run: Path, trace: Path) -> None:
        content = json.loads((run / file).read_text(encoding="utf-8"))
        (run / file).write_text(json.dumps(change(content) or content), encoding="utf-8")

    return trick


def recipe(old: str, new: str) -> Trick:
    """Changes the recipe's text; `{outside}` is a file of code outside of the run."""

    def trick(run: Path, trace: Path) -> None:
        outside = run.parent / "outside.py"
        shutil.copy(run / "components" / "toy.py", outside)
        text = (run / "recipe.yaml").read_text(encoding="utf-8")
        changed = re.sub(old, new.replace("{outside}", str(outside)), text)
        assert changed != text, old
        (run / "recipe.yaml").write_text(changed, encoding="utf-8")

    return trick


def beside(change: Callable[[dict[str, Any], dict[str, Any], str], Any], *, absolute: bool = True) -> Trick:
    """Has recipe or labels name code in the run that is not in its components, and the digests fit."""

    def trick(run: Path, trace: Path) -> None:
        (run / "extra").mkdir()
        (run / "extra" / "d.py").write_text(NEVER.format(trace=str(trace)), encoding="utf-8")
        plain = parse_yaml((run / "recipe.yaml").read_text(encoding="utf-8"), "recipe")
        labels = json.loads((run / "labels.json").read_text(encoding="utf-8"))
        # Commands are called in the run's parent.
        change(plain, labels, f"{run if absolute else './run'}/extra/d.py:D")
        (run / "recipe.yaml").write_text(dump_yaml(plain), encoding="utf-8")
        (run / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
        for file in run.glob("checkpoints/*/checkpoint.json"):
            manifest = json.loads(file.read_text(encoding="utf-8"))
            manifest |= {"labels": file_digest(run / "labels.json"), "recipe": plain}
            file.write_text(json.dumps(manifest), encoding="utf-8")

    return trick


def detector(plain: dict[str, Any], labels: dict[str, Any], name: str) -> None:
    """An option that names a component by its file."""
    plain["tasks"]["one"]["transform"] = {"name": "face-align", "detector": name, "aligned": True}


def origin(run: Path, trace: Path) -> None:
    """A text of the recipe is said to be a component of another version, whose options are brought up to date."""
    beside(lambda plain, labels, name: plain["train"].update(start=name))(run, trace)
    name = parse_yaml((run / "recipe.yaml").read_text(encoding="utf-8"), "recipe")["train"]["start"]
    said = {"kind": "head", "name": name, "distribution": "mtframe", "version": "0.0"}
    edited("environment.json", lambda known: known["components"].update({"train.start": said}))(run, trace)


def leading_out(name: str, *, to: str = "") -> Trick:
    """A file or folder of the run is a link out of it, to a victim's folder or a file in it."""

    def trick(run: Path, trace: Path) -> None:
        victim, place = run.parent / "victim", run / name
        if place.is_dir():
            shutil.move(place, victim)
        victim.mkdir(exist_ok=True)
        (victim / "precious").write_bytes(b"precious")
        place.parent.mkdir(exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(victim / to)

    return trick


def changed_code(run: Path, trace: Path) -> None:
    """Code that is not what was recorded."""
    file = run / "components" / "toy.py"
    file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")


def linked_code(run: Path, trace: Path) -> None:
    """A link out of the run."""
    file = run / "components" / "toy.py"
    shutil.move(file, run.parent / "outside.py")
    file.symlink_to(run.parent / "outside.py")


def linked_folder(run: Path, trace: Path) -> None:
    """The folder of code is elsewhere."""
    shutil.move(run / "components", run.parent / "elsewhere")
    (run / "components").symlink_to(run.parent / "elsewhere")


def pickled(name: str) -> Trick:
    """A file of a checkpoint is a pickle with code, and the digests fit."""

    def trick(run: Path, trace: Path) -> None:
        folder = run / "checkpoints" / "last"
        if name.endswith(".pt"):
            state = torch.load(folder / name, weights_only=True)
            torch.save({**state, "stopped": Reduces(trace)}, folder / name)
        else:
            (folder / name).write_bytes(pickle.dumps(Reduces(trace)))
        reseal(folder)

    return trick


def claims_much(run: Path, trace: Path) -> None:
    """Weights whose header claims an exabyte."""
    folder = run / "checkpoints" / "last"
    header = b'{"a":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,4000000000000000000]}}'
    (folder / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    reseal(folder)


def huge_header(run: Path, trace: Path) -> None:
    """Weights whose header is said to be longer than any file."""
    folder = run / "checkpoints" / "last"
    (folder / "weights.safetensors").write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
    reseal(folder)


def linked_checkpoint(run: Path, trace: Path) -> None:
    """`last` is a folder somewhere else."""
    shutil.move(run / "checkpoints" / "last", run.parent / "last")
    (run / "checkpoints" / "last").symlink_to(run.parent / "last")


def replaced(file: str, by: str) -> Trick:
    """A file is a pipe that nobody writes to, or a device that never ends."""

    def trick(run: Path, trace: Path) -> None:
        (run / file).unlink(missing_ok=True)
        if by == "pipe":
            os.mkfifo(run / file)
        else:
            (run / file).symlink_to(by)

    return trick


def steering_recipe(run: Path, trace: Path) -> None:
    """Names in the recipe have control characters in them."""
    text = (run / "recipe.yaml").read_text(encoding="utf-8")
    (run / "recipe.yaml").write_text(text.replace("  one:", f"  {json.dumps('one' + STEERING)}:"), encoding="utf-8")


def bomb(run: Path, trace: Path) -> None:
    """YAML that grows as it is read."""
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    (run / "recipe.yaml").write_text("a0: &a0 [1]\n" + levels, encoding="utf-8")


CODE: dict[str, Trick] = {
    "its own, not agreed to": lambda run, trace: None,
    "changed since": changed_code,
    "outside, by its path": recipe(r"\./components/toy\.py|components/toy\.py", "{outside}"),
    "outside, by ..": recipe(r"(\./)?components/toy\.py", "../outside.py"),
    "a link to a file": linked_code,
    "a link to a folder": linked_folder,
    "an installed module": recipe(r"(\./)?components/toy\.py:ToyHead", "os:system"),
    "an observer": recipe(r"(?m)^hooks:.*$(\n- .*)*", "hooks: [{outside}:Evil]"),
    "an option that is a file": beside(detector),
    "an option that is a file here": beside(detector, absolute=False),
    "a preset that is a file": beside(lambda plain, labels, name: plain["tasks"]["one"].update(preset=name)),
    "a kind of target that is a file": beside(lambda plain, labels, name: labels["one"].update(target=name)),
    "an origin that is a file": origin,
    "weights of a run elsewhere": recipe(r"(?m)^train:$", "train:\n  start: ../other"),
}
# Of these, not even the code that was agreed to may run: it is another, or elsewhere.
FOREIGN = [name for name in CODE if name.startswith(("changed", "outside", "a link"))]

DATA: dict[str, Trick] = {
    "a kind of target that is code": edited(
        "labels.json", lambda labels: labels["one"].update(target="/evil.py:Evil")),
    "a recorded file outside": edited(
        "environment.json", lambda known: known["files"].update({"../../outside.py": "0"})),
    "classes that steer": edited(
        "labels.json", lambda labels: labels["one"].update(classes=[STEERING, "b" + STEERING])),
    "distributions that steer": edited("environment.json", lambda known: [
        origin.update(distribution=STEERING, version=STEERING) for origin in known["components"].values()] and None),
    "distributions that are options": edited("environment.json", lambda known: [
        origin.update(distribution="--index-url=http://evil/x") for origin in known["components"].values()] and None),
    "names that steer": steering_recipe,
    "a picture that leads out": leading_out("predictions/picture.jpg", to="precious"),
    "pictures that lead nowhere": leading_out("predictions/picture.jpg", to="nothing"),
    **{f"{name} leads out": leading_out(name) for name in ("predictions", "checkpoints", "plots", "tensorboard")},
    **{f"{name} leads nowhere": leading_out(name, to="nothing") for name in (".lock", "log.txt", "plots")},
    "a manifest that leaves its folder": edited(
        "checkpoints/last/checkpoint.json", lambda known: known["files"].update({"../../../outside.py": "0" * 64})),
    "a million classes": edited("labels.json", lambda labels: labels["one"].update(
        classes=[str(n) for n in range(1_000_000)])),
    "a pickle for training.pt": pickled("training.pt"),
    "a pickle for weights": pickled("weights.safetensors"),
    "weights that claim an exabyte": claims_much,
    "a header without end": huge_header,
    "a checkpoint elsewhere": linked_checkpoint,
    "a backbone beyond memory": recipe(r"(?m)^backbone: (.*)$", "backbone:\n  name: \\1\n  width: 100000000"),
    "images beyond memory": recipe(r"size: 32", "size: 16384"),
    "numbers of 5,000 digits": recipe(r"batch_size: 4", "batch_size: " + "9" * 5000),
    "tags of YAML": recipe(r"batch_size: 4", "batch_size: !!python/object/apply:os.system [true]"),
    "YAML that grows": bomb,
    **{f"{file} is a pipe": replaced(file, "pipe") for file in FILES},
    **{f"{file} never ends": replaced(file, "/dev/zero") for file in FILES},
}  # fmt: skip


def main() -> None:
    """Prints outcomes by trick, and their sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="that a command may take")
    seconds = parser.parse_args().seconds
    counts: Counter[str] = Counter()
    # Threads of OpenMP do not survive a fork, and who waits for them hangs.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MTFRAME_STATE"] = str(folder / "mine")
        train_until(Trainer(Assembly(Recipe.from_plain(toy_recipe(steps=8, save_every_steps=2))), folder / "made"), 5)
        (folder / "empty").mkdir()
        plain = toy_recipe(steps=1)
        (folder / "recipe.yaml").write_text(Recipe.from_plain(plain).to_yaml(), encoding="utf-8")
        Image.new("RGB", (32, 32)).save(folder / "picture.png")
        for trusted in (False, True):
            for trick, play in (CODE | DATA).items():
                for command in COMMANDS:
                    outcome = played(folder, trick, play, command, trusted, seconds)
                    counts[outcome] += 1
                    if outcome.startswith("WRONG"):
                        print(f"{command}{' --trust' * trusted}, {trick}: {outcome}", flush=True)
    wrong = sum(number for outcome, number in counts.items() if outcome.startswith("WRONG"))
    right = ", ".join(f"{n} {what}" for what, n in counts.most_common() if not what.startswith("WRONG"))
    print(f"{counts.total()} hostile runs: {wrong} wrong; {right}")


def played(folder: Path, name: str, trick: Trick, command: str, trusted: bool, seconds: int) -> str:
    """What becomes of one command on one trick."""
    at = folder / "try"
    run, trace = at / "run", at / "trace"
    at.mkdir()
    shutil.copytree(folder / "made", run)
    for file in (run / "components" / "toy.py",):
        file.write_text(file.read_text(encoding="utf-8") + EVIL.format(trace=str(trace)), encoding="utf-8")
    edited("environment.json", lambda known: known["files"].update(
        {"components/toy.py": file_digest(run / "components" / "toy.py")}))(run, trace)  # fmt: skip
    trick(run, trace)
    before, victim = snapshot(run), snapshot(at / "victim")
    texts = {"run": run, "picture": folder / "picture.png", "out": at / "out", "empty": folder / "empty",
             "recipe": folder / "recipe.yaml"}  # fmt: skip
    # `--from` runs no code of the run, so it has no such option.
    arguments = [part.format(**texts) for part in COMMANDS[command]]
    if trusted and command != "from":
        arguments.append("--trust")
    code, said = called(arguments, at / "said", at / "state", seconds)
    outcome = judged(code, said)
    allowed = trusted and name not in FOREIGN
    if trace.exists() and (not allowed or trace.is_dir()):
        outcome = "WRONG: code was run"
    elif snapshot(at / "victim") != victim:
        outcome = "WRONG: what a link leads to was changed"
    elif command in READING and snapshot(run) != before:
        outcome = "WRONG: the run was changed"
    shutil.rmtree(at)
    return outcome


def judged(code: int, said: str) -> str:
    """Whether an end is one that a user should see."""
    if code < 0:
        return f"WRONG: killed by {signal.Signals(-code).name}"
    if "Traceback" in said or code not in (0, 1, 2):
        return f"WRONG: exit code {code}, {said[-300:]!r}"
    if re.search(r"[^\n\t -~\u00a0-\u2027\u202f-\uffff]|\u202e", said):
        return f"WRONG: control characters, {said[-300:]!r}"
    if re.search(r"pip install '?(-|\S*[:@])", said):
        return f"WRONG: a command of a stranger's, {said[-300:]!r}"
    return "done as asked" if code == 0 else "a message"


def called(arguments: list[str], said: Path, state: Path, seconds: int) -> tuple[int, str]:
    """A command in a process of its own: exit code, negative for a signal, and what it printed."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 99
        try:
            resource.setrlimit(resource.RLIMIT_AS, (addresses() + (8 << 30),) * 2)
            signal.alarm(seconds)
            os.environ["MTFRAME_STATE"] = str(state)
            os.chdir(said.parent)
            result = mtframe(*arguments)
            said.write_text(result.out + result.err, encoding="utf-8")
            code = result.code
        except BaseException as error:
            said.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, said.read_text(encoding="utf-8") if said.exists() else ""


def addresses() -> int:
    """Bytes of addresses that this process has by now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    return pages * resource.getpagesize()


def snapshot(run: Path) -> dict[str, tuple[int, int]]:
    """Every file of a run, with its size and time."""
    files = (file for file in run.rglob("*") if file.name != "__pycache__" and file.suffix != ".pyc")
    return {str(file): (file.lstat().st_size, file.lstat().st_mtime_ns) for file in files if not file.is_dir()}


if __name__ == "__main__":
    main()
