r"""LaTeX answers without what does not change their value, so that most of them can be compared as they stand."""

from __future__ import annotations

import re
from fractions import Fraction

from agentdistill.graders import spelling
from agentdistill.graders.answer import final_answer
from agentdistill.graders.numbers import parse_number

_SAID = re.compile(r"(?:final\s+)?answer\s*(?:is|:)\s*:?\s*", re.IGNORECASE)
_MIXED = re.compile(r"([+-]?)(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}")
_MIXED_PLAIN = re.compile(r"([+-]?)(\d+)\s+(\d+)\s*/\s*(\d+)")
_REPEATING = re.compile(r"([+-]?)(\d{0,40})\.(\d{0,40})\\(?:overline|bar|dot)\s*(?:\{(\d{1,40})\}|(\d))")
_SCALED = re.compile(r"(.*\d)\s*(?:\\text\s*\{\s*)?(hundred|thousand|million|billion|trillion)\s*\}?")
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCIENTIFIC = re.compile(
    r"\s*(?:\\times|\\cdot|\\ast|[*x])\s*10\s*(?:\^|\*\*)\s*(?:\{\s*([+-]?\d+)\s*\}|\(\s*([+-]?\d+)\s*\)|([+-]?\d+))"
)
_POWER_OF_TEN = re.compile(r"([+-]?)10\s*(?:\^|\*\*)\s*(?:\{\s*([+-]?\d{1,3})\s*\}|([+-]?\d{1,3}))")
_GROUPED = re.compile(r"(?<=\d)(?:\{,\}|,\\[!,;: ]\s*|\\[,;: ]|,\\!\s*)(?=\d{3}(?!\d))")
_LIST = re.compile(r",\s+(?=\d{3}(?!\d))")
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|ln|log|exp|det"
_TEXT = r"\\(?:text|mbox|mathrm|textrm|operatorname)"
_CASES = tuple(
    (re.compile(pattern, re.DOTALL), by)
    for pattern, by in (
        (r"^\s*\\?([\"'`*_]{1,2})(.+)\1\.?\s*$", r"\2"),
        (r"^\s*#{2,}\s*|^\s*\\boxed\s*(?=\w)", ""),
        (r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle)(?![a-zA-Z])|\\color\s*\{\w*\}|\\textcolor\s*\{\w*\}", ""),
        (r"^\s*\\\((.*)\\\)\s*$|^\s*\$+([^$]*)\$+\s*$", r"\1\2"),
        (r"^\s*([-+]?)\s*(?:\\\$|\$(?=[^$]*$))\s*([\d.,]*\d)", r"\1\2 dollars "),
        (r"^\s*([-+]?)\s*€\s*([\d.,]*\d)", r"\1\2 euros "),
        (r"^\s*([-+]?)\s*£\s*([\d.,]*\d)", r"\1\2 pounds "),
        (r"€\s*$", " euros"),
        (r"(?<!\\)\\[!,;: ]|\\\$|\$|\\[()\[\]]|\\q?quad(?![a-zA-Z])|(?<!\\)~", " "),
        (r"\\(?:mathbf|textbf|boldsymbol|bm|mathit|textit|emph|underline|fbox|mathsf)\s*\{([^{}]*)\}", r" \1 "),
        (rf"^\s*{_TEXT}\s*\{{([^{{}}]*\d[^{{}}]*)\}}\s*$", r"\1"),
        (rf"{_TEXT}\s*\{{\s*([a-zA-Z])\s*\}}", r" \1 "),
        (rf"{_TEXT}\s*\{{\s*({_FUNCTIONS})\s*\}}", r"\\\1 "),
        (rf"\s*{_TEXT}\s*\{{\s*per\s?cent\s*\}}\s*$|\s*per\s?cent\s*$", "%"),
        (rf"(?:\^\s*(?:\\circ|\{{\s*\\circ\s*\}})|°|\\degree)\s*(?:{_TEXT}\s*\{{\s*[CF]\s*\}}|[CF])?\s*$", " degrees"),
        (r"\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})|°|\\degree(?![a-zA-Z])", ""),
        (r"\\[dtc]frac(?![a-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{[^{}]*\})\s*(\d)", r"\\frac\1{\2}"),
        (r"\\frac\s*(\{[^{}]*\})\s*(\{)", r"\\frac\1\2"),
        (r"\\sqrt\s*(\d+)", r"\\sqrt{\1}"),
        (r"\\(?:leqslant|leq)(?![a-z])|<=", r"\\le "),
        (r"\\(?:geqslant|geq)(?![a-z])|>=", r"\\ge "),
        (r"\\neq(?![a-z])|!=", r"\\ne "),
    )
)  # fmt: skip
_CONGRUENT = re.compile(r"\s*(?:\\pmod\s*\{?\s*(\d{1,9})\s*\}?|\(\s*(?:\\?mod)\s*(\d{1,9})\s*\))$")
_CHOICE = re.compile(rf"\s*(?:{_TEXT}\s*\{{\s*)?\(\s*([A-E])\s*\)\s*\}}?\s*(?=[^\s{{}}^_])")
_AND = re.compile(rf"\s*,?\s*(?:{_TEXT}\s*\{{\s*,?\s*(?:and|or)\s*\}}|\b(?:and|or)\b)\s*")
_NAMED = re.compile(r"\s*([a-zA-Z](?:_(?:\w|\{[^{}]*\}))?)\s*(?:=(?!.*=)|\\in(?![a-zA-Z]))\s*")


