"""Data that is small enough to train on in a second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Small:
    """A few synthetic people and scenes, and how to train on them in a second."""

    faces: Path
    objects: Path

    @property
    def parts(self) -> tuple[str, ...]:
        """Arguments of `mtframe train`: backbone, tasks and overrides."""
        return (
            "-b", "timm/test_resnet.r160_in1k",
            "-t", f"faces=face-recognition:{self.faces}",
            "-t", f"objects=object-detection:{self.objects}",
            "backbone.pretrained=false",
            "tasks.faces.size=64", "tasks.faces.batch_size=4", "tasks.faces.head.dim=16",
            "tasks.objects.size=64", "tasks.objects.batch_size=2", "tasks.objects.head.width=32",
            # Boxes from the first step on.
            "tasks.objects.head.score_threshold=0", "tasks.objects.head.max_detections=5",
            "train.steps=2", "train.workers=0", "train.precision=fp32", "train.ema=null", "train.log_every=1",
        )  # fmt: skip
