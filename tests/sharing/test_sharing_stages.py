"""Where stages end, and running a backbone a stage at a time."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from schemes import ChannelsLast
from torch import Tensor, nn

from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import StageEnd, Stagewise, stage_ends
from mtframe_sharing.adapters import Adapters
from mtframe_sharing.cross_stitch import CrossStitch
from mtframe_timm.backbone import TimmBackbone
from mtframe_torchvision.backbone import TorchvisionBackbone
from test_gradients import Staged


@pytest.mark.parametrize(
    ("member", "size", "ends"),
    [
        ("resnet18", 64, [("act1", 1, 64), *((f"layer{n}", 1, 32 << n) for n in (1, 2, 3, 4))]),
        ("convnext_atto", 64, [(f"stages_{n}", 1, 40 << n) for n in range(4)]),
        ("test_vit", 160, [*((f"blocks.{n}", -1, 64) for n in range(5)), ("norm", -1, 64)]),
        ("levit_128s", 224, [(f"stages.{n}", -1, c) for n, c in enumerate((128, 256, 384))]),
        ("mobilenetv3_small_050", 64,
         [("bn1", 1, 16), *((f"blocks.{n}", 1, c) for n, c in ((0, 8), (1, 16), (3, 24), (5, 288)))]),
    ],
)  # fmt: skip
def test_stages_of_real_backbones_end_with_their_maps(member: str, size: int, ends: list[tuple[str, int, int]]) -> None:
    found = stage_ends(TimmBackbone(member, size, pretrained=False))
    assert [
        (end.module.removeprefix("network.").removeprefix("model."), end.axis, end.channels) for end in found
    ] == ends


def test_a_module_that_is_called_twice_ends_a_stage_with_a_call() -> None:
    """torchvision's blocks use one ReLU twice; the second one gives the sum of both branches."""
    ends = stage_ends(TorchvisionBackbone("resnet18", 64, pretrained=False))
    assert ends[0] == StageEnd("network.layer1.1.relu", 1, 1, 64)


def test_channels_that_are_last_are_found() -> None:
    assert stage_ends(ChannelsLast()) == (StageEnd("embed", 0, -1, 8), StageEnd("merge", 0, -1, 10))


class Around(Staged):
    """Adds the image itself to what the first stage has made of it, in no module."""

    def forward(self, images: Tensor) -> list[Tensor]:
        stem = self.stem(images)
        return [stem, self.body(stem + images.mean(1, keepdim=True)[:, :, ::2, ::2])]


class Branches(Staged):
    """Two maps at once."""

    class Both(nn.Module):
        def __init__(self, whole: nn.Module) -> None:
            super().__init__()
            self.whole = whole

        def forward(self, x: Tensor) -> list[Tensor]:
            return [self.whole(x), x]

    def __init__(self) -> None:
        super().__init__()
        self.stem = self.Both(self.stem)

    def forward(self, images: Tensor) -> list[Tensor]:
        stem, _ = self.stem(images)
        return [stem, self.body(stem)]


class Pyramid(Branches):
    """One stage, and it gives several maps."""

    stages = (("stem", "body"),)

    def __init__(self) -> None:
        super().__init__()
        self.stem = self.stem.whole
        self.body = self.Both(self.body)
        self.features = (FeatureSpec("a", 8, 2), FeatureSpec("b", 8, 4))

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.body(self.stem(images))[::-1]


@pytest.mark.parametrize("scheme", [CrossStitch, Adapters])
@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (Around, "cannot be cut behind 'stem', where its stage 1 of 2 ends: what comes later depends on more than"),
        (Branches, "stage 1 of the backbone's 2 does not end in one feature map"),
        (Pyramid, "has one stage only, and it gives several maps"),
    ],
)
def test_what_cannot_be_cut_is_refused(scheme: type, backbone: type, said: str) -> None:
    with pytest.raises(RecipeError, match=f"{said}.*choose another backbone, or"):
        scheme(backbone(), (("a", "b"),))


@pytest.mark.parametrize(
    ("family", "member", "said"),
    [
        (TorchvisionBackbone, "efficientnet_b0", r"behind 'network.features.2.1.stochastic_depth'"),
        (TimmBackbone, "hrnet_w18_small", "stage 2 of the backbone's 4 does not end in one feature map"),
    ],
)
def test_real_backbones_that_cannot_be_cut_are_refused(family: Any, member: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        stage_ends(family(member, 64, pretrained=False))


def test_a_backbone_that_runs_nowhere_is_said_to() -> None:
    class Wrong(Staged):
        def forward(self, images: Tensor) -> list[Tensor]:
            raise ValueError("made to fail")

    with pytest.raises(RecipeError, match="does not run on images of 224 px, to find where its stages end: made to"):
        stage_ends(Wrong())


class Values(Staged):
    """Looks at a value, which the meta device has not, and takes one size only."""

    size = 48

    def forward(self, images: Tensor) -> list[Tensor]:
        assert images.shape[2:] == (48, 48)
        assert images.detach().sum().item() == 0
        return super().forward(images)


def test_it_is_found_on_the_cpu_where_there_is_no_other_way() -> None:
    assert [end.module for end in stage_ends(Values())] == ["stem", "body"]


@pytest.mark.parametrize(
    ("member", "size"),
    [("test_resnet", 64), ("convnext_atto", 64), ("test_vit", 160), ("mobilenetv3_small_050", 64), ("levit_128s", 224)],
)
def test_a_stage_at_a_time_gives_what_the_backbone_gives(member: str, size: int) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(member, size, pretrained=False).eval()
    ends = stage_ends(backbone)
    column = Stagewise(deepcopy(backbone), ends).eval()
    images = torch.randn(3, 3, size, size)
    with torch.no_grad():
        expected = backbone(images)
        run = column.begin(images)
        handed = None
        for stage, end in enumerate(ends):
            handed = run.advance(stage, handed)
            assert handed.shape[end.axis] == end.channels
        maps = run.finish(handed, slice(1, 3))
    torch.testing.assert_close(maps, [m[1:3] for m in expected], rtol=1e-4, atol=1e-5)


def test_what_is_handed_on_is_what_comes_next_is_made_of() -> None:
    backbone = Staged().eval()
    column = Stagewise(deepcopy(backbone), stage_ends(backbone)).eval()
    run = column.begin(torch.randn(2, 3, 32, 32))
    other = torch.randn_like(run.advance(0))
    body = run.advance(1, other)
    torch.testing.assert_close(body, backbone.body(other))
    doubled = run.finish(2 * body, slice(0, 2))
    torch.testing.assert_close(doubled, [other, 2 * body])


def test_each_module_runs_once_and_in_place_layers_do_no_harm() -> None:
    class InPlace(Staged):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Hardtanh(0, 0.1, inplace=True), *self.body, nn.ReLU(inplace=True))

    backbone = InPlace().eval()
    column = Stagewise(deepcopy(backbone), stage_ends(backbone)).eval()
    calls: list[str] = []
    for name, module in column.backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, of=name: calls.append(of))
    images = torch.randn(2, 3, 32, 32)
    run = column.begin(images)
    stem = run.advance(0)
    kept = stem.clone()
    body = run.advance(1, stem)
    assert torch.equal(stem, kept)
    maps = run.finish(body, slice(0, 2))
    assert calls == ["stem.0", "body.1"]
    torch.testing.assert_close(maps[1], backbone(images)[1])
