"""The article's networks as plugins: sizes that fit by themselves, and heads that are trained."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torchvision.ops import generalized_box_iou

from command import mtframe
from mtframe.assembly import Assembly
from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.recipe import assemble_recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from mtframe_tutorial.backbone import SharedNetwork
from mtframe_tutorial.detector import DetectorLoss, GridDetector, assign
from mtframe_tutorial.face import FaceClassifier, FaceLoss
from small import Small

PEOPLE = DataInfo("identity", ("Ada", "Ben", "Cleo"))
THINGS = DataInfo("boxes", ("cup", "dog"))
NONE = torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool)


def boxes(*rows: tuple[float, float, float, float], label: int = 0) -> dict[str, torch.Tensor]:
    count = len(rows)
    return {
        "boxes": torch.tensor(rows, dtype=torch.float32).reshape(1, count, 4),
        "labels": torch.full((1, count), label),
        "valid": torch.ones(1, count, dtype=torch.bool),
        "ignore": NONE[0],
        "ignore_valid": NONE[1],
    }


def detector(**options) -> GridDetector:
    return GridDetector((FeatureSpec("a", 3, 4), FeatureSpec("b", 5, 8)), THINGS, **options)


def whole(size: int, count: int = 1) -> torch.Tensor:
    return torch.tensor([[0.0, 0, size, size]] * count)


@pytest.mark.parametrize("widths", [(32, 64, 128, 256), (4, 6), (8, 8, 8)])
def test_the_shared_network_gives_what_it_declares_each_parameter_in_one_stage(widths: tuple[int, ...]) -> None:
    network = SharedNetwork(32, widths=widths)
    maps = network(torch.randn(2, 3, 32, 48))
    assert [feature.stride for feature in network.features] == [2**n for n in range(2, len(widths) + 1)]
    for feature_map, feature in zip(maps, network.features, strict=True):
        assert feature_map.shape == (2, feature.channels, 32 // feature.stride, 48 // feature.stride)
    for name, _ in network.named_parameters():
        assert sum(name.startswith(f"{prefix}.") for stage in network.stages for prefix in stage) == 1
    assert len(network.stages) == len(widths)


def test_its_statistics_are_each_images_own() -> None:
    network = SharedNetwork(16, widths=(8, 16))
    images = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(network(images)[0][:1], network(images[:1])[0])
    assert list(network.buffers()) == []


def test_wrong_widths() -> None:
    with pytest.raises(RecipeError, match=r"widths: must be two or more numbers of channels, got \[8\]"):
        SharedNetwork(32, widths=(8,))
    with pytest.raises(RecipeError, match="got"):
        SharedNetwork(32, widths=(8, 0))


def test_more_stages_than_the_size_can_be_halved_are_refused_and_what_fits_is_said() -> None:
    network = SharedNetwork(64, widths=(4,) * 6)
    assert network(torch.randn(1, 3, 64, 64))[-1].shape == (1, 4, 1, 1)
    message = "widths: 6 stages halve images of 63 px to nothing; give up to 5 widths, or images of 64 px or more"
    with pytest.raises(RecipeError, match=message):
        SharedNetwork(63, widths=(4,) * 6)
    # Of another task, or at another scale in evaluation.
    with pytest.raises(RecipeError, match="6 stages halve images of 32 px to nothing; give up to 5 widths"):
        network(torch.randn(1, 3, 64, 32))


def test_the_size_that_the_tasks_ask_for_reaches_it(small: Small) -> None:
    made = recipe(small, "backbone.widths=[4,4,4,4,4,4]", "tasks.faces.size=32", "tasks.objects.size=32")
    with pytest.raises(RecipeError, match="images of 32 px to nothing; give up to 5 widths, or images of 64 px"):
        Assembly(made).model()


def test_the_face_head_fits_any_map_and_any_number_of_people() -> None:
    head = FaceClassifier((FeatureSpec("a", 5, 8),), PEOPLE, dim=6, grid=2)
    outputs = head([torch.randn(2, 5, 7, 3)])
    assert outputs["logits"].shape == (2, 3)
    (one, two) = head.predict(outputs, whole(56, 2))
    assert one["embedding"].shape == (6,)
    assert one["embedding"].norm().item() == pytest.approx(1)
    assert not torch.equal(one["embedding"], two["embedding"])
    with pytest.raises(RecipeError, match="tutorial-face: BatchNorm needs 2 images or more in a step, got 1"):
        head([torch.randn(1, 5, 7, 3)])
    assert head.eval()([torch.randn(1, 5, 7, 3)])["embedding"].shape == (1, 6)
    with pytest.raises(RecipeError, match="grid: must be 1 or more, got 0"):
        FaceClassifier((FeatureSpec("a", 5, 8),), PEOPLE, grid=0)


def test_the_face_loss_is_cross_entropy_over_those_who_are_known() -> None:
    loss, outputs = FaceLoss(), {"logits": torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])}
    assert loss(outputs, {"label": torch.tensor([1, -1])})["identity"].item() == pytest.approx(math.log(3))
    both = loss(outputs, {"label": torch.tensor([1, 1])})["identity"].item()
    assert both == pytest.approx((math.log(3) + math.log(math.exp(9) + 2)) / 2, rel=1e-5)
    assert loss(outputs, {"label": torch.tensor([-1, -1])})["identity"].item() == 0


def test_cells_show_the_smallest_box_in_whose_inner_half_they_lie() -> None:
    centres = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0], [28.0, 4.0]])
    # The first is 32 wide: its inner half goes from 8 to 24. The second is narrower than a cell; its middle is in
    # the third.
    wanted = torch.tensor([[[0.0, 0.0, 32.0, 8.0], [18.0, 3.0, 20.0, 5.0], [0.0, 0.0, 8.0, 8.0]]])
    valid = torch.tensor([[True, True, False]])
    assert assign(centres, wanted, valid, 8).tolist() == [[-1, 0, 1, -1]]
    # A small thing at the edge of its cell is that cell's all the same.
    edge = torch.tensor([[[22.0, 0.5, 24.8, 1.5]]])
    assert assign(centres, edge, valid[:, :1], 8).tolist() == [[-1, -1, 0, -1]]
    assert assign(centres, wanted[:, :0], valid[:, :0], 8).tolist() == [[-1] * 4]


def test_the_detectors_first_box_of_a_cell_is_around_it() -> None:
    head = detector()
    torch.nn.init.zeros_(head.box.weight)
    torch.nn.init.zeros_(head.box.bias)
    outputs = head([torch.zeros(1, 3, 4, 6), torch.zeros(1, 5, 2, 3)])
    assert outputs["logits"].shape == (1, 6, 3)
    assert outputs["centres"].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert outputs["boxes"][0, 4].tolist() == [4, 4, 20, 20]


def test_the_detectors_loss_is_cross_entropy_and_one_minus_giou() -> None:
    head = detector()
    centres = torch.tensor([[4.0, 4.0], [12.0, 4.0]])
    predicted = torch.tensor([[[0.0, 0.0, 8.0, 4.0], [90.0, 90.0, 99.0, 99.0]]])
    logits = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    outputs = {"logits": logits, "boxes": predicted, "centres": centres}
    given = DetectorLoss(head, box_weight=3.0)(outputs, boxes((0, 0, 8, 8), label=1))
    right = -logits[0, 0].log_softmax(0)[1] - logits[0, 1].log_softmax(0)[2]
    assert given["class"].item() == pytest.approx(right.item(), rel=1e-5)
    giou = generalized_box_iou(predicted[0, :1], torch.tensor([[0.0, 0.0, 8.0, 8.0]])).item()
    assert given["box"].item() == pytest.approx(3 * (1 - giou), rel=1e-4)
    # A region to be ignored takes the background's part away, not that of a box.
    targets = boxes((0, 0, 8, 8), label=1)
    targets |= {"ignore": torch.tensor([[[0.0, 0.0, 16.0, 8.0]]]), "ignore_valid": torch.tensor([[True]])}
    ignored = DetectorLoss(head)(outputs, targets)["class"].item()
    assert ignored == pytest.approx(-logits[0, 0].log_softmax(0)[1].item(), rel=1e-5)


def test_images_without_anything_have_a_finite_loss_and_gradient() -> None:
    head = detector()
    maps = [torch.randn(1, 3, 4, 4), torch.randn(1, 5, 2, 2)]
    losses = DetectorLoss(head)(head(maps), boxes())
    sum(losses.values()).backward()
    assert losses["box"].item() == 0
    assert losses["class"].item() > 0
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters() if parameter.grad is not None)


def test_predictions_are_cut_to_the_image_and_overlaps_are_suppressed() -> None:
    head = detector(score_threshold=0.3)
    sure, unsure = [4.0, 0.0, 0.0], [0.0, 0.0, 9.0]
    outputs = {
        "logits": torch.tensor([[sure, [3.0, 0.0, 0.0], [0.0, 5.0, 0.0], unsure]]),
        "boxes": torch.tensor([[[2.0, 2, 10, 10], [2, 2, 10, 11], [2, 2, 10, 10], [0, 0, 4, 4]]]),
    }
    (found,) = head.predict(outputs, torch.tensor([[1.0, 0, 10, 8]]))
    assert found["labels"].tolist() == [1, 0]
    # What lies below the image is padding.
    assert found["boxes"].tolist() == [[2, 2, 10, 8]] * 2
    assert found["scores"].tolist() == pytest.approx([math.exp(5) / (math.exp(5) + 2), math.exp(4) / (math.exp(4) + 2)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 16}, "stride: must be one of the backbone's, 4, 8, got 16"),
        ({"width": 0}, "width: must be 1 or more, got 0"),
        ({"nms_iou": 2.0}, "nms_iou: must be 0 to 1, got 2"),
        ({"score_threshold": -1.0}, "score_threshold: must be 0 to 1, got -1"),
    ],
)
def test_wrong_options_of_the_detector(options: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        detector(**options)
    with pytest.raises(RecipeError, match="box_weight: must be 0 or more, got -1"):
        DetectorLoss(detector(), box_weight=-1.0)


def recipe(small: Small, *overrides: str):
    tasks = [f"faces=tutorial-faces:{small.faces}", f"objects=tutorial-objects:{small.objects}"]
    settings = ["tasks.faces.batch_size=4", "tasks.objects.batch_size=2", "train.steps=2", "train.workers=0",
                "train.precision=fp32", "train.ema=null", "train.evaluate_every=null"]  # fmt: skip
    return assemble_recipe("tutorial", tasks, [*settings, *overrides])


def test_everything_is_optimised_the_heads_too(small: Small, tmp_path: Path) -> None:
    """The article's mistake: its optimiser is given the shared network alone."""
    made = recipe(small, "train.weight_decay=0", "train.warmup=0")
    assembly = Assembly(made)
    trainer = Trainer(assembly, RunFolder(tmp_path / "run").create(made, assembly.infos))
    given = {id(weight) for group in trainer.optimizer.param_groups for weight in group["params"]}
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    assert {id(weight) for weight in trainer.model.parameters()} == given
    trainer.fit()
    unchanged = [name for name, weight in trainer.model.named_parameters() if torch.equal(weight, before[name])]
    assert unchanged == []


