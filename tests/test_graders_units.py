"""What may stand beside a number in an answer, and what makes it another answer."""

from __future__ import annotations

import pytest

from agentdistill import graders
from tests.needs import needs

needs("math_verify", "pip install 'agentdistill[math]'")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("5 m", "5"), ("5 h", "5"), ("5 L", "5"), ("12 m^2", "12"), ("12 m²", "12"), ("20 km/h", "20"), ("$5/hour", "5"),
        (r"\text{5 apples}", "5"), ("5 apples", "5"), ("5 cups of flour", "5"), ("60 miles an hour", "60"),
        (r"12 \text{ square units}", "12"), (r"9.8\,\mathrm{m/s^2}", "9.8"), ("9.8 meters per second squared", "9.8"),
        ("864 square inches", r"864 \mbox{ inches}^2"), (r"36 dollars", r"\$36"), ("1.2 million dollars", "1200000"),
        ("5.4 cents", r"5.4 \text{ cents}"), (r"8\pi \text{ cm}", r"8\pi"), (r"(3,4] \text{ units}", "(3,4]"),
    ],
)  # fmt: skip
def test_a_known_unit_may_be_added_or_left_out(answer: str, expected: str):
    assert graders.math(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("5.4 dollars", r"5.4 \text{ cents}"), ("36 cents", r"\$36"), ("864 cm^2", r"864 \mbox{ inches}^2"),
        ("864 inches", r"864 \mbox{ inches}^2"), ("5 apples", r"5\text{ eggs}"), ("2.2", r"2.2 \tau"), ("5", "5 m"),
    ],
)  # fmt: skip
def test_another_unit_or_a_missing_symbol_is_wrong(answer: str, expected: str):
    assert not graders.math(answer, expected)


@pytest.mark.parametrize(
    "after",
    [
        r"\text{7}", r"\mathrm{7}", r"\text{ million}", r"\text{ or six}", r"\mathrm{i}", r"\text{x}", r"\text{, or six}",
        r"\text{/2}", r"\text{!}", " point five", " divided by two", " modulo seven", " less", " negative", " quadrillion",
        " wrong", " is wrong", " versus six", " choose two", "?", "..6", " per", " of", " per six", " square", "K", "M", " x",
        " dozen", " pairs of", " score", " below zero", " oder 6", r"\%\%",
    ],
)  # fmt: skip
def test_any_other_word_after_a_number_makes_it_wrong(after: str):
    assert not graders.math(rf"\boxed{{5{after}}}", "5")
    assert not graders.math(rf"\boxed{{\text{{Evelyn}}{after}}}", r"\text{Evelyn}")
