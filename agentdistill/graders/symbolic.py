r"""Comparing formulae by math-verify. This runs in a worker process: nothing else imports it.

math-verify (https://github.com/huggingface/Math-Verify) reads LaTeX inside an environment only, and its `verify(gold, target)`
is not symmetric: the expected answer comes first.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Derivative, Eq, I, Symbol, nan, oo, simplify, zoo

logging.getLogger("math_verify").setLevel(logging.CRITICAL)
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)
# A million digits are no answer, and turning them into text would take its time.
sys.set_int_max_str_digits(10_000)


def equal(answer: str, expected: str) -> bool:
    """Whether two answers, tidied by `latex.tidy`, are equal. May take any time; what fails to be read is not equal."""
    try:
        return _shape(answer) == _shape(expected) and _equal(_parsed(expected), _parsed(answer))
    except Exception:  # whatever a model wrote, and whatever sympy makes of it
        return False


def _equal(gold: list[Any], target: list[Any]) -> bool:
    if len(gold) == len(target) == 1 and isinstance(gold[0], Eq) and isinstance(target[0], Eq):
        return _same_equation(gold[0], target[0])
    if any(each.has(oo) for each in target) != any(each.has(oo) for each in gold):
        return False
    return bool(verify(gold, target, float_rounding=6, numeric_precision=15, strict=True, timeout_seconds=None))


def _same_equation(a: Eq, b: Eq) -> bool:
    """Whether one equation is a multiple of the other. (`verify` takes two equations without solutions for equal.)"""
    sides = [(side.lhs - side.rhs).replace(Derivative, lambda *args: Symbol(str(args))) for side in (a, b)]
    ratio = simplify(sides[0] / sides[1])
    return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)


def _parsed(text: str) -> list[Any]:
    """The sympy expressions of an answer; none where it cannot be read."""
    found = parse(f"${_latex(text)}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
    if not found and "\\" not in text:
        found = parse(text, [ExprExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
    # Where the parser gives up it leaves out the rest: a letter that is not in the result is such a rest.
    letters = re.search(r"[a-df-hj-zA-Z]", re.sub(r"\\[a-zA-Z]+|[A-Za-z]{2,}", "", text))
    found = [each.subs({name: I for name in each.free_symbols if name.name == "i"}) for each in found]
    return [each for each in found if not each.has(zoo, nan) and (each.free_symbols or not letters)]


def _latex(text: str) -> str:
    """Python's and plain spellings as LaTeX."""
    text = re.sub(r"(?:np|math)\.", "", text)
    text = re.sub(r"(?<![\\a-zA-Z])(sqrt)\s*\(([^()]*)\)", r"\\sqrt{\2}", text)
    text = re.sub(r"(?<![\\a-zA-Z])(pi|sin|cos|tan|ln|log|exp|arcsin|arccos|arctan|infty)(?![a-zA-Z])", r"\\\1", text)
    text = text.replace("**", "^").replace(";", ", ")
    # latex2sympy reads "\gamma - 4" as the gamma function of -4.
    text = re.sub(r"\\(gamma|beta|zeta)(?![a-zA-Z])", r"{\\mathrm{\1}}", text)
    return re.sub(r"\*", r" \\cdot ", text)


def _shape(text: str) -> tuple[str, ...]:
    """What math-verify would overlook: the brackets of an interval and the base of a numeral."""
    squeezed = "".join(text.split())
    base = re.fullmatch(r"[\dA-Z]+_\{?(\d+)\}?", squeezed)
    if base is not None:
        return "base", base[1]
    ends = re.fullmatch(r"([(\[]).*,.*([)\]])", squeezed)
    if ends is not None and ends.groups() != ("(", ")"):
        return "interval", *ends.groups()
    return ()
