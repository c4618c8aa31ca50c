r"""What is compared as a formula at all: an allow-list, because math-verify makes something of anything.

It reads "5 +" as 5, "1 2" as 12 and "5 * !! x" as 5, and drops the words and commands that it does not know.
"""

from __future__ import annotations

import re

_HANGING = re.compile(r"[-+*/=<>^_,;(\[{]$|\\(?:le|ge|pm|cdot|times|div|cup|cap|in|to)$|\d\s+\d|!!|\.\.")
_CHARACTERS = re.compile(r"[A-Za-z0-9\s+\-*/^_=<>()\[\]{}|,;.!&'%\\]*")
_COMMANDS = frozenset(
    """frac sqrt pi infty cup cap pm mp cdot times div ast le ge in setminus emptyset varnothing begin end sin cos tan cot
    sec csc arcsin arccos arctan sinh cosh tanh ln log exp det binom alpha beta gamma delta Delta epsilon zeta eta
    theta Theta kappa lambda Lambda mu nu xi rho sigma Sigma tau phi Phi varphi chi psi omega Omega hbar ell prime
    dot ddot lfloor rfloor lceil rceil lvert rvert lbrace rbrace mathbb
    """.split()  # noqa: SIM905 - a list of words
)
_FUNCTIONS = frozenset(
    "sqrt pi sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp infty inf oo np math".split()  # noqa: SIM905
) | {name for name in _COMMANDS if name.lower() in ("alpha", "beta", "gamma", "delta", "theta", "lambda", "sigma", "omega")}
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z]*matrix\}")
_POWER = re.compile(r"(?:\^|\*\*)\s*")
_MOST = 10_000  # an exponent, and the argument of a factorial


def is_formula(given: str, right: str) -> bool:
    r"""Whether `given` is whole, of known parts or those of the reference `right`, and cheap enough to be compared.

    Its brackets are closed (by either kind, as in an interval), nothing is left hanging, and the only letters are those of
    functions and of the reference, e and i.
    """
    closed = given.count("{") == given.count("}") and sum(map(given.count, "([")) == sum(map(given.count, ")]"))
    table = r"\begin" in given or "&" not in given
    if not closed or not table or _HANGING.search(given) or is_oversized(given):
        return False
    if not _CHARACTERS.fullmatch("".join(char for char in given if char not in right)):
        return False
    plain = _ENVIRONMENT.sub(" ", given)
    if not set(re.findall(r"\\([A-Za-z]+)", plain)) <= _COMMANDS | set(re.findall(r"\\([A-Za-z]+)", right)):
        return False
    known = set(re.sub(r"\\[A-Za-z]+", "", _ENVIRONMENT.sub(" ", right))) | {"e", "i"}
    runs = re.findall(r"[A-Za-z]+", re.sub(r"\\[A-Za-z]+", " ", plain))
    return all(run in _FUNCTIONS or set(run) <= known for run in runs)


def is_oversized(text: str) -> bool:
    """Whether a power or a factorial in it has more digits than sympy computes in no time: `10^{10^{10}}`."""
    squeezed = "".join(text.split())
    if re.search(r"(?:\d{5,}|[)}])!", squeezed):
        return True
    for found in _POWER.finditer(squeezed):
        exponent = _group(squeezed, found.end())
        numbers = re.findall(r"\d+", exponent)
        if any(len(number) > 4 for number in numbers) or (numbers and _tower(exponent)):
            return True
        if numbers and _POWER.match(squeezed, found.end() + len(exponent)):
            return True
    return False


def _tower(exponent: str) -> bool:
    """Whether an exponent has a power of a number in it."""
    return re.search(r"[\d)}](?:\^|\*\*)|!", exponent) is not None


def _group(text: str, start: int) -> str:
    """The operand that begins at `start`: a sign, and a number or whole brackets."""
    match = re.compile(r"[-+]?(?:[\d.]+|\\?[A-Za-z]+|.)?", re.DOTALL).match(text, start)
    assert match is not None
    if match[0][-1:] not in ("{", "("):
        return match[0]
    depth = 0
    for i in range(match.end() - 1, len(text)):
        depth += (text[i] in "{(") - (text[i] in "})")
        if depth == 0:
            return text[start : i + 1]
    return text[start:]
