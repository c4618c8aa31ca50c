"""Search: Lucene's BM25 over an inverted index in arrays, equal to it in scores, order and ties."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

K1, B = np.float32(0.9), np.float32(0.4)
_MOST_TERMS = 1024  # Lucene's limit on the clauses of a query
_KEPT_TERMS = 65_536


class Index:
    """An inverted index.

    Args:
        arrays: `terms` (the sorted terms' UTF-8 bytes, end to end), `term_starts` [V + 1], `posting_starts` [V + 1], `docs` and
            `counts` [postings] (each term's documents in ascending order, and how often it occurs there), `lengths` [documents]
            (numbers of terms as `quantised`).
        total: number of terms of all documents together.
    """

    def __init__(self, arrays: Mapping[str, Array], total: int) -> None:
        self._terms, self._term_starts = arrays["terms"], arrays["term_starts"]
        self._posting_starts, self._docs, self._counts = arrays["posting_starts"], arrays["docs"], arrays["counts"]
        self._lengths = np.asarray(arrays["lengths"])
        average = np.float32(total / max(len(self._lengths), 1))
        # For each quantised length: 1 / (k1 · ((1 - b) + b · length / average)).
        self._norms = np.float32(1) / (K1 * ((np.float32(1) - B) + B * _LENGTHS / average))
        self._find = functools.lru_cache(maxsize=_KEPT_TERMS)(self._find_uncached)

    def search(self, terms: Iterable[str], most: int = 50) -> Array:
        """The best documents `[≤ most]`, best first, equally good ones in their order.

        A document's score is the sum over the query's terms of `w - w / (1 + count · norm)`, `w = repetitions · idf`,
        `idf = ln(1 + (N - n + 0.5) / (n + 0.5))` (org.apache.lucene.search.similarities.BM25Similarity, Lucene 9), in the
        precision that Lucene has: single for a term, double for the sum.
        """
        scores = np.zeros(len(self._lengths))
        for term, repetitions in Counter(terms).most_common(_MOST_TERMS):
            start, end, idf = self._find(term)
            if start < end:
                docs = self._docs[start:end]
                weight = np.float32(repetitions) * idf
                scores[docs] += weight - weight / (1 + self._counts[start:end] * self._norms[self._lengths[docs]])
        single = scores.astype(np.float32)
        found = np.flatnonzero(single)
        if len(found) > most:
            least = np.partition(single[found], -most)[-most]
            found = found[single[found] >= least]
        return found[np.argsort(-single[found], kind="stable")[:most]]

    def _find_uncached(self, term: str) -> tuple[int, int, np.float32]:
        """Where the postings of a term start and end, and its inverse document frequency."""
        wanted, low, high = term.encode(), 0, len(self._term_starts) - 1
        while low < high:
            middle = (low + high) // 2
            if self._term(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        if low == len(self._term_starts) - 1 or self._term(low) != wanted:
            return 0, 0, np.float32(0)
        start, end = int(self._posting_starts[low]), int(self._posting_starts[low + 1])
        frequency = end - start
        return start, end, np.float32(np.log(1 + (len(self._lengths) - frequency + 0.5) / (frequency + 0.5)))

    def _term(self, number: int) -> bytes:
        return self._terms[self._term_starts[number] : self._term_starts[number + 1]].tobytes()


def quantised(length: int) -> int:
    """A document's length in one byte, as Lucene stores it: exact below 40, then with four significant bits."""
    return length if length < _EXACT else _EXACT + _to_float4(length - _EXACT)


def _to_float4(value: int) -> int:
    """Four significant bits and an exponent (org.apache.lucene.util.SmallFloat.longToInt4)."""
    shift = value.bit_length() - 4
    return value if shift < 0 else (value >> shift) & 7 | (shift + 1) << 3


def _from_float4(code: int) -> int:
    shift = (code >> 3) - 1
    return code & 7 if shift < 0 else (code & 7 | 8) << shift


_EXACT = 255 - _to_float4(2**31 - 1)  # codes that stand for themselves
_LENGTHS = np.array([c if c < _EXACT else _EXACT + _from_float4(c - _EXACT) for c in range(256)], dtype=np.float32)
