"""The cost of a graph at one size of its inputs: all shapes are worked out, and nothing is computed.

The graph of a stranger's weights may ask for any amount of memory with harmless operators, such as a sum of a
row and a column, or forty concatenations of a thing with itself. Before a session is made, and again for
every new size of inputs, the shapes are followed through the graph, and what it would store and multiply is
compared with the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from .onnx_format import Graph, Node

MOST_NODES = 4096
MOST_STORED = 64
"""How many numbers per pixel may be needed at once; the shipped networks need 18, those of `nano` 49."""
MOST_PRODUCTS = 50_000
"""How many multiplications per pixel are allowed; `tiny` does up to 16,297."""
_BASE = 2**22
"""How many numbers are allowed for pictures of any size: weights are transposed, levels looked up."""
_MOST_KNOWN = 64
"""The size of the largest array whose values are followed, because sizes are made of them."""

Shape = tuple[int, ...]


class Value:
    """An array: its shape, and its values if sizes may depend on them."""

    def __init__(self, shape: Sequence[int], known: NDArray[Any] | None = None) -> None:
        self.shape: Shape = tuple(int(side) for side in shape)
        small = known is not None and known.size <= _MOST_KNOWN
        self.known = known if small else None

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    def numbers(self) -> list[int]:
        """Return the values as sizes.

        Raises:
            ValueError: they depend on the picture.
        """
        if self.known is None:
            raise ValueError("a size that depends on the picture")
        return [int(number) for number in self.known.ravel()]


def check_graph(graph: Graph, weights: Mapping[str, Shape], inputs: Mapping[str, Shape], pixels: int) -> None:
    """Refuse a graph that would take more than networks of this kind do.

    Args:
        weights: the shapes of the arrays outside the file.
        inputs: the shapes of the inputs.
        pixels: the number of pixels of the picture.

    Raises:
        WeightsError: it has an operator that our export does not use, shapes that do not fit, or is too
            large.
    """
    if len(graph.nodes) > MOST_NODES or set(graph.weights) != set(weights):
        raise WeightsError("it has too many operations, or other weights than the folder names")
    values = {name: Value(shape) for name, shape in (*weights.items(), *inputs.items())}
    values |= {name: Value(value.shape, value) for name, value in graph.constants.items()}
    given = set(values)
    if len(values) != len(weights) + len(inputs) + len(graph.constants) or weights != graph.weights:
        raise WeightsError("its weights have other shapes than the folder's, or names that stand twice")
    last = {name: place for place, node in enumerate(graph.nodes) for name in node.inputs}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))
    stored = products = 0
    for place, node in enumerate(graph.nodes):
        try:
            made = _OPERATORS[node.operator](node, [values[name] if name else None for name in node.inputs])
            products += _products(node, values, made[0])
        except KeyError as error:
            raise WeightsError(
                f"the operator {node.operator} or its input is not one that is exported"
            ) from error
        except (ValueError, IndexError, TypeError, AttributeError, ZeroDivisionError, OverflowError) as error:
            raise WeightsError(f"the shapes of a {node.operator} do not fit: {error}") from error
        if len(made) != len(node.outputs) or any(name in values for name in node.outputs):
            raise WeightsError(f"a {node.operator} has outputs that it cannot have")
        stored += sum(value.size for value in made)
        if stored > _BASE + MOST_STORED * pixels or products > _BASE + MOST_PRODUCTS * pixels:
            raise WeightsError("it would take more memory or time than any networks of this version")
        values.update(zip(node.outputs, made, strict=True))
        # Arrays that nothing uses any more are released.
        over = {name for name in (*node.inputs, *node.outputs) if last.get(name, place) == place}
        stored -= sum(values[name].size for name in over if name and name not in given)


def _products(node: Node, values: Mapping[str, Value], made: Value) -> int:
    if node.operator == "Conv":
        return made.size * math.prod(values[node.inputs[1]].shape[1:])
    if node.operator == "AveragePool":
        return made.size * math.prod(node.attributes["kernel_shape"])
    if node.operator in ("MatMul", "Gemm"):
        first = values[node.inputs[0]].shape
        return made.size * first[0 if node.attributes.get("transA") else -1]
    return 0


# --- operators: (node, its inputs) -> what it gives

Inputs = list[Any]
Rule = Callable[[Node, Inputs], list[Value]]


def _same(node: Node, inputs: Inputs) -> list[Value]:
    return [Value(inputs[0].shape)]


def _numeric(function: Callable[[Any, Any], Any] | None) -> Rule:
    """Broadcast two arrays; their values are followed if they are sizes."""

    def rule(node: Node, inputs: Inputs) -> list[Value]:
        a, b = inputs
        shape = np.broadcast_shapes(a.shape, b.shape)
        known = None
        if (
            function
            and a.known is not None
            and b.known is not None
            and a.known.dtype == b.known.dtype == np.int64
        ):
            known = function(a.known, b.known)
        return [Value(shape, known)]

    return rule


def _conv(node: Node, inputs: Inputs) -> list[Value]:
    batch, channels, *sides = inputs[0].shape
    outputs, taken, *kernel = inputs[1].shape
    if taken * node.attributes.get("group", 1) != channels:
        raise ValueError("a convolution")
    return [Value((batch, outputs, *_windows(node, sides, kernel)))]


def _average_pool(node: Node, inputs: Inputs) -> list[Value]:
    batch, channels, *sides = inputs[0].shape
    if node.attributes.get("ceil_mode"):
        raise ValueError("windows that are cut off")
    return [Value((batch, channels, *_windows(node, sides, node.attributes["kernel_shape"])))]


def _windows(node: Node, sides: Sequence[int], kernel: Sequence[int]) -> Sequence[int]:
    """Return how many positions a window has along each side."""
    about = node.attributes
    if about.get("auto_pad", "NOTSET") != "NOTSET":
        raise ValueError("a border that is not stated")
    ones = (1,) * len(kernel)
    pads = about.get("pads", (0,) * 2 * len(kernel))
    strides, dilations = about.get("strides", ones), about.get("dilations", ones)
    if min((*strides, *dilations, *kernel)) < 1 or min(pads) < 0 or len(kernel) != len(sides):
        raise ValueError("a window")
    return _positive(
        [
            (side + pads[i] + pads[i + len(kernel)] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
            for i, side in enumerate(sides)
        ]
    )


def _positive(sides: Sequence[int]) -> Sequence[int]:
    if any(side < 0 for side in sides):
        raise ValueError("a side below 0")
    return sides


def _split(node: Node, inputs: Inputs) -> list[Value]:
    axis, count = node.attributes.get("axis", 0), len(node.outputs)
    shape = list(inputs[0].shape)
    if len(inputs) > 1:
        parts = inputs[1].numbers()
    else:
        each = -(-shape[axis] // node.attributes["num_outputs"])
        parts = [max(0, min(each, shape[axis] - each * i)) for i in range(count)]
    if sum(_positive(parts)) != shape[axis]:
        raise ValueError("parts that are not the whole")
    return [Value([*shape[:axis], part, *shape[axis:][1:]]) for part in parts]


def _concat(node: Node, inputs: Inputs) -> list[Value]:
    axis, shape = node.attributes["axis"], list(inputs[0].shape)
    shape[axis] = sum(value.shape[axis] for value in inputs)
    known = [value.known for value in inputs]
    joined = None if any(k is None for k in known) else np.concatenate(known, axis)
    return [Value(shape, joined)]


def _shape(node: Node, inputs: Inputs) -> list[Value]:
    sides = np.array(inputs[0].shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64)
    return [Value(sides.shape, sides)]


def _squeeze(node: Node, inputs: Inputs) -> list[Value]:
    shape, known = inputs[0].shape, inputs[0].known
    axes = inputs[1].numbers() if len(inputs) > 1 else [i for i, side in enumerate(shape) if side == 1]
    axes = [axis % len(shape) for axis in axes]
    if any(shape[axis] != 1 for axis in axes):
        raise ValueError("an axis that is not 1")
    left = [side for i, side in enumerate(shape) if i not in axes]
    return [Value(left, None if known is None else known.reshape(left))]


def _unsqueeze(node: Node, inputs: Inputs) -> list[Value]:
    known, axes = inputs[0].known, inputs[1].numbers()
    rank = len(inputs[0].shape) + len(axes)
    places = {axis % rank for axis in axes}
    sides = iter(inputs[0].shape)
    shape = [1 if i in places else next(sides) for i in range(rank)]
    return [Value(shape, None if known is None else known.reshape(shape))]


def _reshape(node: Node, inputs: Inputs) -> list[Value]:
    value, wanted = inputs[0], inputs[1].numbers()
    if not node.attributes.get("allowzero"):
        wanted = [value.shape[i] if side == 0 else side for i, side in enumerate(wanted)]
    rest = math.prod(side for side in wanted if side != -1)
    shape = [value.size // rest if side == -1 else side for side in wanted]
    if math.prod(_positive(shape)) != value.size:
        raise ValueError("another number of elements")
    return [Value(shape, None if value.known is None else value.known.reshape(shape))]


def _gather(node: Node, inputs: Inputs) -> list[Value]:
    value, index = inputs
    axis = node.attributes.get("axis", 0) % len(value.shape)
    known = None
    if value.known is not None and index.known is not None:
        known = np.take(value.known, index.known, axis)
    return [Value((*value.shape[:axis], *index.shape, *value.shape[axis + 1 :]), known)]


def _transpose(node: Node, inputs: Inputs) -> list[Value]:
    order = node.attributes["perm"]
    if sorted(order) != list(range(len(inputs[0].shape))):
        raise ValueError("an order of axes")
    return [Value([inputs[0].shape[axis] for axis in order])]


def _depth_to_space(node: Node, inputs: Inputs) -> list[Value]:
    batch, channels, height, width = inputs[0].shape
    block = node.attributes["blocksize"]
    if block < 1 or channels % block**2:
        raise ValueError("a block")
    return [Value((batch, channels // block**2, height * block, width * block))]


def _matmul(node: Node, inputs: Inputs) -> list[Value]:
    a, b = (value.shape for value in inputs)
    if min(len(a), len(b)) < 2 or a[-1] != b[-2]:
        raise ValueError("a product")
    return [Value((*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1]))]


def _gemm(node: Node, inputs: Inputs) -> list[Value]:
    a, b = (
        value.shape[::-1] if node.attributes.get(flag) else value.shape
        for value, flag in zip(inputs[:2], ("transA", "transB"), strict=True)
    )
    if len(a) != 2 or len(b) != 2 or a[1] != b[0]:
        raise ValueError("a product")
    return [Value((a[0], b[1]))]


def _resize(node: Node, inputs: Inputs) -> list[Value]:
    value = inputs[0]
    if len(inputs) > 3 and inputs[3] is not None:
        return [Value(_positive(inputs[3].numbers()))]
    scales = inputs[2].known
    if scales is None or len(scales) != len(value.shape):
        raise ValueError("a scale")
    return [
        Value(_positive([math.floor(side * scale) for side, scale in zip(value.shape, scales, strict=True)]))
    ]


_OPERATORS: dict[str, Rule] = {
    **dict.fromkeys(("Abs", "Clip", "Cos", "LayerNormalization", "Sigmoid", "Sin"), _same),
    **dict.fromkeys(("Div", "Max"), _numeric(None)),
    "Add": _numeric(np.add), "Mul": _numeric(np.multiply), "Sub": _numeric(np.subtract),
    "AveragePool": _average_pool, "Concat": _concat, "Conv": _conv, "DepthToSpace": _depth_to_space,
    "Gather": _gather, "Gemm": _gemm, "MatMul": _matmul, "Reshape": _reshape, "Resize": _resize,
    "Shape": _shape, "Split": _split, "Squeeze": _squeeze, "Transpose": _transpose, "Unsqueeze": _unsqueeze,
}  # fmt: skip
"""The operators of our export, with functions that return the shape of their output."""
