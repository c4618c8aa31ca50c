"""What a tool says, made fit to be read by a model: no control characters, no broken Unicode, no megabytes."""

from __future__ import annotations

import re

# A terminal's escape sequences (ECMA-48): CSI with its parameters, strings such as OSC up to their end, two-character ones.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]?|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")


def clean_output(text: str) -> str:
    """`text` without terminal escapes and control characters other than tab and line feed; lone surrogates become '?'.

    Tokenizers and stores refuse lone surrogates. Line ends become line feeds. A chat template's special tokens stay as
    they are: what they are is the tokenizer's affair, and `chat.Chat` makes them harmless.
    """
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    text = _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text.encode("utf-8", "replace").decode("utf-8")


def truncate_middle(text: str, limit: int) -> str:
    """Keep `text` to `limit` characters: its head (three quarters), a count of what was left out, and its tail."""
    return text if len(text) <= limit else _ends(text, text, len(text), limit)


def fit(text: str, limit: int) -> str:
    """`text` cleaned and then truncated, with no more work done than `limit` asks for, however long the text is."""
    reach = 8 * limit + 1_000
    if len(text) <= 2 * reach:
        return truncate_middle(clean_output(text), limit)
    return _ends(clean_output(text[:reach]), clean_output(text[-reach:]), len(text), limit)


def _ends(head: str, tail: str, length: int, limit: int) -> str:
    """The head of one text and the tail of another, for a text of `length` characters that they begin and end."""
    note = f"\n… {length} characters, middle left out …\n"
    room = limit - len(note)
    if room < 8:
        return head[:limit]
    kept = room // 4
    return head[: room - kept] + note + tail[max(len(tail) - kept, 0) :]
