"""Where a model runs, and the memory that it runs in."""

from __future__ import annotations

import ctypes
import os

import torch
from torch import nn

from mtframe.errors import RecipeError

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


def inference_precision(network: nn.Module, wanted: str, device: torch.device) -> str:
    """The precision that predictions are made in: the training's where that is faster here, else `fp32`.

    Args:
        network: What images pass.
        wanted: The training's, `bf16` or `fp32`.
        device: Where it runs.
    """
    if wanted == "fp32" or device.type != "cpu":
        return wanted
    # Without such instructions bf16 is emulated; depthwise convolutions have no kernel for it.
    able = torch.cpu.get_capabilities()
    fast = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    depthwise = any(isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels for m in network.modules())
    return "bf16" if fast and not depthwise else "fp32"


def lay_out_channels_last(network: nn.Module) -> None:
    """Lays out the weights of convolutions NHWC in memory, in place."""
    # Not by Module.to, which refuses models that have weights of five dimensions (3D convolutions).
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
