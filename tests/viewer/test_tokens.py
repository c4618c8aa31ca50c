"""The text of single tokens, from a memory of what each gives alone."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from agentdistill.report.text import pieces
from agentdistill.viewer.tokens import Pieces


def test_the_pieces_are_those_of_decoding_every_prefix(tokenizer: PreTrainedTokenizerFast):
    asked: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        asked.append(len(ids))
        return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    say = Pieces(decode)
    for text in ("higher lower yes", "käse 日本 🎉 mixed", "a\n\tb", ""):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert say(ids) == pieces(ids, decode)
        assert "".join(say(ids)).replace("·", "") == text
    ids = tokenizer.encode("higher lower yes", add_special_tokens=False)
    asked.clear()
    assert "".join(say(ids)) == "higher lower yes"
    assert asked == [len(ids)]  # once for the whole, and never again for a token that is known


def test_a_space_that_depends_on_what_is_before_is_not_lost():
    words = {1: "the", 2: "cat"}

    def decode(ids: Sequence[int]) -> str:
        return " ".join(words[token] for token in ids)

    assert Pieces(decode)([1, 2]) == ["the", " cat"] == pieces([1, 2], decode)


def test_without_a_tokenizer_tokens_are_their_ids():
    assert Pieces(None)([7, 8]) == ["⟨7⟩", "⟨8⟩"]
