"""What we use of TensorFlow's private modules, in one place: the same names are there in 2.16 to 2.21.

Imported by name, for the stubs of TensorFlow describe its public modules only.
"""

from __future__ import annotations

__all__ = [
    "concrete_function",
    "convert_to_constants",
    "eager_context",
    "execute",
    "func_graph",
    "function_def_to_graph",
    "graph_to_function_def",
    "importer",
    "iterator_ops",
    "load_v1_in_v2",
    "loader_impl",
    "nest",
    "op_def_library",
    "op_def_registry",
    "ops",
    "resource",
    "saved_model_load",
    "tensor_util",
    "tensorrt",
    "tf_optimizer",
    "wrap_function",
]

import importlib
from typing import Any


def _module(name: str) -> Any:
    return importlib.import_module(f"tensorflow.python.{name}")


concrete_function = _module("eager.polymorphic_function.concrete_function")
convert_to_constants = _module("framework.convert_to_constants")
eager_context = _module("eager.context")
execute = _module("eager.execute")
func_graph = _module("framework.func_graph")
function_def_to_graph = _module("framework.function_def_to_graph")
graph_to_function_def = _module("framework.graph_to_function_def")
importer = _module("framework.importer")
iterator_ops = _module("data.ops.iterator_ops")
load_v1_in_v2 = _module("saved_model.load_v1_in_v2")
loader_impl = _module("saved_model.loader_impl")
nest = _module("util.nest")
op_def_library = _module("framework.op_def_library")
ops = _module("framework.ops")
op_def_registry = _module("framework.op_def_registry")
resource = _module("trackable.resource")
saved_model_load = _module("saved_model.load")
tensor_util = _module("framework.tensor_util")
tensorrt = _module("compiler.tensorrt.trt_convert")
tf_optimizer = _module("grappler.tf_optimizer")
wrap_function = _module("eager.wrap_function")
