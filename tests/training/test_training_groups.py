"""`train.groups`: learning rates and weight decay by part, layer-wise decay, and parts that begin to train later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from mtframe.assembly import Assembly
from mtframe.errors import RecipeError
from mtframe.recipe import Recipe, TrainOptions
from mtframe.training import Trainer
from mtframe.training._groups import Setting, described, settings_of
from mtframe_timm.backbone import TimmBackbone
from stopped import train_until
from toy import ToyBackbone, toy_recipe


class Model(nn.Module):
    """A backbone where a sharing scheme keeps it, and a head."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.sharing = nn.ModuleDict({"backbone": backbone})
        self.heads = nn.ModuleDict({"one": nn.Linear(4, 2), "two": nn.Linear(4, 2)})


def settings(*groups: dict[str, Any], model: nn.Module | None = None, **options: Any) -> dict[str, Setting]:
    return settings_of(model or Model(ToyBackbone()), TrainOptions(groups=list(groups), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("member", "size"),
    [("resnet18", 64), ("tf_efficientnet_lite0", 64), ("convnext_atto", 64), ("vit_tiny_patch16_224", 224)],
)
def test_layer_decay_gives_timms_own_scales(member: str, size: int) -> None:
    model = Model(TimmBackbone(member, size, restoring=True))
    found = settings({"part": "backbone", "layer_decay": 0.65, "weight_decay": 0.1}, model=model)
    whole = timm.create_model(member, pretrained=False)
    names = {id(parameter): name for name, parameter in whole.named_parameters()}
    theirs = {
        names[id(parameter)].replace("_", "."): (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(whole, weight_decay=0.1, layer_decay=0.65)
        for parameter in group["params"]
    }
    network = {
        name.removeprefix("sharing.backbone.network.").removeprefix("model.").replace("_", "."): setting
        for name, setting in found.items()
        if name.startswith("sharing.backbone.network.")
    }
    assert len(network) > 40
    for name, setting in network.items():
        scale, decay = theirs[name]
        assert setting.lr_scale == pytest.approx(scale, rel=1e-9), name
        assert setting.weight_decay == decay, name
    # What timm's classifier has, heads have, and the pyramid that a plain ViT gets here.
    assert {s.lr_scale for name, s in found.items() if not name.startswith("sharing.backbone.network.")} == {1.0}


def test_without_layers_the_stages_count_and_the_heads_come_after_the_last() -> None:
    found = settings({"part": "backbone", "layer_decay": 0.5, "lr_scale": 0.1})
    # Two stages: 0.1 · 0.5^(2 - i).
    assert found["sharing.backbone.stem.0.weight"].lr_scale == pytest.approx(0.025)
    assert found["sharing.backbone.body.0.weight"].lr_scale == pytest.approx(0.05)
    assert found["heads.one.weight"].lr_scale == 1


def test_for_each_option_the_first_group_counts() -> None:
    found = settings(
        {"part": "backbone.stem", "lr_scale": 0.01},
        {"part": "backbone", "lr_scale": 0.1, "weight_decay": 0.3, "frozen_steps": 7},
        {"part": "heads.*", "lr_scale": 2.0},
        {"part": "*.weight", "weight_decay": 0.2},
        weight_decay=0.05,
    )  # fmt: skip
    assert found["sharing.backbone.stem.0.weight"] == Setting(0.01, 0.3, 7)
    assert found["sharing.backbone.body.0.weight"] == Setting(0.1, 0.3, 7)
    # Biases and norms have no weight decay, whatever a group says.
    assert found["sharing.backbone.body.0.bias"] == Setting(0.1, 0.0, 7)
    assert found["sharing.backbone.body.1.weight"] == Setting(0.1, 0.0, 7)
    assert found["heads.one.weight"] == Setting(2.0, 0.2, 0)
    assert found["heads.two.bias"] == Setting(2.0, 0.0, 0)


@pytest.mark.parametrize("name", ["sharing.backbone", "sharing", "backbone", "*backbone", "sharing.backbone.*"])
def test_a_part_is_named_by_itself_or_a_pattern(name: str) -> None:
    found = settings({"part": name, "lr_scale": 0.1})
    assert {n for n, setting in found.items() if setting.lr_scale == 0.1} == {n for n in found if "backbone" in n}


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([{"part": "bakcbone", "lr_scale": 0.1}],
         r"train.groups.0.part: the model has no part 'bakcbone'; did you mean 'backbone'\?; "
         r"its parts are sharing, sharing.backbone, heads, heads.one, heads.two, and those within them"),
        ([{"part": "heads.three", "lr_scale": 0.1}], r"did you mean 'heads\.\w+'\?"),
        ([{"part": "heads", "layer_decay": 0.5}],
         "train.groups.0: changes nothing of 'heads': none of it is in a layer"),
        ([{"part": "heads", "lr_scale": 0.1}, {"part": "heads.one", "lr_scale": 2}],
         "train.groups.1: changes nothing of 'heads.one': groups before it have the same options"),
    ],
)  # fmt: skip
def test_a_group_that_does_nothing_is_an_error(groups: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        settings(*groups)


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ({"part": "heads"}, "train.groups.0: .*says nothing of 'heads'; expected one of lr_scale, layer_decay"),
        ({"part": "heads", "lr": 1e-4}, "train.groups.0.lr: unknown option"),
        ({"part": "heads", "lr_scal": 1e-4}, "train.groups.0.lr_scal: unknown option; did you mean 'lr_scale'"),
        ({"part": "heads", "lr_scale": 0}, "train.groups.0.lr_scale: expected .*greater than 0"),
        ({"part": "heads", "layer_decay": 1.5}, "train.groups.0.layer_decay: expected .*less than or equal to 1"),
        ({"lr_scale": 0.1}, "train.groups.0.part: required"),
    ],
)
def test_what_is_written_wrong_is_told(group: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Recipe.from_plain(toy_recipe(groups=[group]))


def trainer_of(path: Path, *groups: dict[str, Any], **train: Any) -> Trainer:
    plain = toy_recipe({"one": {}, "two": {}}, groups=list(groups), **train)
    plain["hooks"] = ["csv-logger"]
    return Trainer(Assembly(Recipe.from_plain(plain)), path)


def test_each_step_has_the_scheduled_rate_times_the_scale(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path / "run", {"part": "backbone", "lr_scale": 0.1}, steps=8, lr=0.5, min_lr=0.1, warmup=0.25
    )
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    rates = []
    for batches in trainer.grouped_batches():
        trainer.train_step(batches)
        of = {names[id(p)]: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
        assert of["sharing.backbone.stem.0.weight"] == pytest.approx(0.1 * of["heads.one.linear.weight"])
        assert trainer.learning_rate == pytest.approx(of["heads.one.linear.weight"])
        rates.append(of["heads.one.linear.weight"])
    # A warm-up of 2 steps, then a cosine of 6 from 0.5 to 0.1.
    assert rates[:3] == pytest.approx([0.25, 0.375, 0.5])
    assert described(trainer.model, trainer.options) == [
        "backbone: 8 tensors, peak learning rate 0.05, weight decay 0.05"
    ]


def state(trainer: Trainer, part: str) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in trainer.model.state_dict().items() if name.startswith(part)}


def same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return all(torch.equal(some[name], others[name]) for name in some)


@pytest.mark.parametrize("ema", [None, 0.5])
@pytest.mark.parametrize("balancer", ["sum", "pcgrad"])
def test_a_frozen_trunk_stays_bit_by_bit_until_it_is_thawed(tmp_path: Path, balancer: str, ema: float | None) -> None:
    plain = toy_recipe(groups=[{"part": "backbone", "frozen_steps": 3}], steps=5, lr=0.05, ema=ema)
    plain["balancer"] = balancer
    trainer = Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "run")
    trunk, head = state(trainer, "sharing"), state(trainer, "heads")
    # Every tensor: weights are not decayed, statistics of BatchNorm do not move.
    assert any("running_mean" in name for name in trunk)
    trainer.model.train()
    for number, batches in enumerate(trainer.grouped_batches()):
        trainer.train_step(batches)
        assert same(trunk, state(trainer, "sharing")) == (number < 3)
        assert not same(head, state(trainer, "heads"))
        inside = [m.training for m in trainer.model.sharing.modules() if isinstance(m, nn.BatchNorm2d | nn.Dropout)]
        assert set(inside) == {number >= 3}
        if trainer.parts.average is not None:
            averaged = trainer.parts.average.module.state_dict()
            assert same(trunk, averaged) == (number < 3)
    # Adam's bias is corrected for the steps that it was trained in.
    optimizer = trainer.optimizer
    steps = {name: int(optimizer.state[p]["step"]) for name, p in trainer.model.named_parameters()}
    assert {count for name, count in steps.items() if name.startswith("sharing")} == {2}
    assert {count for name, count in steps.items() if name.startswith("heads")} == {5}


