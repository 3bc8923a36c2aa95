"""Killed workers, too little memory, endless waits and signals: a message, everything saved, and exact resuming."""

from __future__ import annotations

import errno
import io
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command import mtframe
from mtframe import device
from mtframe.assembly import Assembly
from mtframe.data import Sample, _images, _loader, decode_image, read_image
from mtframe.data._images import read_map
from mtframe.errors import BadImageError, RecipeError, StarvedError, TrainingError, is_memory_short
from mtframe.recipe import Recipe
from mtframe.training import Interrupted, Trainer, _demands
from mtframe.training._demands import _kept, check_demands, check_step
from toy import ToyData, toy_recipe

HERE = Path(__file__).resolve()


class Faulty(ToyData):
    """Does something at one image, if the file `fault` is there."""

    def __init__(self, split: str, *, fault: Path, what: str, at: int = 7, on: str = "train", count: int = 20) -> None:
        super().__init__(split, count=count)
        self.fault, self.what, self.at, self.on = fault, what, at, on == split

    def __getitem__(self, index: int) -> Sample:
        if index == self.at and self.on and self.fault.exists():
            FAULTS[self.what]()
        return super().__getitem__(index)


def no_memory() -> None:
    raise MemoryError("Unable to allocate 3.00 GiB for an array")


def no_tensor() -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried")


def no_shared_memory() -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)")


def cut_off() -> None:
    raise EOFError("a reader of its own")


def failing(number: int) -> None:
    raise OSError(number, os.strerror(number))


FAULTS: dict[str, Callable[[], object]] = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "memory": no_memory,
    "tensor": no_tensor,
    "shared": no_shared_memory,
    "files": partial(failing, errno.EMFILE),
    "disk": partial(failing, errno.EIO),
    "address": partial(failing, errno.ENOMEM),
    "end of file": cut_off,
    "hangs": lambda: time.sleep(1000),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(1000),
    "hangup": lambda: os.kill(os.getpid(), signal.SIGHUP) or time.sleep(1000),
}


def make(run: Path, what: str, workers: int = 2, on: str = "train", **train: Any) -> Trainer:
    fault = run.with_suffix(".fault")
    data = {"name": f"{HERE}:Faulty", "fault": str(fault), "what": what, "on": on}
    plain = toy_recipe({"one": {"dataset": data}}, **{"steps": 12, "workers": workers, "log_every": 1, **train})
    return Trainer(Assembly(Recipe.from_plain(plain)), run)


def losses(run: Path) -> list[list[str]]:
    return [line.split(",")[4:] for line in (run / "metrics.csv").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("what", "workers", "said"),
    [
        ("killed", 2, "a process that reads images is gone"),
        ("memory", 2, "out of memory while reading images (MemoryError: Unable to allocate 3.00 GiB"),
        ("memory", 0, "out of memory while reading images (MemoryError: Unable to allocate 3.00 GiB"),
        ("tensor", 2, "out of memory while reading images (RuntimeError: [enforce fail"),
        ("shared", 2, "out of memory while reading images (RuntimeError: unable to allocate shared memory(shm)"),
        ("files", 2, "images cannot be read any more (OSError: [Errno 24] Too many open files)"),
        ("disk", 0, "images cannot be read any more (OSError: [Errno 5] Input/output error)"),
        ("address", 2, "out of memory while reading images (OSError: [Errno 12]"),
        ("hangs", 2, "the 2 processes that read images have not answered for "),
    ],
)
def test_starving_in_a_data_set_saves_everything_and_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, workers: int, said: str
) -> None:
    monkeypatch.setattr(_loader, "PATIENCE", 2)
    monkeypatch.setattr(_loader, "_POLL", 1)
    whole, run = tmp_path / "whole", tmp_path / "run"
    make(whole, what, workers).fit()
    trainer = make(run, what, workers)
    step = trainer.train_step

    def late(group: Any) -> None:
        step(group)
        if trainer.step == 2:
            run.with_suffix(".fault").touch()

    trainer.train_step = late  # type: ignore[method-assign]
    with pytest.raises(StarvedError) as caught:
        trainer.fit()
    assert said in str(caught.value)
    command = shlex.join(["mtframe", "train", "--resume", str(run)])
    saved = f"Stopped at step {trainer.step} of 12; everything is saved. Go on with: {command}"
    assert saved in str(caught.value)
    run.with_suffix(".fault").unlink()
    again = Trainer.resume(run)
    assert again.step == trainer.step >= 2
    again.fit()
    assert losses(run) == losses(whole)
    weights = [(path / "checkpoints" / "last" / "weights.safetensors").read_bytes() for path in (run, whole)]
    assert weights[0] == weights[1]


