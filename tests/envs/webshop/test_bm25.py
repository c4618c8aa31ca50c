from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from agentdistill.envs.webshop import arrays
from agentdistill.envs.webshop.bm25 import Index, quantised
from agentdistill.envs.webshop.invert import Inverter
from tests.envs.webshop import shop
from tests.needs import needs_webshop

DOCUMENTS = [
    ["red", "lamp", "red"],
    ["blue", "lamp"],
    [],
    ["red", "lamp", "red"],
    ["wood"] * 60 + ["lamp"],
    ["blue", "lamp"],
    ["été", "zebra", "lamp"],
]
INDEX = ("terms", "term_starts", "posting_starts", "docs", "counts", "lengths")


def inverted(folder: Path, in_memory: int) -> dict[str, bytes]:
    """The files of the index of DOCUMENTS."""
    (scratch := folder / f"scratch-{in_memory}").mkdir()
    (target := folder / f"index-{in_memory}").mkdir()
    inverter = Inverter(scratch, in_memory)
    for document in DOCUMENTS:
        inverter.add(document)
    inverter.finish(target)
    assert inverter.total == sum(map(len, DOCUMENTS))
    return {name: arrays.path_of(target, name).read_bytes() for name in INDEX}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    files = inverted(tmp_path, 1000)
    loaded = {name: np.frombuffer(data, dtype=arrays.TYPES[name]) for name, data in files.items()}
    return Index(loaded, sum(map(len, DOCUMENTS)))


def score(query: list[str], document: list[str]) -> float:
    """BM25 from its definition, for documents too short to be quantised."""
    average = sum(map(len, DOCUMENTS)) / len(DOCUMENTS)
    total = 0.0
    for term in query:
        holding = sum(term in each for each in DOCUMENTS)
        idf = math.log(1 + (len(DOCUMENTS) - holding + 0.5) / (holding + 0.5))
        count = document.count(term)
        length = 60 if len(document) == 61 else len(document)
        total += idf * count / (count + 0.9 * (0.6 + 0.4 * length / average))
    return total


def test_rankings_of_all_recorded_queries_equal_lucenes():
    needs_webshop()
    catalogue = shop.shop()
    different = [
        row["query"]
        for row in shop.recorded("lucene_rankings.jsonl.gz")
        if list(catalogue.search(row["query"].lower())) != row["docs"]
    ]
    assert different == []


@pytest.mark.parametrize("query", [["red"], ["lamp", "wood"], ["blue", "lamp", "lamp"], ["été"], ["lamp", "none"]])
def test_documents_come_by_their_score_and_then_by_their_number(index: Index, query: list[str]):
    scores = {number: score(query, document) for number, document in enumerate(DOCUMENTS)}
    expected = sorted((number for number in scores if scores[number]), key=lambda number: (-round(scores[number], 6), number))
    assert index.search(query).tolist() == expected


def test_only_the_best_are_given_and_nothing_for_unknown_terms(index: Index):
    assert index.search(["lamp", "red"], most=3).tolist() == index.search(["lamp", "red"]).tolist()[:3]
    assert index.search(["lamp"], most=1).tolist() == [1]
    for query in ([], ["aardvark"], ["zzz"], ["lam"]):
        assert index.search(query).tolist() == []


@pytest.mark.parametrize("in_memory", [1, 3, 7])
def test_an_index_of_many_runs_equals_that_of_one(tmp_path: Path, in_memory: int):
    assert inverted(tmp_path, in_memory) == inverted(tmp_path, 1000)


def test_the_index_holds_each_terms_documents_in_ascending_order(tmp_path: Path):
    files = inverted(tmp_path, 2)
    starts, docs, counts = (np.frombuffer(files[name], dtype=arrays.TYPES[name]) for name in INDEX[2:5])
    terms = sorted({term for document in DOCUMENTS for term in document}, key=str.encode)
    assert files["terms"] == "".join(terms).encode()
    for place, term in enumerate(terms):
        expected = [(number, Counter(each)[term]) for number, each in enumerate(DOCUMENTS) if term in each]
        span = slice(starts[place], starts[place + 1])
        assert list(zip(docs[span], counts[span], strict=True)) == expected


@pytest.mark.parametrize(("length", "code"), [(0, 0), (39, 39), (40, 40), (41, 40), (42, 41), (56, 48), (2**31 - 1, 255)])
def test_lengths_are_quantised_as_lucene_does(length: int, code: int):
    assert quantised(length) == code
