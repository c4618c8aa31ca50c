"""Relations, characters beyond ASCII and oversized powers in answers."""

from __future__ import annotations

import pytest

from agentdistill import graders
from agentdistill.graders.readable import is_oversized
from tests.needs import needs

needs("math_verify", "pip install 'agentdistill[math]'")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("√16", "4"), (r"\sqrt 16", "4"), ("3√13", r"3\sqrt{13}"), ("√(16)", "4"), ("5²", "25"), ("x²", "x^2"), ("½", "0.5"),
        ("1½", "1.5"), ("3×4", "12"), ("3·4", "12"), ("−5", "-5"), ("2π", r"2\pi"), ("[0,∞)", r"[0,\infty)"), ("１８", "18"),
        ("6 - 5*i", "6 - 5i"), ("-q+p", "p - q"), ("p+(-q)", "p - q"), ("b-a", "-a+b"), ("-a+b", "b-a"),
        (r"\textbf{025}", "025"), (r"0.\overline{3}", "1/3"), (r"0.1\overline{6}", "1/6"), (r"5 \pmod 7", "5"),
        (r"\text{(E) } 5", "5"),
    ],
)  # fmt: skip
def test_natural_surface_forms_are_right(answer: str, expected: str):
    assert graders.math(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("√16", "6"), ("√13", "3"), ("5²", "5"), ("5⁰", "5"), ("p+q", "p - q"), ("b-a", "a-b"), (r"0.\overline{3}", "0.3"),
        (r"12 \pmod 7", "12"), ("(A)(B)", r"\text{(B)}"), ("6 + 5*i", "6 - 5i"),
    ],
)  # fmt: skip
def test_other_values_in_those_forms_are_wrong(answer: str, expected: str):
    assert not graders.math(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("m+n = 204", "204"), ("f(2) = 5", "5"), ("2 + 3 = 5", "5"), ("x = 2 + 3 = 5", "5"), (r"0 \le x < 1", "[0,1)"),
        ("1 > x ≥ 0", "[0,1)"), ("x>3", r"(3,\infty)"), ("3<x", r"(3,\infty)"), (r"x \leq 0", r"(-\infty, 0]"),
        ("x<2 or x>3", r"(-\infty,2)\cup(3,\infty)"), ("x = 2 or x = -2", "2,-2"),
    ],
)  # fmt: skip
def test_the_value_is_read_off_a_relation(answer: str, expected: str):
    assert graders.math(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("12345 = 5", "5"), ("5 = 6", "6"), ("2x = 10", "10"), ("-x = 5", "5"), ("2+3=6", "6"), ("n=5, m=6", "6"),
        ("y = 5", "x=5"), (r"0 \le x \le 1", "[0,1)"), ("0 < x < 1", "[0,1)"), ("x<3", r"(3,\infty)"),
        (r"x \ge 3", r"(3,\infty)"), (r"5 \ne 6", "6"),
    ],
)  # fmt: skip
def test_a_relation_that_does_not_give_the_value_is_wrong(answer: str, expected: str):
    assert not graders.math(answer, expected)


@pytest.mark.parametrize("text", ["10^{10^{10}}", "10**10**8", "9^{9^{9^{9}}}", "2^{100000}", "(10^{10})^{10^{10}}", "100000!"])
def test_oversized_powers_never_reach_algebra(text: str):
    assert is_oversized(text)
    assert not graders.math(text, r"2\sqrt{3}")


@pytest.mark.parametrize("text", ["2^{10}", "x^{2}+y^{2}", "e^{-x^{2}}", r"(1+r)^{3/2}", "8!"])
def test_ordinary_powers_are_not_oversized(text: str):
    assert not is_oversized(text)
