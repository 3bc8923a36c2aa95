"""`train.precision: auto`: one rule, in training and prediction, and a run that has what it stood for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from mtframe.assembly import Assembly
from mtframe.device import fastest_precision, inference_precision, training_precision
from mtframe.inference import load_run
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from stopped import train_until
from toy import toy_recipe

CPU = torch.device("cpu")


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this CPU one with these instructions only."""

    def make(*names: str) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(names, True))

    return make


@pytest.mark.parametrize(
    ("member", "faster"),
    # As measured on a CPU with AMX: 0.63, 1.79 and 1.67 times the time of fp32.
    [("resnet18", "bf16"), ("mobilenetv3_small_050", "fp32"), ("tf_efficientnet_lite0", "fp32"),
     ("vit_tiny_patch16_224", "bf16")],
)  # fmt: skip
def test_a_cpu_runs_in_bf16_what_has_no_depthwise_convolutions(able: Any, member: str, faster: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(member, pretrained=False)
    for instructions in ("avx512_bf16", "amx_bf16", "bf16"):
        able("avx2", instructions)
        assert fastest_precision(network, CPU) == faster
    able("avx2", "avx512_f")
    assert fastest_precision(network, CPU) == "fp32"


def test_a_gpu_that_emulates_bf16_runs_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    for supported, faster in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, s=supported: s)
        assert fastest_precision(nn.Linear(1, 1), torch.device("cuda")) == faster


def test_what_is_asked_for_is_trained_in_and_what_was_trained_in_fp32_stays_in_it(able: Any) -> None:
    network = nn.Conv2d(4, 4, 3, groups=4)
    able("amx_bf16")
    assert [training_precision(network, wanted, CPU) for wanted in ("auto", "bf16", "fp32")] == ["fp32", "bf16", "fp32"]
    assert [inference_precision(network, wanted, CPU) for wanted in ("auto", "bf16", "fp32")] == ["fp32"] * 3
    network = nn.Conv2d(4, 4, 3)
    assert [inference_precision(network, wanted, CPU) for wanted in ("auto", "bf16", "fp32")] == [
        "bf16",
        "bf16",
        "fp32",
    ]


@pytest.mark.parametrize(("instructions", "precision"), [("amx_bf16", "bf16"), ("avx2", "fp32")])
def test_a_run_has_what_auto_stood_for_and_goes_on_with_it_elsewhere(
    tmp_path: Path, able: Any, instructions: str, precision: str
) -> None:
    plain = toy_recipe(steps=4, precision="auto", save_every_steps=1)
    plain["hooks"] = ["csv-logger"]
    able(instructions)
    Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "whole").fit()
    stopped = Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "run")
    train_until(stopped, 2)
    assert stopped.options.precision == precision
    assert RunFolder.open(tmp_path / "run").recipe().train.precision == precision
    assert f"from step 0 to 4 in {precision}" in (tmp_path / "run/log.txt").read_text(encoding="utf-8")
    # Another machine, which would have chosen the other.
    able("avx2" if instructions == "amx_bf16" else "amx_bf16")
    Trainer.resume(tmp_path / "run").fit()
    ours, theirs = (
        [row.split(",")[4:] for row in (tmp_path / run / "metrics.csv").read_text(encoding="utf-8").splitlines()]
        for run in ("run", "whole")
    )
    assert ours == theirs
    assert load_run(tmp_path / "run").assembly.recipe.train.precision == precision
