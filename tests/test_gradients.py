"""Each task's own gradient of what tasks share: against autograd, a task at a time, in float64."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mtframe.assembly import Assembly
from mtframe.balance import MGDA, CAGrad, GradNorm, ImtlG, UPGrad
from mtframe.gradients import GradientEngine
from mtframe.gradients._gram import gram_matrix
from mtframe.kinds import FeatureSpec
from mtframe.model import Layers, MultiTaskModel, Network
from mtframe.recipe import Recipe
from mtframe.training import Trainer
from toy import toy_recipe

TASKS = ("faces", "objects", "scenes")
COUNTS = {"faces": 2, "objects": 3, "scenes": 1}


class Backbone(nn.Module):
    """A timm model, small, whose stages are its modules."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        self.net = timm.create_model(name, features_only=True, **options)
        info = self.net.feature_info
        self.features = tuple(
            FeatureSpec(str(i), channels, stride)
            for i, (channels, stride) in enumerate(zip(info.channels(), info.reduction(), strict=True))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = zip(self.net(images), self.features, strict=True)
        return [m if m.shape[1] == feature.channels else m.permute(0, 3, 1, 2) for m, feature in maps]


class Staged(nn.Module):
    """Convolutions with what follows them, in two stages."""

    stages = (("stem",), ("body",))

    def __init__(self, norm: Any = lambda width: nn.GroupNorm(2, width)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), norm(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 2, dilation=2, groups=4), norm(8), nn.GELU())
        self.features = (FeatureSpec("stem", 8, 2), FeatureSpec("body", 8, 4))

    def forward(self, images: Tensor) -> list[Tensor]:
        stem = self.stem(images)
        return [stem, self.body(stem)]


class Head(nn.Module):
    """Two numbers of every map's mean."""

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__()
        self.linear = nn.Linear(sum(f.channels for f in features), 2)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"values": self.linear(torch.cat([m.flatten(2).mean(2) for m in maps], 1))}


class Loss(nn.Module):
    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"square": (outputs["values"] - targets["values"]).square().mean()}


class Weigh:
    """Given weights, and what it was given."""

    def __init__(self, *weights: float, **attributes: Any) -> None:
        self.weights = weights
        vars(self).update(attributes)

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        self.gram, self.losses = gram, losses
        return torch.tensor(self.weights, dtype=torch.float64)


