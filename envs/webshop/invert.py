"""Inverting documents to an index in bounded memory: sorted runs on disk, then one merge."""

from __future__ import annotations

import heapq
import itertools
import operator
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from agentdistill.envs.webshop import arrays
from agentdistill.envs.webshop.bm25 import quantised

POSTINGS_IN_MEMORY = 4_000_000
_MOST_OCCURRENCES = 65_535  # what the type of `counts` holds


class Inverter:
    """Takes documents one by one and writes the arrays of a `bm25.Index`.

    Args:
        scratch: an empty folder for the runs.
        in_memory: postings that are gathered before a run is written.
    """

    def __init__(self, scratch: Path, in_memory: int = POSTINGS_IN_MEMORY) -> None:
        self._scratch, self._in_memory = scratch, in_memory
        self._runs = self._documents = self.total = 0
        self._lengths = array("B")
        self._clear()

    def add(self, terms: Sequence[str]) -> None:
        """The next document, by its terms."""
        ids = self._ids
        for term, count in Counter(terms).items():
            self._of_term.append(ids.setdefault(term, len(ids)))
            self._of_document.append(self._documents)
            self._count.append(min(count, _MOST_OCCURRENCES))
        self.total += len(terms)
        self._lengths.append(quantised(len(terms)))
        self._documents += 1
        if len(self._of_term) >= self._in_memory:
            self._write_run()

    def finish(self, folder: Path) -> None:
        """Write the arrays of the index into a folder."""
        self._write_run()
        arrays.write(folder, "lengths", np.frombuffer(self._lengths, dtype=np.uint8))
        term_starts, posting_starts = array("q", [0]), array("q", [0])
        with ExitStack() as stack:
            terms, docs, counts = (
                stack.enter_context(arrays.path_of(folder, name).open("wb")) for name in ("terms", "docs", "counts")
            )
            sources = [
                [stack.enter_context(self._file(run, part).open("rb")) for part in ("docs", "counts")]
                for run in range(self._runs)
            ]
            merged = heapq.merge(*(self._terms_of(run) for run in range(self._runs)))
            for term, entries in itertools.groupby(merged, key=operator.itemgetter(0)):
                number = 0
                for _, run, length in entries:  # runs follow each other, so their documents ascend
                    docs.write(sources[run][0].read(4 * length))
                    counts.write(sources[run][1].read(2 * length))
                    number += length
                terms.write(term)
                term_starts.append(term_starts[-1] + len(term))
                posting_starts.append(posting_starts[-1] + number)
        arrays.write(folder, "term_starts", term_starts)
        arrays.write(folder, "posting_starts", posting_starts)

    def _clear(self) -> None:
        self._ids: dict[str, int] = {}
        self._of_term, self._of_document, self._count = array("i"), array("i"), array("H")

    def _write_run(self) -> None:
        if not self._of_term:
            return
        words = [word.encode() for word in self._ids]
        order = sorted(range(len(words)), key=words.__getitem__)
        rank = np.empty(len(words), dtype=np.int32)
        rank[order] = np.arange(len(words), dtype=np.int32)
        of_term = rank[np.frombuffer(self._of_term, dtype=np.int32)]
        by_term = np.argsort(of_term, kind="stable")
        np.frombuffer(self._of_document, dtype=np.int32)[by_term].astype("<i4").tofile(self._file(self._runs, "docs"))
        np.frombuffer(self._count, dtype=np.uint16)[by_term].astype("<u2").tofile(self._file(self._runs, "counts"))
        lengths = np.bincount(of_term)
        with self._file(self._runs, "terms").open("wb") as file:
            file.writelines(b"%s %d\n" % (words[place], lengths[at]) for at, place in enumerate(order))
        self._runs += 1
        self._clear()

    def _terms_of(self, run: int) -> Iterator[tuple[bytes, int, int]]:
        with self._file(run, "terms").open("rb") as file:
            for line in file:
                term, length = line.split()
                yield term, run, int(length)

    def _file(self, run: int, part: str) -> Path:
        return self._scratch / f"{run}.{part}"