def test_what_a_data_set_does_wrong_is_not_laid_to_its_process(tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer = make(run, "end of file", workers=1)
    run.with_suffix(".fault").touch()
    with pytest.raises(EOFError, match="in DataLoader worker process"):
        trainer.fit()


def test_a_worker_that_is_killed_raises_nowhere_but_where_its_batch_is_waited_for(tmp_path: Path) -> None:
    # Another loader of this process may have set torch's.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    make(tmp_path / "run", "killed").fit()
    # torch would raise from its handler, in whatever line the main thread is.
    assert signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_an_evaluation_that_would_never_end_and_nothing_is_lost(tmp_path: Path, number: int) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    make(whole, "hangs", on="val").fit()
    run.with_suffix(".fault").touch()
    trainer = make(run, "hangs", on="val")
    timer = threading.Timer(6, os.kill, (os.getpid(), number))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(Interrupted, match=r"stopped at step \d+ of 12; everything is saved\. Go on with"):
        trainer.fit()
    assert time.monotonic() - begun < 60
    run.with_suffix(".fault").unlink()
    Trainer.resume(run).fit()
    assert (run / "metrics.json").read_text(encoding="utf-8") == (whole / "metrics.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["term", "hangup"])
def test_a_signal_while_a_batch_is_waited_for_ends_at_once(tmp_path: Path, what: str) -> None:
    run = tmp_path / "run"
    run.with_suffix(".fault").touch()
    with pytest.raises(Interrupted, match=r"stopped at step \d+ of 12; everything is saved"):
        make(run, what, workers=0).fit()
    run.with_suffix(".fault").unlink()
    Trainer.resume(run).fit()


def test_a_run_that_was_ended_early_and_stopped_while_scored_is_scored_when_it_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.with_suffix(".fault").touch()
    trainer = make(run, "term", workers=0, on="val")
    step = trainer.train_step

    def enough(group: Any) -> None:
        step(group)
        trainer.stop("enough")

    trainer.train_step = enough  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        trainer.fit()
    run.with_suffix(".fault").unlink()
    again = Trainer.resume(run)
    assert set(again.fit()) == {"one"}
    assert again.step == trainer.step
    with pytest.raises(RecipeError, match="was ended at step"):
        Trainer.resume(run)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
                                   torch.OutOfMemoryError("CUDA out of memory")])  # fmt: skip
def test_an_allocation_that_fails_in_a_step_says_what_to_lower_and_what_is_kept(
    tmp_path: Path, error: Exception
) -> None:
    trainer = make(tmp_path / "run", "memory", workers=0, save_every_steps=2)

    def hungry(module: object, inputs: object) -> None:
        if trainer.step == 5:
            raise error

    trainer.model.register_forward_pre_hook(hungry)
    said = r"out of memory on cpu at step 6\. Lower .* What step 4 left is kept: mtframe"
    with pytest.raises(TrainingError, match=said):
        trainer.fit()
    assert Trainer.resume(tmp_path / "run").step == 4


def test_an_allocation_that_fails_outside_of_a_training_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*arguments: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 3.00 GiB")

    monkeypatch.setattr("mtframe.inference.load_run", hungry)
    result = mtframe("evaluate", tmp_path)
    assert (result.code, result.err.startswith("error: out of memory (MemoryError: Unable")) == (1, True)


