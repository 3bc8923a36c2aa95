"""Which images of a split have a mask, and where."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mtframe.errors import DataError, RecipeError
from mtframe.folders import IMAGE_SUFFIXES, filled, images_below
from mtframe.omissions import BAD_LABELS, Mistakes
from mtframe.paths import regular, stays_inside

SPLITS = ("train", "val", "test")

# Where things are where nothing is said.
IMAGES, MASKS, MASK_END = "images/{split}", "masks/{split}", ".png"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a data set's files are named; `{split}` stands for the split's own name.

    Attributes:
        root: What everything is relative to.
        images, masks: Folders.
        image_end: What an image's name ends with; None for any image suffix.
        mask_end: What its mask's name has in place of it.
        lists: A file with an image a line; None for all images in the folder.
        split_names: What `{split}` stands for, where it is none of the names of the split.
        bad_labels: Part of the lines of a list that may be left out, since they are wrong.
    """

    root: Path
    images: str
    masks: str
    image_end: str | None
    mask_end: str
    lists: str | None
    split_names: Mapping[str, str]
    bad_labels: float = BAD_LABELS

    @classmethod
    def usual(cls, root: Path) -> Layout:
        """With the folders of images and of masks that are looked for where nothing is said."""
        return cls(root, IMAGES, MASKS, None, MASK_END, None, {})

    def has(self, split: str) -> bool:
        """Whether a split has a list or a folder of its own: of masks, or where these are in one folder, of images."""
        template = self.lists or (self.masks if "{split}" in self.masks else self.images)
        return "{split}" in template and (self.root / self._named(template, split)).exists()

    def pairs(self, split: str) -> tuple[list[str], tuple[str, ...], Counter[str]]:
        """Paths of the images that have a mask, relative to the root, sorted; what was left out, in words and counted.

        Raises:
            RecipeError: The masks' folder or a list is not there.
            DataError: The images' folder is not there, a list is wrong, two images have one mask, or none has one.
        """
        folder, masks = (self.root / self._named(template, split) for template in (self.images, self.masks))
        if not masks.is_dir():
            raise RecipeError(f"masks: no folder '{masks}'")
        if not folder.is_dir():
            raise DataError(f"images: no folder '{folder}' beside the masks in '{masks}'")
        images, omitted, said = self._images(folder, split)
        wanted = {stem: stem + self.mask_end for stem in images}
        there = {mask for mask in wanted.values() if os.path.isfile(masks / mask)}
        paired = sorted(image for stem, image in images.items() if wanted[stem] in there)
        prefix = PurePosixPath(self._named(self.images, split))
        if not paired:
            example = next(iter(wanted.values()), f"NAME{self.mask_end}")
            raise DataError(
                f"{masks}: none of the {len(images)} images in '{folder}' has a mask here, such as '{example}'. The "
                "options 'image_end' and 'mask_end' say how their names differ"
            )
        bare = [image for stem, image in images.items() if wanted[stem] not in there]
        notes = [f"{split}: {len(bare)} of {len(images)} images have no mask in '{masks}'; left out, such as '{image}'"
                 for image in bare[:1]]  # fmt: skip
        omitted["images without a mask"] += len(bare)
        return [(prefix / image).as_posix() for image in paired], (*said, *notes), +omitted

    def mask_of(self, id: str, split: str) -> Path:
        """The mask of an image that has one, by the image's path relative to the root."""
        inner = PurePosixPath(id).relative_to(PurePosixPath(self._named(self.images, split))).as_posix()
        stem = self._stem(inner)
        assert stem is not None
        return self.root / self._named(self.masks, split) / (stem + self.mask_end)

    def _images(self, folder: Path, split: str) -> tuple[dict[str, str], Counter[str], tuple[str, ...]]:
        """Images of a split by what their masks' names begin with, as paths in their folder; what is left out, said."""
        images: dict[str, str] = {}
        found = images_below(folder)
        for image in found.files:
            stem = self._stem(image)
            if stem is not None and images.setdefault(stem, image) != image:
                raise DataError(f"{folder}: '{images[stem]}' and '{image}' would have one mask")
        if not images:
            ends = self.image_end or ", ".join(IMAGE_SUFFIXES)
            raise DataError(f"{folder}: no image in this folder; their names end in {ends}")
        if self.lists is None:
            return images, found.omitted, ()
        file = self.root / self._named(self.lists, split)
        listed: dict[str, str] = {}
        mistakes, lines = Mistakes(), 0
        for line, name in _lines(file):
            lines += 1
            if not stays_inside(name):
                mistakes.add(line, f"line {line}: expected a path that stays in its folder, got {name!r}")
                continue
            name = PurePosixPath(name).as_posix()
            stem = name if name in images else self._stem(name)
            if stem is None or stem not in images:
                mistakes.add(line, f"line {line}: no image {name!r} in '{folder}'")
                continue
            listed[stem] = images[stem]
        said = mistakes.excused(lines, self.bad_labels, str(file), "lines", "they are wrong")
        found.omitted["lines of the list that are wrong"] += len(mistakes)
        return listed, found.omitted, said

    def _stem(self, image: str) -> str | None:
        """A path without what it ends with; None of one that is no image."""
        if self.image_end is not None:
            return image.removesuffix(self.image_end) if image.endswith(self.image_end) else None
        stem, suffix = os.path.splitext(image)
        return stem if suffix.lower() in IMAGE_SUFFIXES else None

    def _named(self, template: str, split: str) -> str:
        # Not str.format: any other brace in a path is the path's own.
        if split in self.split_names:
            return template.replace("{split}", self.split_names[split])
        return filled(template, split, lambda path: (self.root / path).exists())


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The names in a list, each with its line."""
    try:
        text = regular(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{file}: not a text file in UTF-8") from None
    except OSError as error:
        raise RecipeError(f"lists: cannot read '{file}' ({error.strerror or error})") from None
    for line, content in enumerate(text.splitlines(), 1):
        if name := content.strip():
            yield line, name
