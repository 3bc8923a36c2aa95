"""Made-up distributions on sys.path: metadata as an installer writes it, and the modules beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def make_dist(
    folder: Path,
    name: str,
    entries: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str] | None = None,
    version: str = "1.2.3",
    requires: Sequence[str] = (),
) -> Path:
    """Installs a distribution into a folder; put the folder on sys.path to use it.

    Args:
        folder: Like site-packages.
        name: Of the distribution.
        entries: Entry points, value by name by group.
        modules: Source by module name.
        version: Of the distribution.
        requires: Its requirements.
    """
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}", encoding="utf-8"
    )
    lines = []
    for group, named in entries.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in named.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    for module, source in (modules or {}).items():
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
    return folder


KIT = '''
"""A whole recipe's worth of components without torch."""

from pathlib import Path
from typing import Literal

from mtframe.errors import RecipeError


class Preset:
    """Learns kites."""

    dataset = "kites"
    transform = {"name": "crop", "flip": True}
    head = {"name": "kite-head", "width": 64}
    loss = "kite-loss"
    metrics = ("kite-score",)
    size = 96
    batch_size = 8
    flip_test = True


class Backbone:
    """A family."""

    def __init__(self, member, *, pretrained: bool = False):
        self.member, self.pretrained = member, pretrained

    @classmethod
    def members(cls, pattern, *, pretrained=False):
        from fnmatch import filter

        return filter(["small", "large"] if not pretrained else ["large"], pattern)

    @classmethod
    def describe_member(cls, member):
        if member not in ("small", "large", "unlisted"):
            raise RecipeError(f"kitenet has no member {member!r}")
        return {"parameters": 12, "note": f"[bold]{member}[/bold]"}


class Whole:
    """Everything is shared."""

    def __init__(self, backbone):
        pass


class Total:
    """Adds."""

    def __init__(self, tasks):
        pass


class Kites:
    """Kites in a folder.

    Args:
        split: Which part.
        root: The folder.
        people: Who holds
            them: a long story.
    """

    target = "kites"

    def __init__(self, split, *, root: Path, people: str | None = "all"):
        self.split, self.root, self.people = split, root, people

    @staticmethod
    def synthesize(root, *, seed: int = 0, count: int = 10):
        """Renders kites."""


class KiteTarget:
    """Where kites are."""

    def __init__(self, info):
        pass


class Crop:
    def __init__(self, size, train, *, flip: bool = False):
        pass


class KiteHead:
    """Sees kites."""

    target = "kites"

    def __init__(
        self, features, *, width: int = 32, num_levels: int = 3, box: Literal["iou", "giou"] = "giou"
    ):
        self.features, self.width, self.num_levels = features, width, num_levels


class SharkHead(KiteHead):
    """Sees sharks."""

    target = "sharks"


class KiteLoss:
    target = "kites"

    def __init__(self, head, *, margin: float = 0.2):
        pass


class KiteScore:
    target = "kites"

    def __init__(self, dataset, *, folds: int = 10):
        pass
'''

KIT_ENTRIES = {
    "mtframe.preset": {"kite-watching": "kitekit:Preset"},
    "mtframe.backbone": {"kitenet": "kitekit:Backbone"},
    "mtframe.sharing": {"whole": "kitekit:Whole"},
    "mtframe.balancer": {"total": "kitekit:Total"},
    "mtframe.dataset": {"kites": "kitekit:Kites"},
    "mtframe.target": {"kites": "kitekit:KiteTarget"},
    "mtframe.transform": {"crop": "kitekit:Crop"},
    "mtframe.head": {"kite-head": "kitekit:KiteHead", "shark-head": "kitekit:SharkHead"},
    "mtframe.loss": {"kite-loss": "kitekit:KiteLoss"},
    "mtframe.metric": {"kite-score": "kitekit:KiteScore"},
}


def make_kit(folder: Path) -> Path:
    """The distribution `kite-kit`, with torch-free components of every kind."""
    return make_dist(folder, "kite-kit", KIT_ENTRIES, {"kitekit": KIT})