@pytest.mark.parametrize("last", [2, 4, 5])
def test_a_run_stopped_before_at_or_after_the_thaw_goes_on_exactly(tmp_path: Path, last: int) -> None:
    groups: tuple[dict[str, Any], ...] = (
        {"part": "backbone.stem", "frozen_steps": 4}, {"part": "backbone", "lr_scale": 0.3, "frozen_steps": 2},
    )  # fmt: skip
    train: dict[str, Any] = {"steps": 8, "lr": 0.05, "save_every_steps": 1, "ema": 0.9}
    trainer_of(tmp_path / "whole", *groups, **train).fit()
    train_until(trainer_of(tmp_path / "stopped", *groups, **train), last)
    Trainer.resume(tmp_path / "stopped").fit()
    ours, theirs = (
        [row.split(",")[4:] for row in (tmp_path / run / "metrics.csv").read_text(encoding="utf-8").splitlines()]
        for run in ("stopped", "whole")
    )
    assert ours == theirs
    weights = [(tmp_path / run / "checkpoints/last/weights.safetensors").read_bytes() for run in ("stopped", "whole")]
    assert weights[0] == weights[1]


def test_a_run_does_not_go_on_with_other_groups(tmp_path: Path) -> None:
    train_until(trainer_of(tmp_path / "run", {"part": "backbone", "lr_scale": 0.3}, steps=4, save_every_steps=1), 2)
    with pytest.raises(RecipeError, match=r"another experiment with train.groups \[.*0\.2.*\(was \[.*0\.3"):
        Trainer.resume(tmp_path / "run", overrides=["train.groups.0.lr_scale=0.2"])


def test_what_would_never_train_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"groups: frozen_steps of 6, and the training has 6\. .*train\.freeze"):
        trainer_of(tmp_path / "run", {"part": "backbone", "frozen_steps": 6}, steps=6)
    with pytest.raises(RecipeError, match=r"groups: in the first steps nothing of 'one', 'two' is left to train"):
        trainer_of(tmp_path / "run", {"part": "*", "frozen_steps": 2}, steps=6)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "lookahead_sgd", "adamw"])
@pytest.mark.parametrize("train", [{"groups": [{"part": "backbone", "frozen_steps": 3}]}, {"schedule": "round-robin"}])
def test_parts_that_begin_to_learn_later_do_so_with_every_optimiser_of_torch(
    tmp_path: Path, optimizer: str, train: dict[str, Any]
) -> None:
    recipe = Recipe.from_plain(toy_recipe(steps=6, optimizer=optimizer, **train))
    trainer = Trainer(Assembly(recipe), tmp_path / "run")
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.fit()
    still = [name for name, parameter in trainer.model.named_parameters() if torch.equal(parameter, before[name])]
    # A bias before BatchNorm has no gradient.
    assert not [name for name in still if not name.endswith(".bias")]
