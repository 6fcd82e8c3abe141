"""Symbolic dimensions: integer expressions over named, ranged symbols, kept in one canonical form.

Rules:
  SUM      a `Dim` is a sum of integer coefficients times monomials; equal sums are equal objects.
  ATOM     a monomial is a product of atoms; an atom is a `Symbol` or a `Call` (floor division, modulo,
           max, min) that no rule below could simplify.
  COLLAPSE an expression without symbols is a plain `int`, so static shapes never see this module.
  SPLIT    divided by an integer, a sum gives up what divides: `(3*s + 5) // 2` is `s + (s + 1)//2 + 2`,
           and `(3*s + 5) % 2` is `(s + 1) % 2`.
  NEST     `(x // 2 + 1) // 3` is `(x + 2) // 6`: what several strides leave.
"""

from __future__ import annotations

__all__ = [
    "Atom",
    "Call",
    "Dim",
    "DimLike",
    "Monomial",
    "Symbol",
    "dim_max",
    "dim_min",
    "evaluate",
    "invert",
    "parse_dim",
    "symbols_of",
]

import ast
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from trt_backend.errors import InvalidGraphError


@dataclass(frozen=True)
class Symbol:
    """A named dimension with its range: `min <= value <= max`, where `max=None` is unbounded."""

    name: str
    min: int = 1
    max: int | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Call:
    """An irreducible call of `//`, `%`, `max` or `min`."""

    function: str
    left: DimLike
    right: DimLike

    def __str__(self) -> str:
        if self.function in ("max", "min"):
            return f"{self.function}({self.left}, {self.right})"
        return f"{_operand_text(self.left)}{self.function}{_operand_text(self.right)}"


Atom = Symbol | Call
Monomial = tuple[Atom, ...]
Term = tuple[Monomial, int]


@dataclass(frozen=True)
class Dim:
    """A symbolic integer: a canonical sum of `coefficient * product of atoms` (rule SUM)."""

    terms: tuple[Term, ...]

    @staticmethod
    def of(symbol: Symbol) -> Dim:
        """Return the dimension that is just `symbol`."""
        return _single(symbol)

    @cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """The symbols of the expression, sorted by name."""
        found: set[Symbol] = set()
        for atom in (atom for monomial, _ in self.terms for atom in monomial):
            found |= {atom} if isinstance(atom, Symbol) else set(symbols_of((atom.left, atom.right)))
        return tuple(sorted(found, key=lambda symbol: symbol.name))

    @property
    def symbol(self) -> Symbol | None:
        """The symbol itself where the expression is nothing else."""
        atom = _only_atom(self)
        return atom if isinstance(atom, Symbol) else None

    def __str__(self) -> str:
        """Return the text that `parse_dim` reads."""
        first, *others = self.terms
        text = _term_text(*first)
        for monomial, coefficient in others:
            sign = "-" if coefficient < 0 else "+"
            text += f" {sign} {_term_text(monomial, abs(coefficient))}"
        return text

    def __add__(self, other: DimLike) -> DimLike:
        return _collect([*self.terms, *_terms(other)])

    def __neg__(self) -> DimLike:
        return self * -1

    def __sub__(self, other: DimLike) -> DimLike:
        return self + -other

    def __rsub__(self, other: int) -> DimLike:
        return -self + other

    def __mul__(self, other: DimLike) -> DimLike:
        products = [(tuple(sorted(a + b, key=str)), x * y) for a, x in self.terms for b, y in _terms(other)]
        return _collect(products)

    def __floordiv__(self, other: DimLike) -> DimLike:
        if isinstance(other, int):
            whole, rest = _split(self, other)
            return whole + _nested(rest, other)
        if other == self:
            return 1
        quotient = _divide_monomials(self, other)
        return quotient if quotient is not None else _call("//", self, other)

    def __rfloordiv__(self, other: int) -> DimLike:
        return _call("//", other, self)

    def __mod__(self, other: DimLike) -> DimLike:
        if isinstance(other, int):
            return _call("%", _split(self, other)[1], other)
        return 0 if other == self else _call("%", self, other)

    def __rmod__(self, other: int) -> DimLike:
        return _call("%", other, self)

    __radd__ = __add__
    __rmul__ = __mul__


DimLike = int | Dim


def invert(dim: Dim) -> tuple[Symbol, int, int] | None:
    """Return (symbol, scale, offset) of a dimension `scale * symbol + offset`, or None where it is no such line."""
    linear = [(monomial[0], scale) for monomial, scale in dim.terms if len(monomial) == 1]
    offset = sum(constant for monomial, constant in dim.terms if not monomial)
    if len(linear) != 1 or len(dim.terms) != 1 + bool(offset) or not isinstance(linear[0][0], Symbol):
        return None
    return linear[0][0], linear[0][1], offset


def dim_max(left: DimLike, right: DimLike) -> DimLike:
    """Return the larger of two dimensions."""
    return left if left == right else _call("max", *sorted((left, right), key=str))


def dim_min(left: DimLike, right: DimLike) -> DimLike:
    """Return the smaller of two dimensions."""
    return left if left == right else _call("min", *sorted((left, right), key=str))


def evaluate(dim: DimLike, values: Mapping[str, int]) -> int:
    """Return the integer that `dim` is where each symbol has its value in `values` (by name)."""
    if isinstance(dim, int):
        return dim
    return sum(c * math.prod(_evaluate_atom(a, values) for a in monomial) for monomial, c in dim.terms)


