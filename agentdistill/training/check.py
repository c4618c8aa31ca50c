"""What an experiment must fulfil before anything is trained, so that hours of work do not end in a refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import gymnasium as gym

from agentdistill import environment
from agentdistill.config import Experiment
from agentdistill.curricula import Schedule
from agentdistill.errors import UserError
from agentdistill.policies.load import check_reference, is_tiny
from agentdistill.policies.model import CausalLM, require_same_vocabulary
from agentdistill.signals import Method


def first_seeds(env: gym.Env[str, str], env_id: str, split: str, n: int | None = None) -> list[int]:
    """The first `n` task seeds of a split (all by default).

    Raises:
        UserError: when the split has fewer, or none.
    """
    seeds = list(environment.task_seeds(env, split))
    if not seeds or (n is not None and n > len(seeds)):
        raise UserError(f"split '{split}' of '{env_id}' has {len(seeds)} tasks, fewer than the {n or 1} asked for")
    chosen = seeds[:n]
    if len(set(chosen)) < len(chosen):
        twice = next(seed for seed, count in Counter(chosen).items() if count > 1)
        raise UserError(f"split '{split}' of '{env_id}' lists task seed {twice} more than once, as if it were several tasks")
    return chosen


def require_held_out(config: Experiment, chosen: Mapping[str, Sequence[int]]) -> None:
    """Refuse reported tasks that are also trained on or that the run is steered by, unless one split is named for both.

    Args:
        chosen: the seeds that are used of each split.

    Raises:
        UserError: naming the two splits.
    """
    reported = config.eval.split
    for split, seeds in chosen.items():
        if split != reported and (common := set(seeds) & set(chosen[reported])):
            raise UserError(
                f"splits '{split}' and '{reported}' of '{config.env.id}' share {len(common)} tasks (as seed {min(common)}), so "
                f"what is reported would not be held out; mend task_seeds, or name '{split}' as eval.split too if that is meant"
            )


def required_tasks(config: Experiment) -> list[tuple[str, int | None]]:
    """Every split that a run of the experiment draws tasks from, and how many it needs (None: any)."""
    wanted: list[tuple[str, int | None]] = [(config.env.split, None), (config.eval.split, config.eval.tasks)]
    if config.eval.every:
        wanted.append((config.eval.every_split, config.eval.every_tasks))
    for section in (config.student, config.teacher):
        if section is not None and section.sft is not None and section.sft.eval_every:
            wanted.append(("valid", section.sft.eval_tasks))
    return wanted


def check(config: Experiment, method: Method, schedule: Schedule) -> None:
    """Refuse at once what could only fail later.

    Raises:
        UserError: naming both sides of what does not fit.
    """
    for section in (config.student, config.teacher):
        if section is not None and section.model != "initial":
            check_reference(section.model)
    if config.student.model == "initial":
        raise UserError("student.model cannot be 'initial'; that names the student as it was, for a teacher")
    if config.teacher is None and method.needs & {"teacher", "distribution"}:
        raise UserError(f"method {config.method!r} needs a teacher's scores, and the experiment has no teacher section")
    if config.teacher is None and schedule.needs_teacher:
        raise UserError(
            f"schedule {config.schedule!r} listens to the divergence from a teacher, and there is no teacher section"
        )
    if config.train.rollouts == 1 and method.rl.name != "none" and method.rl_coef > 0:
        raise UserError(
            f"method {config.method!r} compares rollouts of one task (rl: {method.rl.name}), and train.rollouts is 1; "
            "set it to 2 or more"
        )
    for section in (config.student, config.teacher):
        if section is not None and is_tiny(section.model) and section.sft is None:
            raise UserError(f"model '{section.model}' starts from random weights; give it an sft section")


def check_pair(student: CausalLM, teacher: CausalLM, max_context: int) -> None:
    """Refuse a teacher that cannot score what this student says.

    Args:
        max_context: tokens of the longest context that is played.

    Raises:
        UserError: when the vocabularies differ, or the teacher takes shorter sequences than the student will make.
    """
    require_same_vocabulary(student.tokenizer, teacher.tokenizer, teacher.name)
    longest = min(max_context, student.context)
    if teacher.context < longest:
        raise UserError(
            f"teacher '{teacher.name}' takes {teacher.context} tokens, and the student's contexts may reach {longest}; "
            f"set env.max_context to {teacher.context} or less, or choose another teacher"
        )
