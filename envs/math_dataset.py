"""The data set of `envs.math`: which files it has, how official ones are imported, and how its answers are checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentdistill import graders
from agentdistill.datasets import Check, Contents, DataSet, Job, Made
from agentdistill.envs.data import read_rows
from agentdistill.envs.math import HELD_OUT, SOURCES, forget
from agentdistill.envs.rows import RowFile, count, import_rows, pieces
from agentdistill.registration import needs_package
from agentdistill.tool import ToolError
from agentdistill.tools.calculator import evaluate

_QWEN = "of the Qwen2.5-Math project's evaluation data"
_PUBLISHED = {
    "gsm8k_train": ("gsm8k", "train", 7473, "train.jsonl of the grade-school-math project of OpenAI"),
    "gsm8k_test": ("gsm8k", "test", 1319, "test.jsonl of the grade-school-math project of OpenAI"),
    "math500": ("math500", "test", 500, "math_splits/test.jsonl of the prm800k project of OpenAI"),
    "aime24": ("aime24", "test", 30, f"aime24/test.jsonl {_QWEN}"),
    "aime25": ("aime25", "test", 30, "the 30 problems of AIME 2025 as JSON lines with problem and answer"),
    "amc23": ("amc23", "test", 40, f"amc23/test.jsonl {_QWEN}"),
    "svamp": ("svamp", "test", 1000, f"svamp/test.jsonl {_QWEN}"),
    "minerva": ("minerva", "test", 272, f"minerva_math/test.jsonl {_QWEN}"),
}
# Lines whose published answer is not what their own published solution comes to.
_AT_ODDS = {
    "gsm8k_train": (357, 1155, 2771, 3335, 4797, 5351, 6158, 6761, 7445),
    "gsm8k_test": (594,),
    "svamp": (352,),
}
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_GROUPED = re.compile(r"(?<=\d)[ ,](?=\d{3})")


def _checked(dataset: str) -> Callable[[Any], None]:
    def check(row: Any) -> None:
        if dataset == "gsm8k" and "####" not in row["answer"]:
            raise ValueError("its answer has no ####")
        fields = SOURCES[dataset].read(row)
        question, answer = fields["question"], fields["answer"]
        if not isinstance(question, str) or not question.strip():
            raise ValueError("its question is empty")
        if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
            raise ValueError(f"its answer is {answer!r}")

    return check


PARTS = tuple(
    RowFile(part, SOURCES[dataset].files[split], rows, download, _checked(dataset))
    for part, (dataset, split, rows, download) in _PUBLISHED.items()
)


def _import(job: Job) -> Made:
    return import_rows(job, PARTS)


def _count(folder: Path) -> Contents:
    there, contents = count(folder, PARTS)
    tasks: dict[str, int] = {}
    for part, rows in there.items():
        dataset, split = _PUBLISHED[part][:2]
        held = min(HELD_OUT, rows) if split == "train" else 0
        tasks |= {f"{dataset} {split}": rows - held} | ({f"{dataset} valid": held} if held else {})
    return replace(contents, tasks=tasks)


def _verify(folder: Path, sample: int | None) -> Iterator[Check]:
    """Every answer, whatever the sample: they take a second together."""
    for part in PARTS:
        if not (folder / part.file).exists():
            continue
        wrong, odd, tried, solved = [], [], 0, 0
        for line, row in enumerate(read_rows(folder / part.file), 1):
            tried += 1
            right, agrees = _judged(part, row)
            wrong += [] if right else [f"line {line}"]
            if right and agrees is not None and line not in _AT_ODDS.get(part.part, ()):
                solved += 1
                odd += [] if agrees else [f"line {line}"]
        yield Check(f"answers of {part.part} are graded right", tried, tuple(wrong))
        if solved:
            yield Check(f"answers of {part.part} agree with their solutions", solved, tuple(odd))


def _judged(part: RowFile, row: Any) -> tuple[bool, bool | None]:
    """Whether a row's answer is graded right against itself, and whether its solution agrees with it."""
    try:
        part.check(row)
        answer = SOURCES[_PUBLISHED[part.part][0]].read(row)["answer"]
        right = graders.math(f"\\boxed{{{answer}}}", answer)
    except Exception:  # a damaged row, of any kind
        return False, None
    try:
        return right, _solution_agrees(row)
    except (ToolError, ValueError):  # not to be computed with
        return right, False


def _solution_agrees(row: dict[str, Any]) -> bool | None:
    """Whether the published solution comes to the answer; None where there is none to tell by."""
    if "Equation" in row:  # SVAMP
        return graders.math(str(evaluate(row["Equation"])), str(row["Answer"]))
    if "####" in str(row.get("answer")):  # GSM8K: one of its numbers, or of its cents
        solution, _, answer = row["answer"].rpartition("####")
        numbers = {float(each) for each in _NUMBER.findall(_GROUPED.sub("", solution))}
        value = abs(float(answer.replace(",", "")))
        return value in numbers or value / 100 in numbers
    solution = row.get("solution")
    if not isinstance(solution, str) or "\\boxed" not in solution or "answer" not in row:
        return None
    return graders.math(solution, str(row["answer"]))


DATASET = DataSet(
    name="math",
    about="GSM8K, MATH-500, AIME 2024 and 2025, AMC 2023, SVAMP and Minerva's problems.",
    licence="GSM8K, MATH and SVAMP are MIT; AIME and AMC (c) MAA; Minerva's are CC BY-NC-SA (MIT OCW).",
    download="train.jsonl and test.jsonl of the grade-school-math project of OpenAI",
    sources="gsm8k_train=path/to/train.jsonl gsm8k_test=path/to/test.jsonl",
    importer=_import,
    count=_count,
    verifier=_verify,
    requires=(needs_package("math_verify", "pip install 'agentdistill[math]'"),),
    pieces=pieces(PARTS),
    forget=forget,
)