@pytest.mark.parametrize("sharing", ["network", "{name: layers, shared: 2}"])
@pytest.mark.parametrize("schedule", ["joint", "round-robin", "epochs"])
def test_both_algorithms_and_all_schedules_train(small: Small, tmp_path: Path, sharing: str, schedule: str) -> None:
    made = recipe(small, f"sharing={sharing}", f"train.schedule={schedule}", "train.steps=4")
    assembly = Assembly(made)
    results = Trainer(assembly, RunFolder(tmp_path / "run").create(made, assembly.infos)).fit()
    assert set(results) == {"faces", "objects"}


def test_it_predicts_from_the_command_line(small: Small, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert mtframe(
        "train", "-b", "tutorial", "-t", f"faces=tutorial-faces:{small.faces}", "-t",
        f"objects=tutorial-objects:{small.objects}", "train.steps=1", "train.workers=0", "--out", path,
    ).code == 0  # fmt: skip
    picture = next((small.objects / "val2017").glob("*.jpg"))
    result = mtframe("predict", path, picture, "--json")
    assert (result.code, result.err) == (0, "")
    assert '"embedding"' in result.out


def test_any_backbone_takes_the_articles_heads() -> None:
    from mtframe_timm.backbone import TimmBackbone

    backbone = TimmBackbone("test_resnet", 64, pretrained=False)
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert FaceClassifier(backbone.features, PEOPLE)(maps)["logits"].shape == (2, 3)
    assert GridDetector(backbone.features, THINGS)(maps)["boxes"].shape == (2, 64, 4)
