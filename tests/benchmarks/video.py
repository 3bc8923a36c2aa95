"""`mtframe predict` on a made-up film: whether memory stays flat, and frames and times are the source's.

    python tests/benchmarks/video.py RUN [--minutes 10] [--rate 25]

The film has a counter in bright and dark cells, sound, and frames at odd distances, of which some are left out. It is
read again after annotation. Memory is that of a process of its own, sampled while it works.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from mtframe.video import Cut, Film, Frame

SIZE = 160, 96
UNIT = Fraction(1, 1000)


def main() -> None:
    """Makes the film, predicts it, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a trained run, a tiny one")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=25)
    parser.add_argument("--task", default="objects")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "film.mp4", Path(folder) / "out"
        times = make_film(source, arguments.minutes * 60, arguments.rate)
        print(f"{len(times)} frames, {times[-1] / 1000:.1f} s, {source.stat().st_size / 1e6:.1f} MB")
        begun = time.perf_counter()
        command = [
            sys.executable, "-m", "mtframe", "predict", str(arguments.run), str(source), "--out", str(out),
            "-t", arguments.task,
        ]  # fmt: skip
        process = subprocess.Popen(command)
        memory = watched(process, out / "film.jsonl", len(times))
        seconds = time.perf_counter() - begun
        print(f"{seconds:.0f} s, {len(times) / seconds:.1f} frames/s")
        for part, amount in memory:
            print(f"  after {part:4.0%} of the frames: {amount:7.1f} MB")
        settled = [amount for part, amount in memory if part >= 0.1]
        apart = max(settled) - min(settled)
        print(f"from 10 % on: {min(settled):.1f} to {max(settled):.1f} MB, {apart:.1f} MB apart (at most 50)")
        lines = [json.loads(line) for line in (out / "film.jsonl").read_text(encoding="utf-8").splitlines()]
        told = [(line["frame"], round(line["time"] * 1000)) for line in lines]
        print("lines: frames and times equal the source's:", told == list(enumerate(times)))
        with Film(out / "film.mp4") as film:
            drawn = [round(item.time * 1000) for item in film.read(Cut()) if isinstance(item, Frame)]
        print("annotated film: times equal the source's:", drawn == times)


def make_film(path: Path, seconds: float, rate: int) -> list[int]:
    """Writes the film; returns the times of its frames in milliseconds."""
    rng = np.random.default_rng(0)
    grid = np.arange(0, round(seconds * 1000), 1000 // rate)
    kept = grid[rng.random(len(grid)) > 0.05]
    times = [int(value) for value in kept + rng.integers(0, 1000 // rate // 2, len(kept))]
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video: Any = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "bf": "0"})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        video.time_base = video.codec_context.time_base = UNIT
        audio: Any = container.add_stream("aac", rate=16000, layout="mono")
        block, spoken = 1024, 0
        for number, ticks in enumerate(times):
            picture = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
            for bit in range(16):
                picture[:24, 10 * bit : 10 * bit + 10] = 230 if number >> bit & 1 else 20
            x = number * 3 % (SIZE[0] - 24)
            picture[40:80, x : x + 24] = (210, 60, 40)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = ticks, UNIT
            container.mux(video.encode(frame))
            while spoken * 1000 < ticks * 16000:
                tone = np.sin(np.arange(spoken, spoken + block) / 16000 * 440 * 6.28).astype(np.float32)[None] * 0.1
                piece = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 16000, spoken, Fraction(1, 16000)
                container.mux(audio.encode(piece))
                spoken += block
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return times


def watched(process: subprocess.Popen[bytes], lines: Path, frames: int) -> list[tuple[float, float]]:
    """Resident memory in MB of a process, by the part of frames that it has told of, about every tenth."""
    found: list[tuple[float, float]] = []
    told, place = 0, 0
    while process.poll() is None:
        time.sleep(0.5)
        try:
            resident = next(
                int(line.split()[1]) / 1024
                for line in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
                if line.startswith("VmRSS")
            )
            with lines.open("rb") as file:
                file.seek(place)
                told, place = told + file.read().count(b"\n"), file.tell()
        except (OSError, StopIteration):
            continue
        part = told / frames
        if part and (not found or part - found[-1][0] >= 0.02):
            found.append((part, resident))
    if process.returncode:
        raise SystemExit(f"mtframe predict ended with {process.returncode}")
    return found


if __name__ == "__main__":
    main()
