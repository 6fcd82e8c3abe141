"""`CompileOptions`: everything that a user may set, checked where it enters."""

from __future__ import annotations

__all__ = ["CompileOptions"]

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from trt_backend.calibration import Calibration
from trt_backend.errors import OptionError

_CHOICES = {
    "provider": ("auto", "tensorrt", "tensorrt_rtx", "onnxruntime"),
    "precision": ("auto", "tf32", "fp16", "bf16", "int8"),
    "build": ("lazy", "background", "eager"),
    "choose": ("always", "measured"),
    "answer_check": ("first", "never"),
    "native": ("eager", "inductor"),
    "weight_check": ("signals", "contents", "never"),
}


@dataclass(frozen=True)
class CompileOptions:
    """The options of one compilation.

    Attributes:
        provider: which engines run regions: "tensorrt" and "tensorrt_rtx" (GPU), "onnxruntime" (CPU), or "auto" for what
            is installed and fits where the tensors are.
        precision: "auto" computes in the element types of the model; "tf32" lets float32 products and convolutions round
            their factors to TF32, on GPUs that have it, as "auto" does where the framework would (PyTorch: in
            convolutions, by default); "fp16" and "bf16" compute float32 models in half the bits on GPUs,
            with the same inputs and outputs, but for islands that need float32 (sums, exponents, normalizations);
            "int8" computes convolutions and products with weights in int8, and on GPUs the rest as "fp16" does.
        calibration: the ranges of activations, for "int8"; see `Calibration`.
        build: "lazy" builds an engine at the first call that needs it; "background" runs natively meanwhile; "eager" builds
            in `torch.compile`'s own compilation, for the sizes of its example inputs (TensorFlow: as "lazy").
        choose: "always" runs the engine; "measured" times it and native once for each signature, on the real inputs, and
            keeps the faster.
        answer_check: "first" compares the first answer of each engine with native's, and goes on natively where it is
            wrong: compilers make mistakes (not for "int8", whose error is known). "never" saves that native call.
        native: how regions run without an engine: "eager", or compiled by "inductor".
        min_block_size: regions with fewer compute ops (views do not count) stay native; 1 or more.
        threads: threads of one CPU engine; None for as many as the framework uses.
        freeze_weights: build weights into engines where that pays; each call compares their contents, so that they are
            never stale. False has engines read them as inputs: slower, but without a second copy in memory.
        weight_check: what makes engines look for changed weights. "signals": on a GPU the identity, address and version of
            each parameter, an optimizer step, a training forward; on the CPU the contents. "contents": each call compares
            them, which is slow on a GPU, but notices writes that nothing signals (`p.data.add_(...)`). "never": only
            another tensor object is noticed, for models that nobody changes any more (hundreds of weights take the CPU
            of a GPU 0.1 ms to look at).
        max_engines: how many sets of weights of one region are kept frozen at a time, 1 or more. Blocks of one structure that
            are compiled one by one share a region: as many as there are blocks.
        workspace_bytes: the most memory that a kernel of TensorRT may use; None for no limit.
        optimization_level: how long TensorRT looks for fast kernels, 0 (shortest build) to 5; None for its default.
        tactic_sources: the names of `tensorrt.TacticSource` whose kernels TensorRT may choose, all of them; None for its own
            kernels. TensorRT 8.6 takes `("CUBLAS", "CUBLAS_LT", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")` where
            cuBLAS 12 is installed.
        cuda_graphs: launch an engine as one CUDA graph: less time on the CPU, for a copy of inputs and outputs where their
            memory is new.
        cache_dir: where engines are kept between processes; None for the user's cache folder.
        strict: raise where a region cannot be built or run, instead of running it natively.
        fuel: build at most this many regions of a graph and leave the rest native, to bisect a wrong answer.
        dump_dir: a folder to write every region's IR, after each pass, and its model to.
    """

    provider: str = "auto"
    precision: str = "auto"
    calibration: Calibration | None = None
    build: str = "lazy"
    choose: str = "always"
    answer_check: str = "first"
    native: str = "eager"
    min_block_size: int = 3
    threads: int | None = None
    freeze_weights: bool = True
    weight_check: str = "signals"
    max_engines: int = 4
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    tactic_sources: Sequence[str] | None = None
    cuda_graphs: bool = False
    cache_dir: str | None = None
    strict: bool = False
    fuel: int | None = None
    dump_dir: str | None = None

    def __post_init__(self) -> None:
        for name, legal in _CHOICES.items():
            _check_choice(name, getattr(self, name), legal)
        _check_type("calibration", self.calibration, (Calibration, type(None)))
        if self.precision == "int8" and self.calibration is None:
            raise OptionError(
                "precision='int8' needs calibration=trt_backend.Calibration(), which collects ranges"
            )
        if self.precision == "int8" and not self.freeze_weights:
            raise OptionError("precision='int8' needs freeze_weights=True: scales are those of known weights")
        _check_count("min_block_size", self.min_block_size, least=1, optional=False)
        _check_count("threads", self.threads, least=1)
        _check_type("freeze_weights", self.freeze_weights, bool)
        _check_count("max_engines", self.max_engines, least=1, optional=False)
        _check_count("workspace_bytes", self.workspace_bytes, least=0)
        _check_count("optimization_level", self.optimization_level, least=0, most=5)
        _check_names("tactic_sources", self.tactic_sources)
        _check_type("cuda_graphs", self.cuda_graphs, bool)
        _check_type("cache_dir", self.cache_dir, (str, type(None)))
        _check_count("fuel", self.fuel, least=0)
        _check_type("strict", self.strict, bool)
        _check_type("dump_dir", self.dump_dir, (str, type(None)))

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any] | None) -> CompileOptions:
        """Return the options that a user's dictionary asks for.

        Raises:
            OptionError: an unknown name (the message says what was probably meant) or an illegal value.
        """
        given = dict(options or {})
        known = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                raise OptionError(
                    f"unknown option {name!r}{_suggest(str(name), known)}; known: {', '.join(known)}"
                )
        return cls(**given)


def _suggest(given: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_choice(name: str, value: object, legal: tuple[str, ...]) -> None:
    if value not in legal:
        names = ", ".join(map(repr, legal))
        raise OptionError(f"{name}={value!r} is none of {names}{_suggest(str(value), legal)}")


def _check_count(
    name: str, value: object, *, least: int, most: int | None = None, optional: bool = True
) -> None:
    if value is None and optional:
        return
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= (most or value):
        return
    bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
    raise OptionError(f"{name}={value!r} is no integer {bounds}{' or None' if optional else ''}")


def _check_names(name: str, value: object) -> None:
    names = cast("Sequence[object]", value) if isinstance(value, (tuple, list)) else ()
    if value is not None and not (names and all(isinstance(each, str) for each in names)):
        raise OptionError(f"{name}={value!r} is no list of names and not None")


def _check_type(name: str, value: object, legal: type | tuple[type, ...]) -> None:
    if not isinstance(value, legal):
        names = " or ".join(t.__name__ for t in (legal if isinstance(legal, tuple) else (legal,)))
        raise OptionError(
            f"{name}={value!r} is {type(value).__name__}, not {names.replace('NoneType', 'None')}"
        )
