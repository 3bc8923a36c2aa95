"""Where LFW is fetched from, with the digests of its files."""

from __future__ import annotations

from mtframe.download import RemoteFile

_FIGSHARE = "https://ndownloader.figshare.com/files"

# The images and pairs are the copies that scikit-learn fetches. LFW's own site at vis-www.cs.umass.edu is gone; the
# lists of people are on the copy of it that its authors keep.
LFW_FILES = (
    RemoteFile(
        "pairsDevTest.txt",
        f"{_FIGSHARE}/5976009",
        "7cb06600ea8b2814ac26e946201cdb304296262aad67d046a16a7ec85d0ff87c",
    ),
    RemoteFile(
        "pairs.txt",
        f"{_FIGSHARE}/5976006",
        "ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
    ),
    RemoteFile(
        "peopleDevTrain.txt",
        "https://umass-vis-lfw.github.io/peopleDevTrain.txt",
        "2e58df13ba4cc143189336e001cc2c195f1dfa5b29a6475c02857be353c2a2fa",
    ),
    RemoteFile(
        "lfw-funneled.tgz",
        f"{_FIGSHARE}/5976015",
        "b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
        gives="lfw_funneled",
    ),
)
