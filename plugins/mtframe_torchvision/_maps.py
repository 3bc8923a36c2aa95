"""Which feature maps a network has, read off its graph: no list of models or layers."""

# Shapes: B images, C channels, H height, W width, N tokens.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.ops import StochasticDepth

from mtframe.backbones import FINEST

Layout = Literal["NCHW", "NHWC", "tokens"]


@dataclass(frozen=True)
class Map:
    """One node of the graph that is a feature map.

    Attributes:
        node: The node's name in the graph.
        name: The module whose result it is, or the node's name.
        depth: How deep that module lies, 1 for a child of the network.
        stride: In pixels of the image.
        channels: C.
        layout: `NCHW`, `NHWC`, or `tokens`: (B, prefix + H · W, C).
        prefix: Tokens in front that are no places of the image, such as a class token.
    """

    node: str
    name: str
    depth: int
    stride: int
    channels: int
    layout: Layout
    prefix: int

    def to_nchw(self, value: Tensor, height: int, width: int) -> Tensor:
        """The node's value for images of `height` × `width` pixels as (B, C, H / stride, W / stride)."""
        if self.layout == "NHWC":
            return value.permute(0, 3, 1, 2)
        if self.layout == "tokens":
            cells = value[:, self.prefix :].transpose(1, 2)
            return cells.unflatten(2, (height // self.stride, width // self.stride))
        return value


class _Tracer(fx.Tracer):
    # Read anew in each pass: a buffer that is looked at while tracing would become a second copy of itself.
    proxy_buffer_attributes = True

    # A leaf, so that what is frozen can be kept from skipping blocks: traced through, it would skip for good.
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, StochasticDepth) or super().is_leaf_module(m, module_qualified_name)


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what each node gives."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]


def trace(network: nn.Module) -> fx.GraphModule:
    """The network with its graph, as it is in evaluation mode."""
    modules: Any = (math, torchvision.ops)
    graph = _Tracer(autowrap_modules=modules).trace(network.eval())
    return fx.GraphModule(network, graph)


def record(network: fx.GraphModule, size: int) -> dict[str, Any]:
    """What each node gives for two images of `size` × `size` pixels, on the meta device."""
    recorder = _Recorder(network)
    recorder.run(torch.empty(2, 3, size, size, device="meta"))
    return recorder.values


def choose_maps(graph: fx.Graph, small: Mapping[str, Any], large: Mapping[str, Any], size: int) -> tuple[Map, ...]:
    """The last map of each stride from 4 on, finest first.

    A node is a map if all that the network makes of an image goes through it, and if its height and width grow
    with the image's. Of those with one stride, it is the last of what lies highest: the end of a whole stage
    rather than a layer in the midst of the next block.

    Args:
        graph: Of the network.
        small: Values by node for images of `size` × `size` pixels.
        large: Likewise for twice as many pixels a side.
        size: Pixels.
    """
    chosen: dict[int, Map] = {}
    ends = _ends(graph)
    for node in _necks(graph, small):
        form = _form(small[node.name], large[node.name], size)
        if form is None or form[0] < FINEST:
            continue
        name, depth = ends[node]
        found = Map(node.name, name, depth, *form)
        if found.stride not in chosen or depth <= chosen[found.stride].depth:
            chosen[found.stride] = found
    return tuple(chosen[stride] for stride in sorted(chosen))


def cut(network: fx.GraphModule, nodes: tuple[str, ...]) -> None:
    """Leaves of a network what leads to these nodes, which become its outputs."""
    found = {node.name: node for node in network.graph.nodes}
    network.graph.output_node().args = (tuple(found[name] for name in nodes),)
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()


def block_ends(graph: fx.Graph, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the blocks of a plain ViT end: the nodes that end the children of one module, of that with the most."""
    ends: dict[str, dict[str, str]] = {}
    last, stacks = _module_ends(graph)
    for node in _necks(graph, values):
        for path in stacks[node]:
            if last[path] is node:
                ends.setdefault(path.rpartition(".")[0], {})[path] = node.name
    return tuple(max(ends.values(), key=len).values())


def stage_of_targets(graph: fx.Graph, ends: Sequence[str]) -> dict[str, int]:
    """The stage of each module, parameter and buffer that a graph uses: how many of the `ends` come before it."""
    stages: dict[str, int] = {}
    stage = 0
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            stages.setdefault(node.target, min(stage, len(ends) - 1))
        stage += node.name in ends
    return stages


def _necks(graph: fx.Graph, values: Mapping[str, Any]) -> list[fx.Node]:
    """The nodes that every path from the image to the result goes through."""
    nodes = list(graph.nodes)
    place = {node: number for number, node in enumerate(nodes)}
    from_image: set[fx.Node] = set()
    spanned = [0] * (len(nodes) + 1)
    for node in nodes:
        # A size read off a tensor carries nothing of what is in the image.
        sources = [source for source in node.all_input_nodes if source in from_image]
        if node.op != "placeholder" and not sources:
            continue
        if isinstance(values[node.name], Tensor | tuple | list):
            from_image.add(node)
        for source in sources:
            spanned[place[source] + 1] += 1
            spanned[place[node]] -= 1
    necks, open_paths = [], 0
    for node in nodes:
        open_paths += spanned[place[node]]
        if open_paths == 0 and node in from_image and isinstance(values[node.name], Tensor):
            necks.append(node)
    return necks


def _module_ends(graph: fx.Graph) -> tuple[dict[str, fx.Node], dict[fx.Node, list[str]]]:
    """For each module its last node, and for each node the modules that it is in, outermost first."""
    last: dict[str, fx.Node] = {}
    stacks: dict[fx.Node, list[str]] = {}
    for node in graph.nodes:
        stacks[node] = [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]
        last |= dict.fromkeys(stacks[node], node)
    return last, stacks


def _ends(graph: fx.Graph) -> dict[fx.Node, tuple[str, int]]:
    """For each node the outermost module that ends with it, and how deep that lies."""
    last, stacks = _module_ends(graph)
    ends = {}
    for node, stack in stacks.items():
        ended = [path for path in stack if last[path] is node]
        ends[node] = (ended[0], stack.index(ended[0]) + 1) if ended else (node.name, len(stack) + 1)
    return ends


def _form(small: Any, large: Any, size: int) -> tuple[int, int, Layout, int] | None:
    """Stride, channels, layout and prefix of a map, from its values for images of `size` and of twice that."""
    if not (isinstance(small, Tensor) and small.dim() in (3, 4) and small.dim() == large.dim()):
        return None
    before, after = small.shape, large.shape
    growth = [b - a for a, b in zip(before, after, strict=True)]
    if small.dim() == 3:
        # Twice the side is four times the cells; what does not grow stands in front.
        side = math.isqrt(max(growth[1], 0) // 3)
        even = side > 0 and growth == [0, 3 * side**2, 0] and size % side == 0
        return (size // side, before[2], "tokens", before[1] - side**2) if even else None
    for layout, places, channels in (("NCHW", (2, 3), 1), ("NHWC", (1, 2), 3)):
        side = growth[places[0]]
        still = [growth[axis] for axis in (0, channels)]
        if side > 0 and side == growth[places[1]] and still == [0, 0] and size % side == 0:
            return size // side, before[channels], layout, 0  # type: ignore[return-value]
    return None
