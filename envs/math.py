r"""Questions of mathematics with tools, from the public test sets; answers are graded by `graders.math`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentdistill import graders
from agentdistill.envs.data import data_folder, read_rows
from agentdistill.envs.dataset import DatasetEnv
from agentdistill.envs.expert import call_for
from agentdistill.envs.tool import Task
from agentdistill.errors import UserError, nearest
from agentdistill.find import ToolSpec
from agentdistill.tool import ToolError
from agentdistill.toolcall import DEFAULT_FORMAT
from agentdistill.tools.calculator import evaluate

Row = dict[str, Any]
HELD_OUT = 500  # the last questions of GSM8K's training file
_ANNOTATION = re.compile(r"<<([^<>=]+)=[^<>]*>>")


@dataclass(frozen=True, slots=True)
class _Source:
    """A data set's files by split, and how to read a row."""

    files: dict[str, str]
    read: Callable[[Row], Row]


def _gsm8k(row: Row) -> Row:
    solution, _, answer = row["answer"].rpartition("####")
    shown = _ANNOTATION.sub("", solution).strip()
    worked = [each for each in _ANNOTATION.findall(solution) if _works(each)]
    final = f"{shown}\n\\boxed{{{answer.strip()}}}"
    return {"question": row["question"], "answer": answer.strip(), "plan": shown, "worked": worked, "final": final}


def _svamp(row: Row) -> Row:
    body = row["Body"].strip()
    question = f"{body}{'' if body.endswith(('.', '?', '!')) else '.'} {row['Question']}"
    return {"question": question, "answer": row["Answer"], "task_type": row.get("Type", "")}


def _minerva(row: Row) -> Row:
    solution = row["solution"]
    return {"question": row["problem"], "answer": graders.final_answer(solution), "plan": solution}


def _problem(row: Row) -> Row:
    kind = row.get("subject", "")
    return {"question": row["problem"], "answer": row["answer"], "plan": row.get("solution"), "task_type": kind}


SOURCES = {
    "gsm8k": _Source({"train": "gsm8k_train.jsonl.gz", "test": "gsm8k_test.jsonl"}, _gsm8k),
    "math500": _Source({"test": "math500_test.jsonl"}, _problem),
    "aime24": _Source({"test": "aime24_with_solutions.jsonl"}, _problem),
    "aime25": _Source({"test": "aime25.jsonl"}, _problem),
    "amc23": _Source({"test": "amc23.jsonl"}, _problem),
    "svamp": _Source({"test": "svamp_test.jsonl"}, _svamp),
    "minerva": _Source({"test": "minerva_math.jsonl"}, _minerva),
}


class MathPythonEnv(DatasetEnv):
    """Questions of one data set, with tools. GSM8K has an expert, made from its calculator annotations.

    Args:
        dataset: gsm8k (train 6,973, valid 500, test 1,319), or one with a test split only: math500 (500), aime24 (30),
            aime25 (30), amc23 (40), svamp (1,000), minerva (272).
        tools: tools or their names (see `agentdistill.find`); the expert uses the first one, which is a calculator or a Python
            interpreter.
        reward: `binary` (1 or 0), `sod`, or either with settings: `{kind: sod, max_tokens: 20480}` (see `envs.rewards`).
        max_turns: the episode is truncated after so many messages (SOD: 16).
        system_prompt: replaces the default one.
        call_format: how calls are written (see `ToolEnv`).

    Raises:
        UserError: for a data set, tool or reward there is not, or when the data is missing.
    """

    def __init__(
        self,
        dataset: str = "gsm8k",
        tools: Sequence[ToolSpec] = ("code_interpreter",),
        reward: str | Mapping[str, Any] = "binary",
        max_turns: int = 16,
        system_prompt: str | None = None,
        call_format: str = DEFAULT_FORMAT,
    ) -> None:
        if dataset not in SOURCES:
            raise UserError(f"MathPython has no dataset '{dataset}'{nearest(dataset, SOURCES)}")
        super().__init__(
            dataset,
            reward,
            tools=tools,
            grade=graders.math,
            max_turns=max_turns,
            system_prompt=system_prompt,
            call_format=call_format,
        )

    def _load(self, tasks: Any) -> list[Task]:
        return _tasks(data_folder("math"), self.dataset, self.tools[0].name if self.tools else None)


def _works(expression: str) -> bool:
    try:
        evaluate(expression)
    except ToolError:
        return False
    return True


@functools.cache
def _tasks(folder: Path, dataset: str, tool: str | None) -> list[Task]:
    source = SOURCES[dataset]
    tasks = []
    for split, name in source.files.items():
        rows = list(read_rows(folder / name))
        for index, row in enumerate(rows):
            held_out = split == "train" and index >= len(rows) - HELD_OUT
            fields = source.read(row)
            if "final" in fields:
                calls = [call_for(tool, each) for each in fields["worked"]] if tool else []
                fields["demonstration"] = [*calls, fields["final"]]
            tasks.append(Task(id=f"{dataset}/{split}/{index}", split="valid" if held_out else split, **fields))
    return tasks


def forget() -> None:
    """Read the files anew when they are next asked for."""
    _tasks.cache_clear()