def symbols_of(dims: Iterable[DimLike]) -> tuple[Symbol, ...]:
    """Return the symbols of all `dims`, each once, sorted by name."""
    found = {symbol for dim in dims if isinstance(dim, Dim) for symbol in dim.symbols}
    return tuple(sorted(found, key=lambda s: s.name))


def parse_dim(text: str, symbols: Mapping[str, Symbol]) -> DimLike:
    """Read an expression as `str(Dim)` writes it; unknown names get the default range.

    Also reads what SymPy prints for shapes (`FloorDiv`, `Mod`, `Max`, `Min`).

    Raises:
        InvalidGraphError: the text is no integer expression of the known operators.
    """
    try:
        return _read(ast.parse(text, mode="eval").body, symbols)
    except (SyntaxError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InvalidGraphError(f"{text!r} is no dimension expression") from error


_Binary = Callable[[DimLike, DimLike], DimLike]

_CALLS: dict[str, Callable[[int, int], int]] = {
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "max": max,
    "min": min,
}
_BINARY: dict[type[ast.operator], _Binary] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}
_NAMED: dict[str, _Binary] = {
    "max": dim_max,
    "Max": dim_max,
    "min": dim_min,
    "Min": dim_min,
    "FloorDiv": _BINARY[ast.FloorDiv],
    "Mod": _BINARY[ast.Mod],
    "PythonMod": _BINARY[ast.Mod],
}


def _read(node: ast.expr, symbols: Mapping[str, Symbol]) -> DimLike:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return Dim.of(symbols.get(name, Symbol(name)))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_read(operand, symbols)
        case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=int(exponent))) if exponent >= 0:
            return math.prod([_read(base, symbols)] * exponent)
        case ast.BinOp(left=left, op=operation, right=right):
            return _BINARY[type(operation)](_read(left, symbols), _read(right, symbols))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return functools.reduce(_NAMED[name], (_read(argument, symbols) for argument in arguments))
        case _:
            raise TypeError(ast.dump(node))


def _single(atom: Atom) -> Dim:
    return Dim((((atom,), 1),))


def _only_atom(dim: DimLike) -> Atom | None:
    """Return the atom of a dimension that is nothing else."""
    match dim:
        case Dim(terms=(((atom,), 1),)):
            return atom
        case _:
            return None


def _terms(dim: DimLike) -> tuple[Term, ...]:
    return dim.terms if isinstance(dim, Dim) else (((), dim),)


def _collect(terms: Iterable[Term]) -> DimLike:
    total: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        total[monomial] = total.get(monomial, 0) + coefficient
    kept = [(m, c) for m, c in total.items() if c]
    if all(not m for m, _ in kept):
        return sum(c for _, c in kept)
    kept.sort(key=lambda term: (-len(term[0]), [str(atom) for atom in term[0]]))
    return Dim(tuple(kept))


def _call(function: str, left: DimLike, right: DimLike) -> DimLike:
    if isinstance(left, int) and isinstance(right, int):
        return _CALLS[function](left, right)
    return _single(Call(function, left, right))


def _split(dim: Dim, divisor: int) -> tuple[DimLike, DimLike]:
    """Return whole and rest with `dim == whole * divisor + rest` (rule SPLIT)."""
    whole = _collect((monomial, c // divisor) for monomial, c in dim.terms)
    rest = _collect((monomial, c % divisor) for monomial, c in dim.terms)
    return whole, rest


def _nested(dividend: DimLike, divisor: int) -> DimLike:
    """Divide, merging with a division that the dividend is, less a number (rule NEST)."""
    more = dict(_terms(dividend)).get((), 0)
    match _only_atom(dividend - more):
        case Call(function="//", left=left, right=int(inner)) if inner > 0 and divisor > 0:
            return (left + inner * more) // (inner * divisor)
        case _:
            return _call("//", dividend, divisor)


def _divide_monomials(dividend: Dim, divisor: DimLike) -> DimLike | None:
    """Divide exactly by one monomial (`12*s0*s1 // (3*s0)` is `4*s1`); None where it leaves a rest."""
    if not isinstance(divisor, Dim) or len(divisor.terms) != 1:
        return None
    ((factors, scale),) = divisor.terms
    quotient: list[Term] = []
    for monomial, coefficient in dividend.terms:
        rest = list(monomial)
        for atom in factors:
            if atom not in rest:
                return None
            rest.remove(atom)
        if coefficient % scale:
            return None
        quotient.append((tuple(rest), coefficient // scale))
    return _collect(quotient)


def _evaluate_atom(atom: Atom, values: Mapping[str, int]) -> int:
    if isinstance(atom, Symbol):
        return values[atom.name]
    return _CALLS[atom.function](evaluate(atom.left, values), evaluate(atom.right, values))


def _term_text(monomial: Monomial, coefficient: int) -> str:
    if not monomial:
        return str(coefficient)
    alone = len(monomial) == 1 and coefficient == 1
    factors = [str(atom) if alone else _factor_text(atom) for atom in monomial]
    if abs(coefficient) != 1:
        factors.insert(0, str(abs(coefficient)))
    return ("-" if coefficient < 0 else "") + "*".join(factors)


def _factor_text(atom: Atom) -> str:
    """Return an atom as a factor or operand: in parentheses where it is itself written with an operator."""
    operator = isinstance(atom, Call) and atom.function in ("//", "%")
    return f"({atom})" if operator else str(atom)


def _operand_text(dim: DimLike) -> str:
    atom = _only_atom(dim)
    if atom is not None:
        return _factor_text(atom)
    return str(dim) if isinstance(dim, int) and dim >= 0 else f"({dim})"
