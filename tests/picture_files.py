"""Picture files of forms that few writers make, by the bytes of their standards."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(values: np.ndarray, transparent: tuple[int, int, int] | None = None) -> bytes:
    """A PNG of 16 bits a channel: (H, W, C), C of 1 to 4; of RGB perhaps with a colour that is transparent."""
    height, width, channels = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    colour = b"" if transparent is None else _chunk(b"tRNS", struct.pack(">HHH", *transparent))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + colour
        + _chunk(b"IDAT", zlib.compress(rows))
        + _chunk(b"IEND", b"")
    )


def tiff(
    values: np.ndarray, photometric: int, *, alpha: bool = False, bits: int | None = None, deflate: bool = False
) -> bytes:
    """A TIFF 6.0 of (H, W, C) numbers of any type, little-endian.

    Args:
        values: The numbers.
        photometric: 0 for grey whose 0 is white, 1 for grey, 2 for RGB, 5 for CMYK, 8 for LAB.
        alpha: Whether the last channel is alpha.
        bits: Of a number, if they are packed; 12.
        deflate: Whether to compress it, as technical note 2 of Adobe has it.
    """
    height, width, channels = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        data = b"".join(bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255)) for a, b in pairs.tolist())
    data = zlib.compress(data) if deflate else data
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    fields = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [bits or values.dtype.itemsize * 8] * channels),
        259: ("H", [8 if deflate else 1]), 262: ("H", [photometric]), 273: ("I", [0]), 277: ("H", [channels]),
        278: ("I", [height]), 279: ("I", [len(data)]), **({338: ("H", [2])} if alpha else {}),
        339: ("H", [form] * channels),
    }  # fmt: skip
    beyond, entries, start = b"", b"", 8 + 2 + 12 * len(fields) + 4
    long = sum(2 * len(numbers) for code, numbers in fields.values() if code == "H" and len(numbers) > 2)
    fields[273] = ("I", [start + long])
    for tag, (code, numbers) in fields.items():
        raw = struct.pack(f"<{len(numbers)}{code}", *numbers)
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[code], len(numbers))
        entries += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", start + len(beyond))
        beyond += raw if len(raw) > 4 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + beyond + data


def icc_profile(primaries: np.ndarray, gamma: float, space: bytes = b"RGB ") -> bytes:
    """A colour profile of three primaries (ICC.1:2001-04), version 2.

    Args:
        primaries: (3, 3) XYZ of red, green and blue, one a column, for the white D50.
        gamma: Of all three curves.
        space: What the header calls the colours.
    """

    def fixed(values: np.ndarray) -> bytes:
        return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)

    white = np.array([0.9642, 1.0, 0.8249])
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(white)}
    tags |= {name + b"XYZ": b"XYZ \0\0\0\0" + fixed(primaries[:, at]) for at, name in enumerate((b"r", b"g", b"b"))}
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags |= {name + b"TRC": curve for name in (b"r", b"g", b"b")}
    place = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", place + len(body), len(content))
        body += content
    head = struct.pack(
        ">I4sI4s4s4s12s4s", place + len(body), b"", 0x02400000, b"mntr", space, b"XYZ ", bytes(12), b"acsp"
    )
    return (head.ljust(68, b"\0") + fixed(white)).ljust(128, b"\0") + table + body
