"""Small components that keep their kind's contract, and of each check one that breaks it and no other.

Every class here is offered by a distribution of its own, made up by the tests.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from mtframe.data import DataInfo, DecodeSize, Inputs, Placement, Sample
from mtframe.errors import RecipeError
from mtframe.hooks import hookimpl
from mtframe.kinds import FeatureSpec, Finding
from mtframe.model import Network
from mtframe_detection.letterbox import Letterbox
from toy import ToyBackbone, ToyData, ToyHead, ToyLoss, ToyMetric, ToyTransform


class GoodBackbone(ToyBackbone):
    """Keeps its contract."""


class OneSizeOnly(ToyBackbone):
    """Takes no images but those that it is made for."""

    def __init__(self, size: int) -> None:
        super().__init__()
        if size != 112:
            raise RecipeError(f"size: must be 112, got {size}")

    def forward(self, images: Tensor) -> list[Tensor]:
        if images.shape[2:] != (112, 112):
            raise RecipeError(f"made for images of 112×112, got {tuple(images.shape[2:])}")
        return super().forward(images)


class WrongStride(ToyBackbone):
    """Says that its last map is coarser than it is."""

    def __init__(self) -> None:
        super().__init__()
        self.features = (self.features[0], FeatureSpec("body", 8, 16))


class Dropping(ToyBackbone):
    """Drops channels in evaluation too."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.dropout(feature, 0.5, training=True) for feature in super().forward(images)]


class Mingling(ToyBackbone):
    """Lets images of a batch see each other."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return super().forward(images - images.mean(0))


class Unused(ToyBackbone):
    """Has a layer that is never called."""

    stages = (("stem",), ("body", "spare"))

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class TimesZero(ToyBackbone):
    """Multiplies a parameter by zero."""

    stages = (("stem",), ("body", "dead"))

    def __init__(self) -> None:
        super().__init__()
        self.dead = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [feature + 0 * self.dead for feature in super().forward(images)]


class GoodFrozen(ToyBackbone):
    """Is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class GoodHalfFrozen(ToyBackbone):
    """Is trained in its second half only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem.requires_grad_(False)


class GoodZeroStart(ToyBackbone):
    """Adds a branch that begins at zero, as layer scales and last layers of residual blocks do."""

    stages = (("stem",), ("body", "branch", "gain"))

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.gain = nn.Conv2d(8, 8, 1), nn.Parameter(torch.zeros(8, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        stem, body = super().forward(images)
        return [stem, body + self.gain * self.branch(body)]


class Fp32Only(ToyBackbone):
    """Adds what autocast has made bf16 to a buffer that is not."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [added_up(feature) for feature in super().forward(images)]


class Forgetful(ToyBackbone):
    """Keeps something random where no checkpoint finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.randn(())

    def forward(self, images: Tensor) -> list[Tensor]:
        return [feature + self.shift for feature in super().forward(images)]


class HalfStaged(ToyBackbone):
    """Leaves half of itself out of its stages."""

    stages = (("stem",),)


class TwiceLayered(ToyBackbone):
    """Counts a part in two layers."""

    lr_layers = (("stem.0",), ("stem.1", "body.0"), ("body",))


class GoodLayers(ToyBackbone):
    """Has finer layers than stages; what is in none of them is new."""

    lr_layers = (("stem.0",), ("stem.1",), ("body.0",))


class Flat(ToyBackbone):
    """Divides by zero when it normalises."""

    std = (0.25, 0.0, 0.25)


def added_up(feature: Tensor) -> Tensor:
    start = torch.zeros(feature.shape, dtype=torch.float32)
    return start.index_add(0, torch.arange(len(feature)), feature)


class GoodSharing(Network):
    """Keeps its contract."""


class OtherFeatures(Network):
    """Promises channels that it does not give."""

    def __init__(self, backbone: nn.Module, groups: Sequence[Sequence[str]]) -> None:
        super().__init__(backbone, groups)
        self.features = tuple(replace(spec, channels=spec.channels + 1) for spec in backbone.features)


class Lonely(Network):
    """Forgets the tasks that look at the images of others."""

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        return super().forward(images)


class AllAtOnce(Network):
    """Wants all tasks in every step."""

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        borrowing = {"scenes"}
        assert {task for group in self.groups for task in group} - borrowing <= set(images)
        return super().forward(images, lenders)


class Stopping(Network):
    """Lets no gradient through to its backbone."""

    def __init__(self, backbone: nn.Module, groups: Sequence[Sequence[str]]) -> None:
        super().__init__(backbone, groups)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        maps = super().forward(images, lenders)
        return {task: [feature.detach() * self.scale for feature in several] for task, several in maps.items()}


class GoodOwnScales(Network):
    """Each task scales its maps by a number of its own."""

    def __init__(self, backbone: nn.Module, groups: Sequence[Sequence[str]]) -> None:
        super().__init__(backbone, groups)
        self.scale = nn.ParameterDict({f"of {task}": torch.ones(()) for group in groups for task in group})

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        maps = super().forward(images, lenders)
        return {task: [feature * self.scale[f"of {task}"] for feature in of] for task, of in maps.items()}


class Overclaiming(GoodOwnScales):
    """Says that what is each task's own is shared."""

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        return self.parameters()


