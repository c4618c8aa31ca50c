r"""Grading of mathematics: reference answers in other forms, wrong answers, and anything a model might write."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdistill import graders
from agentdistill.envs.data import data_folder
from agentdistill.envs.math import SOURCES, MathPythonEnv
from agentdistill.errors import UserError
from agentdistill.graders.formula import WALL_SECONDS
from tests.needs import needs, needs_data

needs("math_verify", "pip install 'agentdistill[math]'")

RIGHT = [
    ("2 + 3 = 5", "5"),
    (r"k x-a = \frac{d x}{d t}", r"\frac{d x}{d t}=k x-a"),
    ("0.5", "\\frac12"),
    ("\\frac{2}{4}", "1/2"),
    ("2sqrt(5)", "2\\sqrt5"),
    ("2*sqrt(5)", "2\\sqrt5"),
    ("\\sqrt{20}", "2\\sqrt5"),
    ("-2, 1", "1,-2"),
    ("1 and -2", "1,-2"),
    ("3 + 2\\sqrt{2}, 3-2\\sqrt2", "3 \\pm 2 \\sqrt{2}"),
    ("50%", "0.5"),
    ("50", "50\\%"),
    ("137.5", "137 \\frac{1}{2}"),
    ("275/2", "137 \\frac{1}{2}"),
    ("137 1/2", "137 \\frac{1}{2}"),
    ("4.5 \\times 10^{33}", "4.5e33"),
    ("1 \\times 10^{-8}", "1e-8"),
    ("10^{-8}", "1e-8"),
    ("10{,}080", "10,\\!080"),
    ("10,080", "10,\\!080"),
    ("11111111100", "11,\\! 111,\\! 111,\\! 100"),
    ("C", "\\text{(C)}"),
    ("(C)", "\\text{(C)}"),
    ("East", "\\text{east}"),
    ("\\textbf{east}", "\\text{east}"),
    ("y=2x+3", "y = 2x + 3"),
    ("2x+3", "y = 2x + 3"),
    ("3+2x", "y = 2x + 3"),
    ("[-2,7]", "x \\in [-2,7]"),
    ("(b+2)(a+5)", "(a+5)(b+2)"),
    ("ab+2a+5b+10", "(a+5)(b+2)"),
    ("5 miles", "5"),
    ("27.0 mph", "27"),
    ("5\\text{ cm}^2", "5"),
    ("\\$5", "5"),
    ("\\begin{bmatrix}-2\\\\-14\\\\-7\\end{bmatrix}", "\\begin{pmatrix} -2 \\\\ -14 \\\\ -7 \\end{pmatrix}"),
    ("\\begin{pmatrix}-0.5\\\\1\\end{pmatrix}", "\\begin{pmatrix} -1/2 \\\\ 1 \\end{pmatrix}"),
    ("(3/2,-13)", "\\left( \\frac{3}{2}, -13 \\right)"),
    ("(1.5,-13)", "\\left( \\frac{3}{2}, -13 \\right)"),
    ("(-\\infty,2)\\cup(3,\\infty)", "(-\\infty, 2) \\cup (3, \\infty)"),
    ("(3,\\infty)\\cup(-\\infty,2)", "(-\\infty, 2) \\cup (3, \\infty)"),
    ("7, 3, 5", "3, 5, 7"),
    ("\\{3,5,7\\}", "3, 5, 7"),
    ("9i+6", "6+9i"),
    ("\\frac{9a+11}{20}", "\\frac{11+9a}{20}"),
    ("2(k+1)", "2k+2"),
    ("pi", "\\pi"),
    ("8pi", "8 \\pi"),
    ("arcsin(10/13)", "np.arcsin(10/13)"),
    ("\\arcsin(10/13)", "np.arcsin(10/13)"),
    ("0.333333333", "\\frac13"),
    ("-1/3", "-1./3"),
    ("0", "0.0"),
    ("52_{8}", "52_8"),
    ("(3, \\pi/2)", "\\left( 3, \\frac{\\pi}{2} \\right)"),
    ("10x-14y+22z+8=0", "5x - 7y + 11z + 4 = 0"),
    ("SRAC=LRAC", "SRAC=LRAC"),
    ("\\frac{e^t}{3}", "e^{t} / 3"),
    ("Janet makes 18. The answer is 18 dollars per day.", "18"),
    ("**18**", "18"),
    ("x = 5", "5"),
    ("5", "x=5"),
    ("864 inches^2", "864 \\mbox{ inches}^2"),
    ("864", "864 \\mbox{ inches}^2"),
    ("1.2345e4", "12345"),
    ("$18", "18"),
    ("18.", "18"),
    ("1e5", "100000"),
    ("2\\cdot 10^{5}", "200000"),
    ("\\frac{270}{7}^\\circ", "\\frac{270}7\\text{ degrees}"),
    ("38.571428571", "\\frac{270}7\\text{ degrees}"),
]

WRONG = [
    (r"\infty!!\pi", "5"),
    ("0.5*!!x", r"\frac{1}{2}"),
    (r"\sqrt{0.25} \le", "0.5"),
    (r"0.5\le", "0.5"),
    ("0.5}e", r"\frac{1}{2}"),
    ("0.5&- &&&", "0.5"),
    (r"\frac{1}{2} x) y", r"\frac{1}{2}"),
    (r"c^2 (\gamma^2-4)", r"c^2 (\gamma^2-1)"),
    (r"2x = 10", "10"),
    ("-x = 5", "5"),
    (r"-\frac{d x}{d t}=k x-a", r"\frac{d x}{d t}=k x-a"),
    ("1/3", "0.333"),
    ("(2,1)", "(1,2)"),
    ("(3,4)", "(3,4]"),
    ("[3,4)", "(3,4]"),
    ("1, 234", "1234"),
    ("5 million", "5"),
    ("5 x", "5"),
    ("6", "5"),
    ("52_9", "52_8"),
    ("53_8", "52_8"),
    ("52", "52_8"),
    ("5 or 6", "5"),
    ("1,2", "1"),
    ("1", "1,-2"),
    ("even", "\\text{odd}"),
    ("D", "\\text{(C)}"),
    ("68.5", "137 \\frac{1}{2}"),
    ("", "5"),
    ("x", "7"),
    ("M", "m"),
    ("2x-3", "y = 2x + 3"),
    ("10**10**8", "5"),
    ("\\infty", "5"),
    ("nan", "5"),
    ("(4343_7)", "4343_6"),
    ("\\begin{pmatrix}-2\\\\-14\\\\7\\end{pmatrix}", "\\begin{pmatrix} -2 \\\\ -14 \\\\ -7 \\end{pmatrix}"),
    ("\\begin{pmatrix}-2&-14&-7\\end{pmatrix}", "\\begin{pmatrix} -2 \\\\ -14 \\\\ -7 \\end{pmatrix}"),
    ("5,x", "5"),
    ("True", "1"),
    ("6 or 5", "6"),
    ("5%", "0.5"),
    ("50%", "5000"),
    ("\\frac{0}{0}", "0"),
    ("1/0", "0"),
    ("3;4", "34"),
    ("5+", "5"),
    ("(1,2,3)", "(1,2)"),
    ("sdf 5", "5"),
    ("five", "5"),
    ("0", "6.6e-34"),
    ("1.3e-27", "2.9e-19"),
    ("x=6", "x=5"),
    ("SRMC=LRAC", "SRAC=LRAC"),
    ("\\cos(3t)", "\\sin(3t)"),
    ("12 13", "1213"),
    ("1 2", "12"),
    ("2 1/2", "21/2"),
]

HOSTILE = [
    "10**10**8", "10^{10^{10}}", "9^{9^{9^{9}}}", "1000000!!!!!", "(" * 900, r"\frac{" * 140, "9" * 999, "x" * 999,
    r"\sqrt{" * 100 + "2" + "}" * 100, r"\int_0^\infty e^{-x^{x^{x}}} \, dx", r"\sum_{n=1}^{10^{9}} \frac{1}{n^{n}}",
    r"\prod_{k=1}^{10^8} k", r"\lim_{x\to 0} \frac{x^{x^x}}{x!}", r"\begin{pmatrix}" + "1&" * 200 + r"1\end{pmatrix}",
    "\x00\ud800", "a=" * 300, r"\boxed{" * 100, "{" * 900 + "}" * 900,
]  # fmt: skip


def references(dataset: str) -> list[str]:
    env = MathPythonEnv(dataset, tools=["calculator"])
    splits = [split for split in ("train", "valid", "test") if split == "test" or dataset == "gsm8k"]
    return sorted({str(env.task(seed).answer) for split in splits for seed in env.task_seeds(split)})


NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
CHARACTERS = {
    r"\pi": "π",
    r"\infty": "∞",
    r"\cup": "∪",
    r"\pm": "±",
    r"\cdot": "·",
    r"\theta": "θ",
    r"\omega": "ω",
    r"\tau": "τ",
}


def in_unicode(answer: str) -> str:
    """An answer with the characters that a chat would show: roots, powers, minus signs and Greek letters."""
    text = re.sub(r"\\sqrt(?:\{(\w+)\}|(\d))", lambda found: f"√{found[1] or found[2]}", answer)
    text = re.sub(r"(?<=[a-zA-Z\d])\^(?:\{(\d)\}|(\d))", lambda found: "⁰¹²³⁴⁵⁶⁷⁸⁹"[int(found[1] or found[2])], text)
    for command, character in CHARACTERS.items():
        text = re.sub(re.escape(command) + r"(?![a-zA-Z])", character, text)
    return text.replace("-", "−")


def forms(answer: str) -> Iterator[str]:
    """Other ways to give an answer: where it stands, how it is spaced, and how numbers and fractions are written."""
    yield rf"So it is $\boxed{{{answer}}}$."
    yield f"The answer is {answer}."
    yield f"The final answer is: $ {answer} $"
    yield f"<answer>{answer}</answer>"
    yield f"**{answer}**"
    yield answer.replace("\\frac", "\\dfrac")
    yield answer.replace("\\left", "").replace("\\right", "")
    yield answer.replace("pmatrix", "bmatrix")
    yield in_unicode(answer)
    if not re.search(r"\\(text|mbox|\{)", answer):
        yield answer.replace("{", "{ ").replace("}", " }")
    if (quotient := re.fullmatch(r"\\d?frac\{([^{}]+)\}\{([^{}]+)\}", answer)) is not None:
        yield f"({quotient[1]})/({quotient[2]})"
    if "\\" not in answer and not re.search(r"\de", answer):
        yield re.sub(r"(\d)([a-zA-Z])(?![a-z])", r"\1*\2", answer)
        yield re.sub(r"\^\{?(\d)\}?", r"**\1", answer)
    if NUMBER.fullmatch(answer):
        yield from (f"m+n = {answer}", f"x = {answer}", rf"\${answer}", rf"\textbf{{{answer}}}", rf"\text{{(E) }} {answer}")
        yield from (
            rf"{answer}\text{{ units}}",
            f"{answer} apples",
            rf"\text{{{answer} apples}}",
            f"{answer} m",
            f"{answer} cm^2",
        )
        yield from (f"{answer} miles per hour", rf"{answer}\,\mathrm{{km/h}}", f"{answer} dollars")
    if re.fullmatch(r"-?\d+", answer):
        yield from (f"{answer}.0", f"{int(answer):,}", rf"\frac{{{answer}}}{{1}}")


TRICKS = [
    r"R\text{7}", r"R\mathrm{7}", "12345 = R", r"12345 \neq R", "R = 12345", r"R \approx 12345", r"12345 \approx R", "12345: R",
    r"R \text{ or } 12345", "R, 12345", "12345, R", "(R, 12345)", "R wrong", "R is wrong", "not R", "R?", "R..7", "R 7",
    r"R\text{ or six}", "R versus six", "R divided by two", "R modulo seven", "R point five", "R choose two",
    "R + 1", "R, R + 1", r"R\operatorname{qq}", "R < x", r"\boxed{R} no, \boxed{12345}",
]  # fmt: skip
NOT_OF_ZERO = [r"R\text{ million}", "R million", "R / 12345", r"R\%\%", r"R\mathrm{i}", r"R \text{x}", "-(R)"]


def mutations(answer: str) -> list[str]:
    """Other values that look like the answer: a digit, a sign, a bracket or a function changed, or one more."""
    digits = re.finditer(r"(?<![}^]\^)\d", answer)
    wrong = {answer[: m.start()] + str((int(m[0]) + 3) % 10) + answer[m.end() :] for m in digits}
    wrong.add(f"{answer} + 1")
    if re.search("[1-9]", answer):
        wrong.add(f"-{answer}" if not answer.startswith("-") else answer[1:])
    for old, new in (("+", "-"), ("\\sin", "\\cos"), ("(", "["), (")", "]"), ("\\cup", "\\cap"), ("\\sqrt", "\\sin")):
        wrong.add(answer.replace(old, new, 1))
    return sorted(wrong - {answer})


@pytest.mark.parametrize("dataset", ["math500", "minerva", "aime24", "aime25", "amc23"])
def test_a_reference_with_a_trick_beside_it_is_wrong(dataset: str):
    needs_data("math")
    every = references(dataset)
    for answer in random.Random(0).sample(every, min(len(every), 35)):
        zero = re.fullmatch(r"-?0*\.?0*|.*=\s*0", answer)
        tried = [trick.replace("R", answer) for trick in TRICKS + ([] if zero else NOT_OF_ZERO)]
        tried = [trick if "boxed" in trick else rf"\boxed{{{trick}}}" for trick in tried]
        assert [trick for trick in tried if graders.math(trick, answer)] == []


@pytest.mark.parametrize("dataset", SOURCES)
def test_every_reference_answer_is_right_in_every_form(dataset: str):
    needs_data("math")
    assert data_folder("math")
    for answer in references(dataset):
        tried = list(dict.fromkeys(forms(answer)))
        assert len(tried) >= 4
        assert [form for form in tried if not graders.math(form, answer)] == []


@pytest.mark.parametrize(("dataset", "n"), [("math500", 250), ("minerva", 150), ("gsm8k", 300), ("aime25", 100)])
def test_answers_that_are_changed_a_little_are_wrong(dataset: str, n: int):
    needs_data("math")
    pairs = [(wrong, answer) for answer in references(dataset) for wrong in mutations(answer)]
    sample = random.Random(0).sample(pairs, min(n, len(pairs)))
    assert len(sample) >= 50
    assert [pair for pair in sample if graders.math(rf"\boxed{{{pair[0]}}}", pair[1])] == []


@pytest.mark.parametrize(("answer", "expected"), RIGHT)
def test_the_same_value_written_otherwise_is_right(answer: str, expected: str):
    assert graders.math(answer, expected)


@pytest.mark.parametrize(("answer", "expected"), WRONG)
def test_another_value_is_wrong(answer: str, expected: str):
    assert not graders.math(answer, expected)


PIECES = [
    r"\frac{", r"\sqrt", "{", "}", "(", ")", "[", "]", "^", "_", r"\text{", r"\boxed{", "$", r"\(", r"\pi", r"\infty", r"\cup",
    ",", "=", "x", "y", "1", "23", "0.5", "%", "+", "-", "*", "/", "**", "10", "e", "i", r"\le", r"\pm", r"\begin{pmatrix}",
    r"\end{pmatrix}", r"\\", "&", " ", "!", "sin", "!!",
]  # fmt: skip
ANSWERS = st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
EXPECTED = [
    "5",
    "0.5",
    r"\frac{1}{2}",
    r"x^2+1",
    "(1,2)",
    r"\text{east}",
    "1,-2",
    "52_8",
    "y=2x",
    r"[0,\infty)",
    r"2\sqrt{3}",
    r"50\%",
]


@settings(max_examples=100, deadline=None)
@given(st.lists(ANSWERS, min_size=100, max_size=100), st.sampled_from(EXPECTED))
def test_ten_thousand_strings_are_graded_each_within_its_time(answers: list[str], expected: str):
    for answer in answers:
        started = time.monotonic()
        assert graders.math(answer, expected) in (True, False)
        # The bound is the promise here, not a matter of speed; the rest is for starting another worker.
        assert time.monotonic() - started < WALL_SECONDS + 60


@pytest.mark.parametrize("answer", HOSTILE)
def test_hostile_answers_are_wrong_and_the_next_one_is_graded(answer: str):
    assert not graders.math(answer, r"2\sqrt{3}")
    assert graders.math(r"\sqrt{12}", r"2\sqrt{3}")


@pytest.mark.parametrize("expected", ["", "  ", "$$"])
def test_an_empty_reference_is_refused(expected: str):
    with pytest.raises(UserError, match="expected answer is empty"):
        graders.math("5", expected)
