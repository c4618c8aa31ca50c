r"""Characters beyond ASCII as LaTeX: `5²` is `5^{2}`, `√13` is `\sqrt{13}`, `1½` is `1 \frac{1}{2}`."""

from __future__ import annotations

import re
import unicodedata

_SUPER, _SUB = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "₀₁₂₃₄₅₆₇₈₉₊₋₍₎"
_RAISED = re.compile(f"[{_SUPER}]+")
_LOWERED = re.compile(f"[{_SUB}]+")
_FRACTION = re.compile(r"(\d?)([¼-¾⅐-⅞])")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|\\?[A-Za-z]+))")
_SYMBOLS = {
    **{"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "⁄": "/", "∕": "/", "∗": "*", "。": ".", "\u200b": "", "\ufeff": ""},
    **dict.fromkeys("“”„", '"'),
    **dict.fromkeys("‘’", "'"),
    **{
        "×": r"\times ",
        "·": r"\cdot ",
        "⋅": r"\cdot ",
        "∙": r"\cdot ",
        "•": r"\cdot ",
        "÷": "/",
        "±": r"\pm ",
        "∞": r"\infty ",
    },
    **{"≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv "},
    **{"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "π": r"\pi ", "α": r"\alpha ", "β": r"\beta "},
    **{"γ": r"\gamma ", "δ": r"\delta ", "Δ": r"\Delta ", "θ": r"\theta ", "λ": r"\lambda ", "ρ": r"\rho ", "σ": r"\sigma "},
    **{"τ": r"\tau ", "φ": r"\phi ", "ω": r"\omega ", "ζ": r"\zeta ", "ℏ": r"\hbar ", "ħ": r"\hbar ", "∠": r"\angle "},
}
_TABLE = str.maketrans(_SYMBOLS)


def latex(text: str) -> str:
    """`text` with what has a LaTeX spelling in it; other characters in Unicode's compatible form (NFKC)."""
    if text.isascii():
        return text
    text = _RAISED.sub(lambda run: f"^{{{unicodedata.normalize('NFKC', run[0])}}}", text)
    text = _LOWERED.sub(lambda run: f"_{{{unicodedata.normalize('NFKC', run[0])}}}", text)
    text = _FRACTION.sub(_fraction, text)
    text = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
    return _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2] or root[3]}}}", text)


def _fraction(found: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", found[2]).partition("⁄")
    return rf"{found[1]}{' ' if found[1] else ''}\frac{{{above}}}{{{below}}}"
