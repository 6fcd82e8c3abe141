"""What each generation of TensorRT has, as data: nothing else in the package asks for a version."""

from __future__ import annotations

__all__ = ["STACKS", "Stack", "stack_of"]

from dataclasses import dataclass

from trt_backend.ir.types import DType

_COMMON = frozenset({DType.BOOL, DType.INT32, DType.INT64, DType.FLOAT16, DType.FLOAT32})
_NO_CUMULATIVE = frozenset({"CumulativeSum", "Attention"})
_NO_GELU = frozenset({"Activation gelu_erf", "Activation gelu_tanh"})
_NO_ISNAN = frozenset({"Unary isnan"})


@dataclass(frozen=True)
class Stack:
    """One generation.

    Attributes:
        package: what is imported, "tensorrt" or "tensorrt_rtx".
        since: the first version (major, minor) that these facts hold for.
        strongly_typed: whether layers compute in the types that the network says. The weakly typed builder chooses, and
            is held to a type by constraints on layers.
        dtypes: the element types of tensors.
        lacks: the ops, or kinds of an op (`emit.rules.op_label`), that have no layer.
        int64: whether there is an int64; without, int64 tensors are int32 ones (`narrow`).
        typed_weights: whether weights are a type and an address; without, they are a NumPy array.
        progress: whether builds report to an IProgressMonitor.
        timing_cache: whether the timings of one build help the next.
        shares_profiles: whether several execution contexts may use one optimization profile. 8.6 does on demand.
        shuts_libraries_out: whether a preview feature, on by default, keeps tactics of cuBLAS and cuDNN out that the tactic
            sources would allow.
        ahead_of_time: whether builds for a named architecture need no GPU.
        normalization: the method that adds a normalization.
        attention: the method that adds an attention.
        multiplies_rows: whether batches of one row may be multiplied. Where 8.6 fuses an attention of one query, it takes the
            keys' batch for their positions (8.6.0 on an H200; TensorRT's issue 3645 tells of the like; ADR 22).
        writes_infinity: whether kernels may hold infinite constants. 8.6 writes 1e38 into its pointwise kernels where a
            constant of one element is infinite and the kernel computes in float32 (8.6.0 on an H200).
    """

    package: str
    since: tuple[int, int]
    strongly_typed: bool
    dtypes: frozenset[DType]
    lacks: frozenset[str]
    int64: bool = True
    typed_weights: bool = True
    progress: bool = True
    timing_cache: bool = True
    shares_profiles: bool = True
    shuts_libraries_out: bool = False
    ahead_of_time: bool = False
    normalization: str = "add_normalization"
    attention: str = ""
    multiplies_rows: bool = True
    writes_infinity: bool = True

    def __str__(self) -> str:
        return f"{self.package} {self.since[0]}.{self.since[1]}"


STACKS: tuple[Stack, ...] = (
    Stack(
        "tensorrt",
        (8, 6),
        strongly_typed=False,
        dtypes=_COMMON,
        lacks=_NO_CUMULATIVE | _NO_GELU | _NO_ISNAN,
        int64=False,
        typed_weights=False,
        progress=False,
        shares_profiles=False,
        shuts_libraries_out=True,
        multiplies_rows=False,
        writes_infinity=False,
    ),
    Stack("tensorrt", (10, 0), True, _COMMON | {DType.BFLOAT16}, _NO_CUMULATIVE | _NO_ISNAN),
    Stack("tensorrt", (10, 3), True, _COMMON | {DType.BFLOAT16}, _NO_CUMULATIVE),
    Stack(
        "tensorrt",
        (10, 16),
        True,
        _COMMON | {DType.BFLOAT16},
        frozenset(),
        normalization="add_normalization_v2",
        attention="add_attention",
    ),
    Stack(
        "tensorrt",
        (11, 0),
        True,
        _COMMON | {DType.BFLOAT16},
        frozenset(),
        normalization="add_normalization_v2",
        attention="add_attention_v2",
    ),
    Stack(
        "tensorrt_rtx",
        (1, 7),
        True,
        _COMMON | {DType.BFLOAT16},
        frozenset(),
        timing_cache=False,
        ahead_of_time=True,
        normalization="add_normalization_v2",
        attention="add_attention_v2",
    ),
)
"""Each package's generations, the oldest first. Read off the bindings of 8.6.0, 10.0.1, 10.3.0, 10.16.1, 11.4.0 and RTX 1.7.1."""


def stack_of(package: str, version: str) -> Stack | None:
    """Return the latest generation that is not later than a version (`"10.3.0"`), or None where it is too old."""
    major, minor = (int(part) for part in version.split(".")[:2])
    found = [stack for stack in STACKS if stack.package == package and stack.since <= (major, minor)]
    return found[-1] if found else None
