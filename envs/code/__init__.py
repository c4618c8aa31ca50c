r"""`agentdistill/Code-v0`: write a function that passes hidden unit tests, from HumanEval or MBPP.

A message whose Python is in a fenced block or in `<answer>…</answer>`, and that calls no tool, hands the solution in. Of
several blocks it is the last that defines the function, whatever examples of its use and output follow; where there is none,
the last that begins as the rest of HumanEval's stub does, else the last one marked as Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentdistill import graders
from agentdistill.envs.code.blocks import solution
from agentdistill.envs.code.data import Problem, problems
from agentdistill.envs.data import data_folder
from agentdistill.envs.dataset import DatasetEnv
from agentdistill.envs.tool import Task
from agentdistill.errors import UserError, nearest
from agentdistill.toolcall import DEFAULT_FORMAT, ParsedMessage, format_call
from agentdistill.tools.python import load_limits, python_tool
from agentdistill.tools.sandbox import shared
from agentdistill.tools.testing.grader import Grader, Verdict
from agentdistill.tools.tests import Examples, run_tests_tool

DATASETS = ("humaneval", "mbpp")
# The slowest canonical solution takes 2.5 s of CPU time a call on an idle core, and a loaded one must not decide a reward.
LIMITS = {"cpu_seconds": 10.0, "wall_seconds": 30.0}
SYSTEM_PROMPT = (
    "Write the Python function that is asked for; it is judged by hidden tests. Try your code with the tools. "
    "Hand in the whole function, and no tool call, in a block that begins with ```python and ends with ```."
)


class CodeEnv(DatasetEnv):
    """Programming tasks, with the tools `python` and `run_tests` (public examples only).

    Args:
        dataset: humaneval (test 164), or mbpp (its sanitized tasks: train 120, valid 43, test 257, prompt 7).
        sandbox: auto, jail, restricted, docker (or `docker:image`) or unsafe; for the tools and for grading.
        reward: `binary` (1 or 0), `sod`, or either with settings (see `envs.rewards`).
        limits: of one call, as keywords of `Limits`: `{cpu_seconds: 2}`; 10 s of CPU time and 30 s in all unless given.
        max_turns: the episode is truncated after so many messages.
        system_prompt: replaces the default one.
        call_format: how the model writes calls (see `ToolEnv`).

    Attributes:
        verdict: on the solution handed in last; its reason may hold expected values, so it is for people only.

    Raises:
        UserError: for a data set, sandbox, reward or limit there is not, or when the data is missing.
    """

    answer_hint = "your solution in a ```python block"

    def __init__(
        self,
        dataset: str = "humaneval",
        sandbox: str = "auto",
        reward: str | Mapping[str, Any] = "binary",
        limits: Mapping[str, Any] | None = None,
        max_turns: int = 8,
        system_prompt: str | None = None,
        call_format: str = DEFAULT_FORMAT,
    ) -> None:
        if dataset not in DATASETS:
            raise UserError(f"Code has no dataset '{dataset}'{nearest(dataset, DATASETS)}")
        bounds = load_limits({**LIMITS, **(limits or {})})
        # Asked for now, so that a sandbox that cannot run here is told at the start and not as a failed episode.
        self._grader = Grader(shared(sandbox), bounds)
        self.verdict = Verdict(False)
        super().__init__(
            dataset,
            reward,
            tools=[python_tool(sandbox=sandbox, limits=bounds), run_tests_tool(self._prepare, self._grader)],
            grade=self._judge,
            max_turns=max_turns,
            system_prompt=SYSTEM_PROMPT if system_prompt is None else system_prompt,
            call_format=call_format,
        )

    def _load(self, tasks: Any) -> list[Task]:
        return [_task(each) for each in problems(data_folder("code"), self.dataset)]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin the task at a position, or a random one."""
        self.verdict = Verdict(False)
        return super().reset(seed=seed, options=options)

    def final_answer(self, message: ParsedMessage) -> str | None:
        """The block that hands the solution in (see above), or what `<answer>` holds, of a message that calls no tool."""
        if message.calls or message.errors:
            return None
        given = message.answer
        if given is None and "<answer>" in message.text:
            given = graders.final_answer(message.text)
        problem: Problem = self._current().answer
        found = solution(message.text if given is None else given, problem.defined_by, problem.completed_by)
        return given if found is None else found

    def close(self) -> None:
        """End the sessions of the tools and of grading."""
        super().close()
        self._grader.close()

    def _prepare(self, code: str) -> tuple[str, str, Examples]:
        problem: Problem = self._current().answer
        return *problem.complete(code), list(problem.examples)

    def _judge(self, answer: str, problem: Problem) -> bool:
        preamble, program = problem.complete(answer)
        self.verdict = self._grader.grade(program, problem.tests, preamble)
        return self.verdict.passed


def _task(problem: Problem) -> Task:
    final = f"```python\n{problem.solution.rstrip()}\n```"
    tried = [format_call("run_tests", {"code": problem.solution})] if problem.examples else []
    return Task(
        question=problem.question,
        answer=problem,
        id=problem.id,
        split=problem.split,
        plan=final,
        demonstration=[*tried, final],
    )
