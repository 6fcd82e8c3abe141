"""The functions that generate a converter's example inputs; what is wrong with one is said in the words of its user."""

from __future__ import annotations

__all__ = ["InputFn", "by_key", "run_on_inputs"]

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

InputFn = Callable[[], Iterable[Any]]
"""A generator function that yields inputs: an array, a list or tuple of arrays, or a dict by name."""


def by_key(input_fn: InputFn | Mapping[str, InputFn], keys: Collection[str]) -> Mapping[str, InputFn]:
    """Return what generates the inputs of each signature.

    Args:
        input_fn: for all signatures, or by their keys.
        keys: of the signatures that are converted.

    Raises:
        ValueError: a key of no converted signature, or no key.
    """
    if isinstance(input_fn, Mapping) and not input_fn:
        raise ValueError(
            f"there are no inputs for any signature; those that are converted are {sorted(keys)}"
        )
    by_key = input_fn if isinstance(input_fn, Mapping) else dict.fromkeys(keys, input_fn)
    for key in by_key:
        if key not in keys:
            raise ValueError(f"no signature '{key}' is converted, only {sorted(keys)}")
    return by_key


def run_on_inputs(function: Any, generate: InputFn, key: str) -> None:
    """Run a function on all inputs that a generator yields.

    Raises:
        RuntimeError: it yields nothing, or something that is no tensor.
        TypeError: it is no function that returns an iterable.
        ValueError: the function does not take what it yields; the message says what it takes.
    """
    for number, (arguments, named) in enumerate(_yielded(generate)):
        try:
            function(*arguments, **named)
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                f"the signature '{key}' does not take the input that input_fn yields as number {number}; it takes "
                f"{_described(function)}: {error}"
            ) from error


def _yielded(generate: InputFn) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Yield positional and named arguments, as tensors."""
    if not callable(generate):
        raise TypeError(
            f"input_fn is a {type(generate).__name__}, and should be a generator function: give it without calling it"
        )
    inputs = generate()
    if not isinstance(inputs, Iterable):
        raise TypeError(f"input_fn returns a {type(inputs).__name__}, and should yield inputs")
    empty = True
    for given in inputs:
        empty = False
        yield _tensors(given)
    if empty:
        raise RuntimeError("input_fn yields no input, so that there is nothing to build engines for")


def _described(function: Any) -> str:
    """Return the names, types and shapes of a function's inputs."""
    return ", ".join(
        f"{name}: {tensor.dtype.name} {tensor.shape}"
        for name, tensor in zip(function._arg_keywords, function.inputs, strict=True)
    )


def _tensors(given: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and named arguments as tensors."""
    try:
        if isinstance(given, dict):
            return [], {name: tf.convert_to_tensor(value) for name, value in given.items()}
        values = given if isinstance(given, (list, tuple)) else [given]
        return [tf.convert_to_tensor(value) for value in values], {}
    except (TypeError, ValueError) as error:
        raise RuntimeError(f"Failed to convert input to tensor. inp = `{given}`") from error
