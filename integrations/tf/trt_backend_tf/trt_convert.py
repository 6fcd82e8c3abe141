"""A drop-in for `tensorflow.python.compiler.tensorrt.trt_convert`, for TensorFlow that has no TF-TRT any more (2.18 on).

A converter takes a SavedModel, as TF-TRT's, or a live function (`TrtGraphConverterV2.from_function`) or Keras model
(`TrtGraphConverterV2.from_keras`).
"""

from __future__ import annotations

__all__ = [
    "DEFAULT_TRT_CONVERSION_PARAMS",
    "DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES",
    "PROFILE_STRATEGY_IMPLICIT_BATCH_MODE_COMPATIBLE",
    "PROFILE_STRATEGY_OPTIMAL",
    "PROFILE_STRATEGY_RANGE",
    "PROFILE_STRATEGY_RANGE_OPTIMAL",
    "TrtConversionParams",
    "TrtGraphConverter",
    "TrtGraphConverterV2",
    "TrtPrecisionMode",
    "create_inference_graph",
    "get_tensorrt_rewriter_config",
    "supported_profile_strategies",
]

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import tensorflow as tf

from trt_backend.debug import log
from trt_backend.options import CompileOptions
from trt_backend_tf.assets import EngineAsset
from trt_backend_tf.conversion import Conversion, convert
from trt_backend_tf.device import load_provider
from trt_backend_tf.engine_op import PRECISIONS
from trt_backend_tf.input_functions import InputFn, by_key, run_on_inputs
from trt_backend_tf.internals import eager_context
from trt_backend_tf.parameters import (
    DEFAULT_TRT_CONVERSION_PARAMS,
    DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES,
    PROFILE_STRATEGY_IMPLICIT_BATCH_MODE_COMPATIBLE,
    PROFILE_STRATEGY_OPTIMAL,
    PROFILE_STRATEGY_RANGE,
    PROFILE_STRATEGY_RANGE_OPTIMAL,
    TrtConversionParams,
    TrtPrecisionMode,
    check_strategy,
    checked,
    supported_profile_strategies,
)
from trt_backend_tf.sources import function_of, function_of_keras, signatures_of
from trt_backend_tf.summary import print_summary, unconverted_report
from trt_backend_tf.version_1 import (
    TrtGraphConverter,
    create_inference_graph,
    get_tensorrt_rewriter_config,
    refuse_parameters,
)

_LEAST_LINE = 160