def test_other_errors_are_not_taken_for_short_memory() -> None:
    assert not is_memory_short(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        _loader.starved(RuntimeError("shapes differ"))


def test_a_good_image_is_not_called_bad_because_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")

    def hungry(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "array", hungry)
    monkeypatch.setattr(np, "asarray", hungry)
    with pytest.raises(MemoryError):
        decode_image(data.getvalue(), "good.png")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_too_many_open_files_say_nothing_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    monkeypatch.setattr(Path, "read_bytes", lambda path: failing(number))
    for read in (read_image, read_map):
        with pytest.raises(OSError, match="Errno"):
            read(tmp_path / "good.png")


@pytest.mark.parametrize("form", ["lossless", "lossy", "alpha"])
def test_a_decoder_that_fails_for_want_of_memory_says_nothing_of_an_image(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    buffer = io.BytesIO()
    picture = Image.effect_noise((123, 77), 50).convert("RGBA" if form == "alpha" else "RGB")
    picture.putpixel((0, 0), (1, 2, 3, 4)[: len(picture.getbands())])
    picture.save(buffer, "WEBP", lossless=form == "lossless")
    assert _images._webp_pixels(buffer.getvalue()) == 123 * 77

    def failing_decoder(*arguments: object, **options: object) -> None:
        raise OSError("could not create decoder object")

    asked: list[int] = []

    def hungry(size: int, dtype: object) -> None:
        asked.append(size)
        raise MemoryError

    monkeypatch.setattr(Image, "open", failing_decoder)
    with pytest.raises(BadImageError, match="could not create decoder object"):
        decode_image(buffer.getvalue(), "a.webp")
    monkeypatch.setattr(np, "empty", hungry)
    with pytest.raises(MemoryError):
        decode_image(buffer.getvalue(), "a.webp")
    assert asked == [123 * 77 * 16]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends what a process leaves behind")
@pytest.mark.timeout(120)
def test_what_hangs_in_a_worker_does_not_outlive_its_process(tmp_path: Path) -> None:
    data = tmp_path / "data.py"
    data.write_text(
        "import os, time\nfrom pathlib import Path\n\n"
        "class Hanging:\n    def __getitem__(self, n):\n"
        f"        Path({str(tmp_path)!r}, 'worker').write_text(str(os.getpid()))\n        time.sleep(1000)\n",
        encoding="utf-8",
    )
    code = "from mtframe.data._loader import load; from data import Hanging; next(load(Hanging(), range(9), 1, False))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[2]), str(tmp_path)])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    file = tmp_path / "worker"
    while not (file.exists() and file.read_text(encoding="utf-8")):
        assert process.poll() is None
        time.sleep(0.1)
    worker = int(file.read_text(encoding="utf-8"))
    process.kill()
    process.wait()
    for _ in range(100):
        state = Path(f"/proc/{worker}/stat")
        # Z: nobody has asked how it ended.
        if not state.exists() or state.read_text(encoding="utf-8").split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker lives on")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"workers": 1_000_000}, r"train\.workers: 1000000 processes that read images, on a machine of \d+ processors"),
        ({"accumulate": 10**9}, r"tasks\.one: 4 images of 32 pixels x 1000000000 batches a step take 61\.4 TB before"),
    ],
)
def test_absurd_numbers_are_refused_with_what_they_would_take(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_demands(Recipe.from_plain(toy_recipe(**change)))


def test_an_absurd_batch_is_refused_before_there_is_a_run(tmp_path: Path) -> None:
    plain = toy_recipe({"one": {"batch_size": 10**9}})
    said = r"tasks\.one: 1000000000 images of 32 pixels a step take 15\.4 TB before the"
    with pytest.raises(RecipeError, match=said):
        Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_demands(Recipe.from_plain(toy_recipe()))


def test_weights_beyond_memory_are_refused_when_they_are_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "free_memory", lambda: 30_000_000)
    plain = toy_recipe()
    plain["backbone"] = {"name": plain["backbone"], "width": 1000}
    # 1000 x 1000 x 3 x 3 weights, after 1000 x 3 x 3 x 3 and a few vectors.
    with pytest.raises(
        RecipeError, match=r"backbone: .*its tensors take 36\.1 MB or more, and 30 MB of memory are free"
    ):
        Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "run")
    plain["backbone"]["width"] = 100
    Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "run")


def test_a_step_that_does_not_fit_is_refused_with_what_the_network_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe.from_plain(toy_recipe({"one": {"size": 64}}))
    model = Assembly(recipe).model()
    # Inputs of two convolutions, of two BatchNorms with a mean and a scale a channel, the last ReLU's output, its mean.
    image, stem, body, mean = 3 * 64 * 64, 8 * 16 * 16, 8 * 8 * 8, 8
    assert _kept(model, "one", 64) == 4 * (image + 2 * stem + 2 * body + 2 * 2 * 8 + mean) == 69792
    monkeypatch.setattr(_demands, "memory_size", lambda: 279_000)
    monkeypatch.setattr(_demands, "_LARGE", 0)
    said = (
        r"tasks\.one: for a step's 4 images of 64 pixels the network keeps 279168 bytes, and this machine has 279000 b"
    )
    with pytest.raises(RecipeError, match=said):
        check_step(recipe, model)


@pytest.mark.parametrize("after", [0.3, 0.8, 1.5, 3.0])
def test_ctrl_c_during_start_up_is_no_traceback(tmp_path: Path, after: float) -> None:
    (tmp_path / "toy.yaml").write_text(Recipe.from_plain(toy_recipe(steps=100000)).to_yaml(), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    # Until then the interpreter starts, which says what it likes.
    code = "import mtframe.__main__ as command; print(flush=True); command.main()"
    process = subprocess.Popen([sys.executable, "-c", code, "train", "toy.yaml"], cwd=tmp_path, env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert "Traceback" not in err
    assert process.returncode in (130, -signal.SIGINT)
