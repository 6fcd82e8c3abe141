"""0-d tensors on the host: the floats that a model is called with, and what follows from dynamic sizes.

Torch makes float64 tensors of Python's floats (the scale of an interpolation, an argument that moves), and writes their
conversions with `prims`, whose calls cost ten times those of aten.
"""

from __future__ import annotations

__all__ = ["convert_scalars", "mark_numbers", "move_scalars", "wrap_quotients"]

import torch
from torch import fx
from torch._subclasses import FakeTensor

from trt_backend_torch.fx import NUMBER, is_random, is_size, is_view, tensors_of

_aten = torch.ops.aten
_CONVERT = torch.ops.prims.convert_element_type.default
_TAKES_TENSORS = {
    _aten.add.Tensor: _aten.add.Tensor,
    _aten.div.Tensor: _aten.div.Tensor,
    _aten.mul.Tensor: _aten.mul.Tensor,
    _aten.rsub.Scalar: _aten.rsub.Tensor,
    _aten.sub.Tensor: _aten.sub.Tensor,
}
"""The overload that takes a tensor in the place of a number."""


def wrap_quotients(gm: fx.GraphModule) -> None:
    """Make 0-d tensors of the quotients of sizes that arithmetic takes, as torch does of most floats that follow from sizes.

    The tensor is of the dtype that the op computes in, so that neither its result nor its dtype changes.
    """
    for node in [node for node in gm.graph.nodes if node.target in _TAKES_TENSORS]:
        promised = node.meta["val"]
        if not isinstance(promised, FakeTensor) or not _is_float(node.args[1]):
            continue
        other, number = node.args
        narrow = promised.dim() and other.meta["val"].dtype == promised.dtype
        dtype = torch.promote_types(promised.dtype, torch.float32) if narrow else promised.dtype
        with gm.graph.inserting_before(node), promised.fake_mode:
            wrapped = gm.graph.call_function(_aten.scalar_tensor.default, (number,), {"dtype": dtype})
            wrapped.meta["val"] = torch.empty((), dtype=dtype, device="cpu")
        node.target, node.args = _TAKES_TENSORS[node.target], (other, wrapped)


def convert_scalars(gm: fx.GraphModule) -> None:
    """Convert 0-d tensors by aten; those that are of the wanted type already, and only computed with, not at all."""
    for node in gm.graph.find_nodes(op="call_function", target=_CONVERT):
        source, dtype = node.args
        if node.meta["val"].dim():
            continue
        is_same = dtype in [tensor.dtype for tensor in _results(source)]
        if is_same and all(map(_makes_its_own, node.users)):
            node.replace_all_uses_with(source)
            gm.graph.erase_node(node)
        else:
            node.target = _aten._to_copy.default
            node.args, node.kwargs = (source,), {"dtype": dtype}


def mark_numbers(gm: fx.GraphModule) -> None:
    """Mark the 0-d tensors on the CPU that follow from sizes, and the constants that only serve these: they count as sizes do.

    Regions of nothing else are thus no regions: the host computes such numbers before a model's one region.
    """
    constants: list[fx.Node] = []
    for node in gm.graph.nodes:
        if not _is_scalar(node) or is_random(node):
            continue
        sources = [source for source in node.all_input_nodes if source not in constants]
        if not sources:
            constants.append(node)
        elif all(is_size(source) or NUMBER in source.meta for source in sources):
            node.meta[NUMBER] = True
    for constant in reversed(constants):
        if all(NUMBER in user.meta for user in constant.users):
            constant.meta[NUMBER] = True


def move_scalars(gm: fx.GraphModule) -> None:
    """Promise 0-d tensors that only serve tensors on a GPU to lie there, so that they join the engines of those.

    Only the promise changes, not the calls: where such a scalar stays native it lies on the CPU, where torch takes it among
    tensors on any device.
    """
    for node in reversed(gm.graph.nodes):
        if not _is_scalar(node):
            continue
        tensor = node.meta["val"]
        served = {place.device for user in node.users for place in _results(user)}
        if len(served) == 1 and all(map(_results, node.users)) and tensor.device not in served:
            node.meta["val"] = _aten._to_copy.default(tensor, device=served.pop())


def _is_float(argument: object) -> bool:
    """Whether this is a float that follows from sizes."""
    return isinstance(argument, fx.Node) and isinstance(argument.meta["val"], torch.SymFloat)


def _is_scalar(node: fx.Node) -> bool:
    """Whether this is a call that gives a 0-d tensor outside the GPU."""
    tensor = node.meta.get("val")
    if node.op != "call_function" or not isinstance(tensor, torch.Tensor):
        return False
    return not tensor.dim() and not tensor.is_cuda


def _makes_its_own(node: fx.Node) -> bool:
    """Whether the node's results share no memory with what it reads."""
    return node.op == "call_function" and not is_view(node)


def _results(node: fx.Node) -> list[torch.Tensor]:
    return [tensor for tensor in tensors_of(node) if tensor is not None]
