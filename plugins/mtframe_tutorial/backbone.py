"""The network that both tasks share: convolution, activation, pooling, four times."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import group_norm


class SharedNetwork(nn.Module):
    """A small convolutional network; each stage halves the map and sees more of the image.

    Args:
        size: Images will be `size` × `size` pixels; others are taken too.
        widths: Channels after each stage; as many stages as numbers, two or more.

    Attributes:
        features: One map per stage but the first, whose map of half the image's size no head wants.
        stages: Where `sharing: layers` and frozen stages cut: one per stage.
        mean: What an RGB image in 0..1 is normalised with.
        std: Likewise.

    Raises:
        RecipeError: Fewer than two stages, or more than the size can be halved; or a stage without channels.
    """

    # Nothing is pretrained, so any will do that makes pixels of about -1..1.
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, size: int, *, widths: tuple[int, ...] = (16, 32, 64, 128)) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise RecipeError(f"widths: must be two or more numbers of channels, got {list(widths)}")
        _check_fit(len(widths), size)
        self.blocks = nn.Sequential(*(_block(before, after) for before, after in pairwise((3, *widths))))
        self.stages = tuple((f"blocks.{number}",) for number in range(len(widths)))
        # The article names sizes that it never computes. What comes after is told these instead, and makes its layers
        # to fit: another network, or other widths here, needs no change anywhere else.
        self.features = tuple(
            FeatureSpec(f"block{number + 1}", width, 2 ** (number + 1))
            for number, width in enumerate(widths)
            if number > 0
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to one (B, C, H / stride, W / stride) map per entry of `features`.

        Raises:
            RecipeError: The images are too small for so many stages.
        """
        _check_fit(len(self.blocks), min(images.shape[-2:]))
        maps = []
        for block in self.blocks:
            images = block(images)
            maps.append(images)
        return maps[1:]


def _check_fit(stages: int, side: int) -> None:
    if side < 2**stages:
        raise RecipeError(
            f"widths: {stages} stages halve images of {side} px to nothing; give up to {side.bit_length() - 1} widths, "
            f"or images of {2**stages} px or more"
        )


def _block(before: int, after: int) -> nn.Sequential:
    # GroupNorm where one would expect BatchNorm: its statistics are each image's own. With one task after the other,
    # BatchNorm would end with those of the last task, and spoil the others without a single weight being changed.
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), group_norm(after), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    )
