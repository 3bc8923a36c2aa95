"""Readers of images, archives and weights."""

from __future__ import annotations

import hashlib
import os
import shutil
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutations import JPEG, PNG, SAFETENSORS, TAR, TORCH, ZIP, Form
from PIL import Image
from reader import Reader
from safetensors.torch import save_file

from films import film
from mtframe.data import DecodeSize, read_image, read_map
from mtframe.download import RemoteFile, download
from mtframe.errors import MtframeError
from mtframe.video import Cut, Film, FilmWriter, Frame, Sound
from mtframe_timm.backbone import TimmBackbone
from mtframe_torchvision.backbone import TorchvisionBackbone

SMALL, OTHER = "test_resnet.r160_in1k", "squeezenet1_1"


def write_picture(home: Path, name: str = "", mode: str = "RGB", **how: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    if mode == "I;16":
        picture = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.convert(mode).save(home / name, exif=exif, **how)


def image(home: Path, name: str = "") -> None:
    """All ways to read it: one that refuses it says nothing of the others."""
    file, refused = home / name, None
    for read in (read_image, partial(read_image, decode_size=DecodeSize(4, 4), upright=True), read_map):
        try:
            read(file)
        except MtframeError as error:
            refused = refused or (error if read is not read_map else None)
    if refused:
        raise refused


def picture_reader(name: str, form: Form | None, mode: str = "RGB", **how: Any) -> Reader:
    label = f"image: {name.split('.')[1]} {name.split('.')[0]}"
    return Reader(label, partial(write_picture, name=name, mode=mode, **how), name, form, partial(image, name=name))


def watched(home: Path, name: str = "") -> None:
    """Whole, with its sound, and from a place in it on; into a film."""
    problems = []
    for cut in (Cut(), Cut.of("0.1s", 0.2, 0.5)):
        with Film(home / name) as opened:
            items = list(opened.read(cut, sound=True))
            frames = [item for item in items if isinstance(item, Frame)]
            size = (frames[0].image.shape[2], frames[0].image.shape[1]) if frames else (64, 48)
            with FilmWriter(home / "out.mp4", size, opened.unit, opened.rate, opened.sound) as writer:
                for item in items:
                    if isinstance(item, Sound):
                        writer.add_sound(item.packet)
                    elif item.image.shape == frames[0].image.shape:
                        writer.add(item.image.permute(1, 2, 0).numpy(), item.ticks)
            problems.append(opened.problem())
    if any(problems):
        raise MtframeError("; ".join(problems))


def film_reader(name: str, frames: int = 15) -> Reader:
    return Reader(f"film: {name}", lambda home: film(home / name, frames), name, None, partial(watched, name=name), 4)


def write_archive(home: Path, name: str, form: Form, head: Any) -> None:
    entries = [[head(entry), held] for entry, held in (("data/a.txt", b"one"), ("data/b/c.txt", b"2" * 40))]
    (home / name).write_bytes(form.put([[*start, held] if isinstance(start, list) else [start, held]
                                        for start, held in entries]))  # fmt: skip


def unpacked(home: Path, name: str) -> None:
    """As if the archive had just been fetched, and been what was published."""
    root = home / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    shutil.copyfile(home / name, root / name)
    found = hashlib.sha256((root / name).read_bytes()).hexdigest()
    before = sorted(home.parent.iterdir()), sorted(home.iterdir())
    try:
        download(root, [RemoteFile(name, "http://localhost:9", found, "data")])
    finally:
        assert before == (sorted(home.parent.iterdir()), sorted(home.iterdir())), "something got out of the folder"
        real = os.path.realpath(root)
        links = [path for path in root.rglob("*") if not Path(os.path.realpath(path)).is_relative_to(real)]
        assert not links, "a link leads out of the folder"


@cache
def _timm() -> dict[str, torch.Tensor]:
    return TimmBackbone(SMALL, 64, pretrained=False).network.state_dict()


@cache
def _torchvision() -> dict[str, torch.Tensor]:
    from torchvision.models import get_model

    return get_model(OTHER, weights=None).state_dict()


def write_weights(home: Path, name: str, library: str) -> None:
    tensors = _timm() if library == "timm" else _torchvision()
    # Small: what is fuzzed is their reading.
    if name.endswith(".pth"):
        torch.save(dict(tensors), home / name)
    else:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, home / name)


def pretrained(home: Path, name: str, library: str) -> None:
    if library == "timm":
        TimmBackbone(SMALL, 64, weights=home / name)
    else:
        TorchvisionBackbone(OTHER, 64, weights=home / name)


def _zip_head(name: str) -> list[Any]:
    return [name, 0o100644 << 16]


def _tar_head(name: str) -> dict[str, Any]:
    return {"name": name, "type": b"0", "linkname": "", "mode": 0o644, "uid": 0, "gid": 0, "mtime": 0, "uname": "",
            "devmajor": 0, "devminor": 0}  # fmt: skip


def weights_reader(name: str, library: str, form: Form) -> Reader:
    label = f"weights for {library}: {name.split('.')[1]}"
    return Reader(label, partial(write_weights, name=name, library=library), name, form,
                  partial(pretrained, name=name, library=library), 4)  # fmt: skip


READERS = [
    picture_reader("plain.jpg", JPEG),
    picture_reader("progressive.jpg", JPEG, progressive=True),
    picture_reader("cmyk.jpg", JPEG, "CMYK"),
    picture_reader("grey.jpg", JPEG, "L"),
    picture_reader("plain.png", PNG),
    picture_reader("palette.png", PNG, "P"),
    picture_reader("bits.png", PNG, "1"),
    picture_reader("alpha.png", PNG, "RGBA"),
    picture_reader("deep.png", PNG, "I;16"),
    picture_reader("plain.gif", None, "P"),
    picture_reader("plain.bmp", None),
    picture_reader("palette.bmp", None, "P"),
    picture_reader("plain.webp", None),
    picture_reader("plain.ppm", None),
    picture_reader("plain.tif", None),
    picture_reader("packed.tif", None, compression="tiff_lzw"),
    picture_reader("deep.tif", None, "I;16"),
    *([film_reader("a.mp4"), film_reader("a.mkv"), film_reader("a.ts")] if find_spec("av") else []),
    Reader("archive: zip", partial(write_archive, name="a.zip", form=ZIP, head=_zip_head), "a.zip", ZIP,
           partial(unpacked, name="a.zip")),
    Reader("archive: tar", partial(write_archive, name="a.tar.gz", form=TAR, head=_tar_head), "a.tar.gz", TAR,
           partial(unpacked, name="a.tar.gz")),
    weights_reader("w.safetensors", "timm", SAFETENSORS),
    weights_reader("w.pth", "timm", TORCH),
    weights_reader("w.safetensors", "torchvision", SAFETENSORS),
    weights_reader("w.pth", "torchvision", TORCH),
]  # fmt: skip