class Underclaiming(GoodOwnScales):
    """Leaves out what is shared."""

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        return iter(())


class Holding(Network):
    """Runs what a copy of it still has from the original."""

    def __init__(self, backbone: nn.Module, groups: Sequence[Sequence[str]]) -> None:
        super().__init__(backbone, groups)
        whole = super().forward
        self.run = lambda images, lenders: whole(images, lenders)

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        return self.run(images, lenders)


class Overwriting(Network):
    """Keeps on itself what the call that it is in is about."""

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        self.sizes = {task: pixels.shape[-1] for task, pixels in images.items()}
        maps = super().forward(images, lenders)
        return {task: [each / self.sizes.get(task, 1) for each in of] for task, of in maps.items()}


class ForgetfulSharing(Network):
    """Keeps something random where no checkpoint finds it."""

    def __init__(self, backbone: nn.Module, groups: Sequence[Sequence[str]]) -> None:
        super().__init__(backbone, groups)
        self.offset = torch.randn(()).item()

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        return {task: [each + self.offset for each in of] for task, of in super().forward(images, lenders).items()}


class Fp32Sharing(Network):
    """Adds what autocast has made bf16 to a buffer that is not."""

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        return {task: [added_up(feature) for feature in of] for task, of in super().forward(images, lenders).items()}


class GoodHead(ToyHead):
    """Keeps its contract."""


class Ragged(ToyHead):
    """Leaves out images on which nothing is."""

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        outputs = super().forward(maps)
        seen = maps[-1].abs().amax((1, 2, 3))
        return {**outputs, "brightness": seen[seen > 0]}


class Branching(ToyHead):
    """Looks at a value to decide what to compute."""

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        outputs = super().forward(maps)
        return {"logits": outputs["logits"] * 2} if maps[-1].sum() > 1e9 else outputs


class Centring(ToyHead):
    """Subtracts the batch's mean."""

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        outputs = super().forward(maps)
        return {"logits": outputs["logits"] - outputs["logits"].mean(0)}


class FirstOnly(ToyHead):
    """Predicts for the first image only."""

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        return super().predict(outputs, bounds)[:1]


class SquareHead(ToyHead):
    """Takes the number of cells for the square of a side."""

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        side = int(maps[-1][0, 0].numel() ** 0.5)
        return super().forward([maps[-1].flatten(2).unflatten(2, (side, side))])


class HeadWithSpare(ToyHead):
    """Has a layer that is never called."""

    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo) -> None:
        super().__init__(features, info)
        self.spare = nn.Linear(2, 2)


class HeadTimesZero(ToyHead):
    """Multiplies a layer's output by zero."""

    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo) -> None:
        super().__init__(features, info)
        self.spare = nn.Linear(len(info.classes), len(info.classes))

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        logits = super().forward(maps)["logits"]
        return {"logits": logits + 0 * self.spare(logits)}


class GoodParameterless(nn.Module):
    """The mean of each channel, as a direction."""

    target = "identity"

    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo) -> None:
        super().__init__()

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"embedding": F.normalize(maps[-1].float().mean((2, 3)), dim=1)}

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        # A map of nothing has no direction.
        first = F.one_hot(torch.tensor(0), outputs["embedding"].shape[1]).float()
        return [{"embedding": row if row.any() else first} for row in outputs["embedding"]]