def said(text: str) -> str:
    r"""The answer in `text`: its final answer, what follows the last "the answer is", or all of it."""
    boxed = final_answer(text)
    if boxed is not None:
        return boxed
    last = None
    for last in _SAID.finditer(text):  # noqa: B007 - only the last one is wanted
        pass
    return text if last is None else text[last.end() :].strip()


def tidy(answer: str) -> str:
    r"""`answer` in one way of writing: in ASCII, without sizes, styles and spacing commands, and fractions with braces.

    Currency and degree signs become the words after the value that `units` knows.
    """
    text = _GROUPED.sub("", spelling.latex(answer).strip())
    text = _LIST.sub(";", text)  # "1, 234" is two numbers
    for pattern, by in _CASES:
        text = pattern.sub(by, text)
    text = re.sub(r"\s+", " ", text).strip()
    return text.rstrip(".").strip() if not text.endswith("..") else text


def listed(tidied: str) -> str:
    """An answer with commas for "and" and "or", and without the name before each of its values: `x = 1 or x = 2` is `1;2`."""
    text = _AND.sub(";", tidied)
    parts = re.split(r"[,;]\s*", text)
    names = [re.match(r"\s*([a-z])\s*=(?!.*=)", part) for part in parts]
    if len(parts) > 1 and all(names) and len({name[1] for name in names if name}) == 1:
        return ";".join(part.partition("=")[2] for part in parts)
    return text


def bare(tidied: str) -> str:
    r"""A tidied answer without `x =` or `x \in` before it."""
    named = _NAMED.match(tidied)
    return tidied[named.end() :] if named else tidied


def without_remarks(tidied: str, right: str) -> str:
    r"""An answer without the letter of a choice before it or `\pmod{7}` after a value below 7, unless `right` has them."""
    choice = _CHOICE.match(tidied)
    if choice is not None and choice[1] not in right and words(right) is None:
        tidied = tidied[choice.end() :].lstrip("} ")
    modulus = _CONGRUENT.search(tidied)
    if modulus is not None and "mod" not in right:
        residue = value(bare(tidied[: modulus.start()]))
        if residue is not None and 0 <= residue < int(modulus[1] or modulus[2]):
            return tidied[: modulus.start()].replace(r"\equiv", "=")
    return tidied


def value(tidied: str) -> Fraction | None:
    r"""The number that a tidied answer is: mixed (`1 \frac{2}{3}`), scientific (`2 \times 10^{5}`) and repeating ones too."""
    if len(tidied) > 1_000 or tidied.count("%") > 1:
        return None
    mixed = _MIXED.fullmatch(tidied) or _MIXED_PLAIN.fullmatch(tidied)
    if mixed is not None and len(tidied) < 100 and int(mixed[4]):
        size = int(mixed[2]) + Fraction(int(mixed[3]), int(mixed[4]))
        return -size if mixed[1] == "-" else size
    if (repeating := _REPEATING.fullmatch(squeezed(tidied))) is not None:
        period = repeating[4] or repeating[5]
        once = Fraction(int(period), 10 ** len(period) - 1) + int(repeating[3] or 0)
        size = int(repeating[2] or 0) + once / Fraction(10 ** len(repeating[3]))
        return -size if repeating[1] == "-" else size
    if (scaled := _SCALED.fullmatch(tidied)) is not None:
        before = value(scaled[1])
        return None if before is None else before * _SCALES[scaled[2]]
    text = _SCIENTIFIC.sub(lambda found: f"e{found[1] or found[2] or found[3]}", tidied)
    if (power := _POWER_OF_TEN.fullmatch(text)) is not None:
        text = f"{power[1]}1e{power[2] or power[3]}"
    return parse_number(squeezed(text))


def squeezed(text: str) -> str:
    """Without white space, but for that between two digits: "1 2" is not 12."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)


def words(tidied: str) -> str | None:
    r"""The words of an answer that is text, such as `\text{east}` or `(B)`, or None where it is a formula, such as `p - q`."""
    text = re.sub(rf"{_TEXT}\s*\{{([^{{}}]*)\}}", r" \1 ", tidied).strip()
    text = re.sub(r"^\(\s*([A-Za-z]+)\s*\)$", r"\1", text)
    if not re.fullmatch(r"[A-Za-z][A-Za-z' -]*", text):
        return None
    wrapped = text != tidied.strip()
    named = len(text) == 1 or (re.search(r"[A-Za-z]{3}", text) and " -" not in text and "- " not in text)
    return " ".join(text.split()) if wrapped or named else None
