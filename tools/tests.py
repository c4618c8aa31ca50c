"""`run_tests`: the model tries its code on a task's public examples before it hands it in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agentdistill.tool import Tool, ToolFault, as_tool
from agentdistill.tools.sandbox.base import SandboxError
from agentdistill.tools.testing.grader import Grader, Suite

Examples = list[tuple[str, Suite]]


def run_tests_tool(prepare: Callable[[str], tuple[str, str, Examples]], grader: Grader) -> Tool:
    """The tool `run_tests` for an environment whose task changes.

    Args:
        prepare: gives, for the code a model wrote, what is executed before it and the code to execute, and the present task's
            public examples with the text that the model reads; nothing else of the task is ever shown.
        grader: runs them.
    """

    def run_tests(code: str) -> str:
        """Run your code on the task's examples and say which of them pass.

        Args:
            code: Python source that defines the function.
        """
        preamble, program, examples = prepare(code)
        if not examples:
            return "This task has no examples that can be run; try your function with the python tool."
        try:
            verdicts = grader.grade_each(program, [suite for _, suite in examples], preamble)
        except SandboxError as error:
            raise ToolFault(f"run_tests: {error}") from error
        passed = sum(verdict.passed for verdict in verdicts)
        lines = [f"{passed} of {len(examples)} examples pass."]
        for (text, _), verdict in zip(examples, verdicts, strict=True):
            if not verdict.passed:
                lines.append(f"FAILED {text}: {verdict.reason.removeprefix('AssertionError: ')}")
        return "\n".join(lines)

    return replace(as_tool(run_tests), timeout=None)  # the sandbox has limits of its own