class Fp32Head(ToyHead):
    """Adds what autocast has made bf16 to a buffer that is not."""

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"logits": added_up(super().forward(maps)["logits"])}


class GoodMerging(ToyHead):
    """Takes of several views the surest."""

    def merge_views(self, predictions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return dict(max(predictions, key=lambda view: float(view["probabilities"].max())))


class MergingInVain(ToyHead):
    """Merges views by a name that nobody calls."""

    def merge_view(self, predictions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return dict(predictions[0])


class OtherViews(ToyHead):
    """Merges views to something else than a prediction."""

    def merge_views(self, predictions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {"views": torch.tensor(len(predictions))}


class GoodBoxes(nn.Module):
    """A box of each cell."""

    target = "boxes"

    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo) -> None:
        super().__init__()
        self.stride = features[-1].stride
        self.layer = nn.Conv2d(features[-1].channels, 4 + len(info.classes), 1)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        said = self.layer(maps[-1]).float().flatten(2).transpose(1, 2)
        y, x = ((torch.arange(side) + 0.5) * self.stride for side in maps[-1].shape[-2:])
        centres = torch.cartesian_prod(y, x).flip(1)
        half = said[..., :2].exp() * self.stride
        middle = centres + said[..., 2:4]
        return {"boxes": torch.cat([middle - half, middle + half], 2), "logits": said[..., 4:]}

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        scores, labels = self.scores(outputs["logits"]).max(2)
        rows = zip(outputs["boxes"], scores, labels, strict=True)
        return [{"boxes": boxes, "scores": score, "labels": label} for boxes, score, label in rows]

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(2)


class Overrating(GoodBoxes):
    """Takes logits for scores."""

    def scores(self, logits: Tensor) -> Tensor:
        return logits


class GoodLoss(ToyLoss):
    """Keeps its contract."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        known = (targets["label"] >= 0).sum().clamp(min=1)
        loss = F.cross_entropy(outputs["logits"].float(), targets["label"], ignore_index=-1, reduction="sum")
        return {"cross_entropy": loss / known}


class Detached(GoodLoss):
    """Teaches nothing."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().forward({name: value.detach() for name, value in outputs.items()}, targets)


class AllOrNone(GoodLoss):
    """Minds unknown labels only where all are."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if (targets["label"] < 0).all():
            return {"cross_entropy": 0 * outputs["logits"].sum()}
        return {"cross_entropy": F.cross_entropy(outputs["logits"].float(), targets["label"])}


class UnknownAsClass(GoodLoss):
    """Takes the unknown for the first class."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"cross_entropy": F.cross_entropy(outputs["logits"].float(), targets["label"].clamp(min=0))}


class GoodValueLoss(nn.Module):
    """Keeps its contract."""

    target = "value"

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        wanted = self.wanted(targets["value"])
        error = torch.where(wanted.isnan(), 0.0, outputs["values"].float() - wanted.nan_to_num())
        return {"square": error.square().sum() / (~wanted.isnan()).sum().clamp(min=1)}

    def wanted(self, values: Tensor) -> Tensor:
        return values


class UnknownAsNought(GoodValueLoss):
    """Takes the unknown for 0."""

    def wanted(self, values: Tensor) -> Tensor:
        return values.nan_to_num()


class StandingStill(nn.Module):
    """Follows training by a name that nobody calls."""

    target = "label"
    forward = GoodLoss.forward

    def set_progres(self, fraction: float) -> None:
        self.progress = fraction


class MeanOfNone(GoodLoss):
    """Takes the mean over what is known, of nothing too."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"cross_entropy": F.cross_entropy(outputs["logits"].float(), targets["label"], ignore_index=-1)}


class WrongSign(GoodLoss):
    """Teaches the opposite."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"cross_entropy": -super().forward(outputs, targets)["cross_entropy"]}


class GoodData(ToyData):
    """Keeps its contract."""

    def ids(self) -> list[str]:
        return [f"toy/{index}.jpg" for index in range(self.count)]

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        index = Path(id).stem
        return self[int(index)].target if index.isdecimal() else {"label": torch.tensor(-1)}

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.count)


class RecognisesAll(GoodData):
    """Takes every folder for its own."""

    def __init__(self, split: str, *, root: Path) -> None:
        super().__init__(split)

    @staticmethod
    def synthesize(root: Path, *, seed: int = 0) -> None:
        Path(root).mkdir(parents=True, exist_ok=True)

    @staticmethod
    def recognises(root: Path) -> dict[str, str]:
        return {}


class OmitsMany(GoodData):
    """Says what it leaves out, and not how many."""

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.omitted = {"hidden files": "many"}


class Relabelling(GoodData):
    """Has other labels where images are not read."""

    def annotated(self, index: int) -> Sample:
        sample = self[index].without_image()
        sample.target = {"label": 1 - sample.target["label"]}
        return sample


class Homeless(GoodData):
    """Says that its images are where they are not."""

    root = Path("nowhere")


class Misnaming(GoodData):
    """Finds what it does not say that it may find."""

    findings = ("too-dark",)

    def inspect(self) -> list[Finding]:
        return [Finding("to-dark", "note", "one image is dark")]


class Unheard(ToyData):
    """Has labels of a kind that nobody offers."""

    target = "lable"

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.info = DataInfo("lable", ("dark", "light"))


class OtherInfo(GoodData):
    """Has labels of a kind that it does not speak of."""

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.info = DataInfo("identity", ("dark", "light"))


class NoVal(GoodData):
    """Says that it has a split for validation, and has none."""

    def __init__(self, split: str) -> None:
        if split == "val":
            raise RecipeError("split: there is no 'val'")
        super().__init__(split)


class FloatImages(GoodData):
    """Gives images in 0..1."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return replace(sample, image=sample.image / 255)


class AlwaysFirst(GoodData):
    """Says of every sample that it is the first."""

    def __getitem__(self, index: int) -> Sample:
        return replace(super().__getitem__(index), index=0)


class OneBased(GoodData):
    """Counts classes from one."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return replace(sample, target={"label": sample.target["label"] + 1})


class Endless(GoodData):
    """Begins anew at its end."""

    def __getitem__(self, index: int) -> Sample:
        return super().__getitem__(index % self.count)


class Unpicklable(GoodData):
    """Holds a function without a name."""

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.grey = lambda index: index


class OtherInWorkers(GoodData):
    """Gives something else to a loader's process."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return sample if get_worker_info() is None else replace(sample, image=255 - sample.image)


class Mislabelling(GoodData):
    """Knows other labels by id than by position."""

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        label = super().target_of(id, size)["label"]
        return {"label": torch.where(label < 0, label, 1 - label)}


class Guessing(GoodData):
    """Has a label for images that it does not have."""

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        return {"label": super().target_of(id, size)["label"].clamp(min=0)}


class OtherIds(GoodData):
    """Has its images' ids in another order than its images."""

    def ids(self) -> list[str]:
        return super().ids()[::-1]


class HalfLabelling(ToyData):
    """Labels images, and does not say which it has."""

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        return {"label": torch.tensor(-1)}


class DecodingInVain(ToyData):
    """Keeps how large images are to be decoded where nobody sets it."""

    decode_sizes = None

    def __init__(self, split: str) -> None:
        super().__init__(split)
        del self.decode_size


class Shuffled(GoodData):
    """Is in another order every time."""

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return np.random.permutation(self.count)


class GoodTransform(ToyTransform):
    """Keeps its contract."""


class OffByOne(ToyTransform):
    """Makes images of another size."""

    def __init__(self, size: int, train: bool) -> None:
        super().__init__(size + 1, train)


class Unseeded(ToyTransform):
    """Draws from a generator that nobody seeds."""

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        return super().__call__(samples, np.random.default_rng() if self.train else rng)


class Trembling(ToyTransform):
    """Augments in evaluation too."""

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        inputs = super().__call__(samples, rng)
        return inputs if self.train else replace(inputs, images=inputs.images.roll(int(rng.integers(9)), 2))


class Squeezing(ToyTransform):
    """Loses a dimension that is 1."""

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        inputs = super().__call__(samples, rng)
        return replace(inputs, images=inputs.images.squeeze(0))


class AlwaysLabelled(ToyTransform):
    """Wants labels of pictures too."""

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        self.last = [sample.target["labels"] for sample in samples]
        return super().__call__(samples, rng)


class UnpicklableTransform(ToyTransform):
    """Holds a function without a name."""

    def __init__(self, size: int, train: bool) -> None:
        super().__init__(size, train)
        self.resize = lambda image: image


class OthersFirst(ToyTransform):
    """Says of every input that it is of the first sample."""

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        return placing(super().__call__(samples, rng), lambda placement: replace(placement, sample=0))


class OtherSize(ToyTransform):
    """Says of originals that they are as large as the input."""

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        return placing(super().__call__(samples, rng), lambda placement: replace(placement, size=(self.size + 8,) * 2))


class GoodLetterbox(Letterbox):
    """Keeps its contract, with a mosaic."""

    def __init__(self, size: int, train: bool) -> None:
        super().__init__(size, train, mosaic=0.5)


class MixingInSecret(GoodLetterbox):
    """Makes mosaics and does not say so."""

    def __init__(self, size: int, train: bool) -> None:
        super().__init__(size, train)
        self.mixes = False


class Misplacing(Letterbox):
    """Says of images that they are elsewhere."""

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        def moved(placement: Placement) -> Placement:
            (a, b, c), below = placement.matrix
            return replace(placement, matrix=((a, b, c + 6), below))

        return placing(super().__call__(samples, rng), moved)


class MirroringInSecret(ToyTransform):
    """Mirrors pixels in training, and nothing else."""

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        inputs = super().__call__(samples, rng)
        return replace(inputs, images=inputs.images.flip(3)) if self.train and rng.random() < 0.5 else inputs


class OfDecoded(ToyTransform):
    """Takes its scale from the image as it was decoded."""

    decode_size = DecodeSize(shorter=16)

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        def of_decoded(placement: Placement) -> Placement:
            height, width = samples[placement.sample].image.shape[1:]
            scale = self.size / width, self.size / height
            return Placement.scaled(placement.size, placement.input_size, scale, sample=placement.sample)

        return placing(super().__call__(samples, rng), of_decoded)


class Blank(ToyTransform):
    """Shows nothing."""

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        inputs = super().__call__(samples, rng)
        return replace(inputs, images=torch.zeros_like(inputs.images))


def placing(inputs: Inputs, change: Callable[[Placement], Placement]) -> Inputs:
    """The same inputs with other placements."""
    return replace(inputs, placements=[tuple(map(change, its)) for its in inputs.placements])


class GoodMetric(ToyMetric):
    """Keeps its contract."""


class OtherPrimary(ToyMetric):
    """Ranks by a number that it does not compute."""

    primary = "top1"


class UpsideDown(ToyMetric):
    """Takes the worst for the best."""

    higher_is_better = False


class Recent(ToyMetric):
    """Counts the later images more."""

    def reset(self) -> None:
        self.marks: list[bool] = []

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        pairs = zip(predictions, samples, strict=True)
        self.marks += [
            bool(prediction["probabilities"].argmax() == sample.target["label"]) for prediction, sample in pairs
        ]

    def merge(self, other: Recent) -> None:
        self.marks += other.marks

    def compute(self) -> dict[str, float]:
        return {"accuracy": float(np.average(self.marks, weights=np.arange(1, len(self.marks) + 1)))}


class ExplainingOthers(ToyMetric):
    """Explains a value that it does not compute."""

    def gaps(self) -> dict[str, str]:
        return {"top5": "there are two classes"}


class FirstCome(Recent):
    """The accuracy of the surer half; of equally sure ones, those that came first."""

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        super().update(predictions, samples)
        self.sure += [float(prediction["probabilities"].max()) for prediction in predictions]

    def reset(self) -> None:
        super().reset()
        self.sure: list[float] = []

    def merge(self, other: Recent) -> None:
        super().merge(other)
        self.sure += other.sure if isinstance(other, FirstCome) else []

    def compute(self) -> dict[str, float]:
        surest = sorted(range(len(self.sure)), key=lambda place: -self.sure[place])
        return {"accuracy": float(np.mean([self.marks[place] for place in surest[: max(1, len(surest) // 2)]]))}


class Remembering(ToyMetric):
    """Forgets what it has seen, and not how much of it was right."""

    def __init__(self) -> None:
        self.right = 0
        self.reset()

    def reset(self) -> None:
        self.seen = 0


class Selfish(ToyMetric):
    """Takes nothing over from others."""

    def merge(self, other: ToyMetric) -> None:
        pass


class GoodBalancer:
    """Adds."""

    def __init__(self, tasks: Sequence[str], *, factor: float = 1.0) -> None:
        self.tasks, self.factor = tasks, factor

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        return self.total(losses) * self.factor

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack(list(losses.values())).sum()


class OneRow(GoodBalancer):
    """Gives a vector of one number."""

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return super().total(losses).unsqueeze(0)


class Largest(GoodBalancer):
    """Sees the largest loss only."""

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack(list(losses.values())).max()


class FirstFirst(GoodBalancer):
    """Minds the first task more than the second."""

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([loss / (place + 1) for place, loss in enumerate(losses.values())]).sum()


class Squares(GoodBalancer):
    """Weighs tasks by the unit of their losses."""

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([loss + loss**2 for loss in losses.values()]).sum()


class Forgetting(GoodBalancer):
    """Weighs tasks by how much their losses have fallen since the last step, which may be by nothing."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.last: dict[str, float] = {}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        now = {task: float(loss.detach()) for task, loss in losses.items()}
        weights = {task: max(0.0, self.last.get(task, 2 * value) / value - 1) for task, value in now.items()}
        self.last |= now
        return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()


class Clinging(GoodBalancer):
    """Keeps losses with all that they were computed from."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.mean: dict[str, Tensor] = {}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        for task, loss in losses.items():
            self.mean[task] = (self.mean.get(task, loss) + loss) / 2
        return torch.stack(
            [loss / self.mean[task].detach() + 0 * self.mean[task] for task, loss in losses.items()]
        ).sum()


class GoodAveraging(GoodBalancer):
    """Divides by what losses were lately."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.mean: dict[str, Tensor] = {}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        for task, loss in losses.items():
            self.mean[task] = 0.9 * self.mean.get(task, loss.detach()) + 0.1 * loss.detach()
        return torch.stack([loss / self.mean[task] for task, loss in losses.items()]).sum()

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.mean)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean = dict(state)


class Unsaved(GoodBalancer):
    """Keeps what losses were lately to itself."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.averaging = GoodAveraging(tasks)

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return self.averaging.total(losses)


class GoodWeighing:
    """Makes gradients equally long."""

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        norms = gram.diagonal().sqrt()
        return torch.where(norms > 0, norms.max() / norms, 1.0)


class GoodCombining:
    """Adds gradients."""

    def combine(self, gradients: Tensor, losses: Tensor) -> Tensor:
        return gradients.sum(0)


class Dividing(GoodWeighing):
    """Makes nothing of a gradient of 0."""

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        return 1 / gram.diagonal().sqrt()


class Scribbling(GoodWeighing):
    """Changes what it is given."""

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        return super().weigh(gram.div_(2), losses)


class Single(GoodWeighing):
    """Gives weights of another type."""

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        return super().weigh(gram, losses).float()


class Longest(GoodWeighing):
    """Goes along the longest gradient only."""

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        return (gram.diagonal() == gram.diagonal().max()).double()


class Seniority(GoodWeighing):
    """Minds the first task more than the second."""

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        return super().weigh(gram, losses) / torch.arange(1, len(gram) + 1)


class Measured(GoodWeighing):
    """Weighs tasks by the unit of their losses."""

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        return super().weigh(gram, losses) * (1 + losses)


class OfAllTasks(GoodWeighing):
    """Has as many weights as there are tasks."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.count = len(tasks)

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        return torch.ones(self.count, dtype=torch.float64)


class EveryTask(GoodBalancer):
    """Wants the losses of all tasks in every step."""

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([losses[task] for task in self.tasks]).sum()


class WeighingInVain(GoodWeighing):
    """Says by a name that nobody reads that its weights are for heads too."""

    weighs_head = True


class Undescribed(GoodBalancer):
    __doc__ = None


class Unannotated(GoodBalancer):
    """Does not say what its option is."""

    def __init__(self, tasks: Sequence[str], *, factor=1) -> None:
        super().__init__(tasks, factor=factor)


class Unresolved(GoodBalancer):
    """Names a type that is nowhere."""

    def __init__(self, tasks: Sequence[str], *, factor: Factor = 1.0) -> None:  # noqa: F821
        super().__init__(tasks, factor=factor)


class Miswired(GoodBalancer):
    """Asks for what nobody supplies."""

    def __init__(self, tasks: Sequence[str], factor: float = 1.0) -> None:
        super().__init__(tasks, factor=factor)


class Swallowing(GoodBalancer):
    """Takes any option."""

    def __init__(self, tasks: Sequence[str], **options: float) -> None:
        super().__init__(tasks)


class WrongDefault(GoodBalancer):
    """Has a default that it does not accept."""

    def __init__(self, tasks: Sequence[str], *, weights: tuple[int, ...] = (0.5, 0.5)) -> None:
        super().__init__(tasks)


class Refusing(GoodBalancer):
    """Cannot be made with its defaults."""

    def __init__(self, tasks: Sequence[str], *, factor: float = 0.0) -> None:
        raise ValueError(f"factor: must be above 0, got {factor}")


class Uncallable:
    """Balances nothing."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tasks


class Exiting(GoodBalancer):
    """Exits when it is made."""

    def __init__(self, tasks: Sequence[str]) -> None:
        raise SystemExit(0)


class ExitingAtOneRow(GoodBalancer):
    """Exits where a single task has a loss."""

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        if len(losses) == 1:
            sys.exit("one task needs no balancer")
        return super().total(losses)


class GoodSchedule:
    """Every task in every step."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self.lengths = dict(lengths)
        self.steps_per_epoch = max(lengths.values())

    def draws(self, steps: int) -> dict[str, int]:
        return dict.fromkeys(self.lengths, steps)


class Doubled(GoodSchedule):
    """Takes two batches of a task in a step."""

    def draws(self, steps: int) -> dict[str, int]:
        return dict.fromkeys(self.lengths, 2 * steps)


class Resting(GoodSchedule):
    """Trains nothing in every fourth step."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__(lengths)
        self.steps_per_epoch = 2 * max(lengths.values())

    def draws(self, steps: int) -> dict[str, int]:
        return dict.fromkeys(self.lengths, steps - steps // 4)


class Hasty(GoodSchedule):
    """Takes the shortest task's round for that of all."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__(lengths)
        self.steps_per_epoch = min(lengths.values())


class Counting(GoodSchedule):
    """Gives another answer when it is asked again."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__(lengths)
        self.most = 0

    def draws(self, steps: int) -> dict[str, int]:
        back, self.most = self.most > steps + 1, max(self.most, steps)
        return dict.fromkeys(self.lengths, steps + back)


class Stepwise(GoodSchedule):
    """Counts up to the step."""

    def draws(self, steps: int) -> dict[str, int]:
        counts = dict.fromkeys(("all",), 0)
        for _ in range(steps):
            counts["all"] += 1
        return dict.fromkeys(self.lengths, counts["all"])


class GoodObserver:
    """Counts."""

    def __init__(self, *, every: int = 1) -> None:
        self.every, self.steps = every, 0

    @hookimpl
    def step_ended(self, step: int) -> None:
        self.steps = step // self.every


class Deaf:
    """Has marked nothing."""

    def step_ended(self, step: int) -> None:
        pass


class Mistaken:
    """Asks for what the hook does not tell."""

    @hookimpl
    def step_ended(self, loss: float) -> None:
        pass


class Raising:
    """Does not know that losses are by task."""

    @hookimpl
    def step_ended(self, losses: Mapping[str, Mapping[str, Tensor]]) -> None:
        sum(losses.values())  # type: ignore[arg-type]


class TorchPreset:
    """Lives where torch is imported."""

    dataset = "image-folder"
    transform = "image-crop"
    head = "classifier"
    loss = "cross-entropy"
    metrics = ("classification",)
    size = 64
    batch_size = 4
    flip_test = False