class Step:
    """A model with a batch a task."""

    def __init__(
        self, backbone: nn.Module, *, size: int = 32, lenders: Mapping[str, str] | None = None, double: bool = True,
        sharing: Any = Network, counts: Mapping[str, int] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        torch.manual_seed(0)
        counts = counts or COUNTS
        self.lenders = dict(lenders or {})
        tasks = (*counts, *self.lenders)
        shared = sharing(backbone, [tuple(tasks)], **options)
        heads = {task: Head(shared.features) for task in tasks}
        self.model = MultiTaskModel(shared, heads, {task: Loss() for task in tasks}, mean=(0.5,) * 3, std=(0.3,) * 3)
        self.model.to(torch.float64 if double else torch.float32).train()
        self.images = {task: torch.rand(n, 3, size, size) * 255 for task, n in counts.items()}
        self.targets = {task: {"values": 3 * torch.randn(counts[self.lenders.get(task, task)], 2)} for task in tasks}
        for parameter in self.model.parameters():
            # Layer scales and biases that start at 0 would hide mistakes.
            parameter.data += 0.1 * torch.randn_like(parameter)

    def losses(self) -> dict[str, Tensor]:
        torch.manual_seed(1)  # stochastic depth
        outputs = self.model(self.images, self.lenders)
        return {task: self.model.loss(task, outputs[task], self.targets[task])["square"] for task in outputs}

    @property
    def shared(self) -> dict[str, nn.Parameter]:
        return GradientEngine(self.model).shared_parameters()

    def expected(self) -> dict[str, dict[str, Tensor]]:
        """By autograd, from each task's own loss."""
        losses, shared = self.losses(), self.shared
        found = {}
        for task, loss in losses.items():
            values = torch.autograd.grad(loss, list(shared.values()), retain_graph=True, materialize_grads=True)
            found[task] = dict(zip(shared, values, strict=True))
        return found

    def found(self) -> dict[str, dict[str, Tensor]]:
        """By the engine, which must not have fallen back to a pass a task."""
        engine = GradientEngine(self.model)
        _, gradients = engine.gradients(self.images, self.lenders, self.losses)
        self.fallbacks = [reason for reason in engine._tried.values() if reason is not None]
        return {
            task: {n: torch.zeros_like(self.shared[n]) if g is None else g for n, g in of_task.items()}
            for task, of_task in gradients.items()
        }


def assert_same(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    assert found.keys() == expected.keys()
    for task, of_task in expected.items():
        for name, gradient in of_task.items():
            off = (found[task][name] - gradient).abs().max()
            assert off <= tolerance * max(1.0, gradient.abs().max()), (task, name, off)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


ROWS_APART = {
    "resnetv2_50x1_bit.goog_in21k": {"out_indices": (0, 1)},  # standardised weights, GroupNorm
    "convnext_atto.d2_in1k": {"drop_path_rate": 0.2},  # layer scale, grouped convolutions
    "vit_tiny_patch16_224": {"img_size": 32},  # position embedding, class token
    "swin_tiny_patch4_window7_224": {"img_size": 32, "out_indices": (0, 1)},  # windows, tables of relative positions
}
JOINT_STATISTICS = {
    "resnet18.a1_in1k": {},
    "resnetv2_18d.ra4_e3600_r224_in1k": {},
    "mobilenetv3_small_050": {},  # squeeze and excite, hard activations
    "efficientnet_lite0": {},
}


@pytest.mark.parametrize("name", ROWS_APART)
def test_without_batchnorm_it_is_the_gradient_of_each_tasks_own_loss(name: str) -> None:
    step = Step(Backbone(name, **ROWS_APART[name]))
    assert_same(step.found(), step.expected())
    assert step.fallbacks == []


def batch_norm_that_responds_to_own_images(
    x: Tensor, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Of the value of F.batch_norm; its mean and variance have the derivative of those of each task's own images."""
    assert training
    axes = (0, *range(2, x.dim()))
    mean = x.detach().mean(axes, keepdim=True)
    variance = x.detach().var(axes, False, keepdim=True)
    parts = []
    for part in x.split([len(x) // sum(COUNTS.values()) * count for count in COUNTS.values()]):
        own_mean, own_variance = part.mean(axes, keepdim=True), (part - mean).square().mean(axes, keepdim=True)
        moving = variance + own_variance - own_variance.detach()
        parts.append((part - mean - own_mean + own_mean.detach()) / (moving + eps).sqrt())
    shape = (1, -1) + (1,) * (x.dim() - 2)
    normalised = torch.cat(parts)
    return normalised if weight is None else normalised * weight.view(shape) + bias.view(shape)


@pytest.mark.parametrize("name", JOINT_STATISTICS)
def test_with_batchnorm_statistics_respond_to_each_task_s_own_images(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Step(Backbone(name, **JOINT_STATISTICS[name]))
    found = step.found()
    assert step.fallbacks == []
    monkeypatch.setattr("torch.nn.functional.batch_norm", batch_norm_that_responds_to_own_images)
    assert_same(found, step.expected(), 1e-9)


@pytest.mark.parametrize("way", ["without", "fixed"])
def test_batchnorm_whose_weights_are_not_trained_responds_alike(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(Staged(norm=lambda width: nn.BatchNorm2d(width, affine=way == "fixed")))
    for module in step.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    found = step.found()
    assert step.fallbacks == []
    monkeypatch.setattr("torch.nn.functional.batch_norm", batch_norm_that_responds_to_own_images)
    assert_same(found, step.expected(), 1e-9)


def test_joint_statistics_are_moved_once_and_as_in_the_plain_pass() -> None:
    step = Step(Staged(norm=nn.BatchNorm2d))
    plain = deepcopy(step)
    step.found()
    plain.losses()
    assert all(torch.equal(a, b) for a, b in zip(step.model.buffers(), plain.model.buffers(), strict=True))


@pytest.mark.parametrize("name", ["resnetv2_18d.ra4_e3600_r224_in1k", "mobilenetv3_small_050"])
def test_with_fixed_statistics_batchnorm_tells_tasks_apart_exactly(name: str) -> None:
    step = Step(Backbone(name), batchnorm="frozen")
    assert_same(step.found(), step.expected(), 1e-9)
    assert step.fallbacks == []


def test_a_task_gets_of_batchnorm_what_its_own_rows_contribute() -> None:
    """γ and β of the last layer by hand: sums over a task's rows of dy·x̂ and of dy."""
    step = Step(Staged(norm=nn.BatchNorm2d))
    kept: dict[str, Tensor] = {}
    norm = step.model.sharing.backbone.body[1]

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        x = inputs[0]
        kept["x"] = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), False, keepdim=True) + 1e-5).sqrt()
        output.register_hook(lambda dy: kept.update(dy=dy))

    handle = norm.register_forward_hook(keep)
    sum(step.losses().values()).backward()
    handle.remove()
    found, first = step.found(), 0
    for task, count in COUNTS.items():
        dy, x = (kept[name][first : first + count] for name in ("dy", "x"))
        first += count
        torch.testing.assert_close(found[task]["backbone.body.1.weight"], (dy * x).sum((0, 2, 3)))
        torch.testing.assert_close(found[task]["backbone.body.1.bias"], dy.sum((0, 2, 3)))


def test_torchjd_finds_the_same_jacobian() -> None:
    autojac = pytest.importorskip("torchjd.autojac", reason="TorchJD is not installed")
    # One map: of several that are made of each other TorchJD counts the earlier ones twice.
    step = Step(Backbone("convnext_atto.d2_in1k", out_indices=(3,)))
    found, model = step.found(), step.model
    joint = torch.cat([model._normalised(pixels) for pixels in step.images.values()])
    maps = model.sharing.backbone(joint)
    parts = zip(*(m.split(list(COUNTS.values())) for m in maps), strict=True)
    losses = [
        model.loss(task, model.heads[task](part), step.targets[task])["square"]
        for task, part in zip(TASKS, parts, strict=True)
    ]
    autojac.mtl_backward(losses, features=maps, retain_graph=True)
    for row, task in enumerate(TASKS):
        assert_same({task: found[task]}, {task: {name: p.jac[row] for name, p in step.shared.items()}})


def engine_step(step: Step, balancer: Any, **options: Any) -> dict[str, Tensor | None]:
    """The gradients that it leaves."""
    GradientEngine(step.model).backward(step.images, step.lenders, step.losses, balancer, **options)
    return {name: p.grad for name, p in step.model.named_parameters()}


def test_balancers_get_the_gram_matrix_and_the_losses_and_heads_keep_their_own_gradient() -> None:
    step, balancer = Step(Staged()), Weigh(0.5, 2.0, 3.0)
    expected, losses = step.expected(), step.losses()
    sum(losses.values()).backward()
    own = {n: p.grad.clone() for n, p in step.model.named_parameters() if not n.startswith("sharing")}
    step.model.zero_grad()
    gradients = engine_step(step, balancer)
    rows = torch.stack([torch.cat([g.flatten() for g in expected[task].values()]) for task in TASKS])
    torch.testing.assert_close(balancer.gram, rows @ rows.T, rtol=1e-10, atol=0)
    torch.testing.assert_close(balancer.losses, torch.stack([losses[task] for task in TASKS]).detach())
    assert not balancer.losses.requires_grad
    for name in step.shared:
        wanted = 0.5 * expected["faces"][name] + 2 * expected["objects"][name] + 3 * expected["scenes"][name]
        torch.testing.assert_close(gradients[f"sharing.{name}"], wanted, rtol=1e-9, atol=1e-12)
    for name, gradient in own.items():
        torch.testing.assert_close(gradients[name], gradient)


def test_heads_are_weighed_where_the_balancer_says_so_and_what_was_there_is_not() -> None:
    step = Step(Staged())
    plain = engine_step(step, Weigh(1.0, 1.0, 1.0))
    before = {name: gradient.clone() for name, gradient in plain.items()}
    both = engine_step(step, Weigh(0.5, 2.0, 3.0, weighs_heads=True))
    for task, weight in zip(TASKS, (0.5, 2.0, 3.0), strict=True):
        name = f"heads.{task}.linear.weight"
        torch.testing.assert_close(both[name], before[name] * (1 + weight))


class KeepFirst:
    """Combines gradients: the first task's, and the loss of the second as a number everywhere."""

    def combine(self, gradients: Tensor, losses: Tensor) -> Tensor:
        return gradients[0] + losses[1]


def test_a_balancer_may_combine_the_gradients_themselves() -> None:
    step = Step(Staged())
    expected, losses = step.expected(), step.losses()
    gradients = engine_step(step, KeepFirst())
    for name in step.shared:
        wanted = expected["faces"][name] + losses["objects"].detach()
        torch.testing.assert_close(gradients[f"sharing.{name}"], wanted, rtol=1e-9, atol=1e-12)


def test_accumulated_batches_add_up_and_the_balancer_sees_them_undivided() -> None:
    step, balancer = Step(Staged()), Weigh(0.5, 2.0, 3.0)
    whole = {name: gradient.clone() for name, gradient in engine_step(step, balancer).items()}
    gram = balancer.gram
    step.model.zero_grad()
    for _ in range(4):
        parts = engine_step(step, balancer, divide=4)
    torch.testing.assert_close(balancer.gram, gram)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient)


def test_frozen_stages_get_no_gradient_and_do_not_count() -> None:
    step, balancer = Step(Staged()), Weigh(1.0, 1.0, 1.0)
    for parameter in step.model.sharing.backbone.stem.parameters():
        parameter.requires_grad_(False)
    assert_same(step.found(), step.expected())
    assert step.fallbacks == []
    gradients = engine_step(step, balancer)
    assert gradients["sharing.backbone.stem.0.weight"] is None
    assert all(name.startswith("backbone.body") for name in step.shared)


@pytest.mark.parametrize("batchnorm", [False, True])
def test_channels_last_and_bf16_agree_with_the_plain_pass(batchnorm: bool) -> None:
    # With BatchNorm weights of one are the plain sum for a single task's images.
    counts = {"faces": 4} if batchnorm else COUNTS
    lenders = {"people": "faces", "mood": "faces"} if batchnorm else {}
    for norm in (nn.BatchNorm2d if batchnorm else lambda width: nn.GroupNorm(2, width),):
        step = Step(Staged(norm), double=False, counts=counts, lenders=lenders)
        for parameter in step.model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        images = {t: v.contiguous(memory_format=torch.channels_last) for t, v in step.images.items()}
        step.images = images
        for enabled in (False, True):
            step.model.zero_grad()

            def losses(step: Step = step, enabled: bool = enabled) -> dict[str, Tensor]:
                with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                    return step.losses()

            plain = losses()
            sum(plain.values()).backward()
            wanted = {name: p.grad.clone() for name, p in step.model.named_parameters()}
            step.model.zero_grad()
            engine = GradientEngine(step.model)
            balancer = Weigh(1.0, 1.0, 1.0)
            engine.backward(images, lenders, losses, balancer)
            assert list(engine._tried.values()) == [None]
            assert balancer.losses.tolist() == [loss.item() for loss in plain.values()]
            largest = max(gradient.norm() for gradient in wanted.values())
            for name, parameter in step.model.named_parameters():
                assert parameter.grad.dtype == torch.float32
                assert parameter.grad.stride() == wanted[name].stride()
                # A bias before BatchNorm has a gradient of rounding errors.
                off = (parameter.grad - wanted[name]).norm() / wanted[name].norm().clamp_min(0.1 * largest)
                assert off < (4e-2 if enabled else 1e-4), (name, off)


def test_clipping_and_an_optimiser_work_on_it() -> None:
    step = Step(Staged())
    gradients = engine_step(step, Weigh(1.0, 1.0, 1.0))
    norm = nn.utils.clip_grad_norm_(step.model.parameters(), 1e-3)
    assert norm > 1e-3
    total = sum(gradient.square().sum() for gradient in gradients.values() if gradient is not None).sqrt()
    torch.testing.assert_close(total, torch.tensor(1e-3, dtype=torch.float64), rtol=1e-4, atol=0)
    torch.optim.AdamW(step.model.parameters(), fused=True).step()


def test_tasks_on_the_same_images_share_one_forward_pass() -> None:
    step = Step(Staged(), lenders={"people": "objects", "mood": "objects", "age": "faces"})
    passes: list[int] = []
    step.model.sharing.backbone.register_forward_hook(
        lambda module, inputs, output: passes.append(0) if module.training else None
    )
    expected = step.expected()
    engine = GradientEngine(step.model)
    # The first time there are trial passes, too.
    engine.gradients(step.images, step.lenders, step.losses)
    passes.clear()
    _, found = engine.gradients(step.images, step.lenders, step.losses)
    assert passes == [0]
    assert_same({task: found[task] for task in expected}, expected)
    assert all(reason is None for reason in engine._tried.values())


def test_balancing_at_the_maps_takes_one_backward_pass_through_the_backbone() -> None:
    step, balancer = Step(Staged(), lenders={"people": "objects"}), Weigh(0.5, 2.0, 3.0, 4.0)
    backward: list[int] = []
    expected = step.expected()

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.register_hook(lambda gradient: backward.append(0))

    step.model.sharing.backbone.stem[0].register_forward_hook(count)
    gradients = engine_step(step, balancer, at="maps")
    assert backward == [0]
    weights = dict(zip(expected, balancer.weights, strict=True))
    for name in step.shared:
        wanted = sum(weight * expected[task][name] for task, weight in weights.items())
        torch.testing.assert_close(gradients[f"sharing.{name}"], wanted, rtol=1e-9, atol=1e-12)
    # objects and people see the same maps; all others have their own.
    zero = balancer.gram == 0
    off = ~torch.eye(4, dtype=torch.bool)
    off[1, 3] = off[3, 1] = False
    assert torch.equal(zero, off)


def test_tasks_that_share_layers_keep_the_rest_to_themselves() -> None:
    step = Step(Staged(), sharing=Layers, shared=1, lenders={"people": "objects"})
    expected = step.expected()
    assert set(step.shared) == {f"trunk.stem.{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias")}
    sum(step.losses().values()).backward()
    own = {n: p.grad.clone() for n, p in step.model.named_parameters() if "branches" in n}
    step.model.zero_grad()
    assert_same(step.found(), expected)
    assert step.fallbacks == []
    for name, gradient in own.items():
        torch.testing.assert_close(step.model.get_parameter(name).grad, gradient)


def test_a_step_of_one_task_is_not_balanced() -> None:
    step, balancer = Step(Staged(), counts={"faces": 2}), Weigh()
    expected = step.expected()
    gradients = engine_step(step, balancer)
    for name in step.shared:
        torch.testing.assert_close(gradients[f"sharing.{name}"], expected["faces"][name])
    assert not hasattr(balancer, "gram")


class Transposed(Staged):
    """Has a layer that sees the places of an image first, and the images second."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 8)

    def forward(self, images: Tensor) -> list[Tensor]:
        stem, body = super().forward(images)
        places = self.mix(body.flatten(2).permute(2, 0, 1))
        return [stem, body + places.permute(1, 2, 0).reshape(body.shape)]


class Silent(nn.Module):
    """A sharing scheme that does not say whose rows it passes."""

    def __init__(self, backbone: nn.Module, groups: Any) -> None:
        super().__init__()
        self.backbone, self.features = backbone, backbone.features

    def forward(self, images: Mapping[str, Tensor], lenders: Any = None) -> dict[str, list[Tensor]]:
        return {task: self.backbone(own) for task, own in images.items()}


class Mixing(Staged):
    """Mixes images, in training only."""

    def forward(self, images: Tensor) -> list[Tensor]:
        stem, body = super().forward(images)
        return [stem, body + body.roll(1, 0) if self.training else body]


class Scale(torch.autograd.Function):
    """A product with a backward pass of its own, which sees no stand-ins."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return x * scale

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, scale = ctx.saved_tensors
        return dy * scale, (dy * x).sum((0, 2, 3), keepdim=True)


class Scaled(Staged):
    """Has a parameter that is used in a way which is not seen."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.scale = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.kept = [self.scale]

    def forward(self, images: Tensor) -> list[Tensor]:
        stem, body = super().forward(images)
        return [stem, body * self.kept[0] if self.way == "alias" else Scale.apply(body, self.scale)]


class Recomputed(Staged):
    """Forgets activations and computes them again in the backward pass, where nobody says whose rows they are."""

    def forward(self, images: Tensor) -> list[Tensor]:
        stem = self.stem(images)
        return [stem, checkpoint(self.body, stem, use_reentrant=False)]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"backbone": Mixing()}, "the maps of objects depend on the images of faces"),
        ({"backbone": Scaled("alias")}, "backbone.scale is used past its module"),
        ({"backbone": Scaled("function")}, "backbone.scale is used past its module"),
        ({"backbone": Recomputed()}, "CheckpointError"),
        ({"backbone": Transposed()}, "backbone.mix.weight: linear gets"),
        ({"backbone": Staged(), "sharing": Silent}, "does not say whose rows"),
    ],
)
def test_what_rows_do_not_tell_apart_is_exact_slower_and_said_once(
    parts: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    # 36 places, a multiple of 6 images: only the trial run can know.
    step = Step(**parts, size=20)
    engine = GradientEngine(step.model)
    with caplog.at_level(logging.WARNING, "mtframe"):
        for _ in range(2):
            _, found = engine.gradients(step.images, {}, step.losses)
    assert_same(found, step.expected())
    assert [reason in record.message for record in caplog.records] == [True]


def test_a_compiled_backbone_gives_the_same() -> None:
    step = Step(Staged())
    expected = step.expected()
    step.model.sharing.backbone = torch.compile(step.model.sharing.backbone, backend="aot_eager")
    found = step.found()
    assert step.fallbacks == []
    assert_same({t: {n.replace("_orig_mod.", ""): g for n, g in of.items()} for t, of in found.items()}, expected)


class Ones:
    """Weighs nothing; says which tasks each step had."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.present: tuple[str, ...] = ()
        self.steps: list[tuple[str, ...]] = []

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        self.steps.append(self.present)
        return torch.ones(len(gram), dtype=torch.float64)


@pytest.mark.parametrize("schedule", ["joint", "round-robin"])
def test_training_with_weights_of_one_is_training_with_the_sum(tmp_path: Path, schedule: str) -> None:
    losses = {}
    for balancer in ("sum", f"{Path(__file__).resolve()}:Ones"):
        # The toy has BatchNorm.
        exact = balancer != "sum"
        recipe = toy_recipe(steps=8, accumulate=2, schedule=schedule, exact_gradients=exact) | {"balancer": balancer}
        trainer = Trainer(Assembly(Recipe.from_plain(recipe)), tmp_path / balancer[-4:])
        trainer.fit()
        rows = (tmp_path / balancer[-4:] / "metrics.csv").read_text(encoding="utf-8").splitlines()
        keys = rows[0].split(",")
        losses[balancer] = [
            [float(v or "nan") for k, v in zip(keys, row.split(","), strict=True) if "/cross" in k] for row in rows[1:]
        ]
    torch.testing.assert_close(*map(torch.tensor, losses.values()), rtol=1e-4, atol=1e-5, equal_nan=True)
    # Once a step: of tasks that take turns, a step of two batches has both.
    assert trainer.parts.balancer.steps == [("one", "two")] * 8


def halves(step: Step) -> Iterator[tuple[dict[str, Tensor], Callable[[], dict[str, Tensor]]]]:
    """A step's images in two batches of half the size, each with what gives its losses."""
    for half in (0, 1):

        def part(rows: Tensor, half: int = half) -> Tensor:
            return rows.chunk(2)[half]

        images = {task: part(pixels) for task, pixels in step.images.items()}

        def losses(images: dict[str, Tensor] = images, part: Callable[[Tensor], Tensor] = part) -> dict[str, Tensor]:
            outputs = step.model(images, {})
            return {
                task: step.model.loss(task, found, {"values": part(step.targets[task]["values"])})["square"]
                for task, found in outputs.items()
            }

        yield images, losses


class Rooted:
    """Makes one gradient of all, which is no weighing of them."""

    def combine(self, gradients: Tensor, losses: Tensor) -> Tensor:
        return gradients.abs().sum(0).sqrt() * losses.sum()


class Observed:
    """Keeps what an observer is given."""

    def __init__(self) -> None:
        self.kept: list[tuple[Mapping[str, Any], Mapping[str, float]]] = []

    def add(self, gradients: Mapping[str, Any], weights: Mapping[str, float]) -> None:
        self.kept.append((gradients, weights))


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("balancer", [MGDA, CAGrad, UPGrad, ImtlG, lambda: GradNorm(TASKS), Rooted])
def test_accumulated_batches_are_balanced_as_one_batch_of_all_images(balancer: Any, observed: bool) -> None:
    # Nothing mixes images here, and losses are means over them: two halves and the whole are the same step.
    step, observer = Step(Staged(), counts=dict.fromkeys(TASKS, 4)), Observed() if observed else None
    whole = engine_step(step, balancer(), observer=observer)
    step.model.zero_grad()
    with GradientEngine(step.model).step(balancer(), divide=2, observer=observer) as gradients:
        for images, losses in halves(step):
            gradients.backward(images, {}, losses)
    for name, parameter in step.model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-7, atol=1e-10)
    if observer is not None:
        (one, weights), (two, same) = observer.kept
        assert same == pytest.approx(weights, rel=1e-6)
        for task in TASKS:
            for name, gradient in one[task].items():
                torch.testing.assert_close(two[task][name], gradient, rtol=1e-9, atol=1e-12)


def test_at_the_maps_each_batch_is_balanced() -> None:
    step = Step(Staged(), counts=dict.fromkeys(TASKS, 4))
    with GradientEngine(step.model).step(MGDA(), at="maps", divide=2) as gradients:
        for images, losses in halves(step):
            gradients.backward(images, {}, losses)
    found = {name: p.grad for name, p in step.model.named_parameters()}
    step.model.zero_grad()
    for images, losses in halves(step):
        GradientEngine(step.model).backward(images, {}, losses, MGDA(), at="maps", divide=2)
    for name, parameter in step.model.named_parameters():
        torch.testing.assert_close(parameter.grad, found[name])


def test_tasks_that_take_turns_within_a_step_are_balanced_at_its_end() -> None:
    step, balancer = Step(Staged()), Weigh(0.5, 2.0, 3.0)
    expected, values = step.expected(), step.losses()
    with GradientEngine(step.model).step(balancer, divide=4) as gradients:
        # In another order than the balancer's, and one of them twice.
        for task in ("scenes", "objects", "faces", "objects"):

            def losses(task: str = task) -> dict[str, Tensor]:
                outputs = step.model({task: step.images[task]})
                return {task: step.model.loss(task, outputs[task], step.targets[task])["square"]}

            gradients.backward({task: step.images[task]}, {}, losses)
    torch.testing.assert_close(balancer.losses, torch.stack([values[task] for task in TASKS]).detach())
    # The mean over the batches: ¼ of the gradient of faces and scenes, ½ of that of objects.
    rows = torch.stack([torch.cat([g.flatten() for g in expected[task].values()]) for task in TASKS])
    rows *= torch.tensor([[0.25], [0.5], [0.25]])
    torch.testing.assert_close(balancer.gram, rows @ rows.T, rtol=1e-9, atol=0)
    for name in step.shared:
        faces, objects, scenes = (expected[task][name] for task in ("faces", "objects", "scenes"))
        wanted = 0.5 * faces / 4 + 2 * objects / 2 + 3 * scenes / 4
        torch.testing.assert_close(step.shared[name].grad, wanted, rtol=1e-9, atol=1e-12)


def test_heads_are_weighed_once_a_step() -> None:
    step = Step(Staged(), counts=dict.fromkeys(TASKS, 4))
    plain = engine_step(step, Weigh(1.0, 1.0, 1.0))
    step.model.zero_grad()
    with GradientEngine(step.model).step(Weigh(0.5, 2.0, 3.0, weighs_heads=True), divide=2) as gradients:
        for images, losses in halves(step):
            gradients.backward(images, {}, losses)
    for task, weight in zip(TASKS, (0.5, 2.0, 3.0), strict=True):
        for name, parameter in step.model.heads[task].named_parameters():
            before = plain[f"heads.{task}.{name}"]
            torch.testing.assert_close(parameter.grad, weight * before, rtol=1e-9, atol=1e-12)


def test_parameters_are_the_models_own_again_after_a_step_that_failed() -> None:
    step = Step(Staged())
    before = dict(step.model.named_parameters())

    def failing() -> dict[str, Tensor]:
        step.losses()
        raise ValueError("made to fail")

    with pytest.raises(ValueError, match="made to fail"):
        GradientEngine(step.model).gradients(step.images, {}, failing)
    after = dict(step.model.named_parameters())
    assert list(before) == list(after)
    assert all(after[name] is value for name, value in before.items())


def test_the_gram_matrix_of_gradients_that_some_tasks_do_not_have() -> None:
    a, b = torch.randn(300_000), torch.randn(2, 3)
    gram = gram_matrix([{"a": a, "b": b}, {"a": None, "b": 2 * b}, {"a": -a, "b": None}])
    aa, bb = a.double().square().sum(), b.double().square().sum()
    expected = torch.stack([aa + bb, 2 * bb, -aa, 2 * bb, 4 * bb, 0 * aa, -aa, 0 * aa, aa]).view(3, 3)
    torch.testing.assert_close(gram, expected, rtol=1e-5, atol=1e-5)


def test_with_batchnorm_a_second_task_on_some_images_has_a_gradient_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(Staged(nn.BatchNorm2d), lenders={"attributes": "faces"})
    found = step.found()
    monkeypatch.setattr("torch.nn.functional.batch_norm", batch_norm_that_responds_to_own_images)
    assert_same(found, step.expected(), 1e-9)


def test_exact_gradients_with_batchnorm_are_those_of_the_losses() -> None:
    step = Step(Staged(nn.BatchNorm2d))
    expected = step.expected()
    _, exact = GradientEngine(step.model, exact=True).gradients(step.images, step.lenders, step.losses)
    assert_same(exact, expected)
    # By rows they are near, and not the same.
    for task, of_task in step.found().items():
        near, own = (torch.cat([g.flatten() for g in each.values()]) for each in (of_task, expected[task]))
        assert 0.5 < torch.cosine_similarity(near, own, dim=0) < 1 - 1e-6


def test_without_batchnorm_exact_gradients_cost_nothing() -> None:
    step = Step(Staged())
    backward: list[int] = []

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: backward.append(0))

    engine = GradientEngine(step.model, exact=True)
    engine.gradients(step.images, step.lenders, step.losses)
    step.model.sharing.backbone.stem[0].register_forward_hook(count)
    engine.gradients(step.images, step.lenders, step.losses)
    assert backward == [0]


class Lengths:
    """Adds gradients, and notes how long they were."""

    def combine(self, gradients: Tensor, losses: Tensor) -> Tensor:
        self.seen = gradients.norm(dim=1).tolist()
        return gradients.sum(0)


def test_what_combines_gradients_sees_them_undivided() -> None:
    first, second = Lengths(), Lengths()
    whole = {n: g.clone() for n, g in engine_step(Step(Staged()), first).items() if g is not None}
    parts = engine_step(Step(Staged()), second, divide=4)
    assert second.seen == pytest.approx(first.seen)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient / 4)
