"""Files that are wrong somewhere: taken apart, changed in a place or two, and put together again with fitting sums.

Flipped bytes alone test checksums and parsers. What a reader makes of a *well-formed* file with one wrong value in it
shows only in files that are changed as what they are.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from hypothesis import assume
from hypothesis import strategies as st

from record_files import record


@dataclass(frozen=True)
class Form:
    """How a kind of file is taken apart into lists, mappings and scalars, and put together again."""

    take: Callable[[bytes], Any]
    put: Callable[[Any], bytes]


Place = tuple[Any, ...]

# What stands where something else is expected.
TOKENS = (
    "", " ", "0", "-1", "1", "2", "255", "256", "65536", "4294967296", "9" * 18, "9" * 30, "9" * 5000, "1e400",
    "-1e308", "1e308", "1e-320", "nan", "inf", "-inf", "0.5", "1_0", "0x10", "٣", "²", "true", "null", "~", "[]", "{}",
    "[" * 30,
    "../x", "/etc/passwd", "..", ".", "a/b", "C:\\x", "\0", "x" * 300, "x" * 5000, "é", "\u2028", "\x85", "\ufeff",
    "\t", "\n", "\r", ",", ";", '"', "'", "<", ">", "&", "&#0;", "<!--", "#", "%", "$x_$", "_x", "\x1b[31m", "\udcff",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 3, 255, 256, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**63 - 1, 2**63, -(2**63),
    2**64, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e38, 1e39, 1e300, 1e308, -1e308, float("inf"),
    float("-inf"), float("nan"),
)  # fmt: skip
CONTAINERS: tuple[Any, ...] = ([], {}, [[]], [1, 2], {"a": 1}, [None], [{}], ["x"])
SCALARS = (
    st.sampled_from(TOKENS)
    | st.sampled_from(NUMBERS)
    | st.sampled_from([None, True, False, b"", b"\xff\xfe"])
    | st.text(max_size=5)
    | st.integers()
    | st.floats()
)
VALUES = SCALARS | st.sampled_from(CONTAINERS) | st.builds(lambda depth: _deep(depth), st.sampled_from([2, 10, 200]))


def changed(draw: st.DrawFn, data: bytes, form: Form | None) -> bytes:
    """A valid file with a change or two: in its bytes, or in what it says."""
    if form is None or draw(st.integers(0, 4)) == 0:
        return damaged(draw, data)
    value = form.take(data)
    for _ in range(draw(st.integers(1, 3))):
        value = _change(draw, value)
    try:
        return form.put(value)
    except Exception:  # of something that this kind of file cannot say
        assume(False)
        raise


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes that are flipped, cut, repeated, inserted or overwritten."""
    for _ in range(draw(st.integers(1, 3))):
        # Heads matter more than what follows.
        end = draw(st.sampled_from([len(data), min(len(data), 64)]))
        at = draw(st.integers(0, end))
        length = draw(st.sampled_from([1, 2, 4, 8, 64]) | st.integers(0, max(1, len(data))))
        patch = draw(st.binary(max_size=8) | st.sampled_from(_PATCHES))
        data = draw(
            st.sampled_from([
                data[:at],
                data[:at] + data[at + length :],
                data[:at] + patch + data[at:],
                data[:at] + patch + data[at + len(patch) :],
                data[:at] + data[at : at + length] + data[at:],
            ])
        )  # fmt: skip
    return data


