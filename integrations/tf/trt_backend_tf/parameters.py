"""What TF-TRT's converter is told: precisions, profile strategies, and limits, under the names that it has for them."""

from __future__ import annotations

__all__ = [
    "DEFAULT_TRT_CONVERSION_PARAMS",
    "DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES",
    "PROFILE_STRATEGY_IMPLICIT_BATCH_MODE_COMPATIBLE",
    "PROFILE_STRATEGY_OPTIMAL",
    "PROFILE_STRATEGY_RANGE",
    "PROFILE_STRATEGY_RANGE_OPTIMAL",
    "TrtConversionParams",
    "TrtPrecisionMode",
    "check_strategy",
    "checked",
    "supported_profile_strategies",
]

import sys
from operator import index
from typing import Any, NamedTuple

from trt_backend.debug import log
from trt_backend_tf.version_1 import refuse_parameters

PROFILE_STRATEGY_RANGE = "Range"
PROFILE_STRATEGY_OPTIMAL = "Optimal"
PROFILE_STRATEGY_RANGE_OPTIMAL = "Range+Optimal"
PROFILE_STRATEGY_IMPLICIT_BATCH_MODE_COMPATIBLE = "ImplicitBatchModeCompatible"

DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES = sys.maxsize - 512
"""TF-TRT's default with TensorRT 8.4 and later: no limit of ours."""


def supported_profile_strategies() -> list[str]:
    """Return the names of the profile strategies."""
    return [
        PROFILE_STRATEGY_RANGE,
        PROFILE_STRATEGY_OPTIMAL,
        PROFILE_STRATEGY_RANGE_OPTIMAL,
        PROFILE_STRATEGY_IMPLICIT_BATCH_MODE_COMPATIBLE,
    ]


class TrtPrecisionMode:
    """The names of the precisions."""

    FP32 = "FP32"
    FP16 = "FP16"
    INT8 = "INT8"
    BF16 = "BF16"

    @staticmethod
    def supported_precision_modes() -> list[str]:
        """Return the names, in upper case and in lower case."""
        modes = [
            TrtPrecisionMode.FP32,
            TrtPrecisionMode.FP16,
            TrtPrecisionMode.INT8,
            TrtPrecisionMode.BF16,
        ]
        return modes + [mode.lower() for mode in modes]


class _Params(NamedTuple):
    max_workspace_size_bytes: int | None
    precision_mode: str
    minimum_segment_size: int
    maximum_cached_engines: int
    use_calibration: bool
    allow_build_at_runtime: bool


class TrtConversionParams(_Params):
    """The parameters of a conversion.

    Attributes:
        max_workspace_size_bytes: the most GPU memory that a kernel of TensorRT may use; None for no limit.
        precision_mode: one of `TrtPrecisionMode.supported_precision_modes()`.
        minimum_segment_size: the fewest ops that become an engine; -1 converts nothing.
        maximum_cached_engines: how many engines an op keeps.
        use_calibration: INT8 only: whether `convert()` collects ranges. Without, a model's own quantization is all there is.
        allow_build_at_runtime: whether a loaded model may build the engines that it lacks.
    """

    __slots__ = ()

    def __new__(
        cls,
        max_workspace_size_bytes: int | None = DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES,
        precision_mode: str = TrtPrecisionMode.FP32,
        minimum_segment_size: int = 3,
        maximum_cached_engines: int = 1,
        use_calibration: bool = True,
        allow_build_at_runtime: bool = True,
        **removed: Any,
    ) -> TrtConversionParams:
        """Return the parameters (TypeError for those of older TF-TRTs, with what to do instead)."""
        refuse_parameters(removed, "TrtConversionParams")
        return super().__new__(
            cls,
            max_workspace_size_bytes,
            precision_mode,
            minimum_segment_size,
            maximum_cached_engines,
            use_calibration,
            allow_build_at_runtime,
        )

    def _replace(self, **values: Any) -> TrtConversionParams:
        return TrtConversionParams(**{**self._asdict(), **values})


DEFAULT_TRT_CONVERSION_PARAMS = TrtConversionParams()


def checked(params: TrtConversionParams) -> TrtConversionParams:
    """Return the parameters with NumPy's integers as Python's (ValueError for an illegal value, with the legal ones)."""
    if not hasattr(params, "precision_mode"):
        raise ValueError(f"conversion_params is a {type(params).__name__}, and should be TrtConversionParams")
    integers: dict[str, int] = {}
    for name in ("max_workspace_size_bytes", "minimum_segment_size", "maximum_cached_engines"):
        value = getattr(params, name)
        if name == "max_workspace_size_bytes" and value is None:
            continue
        if isinstance(value, bool) or not hasattr(value, "__index__") or abs(index(value)) >= 1 << 63:
            raise ValueError(f"{name}={value!r}: it should be an int, and of 64 bits")
        if name == "max_workspace_size_bytes" and value < 0:
            raise ValueError(f"{name}={value!r}: it should not be negative; None is no limit")
        integers[name] = index(value)
    modes = TrtPrecisionMode.supported_precision_modes()
    if params.precision_mode not in modes:
        raise ValueError(
            f"precision mode '{params.precision_mode}' is not supported.It should be one of {modes}"
        )
    if params.minimum_segment_size <= 0 and params.minimum_segment_size != -1:
        raise ValueError("minimum segment size should be positive or -1 (to disable main graph conversion).")
    values = {field: getattr(params, field) for field in TrtConversionParams._fields}
    return TrtConversionParams(**{**values, **integers})


def check_strategy(strategy: str) -> None:
    """Raise ValueError for an unknown strategy, with the known ones."""
    legal = supported_profile_strategies()
    if not isinstance(strategy, str) or strategy.lower() not in [name.lower() for name in legal]:
        raise ValueError(f"profile_strategy '{strategy}' is not supported. It should be one of {legal}")
    if strategy == PROFILE_STRATEGY_IMPLICIT_BATCH_MODE_COMPATIBLE:
        log.warning(
            "ImplicitBatchModeCompatible strategy is deprecated, and using it may result in errors during engine "
            "building. Please consider using a different profile strategy."
        )
