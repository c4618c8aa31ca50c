"""The data set of `envs.code`: HumanEval and MBPP."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentdistill.datasets import Check, Contents, DataSet, Job, Made
from agentdistill.envs.code import LIMITS
from agentdistill.envs.code.data import Problem, problems, read_humaneval, read_mbpp
from agentdistill.envs.rows import RowFile, count, import_rows, pieces
from agentdistill.tools.python import load_limits
from agentdistill.tools.sandbox import shared
from agentdistill.tools.testing.grader import Grader

_GOOGLE = "of the mbpp folder of the google-research project"


def _full_mbpp(row: Any) -> None:
    for key, kind in {"task_id": int, "text": str, "code": str, "test_list": list}.items():
        if not isinstance(row[key], kind):
            raise TypeError(f"its {key} is {row[key]!r}")


PARTS = (
    RowFile("humaneval", "HumanEval.jsonl.gz", 164, "HumanEval.jsonl.gz of the human-eval project of OpenAI", read_humaneval),
    RowFile("mbpp_sanitized", "sanitized-mbpp.json", 427, f"sanitized-mbpp.json {_GOOGLE}", read_mbpp),
    RowFile("mbpp_full", "mbpp.jsonl", 974, f"mbpp.jsonl {_GOOGLE}", _full_mbpp, needed=False),
)
_DATASETS = {"humaneval": "HumanEval.jsonl.gz", "mbpp": "sanitized-mbpp.json"}


def _import(job: Job) -> Made:
    return import_rows(job, PARTS)


def _count(folder: Path) -> Contents:
    _, contents = count(folder, PARTS)
    splits = Counter(f"{name} {each.split}" for name, found in _there(folder).items() for each in found)
    return replace(contents, tasks=dict(splits))


def _there(folder: Path) -> dict[str, list[Problem]]:
    return {name: problems(folder, name) for name, file in _DATASETS.items() if (folder / file).exists()}


def _verify(folder: Path, sample: int | None) -> Iterator[Check]:
    for name, found in _there(folder).items():
        chosen = found if sample is None else random.Random(name).sample(found, min(sample, len(found)))
        with closing(Grader(shared("auto"), load_limits(LIMITS))) as grader:
            failed = tuple(each.id for each in chosen if not _passes(grader, each))
        yield Check(f"solutions of {name} pass in the sandbox", len(chosen), failed)


def _passes(grader: Grader, problem: Problem) -> bool:
    preamble, program = problem.complete(problem.solution)
    return grader.grade(program, problem.tests, preamble).passed


DATASET = DataSet(
    name="code",
    about="HumanEval (164 functions) and MBPP, sanitized (427).",
    licence="HumanEval is MIT, MBPP CC BY 4.0.",
    download=f"HumanEval.jsonl.gz of the human-eval project of OpenAI and sanitized-mbpp.json {_GOOGLE}",
    sources="path/to/HumanEval.jsonl.gz path/to/sanitized-mbpp.json",
    importer=_import,
    count=_count,
    verifier=_verify,
    pieces=pieces(PARTS),
    forget=problems.cache_clear,
)
