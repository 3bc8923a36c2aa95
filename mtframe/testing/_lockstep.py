"""Calls of one module from several threads, in step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")

# How long a thread waits for others that do not come: they run other modules, or wait for a lock that it holds.
_PATIENCE = 2.0


def in_lockstep(module: nn.Module, calls: Sequence[Callable[[], T]]) -> list[T]:
    """Makes the calls at once, in a thread each; before each layer that they run the threads wait for each other.

    What one call sets on a module, the others then meet before it is read: a race is lost for certain, not by chance.

    Args:
        module: Holds the layers, which are its modules without children.
        calls: Of the module, or of parts of it. Those that run as many layers as the others meet at each.

    Returns:
        What they give. Raises what the first of them raises.
    """
    barrier = threading.Barrier(len(calls))

    def meet(layer: nn.Module, inputs: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            barrier.wait(_PATIENCE)

    def make(call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            barrier.abort()

    hooks = [layer.register_forward_pre_hook(meet) for layer in module.modules() if not any(layer.children())]
    try:
        with ThreadPoolExecutor(len(calls)) as pool:
            made = [pool.submit(make, call) for call in calls]
        return [call.result() for call in made]
    finally:
        for hook in hooks:
            hook.remove()
