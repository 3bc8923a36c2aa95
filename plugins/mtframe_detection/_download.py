"""Where COCO 2017 is fetched from, with the digests of its files."""

from __future__ import annotations

from mtframe.download import RemoteFile

# The host's certificate does not name it, so https is refused; the digests guard what arrives.
_HOST = "http://images.cocodataset.org"

COCO_2017 = (
    RemoteFile(
        "annotations_trainval2017.zip",
        f"{_HOST}/annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        gives="annotations/instances_val2017.json",
    ),
    RemoteFile("val2017.zip", f"{_HOST}/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", gives="val2017"),
    RemoteFile("train2017.zip", f"{_HOST}/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", gives="train2017"),
)