_PATCHES = (
    *(number.to_bytes(size, "little") for size in (1, 2, 4, 8)
      for number in (0, 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)),
    b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\r", b"\n", b"9" * 5000, b"[" * 20000, b'{"a":' * 20000, b"-", b"nan",
    b"1e999", "é".encode(), "٣".encode(), b"\xc3", b"<!DOCTYPE x>", b"&amp;",
)  # fmt: skip


def places(value: Any, place: Place = ()) -> list[Place]:
    """Where something stands in lists and mappings."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([place] if place else []), *(found for key, inner in items for found in places(inner, (*place, key)))]


def put_at(value: Any, place: Place, new: Any) -> Any:
    """The same with something else there."""
    if not place:
        return new
    value = copy.copy(value)
    value[place[0]] = put_at(value[place[0]], place[1:], new) if place[1:] else new
    return value


def _change(draw: st.DrawFn, value: Any) -> Any:
    known = places(value)
    if not known:
        return draw(VALUES)
    place = draw(st.sampled_from(known))
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    old = holder[place[-1]]
    match draw(st.sampled_from(["replace", "replace", "replace", "near", "remove", "repeat", "other", "rename"])):
        case "remove":
            kept = dict(holder) if isinstance(holder, dict) else list(holder)
            del kept[place[-1]]
            return put_at(value, place[:-1], kept)
        case "repeat" if isinstance(holder, list):
            copies = draw(st.sampled_from([1, 2, 100]))
            return put_at(value, place[:-1], [*holder[: place[-1]], *[old] * copies, *holder[place[-1] :]])
        case "rename" if isinstance(holder, dict):
            key = draw(st.text(max_size=3) | st.sampled_from([*holder, "x" * 300, "\udcff", "\0"]))
            return put_at(
                value, place[:-1], {key if name == place[-1] else name: held for name, held in holder.items()}
            )
        case "other":
            other = value
            for key in draw(st.sampled_from(known)):
                other = other[key]
            return put_at(value, place, other)
        case "near":
            return put_at(value, place, _near(draw, old))
        case _:
            return put_at(value, place, draw(VALUES))


def _near(draw: st.DrawFn, old: Any) -> Any:
    """Something of the same type."""
    if isinstance(old, bytes):
        return damaged(draw, old)
    if isinstance(old, torch.Tensor):
        worse = old * torch.nan if old.is_floating_point() else old - 1
        return draw(st.sampled_from([worse, old[None], old.flatten()[:1], old.double(), old.long(), _sparse(old),
                                     old.bool(), old.to("meta"), old.to(torch.complex64), torch.empty(0)]))  # fmt: skip
    if isinstance(old, bool) or old is None:
        return not old
    if isinstance(old, int):
        return old + draw(st.sampled_from([1, -1, 100]))
    if isinstance(old, float):
        return old * draw(st.sampled_from([-1.0, 1e6, 1e-30]))
    if isinstance(old, str):
        return draw(st.sampled_from([old + old, old.upper(), old[1:], f" {old}", f"{old}\0", f"../{old}", f"{old}é"]))
    return old


def _sparse(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_sparse() if tensor.dim() else tensor[None].to_sparse()


def _deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _as_json(value: Any) -> bytes:
    text = json.dumps(value, default=lambda other: other.decode("latin1"))
    return text.encode()


def _words(data: bytes) -> list[str]:
    return [part for part in re.split(r"([\s,:;=<>/\[\]{}\"']+)", data.decode()) if part]


def _text(value: Any) -> bytes:
    return "".join(str(part) for part in value).encode("utf-8", "surrogateescape")


def _take_png(data: bytes) -> list[Any]:
    chunks, at = [], 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunks.append([kind, data[at + 8 : at + 8 + length]])
        at += 12 + length
    # The pixels too are packed, with a sum of their own.
    return [[kind, zlib.decompress(held) if kind == b"IDAT" else held] for kind, held in chunks]


def _put_png(chunks: Any) -> bytes:
    written = b"\x89PNG\r\n\x1a\n"
    for kind, held in chunks:
        packed = zlib.compress(held) if kind == b"IDAT" else held
        written += struct.pack(">I", len(packed)) + kind + packed + struct.pack(">I", zlib.crc32(kind + packed))
    return written


def _take_jpeg(data: bytes) -> list[Any]:
    """Markers with what they hold; the scan last."""
    segments, at = [], 2
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        segments.append([data[at : at + 2], data[at + 4 : at + 2 + length]])
        at += 2 + length
    return [*segments, [b"", data[at:]]]


def _put_jpeg(segments: Any) -> bytes:
    parts = [mark + (struct.pack(">H", len(held) + 2) if mark else b"") + held for mark, held in segments]
    return b"\xff\xd8" + b"".join(parts)


def _take_safetensors(data: bytes) -> list[Any]:
    (length,) = struct.unpack_from("<Q", data)
    return [json.loads(data[8 : 8 + length]), data[8 + length :]]


def _put_safetensors(value: Any) -> bytes:
    head = _as_json(value[0])
    return struct.pack("<Q", len(head)) + head + value[1]


def _take_torch(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)


def _put_torch(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _take_zip(data: bytes) -> list[Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [[entry.filename, entry.external_attr, archive.read(entry)] for entry in archive.infolist()]


def _put_zip(entries: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, attributes, held in entries:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = attributes
            archive.writestr(entry, held)
    return file.getvalue()


_MEMBER = ("name", "type", "linkname", "mode", "uid", "gid", "mtime", "uname", "devmajor", "devminor")


def _take_tar(data: bytes) -> list[Any]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [
            [{key: getattr(member, key) for key in _MEMBER}, (archive.extractfile(member) or io.BytesIO()).read()]
            for member in archive
        ]


def _put_tar(members: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for head, held in members:
            member = tarfile.TarInfo()
            for key, value in head.items():
                setattr(member, key, value)
            member.size = len(held)
            archive.addfile(member, io.BytesIO(held))
    return file.getvalue()


def _take_records(data: bytes) -> list[Any]:
    """What the records hold, in words of four bytes at their beginning: flags, label, ids."""
    records, at = [], 0
    while at < len(data):
        _, word = struct.unpack_from("<II", data, at)
        held = data[at + 8 : at + 8 + (word & (1 << 29) - 1)]
        records.append([*(held[place : place + 4] for place in range(0, 36, 4)), held[36:]])
        at += 8 + len(held) + -len(held) % 4
    return records


def _put_records(records: Any) -> bytes:
    return b"".join(record(b"".join(_word(part) for part in parts)) for parts in records)


def _word(part: Any) -> bytes:
    if isinstance(part, bytes):
        return part
    return struct.pack("<f", part) if isinstance(part, float) else struct.pack("<I", part)


JSON = Form(json.loads, _as_json)
YAML = Form(yaml.safe_load, lambda value: yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogateescape"))
TEXT = Form(_words, _text)
PNG = Form(_take_png, _put_png)
JPEG = Form(_take_jpeg, _put_jpeg)
SAFETENSORS = Form(_take_safetensors, _put_safetensors)
TORCH = Form(_take_torch, _put_torch)
ZIP = Form(_take_zip, _put_zip)
TAR = Form(_take_tar, _put_tar)
RECORDS = Form(_take_records, _put_records)


def pickled(value: Any) -> Form:
    """A pickle of a value that is known, so that none is unpickled."""
    return Form(lambda _: value, lambda changed: pickle.dumps(changed, protocol=2))
