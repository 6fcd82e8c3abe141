"""Graphs that need gradients: they run natively, forward and backward."""

from __future__ import annotations

__all__ = ["ForwardWatch"]

from collections.abc import Callable
from typing import Any

from torch import fx
from torch._functorch.aot_autograd import make_boxed_func

from trt_backend.debug import log
from trt_backend.errors import Reason, ReasonKind
from trt_backend.report import GraphRecord
from trt_backend_torch.fx import is_compute, op_name, source_line
from trt_backend_torch.promises import keep_strides
from trt_backend_torch.weights import note_training

_WHY = "engines serve calls under torch.no_grad() or torch.inference_mode()"
_HINT = (
    "%s keeps what a backward pass needs, but none has run: engines serve only calls without gradients. "
    "For inference, call the model under torch.no_grad() or torch.inference_mode()"
)


class ForwardWatch:
    """Runs the forward and backward graphs of one compilation, and tells once when nobody asks for gradients."""

    def __init__(self) -> None:
        self._forwards = 0
        self._settled = False

    def forward(self, graph: fx.GraphModule, record: GraphRecord) -> Callable[..., Any]:
        """Return the native forward graph."""
        keep_strides(graph)
        note_native(graph, record)

        def run(*args: Any) -> Any:
            if not self._settled:
                self._hint(record)
            return graph.forward(*args)

        return make_boxed_func(run)

    def backward(self, graph: fx.GraphModule, record: GraphRecord) -> Callable[..., Any]:
        """Return the native backward graph; AOTAutograd asks for it at the first backward pass."""
        self._settled = True
        keep_strides(graph)
        note_native(graph, record)

        def run(*args: Any) -> Any:
            note_training()
            return (graph, record)[0].forward(*args)

        return make_boxed_func(run)

    def _hint(self, record: GraphRecord) -> None:
        self._forwards += 1
        if self._forwards == 2:
            self._settled = True
            log.warning(_HINT, record.name)


def note_native(graph: fx.GraphModule, record: GraphRecord) -> None:
    """Record that every op of a graph runs natively because of gradients."""
    calls = [node for node in graph.graph.nodes if is_compute(node)]
    record.ops_total = len(calls)
    record.native = [Reason(ReasonKind.GRADIENT, op_name(node), _WHY, source_line(node)) for node in calls]