class TrtGraphConverterV2:
    """Converts a SavedModel: `convert()`, then `build(input_fn)` if engines are to be ready, then `save(dir)`.

    Example:
        converter = TrtGraphConverterV2(input_saved_model_dir="model", precision_mode="FP32")
        converter.convert()
        converter.save("converted")

    In any process, `import trt_backend_tf` before `tf.saved_model.load("converted")`.

    Args:
        input_saved_model_dir: the SavedModel to convert.
        input_saved_model_tags: the tags of its graph; ["serve"] by default.
        input_saved_model_signature_key: the signature to convert; "serving_default" by default.
        use_dynamic_shape: taken for compatibility: every engine serves dynamic shapes.
        dynamic_shape_profile_strategy: one of `supported_profile_strategies()`; taken for compatibility.
        max_workspace_size_bytes: see `TrtConversionParams`, as for the parameters that follow.
        precision_mode: FP32, FP16 or BF16.
        minimum_segment_size: the fewest ops that become an engine; -1 converts nothing.
        maximum_cached_engines: how many engines an op keeps.
        use_calibration: INT8 only: whether `convert()` collects ranges. Without, a model's own quantization is all there is.
        allow_build_at_runtime: whether a loaded model may build the engines that it lacks.
        conversion_params: takes the place of all of these parameters; deprecated.
        signature_keys: the signatures to convert, in the place of `input_saved_model_signature_key`: a list of keys, or
            "all". They are saved together.
        removed: parameters of older TF-TRTs.

    Raises:
        ValueError: an illegal value; the message names the legal ones.
        TypeError: a parameter that older TF-TRTs had; the message says what to do instead.
    """

    def __init__(
        self,
        input_saved_model_dir: str | None = None,
        input_saved_model_tags: Sequence[str] | None = None,
        input_saved_model_signature_key: str | None = None,
        use_dynamic_shape: bool | None = None,
        dynamic_shape_profile_strategy: str | None = None,
        max_workspace_size_bytes: int | None = DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES,
        precision_mode: str = TrtPrecisionMode.FP32,
        minimum_segment_size: int = 3,
        maximum_cached_engines: int = 1,
        use_calibration: bool = True,
        allow_build_at_runtime: bool = True,
        conversion_params: TrtConversionParams | None = None,
        *,
        signature_keys: Sequence[str] | Literal["all"] | None = None,
        **removed: Any,
    ) -> None:
        refuse_parameters(removed, type(self).__name__)
        if not eager_context.executing_eagerly():
            raise RuntimeError("TrtGraphConverterV2 needs eager execution")
        if conversion_params is not None:
            warnings.warn(
                "conversion_params is deprecated: give its fields as parameters",
                DeprecationWarning,
                stacklevel=2,
            )
        self._conversion_params = checked(
            conversion_params
            if conversion_params is not None
            else TrtConversionParams(
                max_workspace_size_bytes,
                precision_mode,
                minimum_segment_size,
                maximum_cached_engines,
                use_calibration,
                allow_build_at_runtime,
            )
        )
        self._profile_strategy = "Unknown"
        if use_dynamic_shape:
            self._profile_strategy = dynamic_shape_profile_strategy or PROFILE_STRATEGY_RANGE
            check_strategy(self._profile_strategy)
        self._use_dynamic_shape = bool(use_dynamic_shape)
        self._input_saved_model_dir = input_saved_model_dir
        if isinstance(input_saved_model_tags, str):  # as `tf.saved_model.load` takes them
            input_saved_model_tags = [input_saved_model_tags]
        self._input_saved_model_tags = list(input_saved_model_tags or [tf.saved_model.SERVING])
        self._signature_key = (
            input_saved_model_signature_key or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        )
        _check_keys(input_saved_model_signature_key, signature_keys)
        self._signature_keys = signature_keys
        self._function: Any = None  # of from_function and from_keras
        self._conversions: dict[str, Conversion] = {}
        self._build_called_once = False
        self._test_only_disable_non_trt_optimizers = False  # TF-TRT's own test base sets it

    @classmethod
    def from_function(
        cls, function: Callable[..., Any], input_signature: Sequence[Any] | None = None, **parameters: Any
    ) -> TrtGraphConverterV2:
        """Return a converter of a live function, whose variables are frozen by `convert()`: it sees no later change.

        Args:
            function: a `tf.function`, one of its concrete functions, or a Python function of tensors.
            input_signature: a `tf.TensorSpec`, or a structure of them, for each argument, where the function has none.
            parameters: of the constructor, but for those of a SavedModel; `input_saved_model_signature_key` is the
                key that `save` gives it.

        Raises:
            ValueError: the function has no signature, or a parameter is one of a SavedModel.
        """
        _check_live(parameters)
        converter = cls(**parameters)
        converter._function = function_of(function, input_signature)
        return converter

    @classmethod
    def from_keras(
        cls, model: Any, input_signature: Sequence[Any] | None = None, **parameters: Any
    ) -> TrtGraphConverterV2:
        """Return a converter of a Keras model in inference mode; its weights are frozen as by `from_function`.

        Args:
            model: functional, sequential, or with `input_signature` any (Keras with TensorFlow as its backend).
            input_signature: as for `from_function`; for a model that does not declare its inputs.
            parameters: as for `from_function`.

        Raises:
            ValueError: the model does not declare its inputs, or a parameter is one of a SavedModel.
        """
        _check_live(parameters)
        converter = cls(**parameters)
        converter._function = function_of_keras(model, input_signature)
        return converter

    @property
    def _converted_func(self) -> Any:
        return next(iter(self._done("_converted_func").values())).function

    @property
    def _converted_graph_def(self) -> Any:
        return next(iter(self._done("_converted_graph_def").values())).graph_def

    def convert(self, calibration_input_fn: InputFn | Mapping[str, InputFn] | None = None) -> Any:
        """Convert the signature, and return it as a concrete function; no engine is built yet.

        With `signature_keys`, return a dict of concrete functions by key.

        Args:
            calibration_input_fn: for INT8 with `use_calibration`: as `input_fn` of `build()`. The native model runs on
                what it yields, so that the ranges of its activations are known.

        Raises:
            ValueError: a calibration function where none is needed, none where it is, a signature that the model does
                not have, or variables that cannot be frozen.
            RuntimeError: a second call.
        """
        if self._conversions:
            raise RuntimeError("convert() is already called. A converter converts once.")
        mode = self._conversion_params.precision_mode.upper()
        calibrates = mode == TrtPrecisionMode.INT8 and self._conversion_params.use_calibration
        if calibrates and calibration_input_fn is None:
            raise ValueError("Should specify calibration_input_fn because INT8 calibration is needed")
        if calibration_input_fn is not None and not calibrates:
            raise ValueError("Should not specify calibration_input_fn because INT8 calibration is not needed")
        provider = load_provider()
        if mode in (TrtPrecisionMode.FP16, TrtPrecisionMode.BF16) and provider.runs_on == "cpu":
            log.warning(
                "precision_mode=%s: engines on the CPU compute in float32; those of a GPU will not", mode
            )
        conversions = {
            key: convert(function, provider, self._options(), self._attributes())
            for key, function in self._functions().items()
        }
        if calibration_input_fn is not None:
            for key, generate in by_key(calibration_input_fn, conversions).items():
                with conversions[key].calibration():
                    run_on_inputs(conversions[key].function, generate, key)
        self._conversions = conversions
        for conversion in conversions.values():
            conversion.function._trt_backend_conversion = (
                conversion  # with its record, for as long as it is used
            )
            if conversion.record.native:
                log.warning("%s", unconverted_report(conversion.record))
        if self._signature_keys is None:
            return self._converted_func
        return {key: conversion.function for key, conversion in conversions.items()}

    def build(self, input_fn: InputFn | Mapping[str, InputFn]) -> None:
        """Run the converted function on inputs, so that the engines for their shapes are built.

        Args:
            input_fn: a generator function that yields inputs: an array, a list or tuple of arrays, or a dict by name.
                Of several signatures each is run on what it yields, or on what a mapping has for its key.

        Raises:
            NotImplementedError: a second call that would build.
            RuntimeError: no `input_fn`, no `convert()` before, or it yields nothing, or something that is no tensor.
            TypeError: `input_fn` is no function that returns an iterable.
            ValueError: a key of no converted signature, or inputs that the signature does not take.
        """
        if self._build_called_once:
            raise NotImplementedError(
                "build() is already called. It is not supported to call build() more than once."
            )
        if input_fn is None:
            raise RuntimeError(
                "input_fn is None. Method build() needs input_fn to be specified in order to build TensorRT engines"
            )
        if not self._conversions:
            raise RuntimeError("Need to call convert() before build()")
        for key, generate in by_key(input_fn, self._conversions).items():
            run_on_inputs(self._conversions[key].function, generate, key)
        self._build_called_once = True

    def save(
        self,
        output_saved_model_dir: str,
        save_gpu_specific_engines: bool = True,
        options: tf.saved_model.SaveOptions | None = None,
    ) -> None:
        """Save the converted signature, or signatures, as a SavedModel.

        Args:
            output_saved_model_dir: the folder to write.
            save_gpu_specific_engines: whether engines that were built go along, as assets: where they fit, the process
                that loads the model builds none. ONNX Runtime's are not worth keeping, so that there are none of them.
            options: TensorFlow's options of saving.

        Raises:
            RuntimeError: no `convert()` before.
        """
        conversions = self._done("save")
        root = tf.Module()
        root.trt_weights = [variable for made in conversions.values() for variable in made.variables]  # type: ignore[attr-defined]
        root.trt_tables = [table for made in conversions.values() for table in made.tables]  # type: ignore[attr-defined]
        with TemporaryDirectory() as folder:
            if save_gpu_specific_engines:
                root.trt_engines = _assets(conversions.values(), Path(folder))  # type: ignore[attr-defined]
            tf.saved_model.save(
                root,
                output_saved_model_dir,
                signatures={key: conversion.function for key, conversion in conversions.items()},
                options=options,
            )

    def summary(
        self,
        line_length: int = _LEAST_LINE,
        detailed: bool = True,
        print_fn: Callable[..., object] | None = None,
    ) -> None:
        """Print the engines, and which ops are in them: a table for each signature.

        Args:
            line_length: in characters, 160 or more.
            detailed: whether to list the ops of each engine.
            print_fn: called with each line; `print` by default.

        Raises:
            RuntimeError: no `convert()` before.
            ValueError: a line too short.
        """
        conversions = self._done("summary")
        if line_length < _LEAST_LINE:
            raise ValueError(
                f"Invalid `line_length` value has been received: {line_length}. Minimum: {_LEAST_LINE}."
            )
        for conversion in conversions.values():
            print_summary(conversion.graph_def, line_length, print_fn or print, detailed=detailed)

    def _functions(self) -> dict[str, Any]:
        if self._function is not None:
            return {self._signature_key: self._function}
        keys = [self._signature_key] if self._signature_keys is None else self._signature_keys
        return signatures_of(
            self._input_saved_model_dir, self._input_saved_model_tags, None if keys == "all" else keys
        )

    def _done(self, what: str) -> dict[str, Conversion]:
        if not self._conversions:
            name = type(self).__name__
            raise RuntimeError(f"Impossible to call `{name}.{what}()` before calling {name}.convert()`.")
        return self._conversions

    def _options(self) -> CompileOptions:
        params = self._conversion_params
        limited = params.max_workspace_size_bytes != DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES
        nothing = params.minimum_segment_size == -1
        return CompileOptions(
            min_block_size=1 if nothing else params.minimum_segment_size,
            fuel=0 if nothing else None,
            max_engines=max(params.maximum_cached_engines, 1),
            precision=PRECISIONS[params.precision_mode.upper()],
            workspace_bytes=params.max_workspace_size_bytes if limited else None,
        )

    def _attributes(self) -> dict[str, Any]:
        params = self._conversion_params
        return {
            "max_cached_engines_count": params.maximum_cached_engines,
            "workspace_size_bytes": self._options().workspace_bytes or 0,
            "precision_mode": params.precision_mode.upper(),
            "profile_strategy": self._profile_strategy.lower() if self._use_dynamic_shape else "",
            "use_calibration": params.use_calibration,
            "static_engine": False,
            "_allow_build_at_runtime": params.allow_build_at_runtime,
            "_use_implicit_batch": not self._use_dynamic_shape,
        }


def _assets(conversions: Iterable[Conversion], folder: Path) -> list[EngineAsset]:
    """Write the engines that were built to a folder, and return them as assets."""
    segments = [segment for conversion in conversions for segment in conversion.engines]
    written = [(segment.identity, segment.write_engine(folder)) for segment in segments]
    found = [EngineAsset(identity, path) for identity, path in written if path is not None]
    log.info("%d of %d engines are saved with the model", len(found), len(segments))
    return found


def _check_live(parameters: Mapping[str, Any]) -> None:
    for name in ("input_saved_model_dir", "input_saved_model_tags", "signature_keys"):
        if parameters.get(name) is not None:
            raise ValueError(
                f"{name} is for a SavedModel: a function has one signature, which input_saved_model_signature_key names"
            )


def _check_keys(key: str | None, keys: Sequence[str] | str | None) -> None:
    if keys is None:
        return
    if key is not None:
        raise ValueError("give input_saved_model_signature_key or signature_keys, not both")
    if not keys or (isinstance(keys, str) and keys != "all"):
        raise ValueError(f"signature_keys={keys!r}: it is a list of keys, or 'all'")
