"""The text that each token adds, a decoder's work done once for each kind of token."""

from __future__ import annotations

from collections.abc import Sequence

from agentdistill.report.text import Decode, pieces


class Pieces:
    """`report.text.pieces` with a memory: decoding a prefix for every token takes most of the time that a page takes.

    Tokens are put together from what each gives by itself, wherever that is what they give together. It is not where a
    character is spread over several tokens, or a token's space depends on what is before it.

    Args:
        decode: the text of ids; None for ids in angle brackets.
    """

    def __init__(self, decode: Decode | None) -> None:
        self.decode, self._alone = decode, dict[int, str]()

    def __call__(self, ids: Sequence[int]) -> list[str]:
        """The text each token adds; the same as `pieces(ids, decode)`."""
        if self.decode is None:
            return pieces(ids, None)
        parts = [self._of(token) for token in ids]
        together = "".join(parts)
        return parts if "\ufffd" not in together and together == self.decode(ids) else pieces(ids, self.decode)

    def _of(self, token: int) -> str:
        assert self.decode is not None
        if token not in self._alone:
            self._alone[token] = self.decode([token])
        return self._alone[token]
