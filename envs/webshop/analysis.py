"""From text to the terms of the index, as Lucene's `EnglishAnalyzer` makes them.

Its steps: `StandardTokenizer` (the word boundaries of Unicode Standard Annex 29, with the emoji of Unicode 12.1), possessives
off, lower case, stop words out, Porter's stemmer with Martin Porter's own later changes.
"""

from __future__ import annotations

import functools
from typing import Any

from agentdistill.envs.webshop.packages import package

_STOP_WORDS = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was
will with
"""
_LONGEST_TOKEN = 255  # Lucene cuts longer ones into pieces
_POSSESSIVES = ("'s", "'S", "’s", "’S", "＇s", "＇S")

# Extended_Pictographic as of Unicode 12.1, which Lucene 9 was generated from; later versions took many symbols out.
_PICTOGRAPHS = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf\u23e9-\u23f3\u23f8-\u23fa\u24c2"
    "\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714\u2716\u271d"
    "\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf\u2934"
    "\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001f0ff\U0001f10d-\U0001f10f\U0001f12f"
    "\U0001f16c-\U0001f171\U0001f17e\U0001f17f\U0001f18e\U0001f191-\U0001f19a\U0001f1ad-\U0001f1e5\U0001f201-\U0001f20f"
    "\U0001f21a\U0001f22f\U0001f232-\U0001f23a\U0001f23c-\U0001f23f\U0001f249-\U0001f3fa\U0001f400-\U0001f53d"
    "\U0001f546-\U0001f64f\U0001f680-\U0001f6ff\U0001f774-\U0001f77f\U0001f7d5-\U0001f7ff\U0001f80c-\U0001f80f"
    "\U0001f848-\U0001f84f\U0001f85a-\U0001f85f\U0001f888-\U0001f88f\U0001f8ae-\U0001f8ff\U0001f90c-\U0001f93a"
    "\U0001f93c-\U0001f945\U0001f947-\U0001fffd"
)


def analyse(text: str) -> list[str]:
    """The terms of a text, in order and with repetitions.

    Raises:
        UserError: when nltk is not installed.
    """
    tokens = _tokenizer().findall(text)
    if any(len(token) > _LONGEST_TOKEN for token in tokens):
        tokens = [t[at : at + _LONGEST_TOKEN] for t in tokens for at in range(0, len(t), _LONGEST_TOKEN)]
    return [term for term in map(_term, tokens) if term]


@functools.cache
def _tokenizer() -> Any:
    # Every repetition keeps what it took (`*+`): what may follow is of other characters, so giving some back never helps,
    # and trying to would take time with the square of the text's length.
    joined = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*+"

    def each(characters: str) -> str:
        return f"(?:{characters}{joined})"

    letter, digit = each(r"[\p{WB=ALetter}\p{WB=Hebrew_Letter}]"), each(r"\p{WB=Numeric}")
    katakana, connector = each(r"\p{WB=Katakana}"), each(r"\p{WB=ExtendNumLet}")
    inside_word = each(r"[\p{WB=MidLetter}\p{WB=MidNumLet}\p{WB=Single_Quote}]")
    inside_number = each(r"[\p{WB=MidNum}\p{WB=MidNumLet}\p{WB=Single_Quote}]")
    letters = f"{letter}(?:(?:{inside_word}|{connector}*+){letter})*+"
    number = f"{digit}(?:(?:{inside_number}|{connector}*+){digit})*+"
    part = f"(?:{katakana}(?:{connector}*+{katakana})*+|(?:{number}|{letters})++)"
    pictograph = rf"[{_PICTOGRAPHS}]"
    return package("regex").compile(
        "|".join(
            (
                f"{connector}{{0,{_LONGEST_TOKEN}}}+{part}(?:{connector}++{part})*+{connector}*+",
                rf"(?:\p{{LB=SA}}{joined})++",
                rf"\p{{Script=Han}}{joined}",
                rf"\p{{Script=Hiragana}}{joined}",
                rf"\p{{WB=Regional_Indicator}}{joined}\p{{WB=Regional_Indicator}}{joined}",
                "[0-9#*]\ufe0f?\u20e3",
                f"{pictograph}(?:{joined}(?<=\u200d){pictograph})*+{joined}",
            )
        )
    )


@functools.cache
def _stop_words() -> frozenset[str]:
    return frozenset(_STOP_WORDS.split())


@functools.lru_cache(maxsize=200_000)
def _term(token: str) -> str:
    """The term of a token; empty for a stop word."""
    word = (token[:-2] if token.endswith(_POSSESSIVES) else token).lower()
    return "" if word in _stop_words() else str(_stemmer().stem(word, to_lowercase=False))


@functools.cache
def _stemmer() -> Any:
    stemmer = package("nltk.stem.porter").PorterStemmer
    return stemmer(stemmer.MARTIN_EXTENSIONS)
