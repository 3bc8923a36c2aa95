"""Where a model runs, and the memory that it runs in."""

from __future__ import annotations

import ctypes
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mtframe.errors import RecipeError, amount

# Of <malloc.h>; see mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def pick_device(name: str) -> torch.device:
    """`auto` is the first accelerator, or the CPU. On a CPU, freed memory is kept from here on (`keep_freed_memory`).

    Raises:
        RecipeError: No such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        tensor = torch.zeros(1, device=name)
        # On `meta` tensors have a shape and no values.
        tensor.cpu()
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"train.device: {name!r} cannot be used here ({error})") from None
    if tensor.device.type == "cpu":
        keep_freed_memory()
    return tensor.device


def keep_freed_memory() -> bool:
    """Has the C library keep what this process frees, as PyTorch's allocators do on accelerators.

    glibc gives large blocks back at once, and has the system map and clear each page anew for the next activations of
    that size: up to a fourth of a forward pass (docs/results.md). The process then holds the most that it ever needed,
    and more where that does not fit together.

    Returns:
        False, and nothing changes, where the C library is another one or its variables (`MALLOC_...`,
        `GLIBC_TUNABLES`) say what is wanted.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    mallopt = None if os.name == "nt" else getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Ask the system anew for what is larger than a gibibyte only, before glibc 2.35 32 MiB at most; never shrink the
    # heap. Not the second without the first: it would end the first's rise to what is in use.
    return any(mallopt(_MMAP_THRESHOLD, size) for size in (1 << 30, 1 << 25)) and bool(mallopt(_TRIM_THRESHOLD, -1))


def memory_size() -> int | None:
    """Bytes that this process may have: the machine's, or its control group's limit; None if nobody knows."""
    sizes = []
    if hasattr(os, "sysconf") and {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys():
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    # There may be no such file, or "max" in it.
    with suppress(OSError, ValueError):
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return min((size for size in sizes if size > 0), default=None)


def free_memory() -> int | None:
    """Bytes that nobody uses at the moment, as far as this system tells; at most `memory_size`."""
    sizes = [memory_size()]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        sizes.append(int(line.split()[1]) << 10)
    return min((size for size in sizes if size is not None), default=None)


class WithinMemory(TorchDispatchMode):
    """Within it, tensors on the CPU that together do not fit into its memory are refused when they are made.

    Linux gives out addresses without memory behind them, and kills the process that writes to them.

    Raises:
        RecipeError: With what they would take, from whatever makes such a tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self._most, self._taken = free_memory() or math.inf, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Of a factory (empty, zeros, randn, full, ...) the first argument is a shape.
        shape = args[0] if args and isinstance(args[0], list | tuple) else kwargs.get("size")
        if (
            isinstance(shape, list | tuple)
            and all(isinstance(side, int) for side in shape)
            and torch.device(kwargs.get("device") or "cpu").type == "cpu"
        ):
            self._taken += math.prod(shape) * (kwargs.get("dtype") or torch.get_default_dtype()).itemsize
            if self._taken > self._most:
                raise RecipeError(
                    f"its tensors take {amount(self._taken)} or more, and {amount(self._most)} of memory are free. "
                    "Choose something smaller"
                )
        return func(*args, **kwargs)


def fastest_precision(network: nn.Module, device: torch.device) -> str:
    """`bf16` where a network runs faster so on a device, else `fp32`: known, not measured.

    On a CPU only with instructions for it, without which it is emulated, and without depthwise convolutions, which have
    no kernel for it: a step of MobileNetV3 takes 1.8 times as long as in fp32, one of ResNet-18 0.6 times. On a GPU
    that need not emulate it, and on any other device.

    Args:
        network: What images pass.
        device: Where it runs.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "bf16"
    able = torch.cpu.get_capabilities()
    fast = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    depthwise = any(isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels for m in network.modules())
    return "bf16" if fast and not depthwise else "fp32"


def training_precision(network: nn.Module, wanted: str, device: torch.device) -> str:
    """The precision to train in: what is wanted, and for `auto` the fastest. Arguments as of `inference_precision`."""
    return fastest_precision(network, device) if wanted == "auto" else wanted


def inference_precision(network: nn.Module, wanted: str, device: torch.device) -> str:
    """The precision that predictions are made in: that of training where it is faster here, else `fp32`.

    Args:
        network: What images pass.
        wanted: The training's, `bf16`, `fp32`, or `auto` where none was trained.
        device: Where it runs.
    """
    return "fp32" if wanted == "fp32" else fastest_precision(network, device)


def lay_out_channels_last(network: nn.Module) -> None:
    """Lays out the weights of convolutions NHWC in memory, in place."""
    # Not by Module.to, which refuses models that have weights of five dimensions (3D convolutions).
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
