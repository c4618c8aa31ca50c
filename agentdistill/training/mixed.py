"""The mixed policy: the student plays the first turns of an episode, then the teacher takes over (DASD, arXiv 2601.09088).

The teacher so goes on from states that the student got itself into, and what it says there can be imitated. Whose a token
is stands in `Turn.author`, and only the tokens of `mixed.learn` carry loss.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from agentdistill.config import Experiment, MixedSection
from agentdistill.errors import UserError
from agentdistill.seeds import derive
from agentdistill.signals import Method
from agentdistill.signals.registry import PROVISIONS
from agentdistill.trajectory import STUDENT, Author


def authors(config: Experiment) -> Sequence[Author]:
    """Whose tokens carry loss."""
    return STUDENT if config.mixed is None else config.mixed.authors


def own_turns(config: Experiment, iteration: int, task: int, rollout: int) -> int | None:
    """How many turns the student plays in one rollout before the teacher does; None: all of them."""
    if config.mixed is None:
        return None
    seed = derive(config.seed, "mixed", iteration, task, rollout)
    return random.Random(seed).randint(config.mixed.least, config.mixed.most)


def check_mixed(config: Experiment, method: Method) -> None:
    """Refuse a mixed policy without another model to go on, and methods that do not hold of the tokens it learns from.

    Raises:
        UserError: naming both sides.
    """
    if config.mixed is not None:
        _check_teacher(config, config.mixed)
        _check_method(config, config.mixed, method)
    elif "demonstrations" in method.needs and config.rollouts is None:  # `StoredEpisodes.require` knows who wrote stored ones
        raise UserError(
            f"method {config.method!r} needs {PROVISIONS['demonstrations']} ({method.wanting('demonstrations')}), and the "
            "experiment has no mixed section, in which the teacher goes on where the student stops"
        )


def _check_teacher(config: Experiment, mixed: MixedSection) -> None:
    """Somebody else has to be there to go on, in time, in the student's own context."""
    if config.teacher is None:
        there = "the teachers " + " and ".join(config.teachers) if config.teachers else "no teacher"
        raise UserError(f"mixed hands an episode over to the teacher, and the experiment has {there}; name one teacher")
    if config.teacher.own or config.teacher.privileged:
        what = f"model: {config.teacher.model}" if config.teacher.own else "privileged: true"
        raise UserError(
            f"mixed lets the teacher go on in the student's context, and the teacher is {what}; a teacher that goes on is "
            "another model and sees what the student sees"
        )
    if mixed.least >= config.env.max_turns:
        raise UserError(
            f"mixed.least is {mixed.least} and env.max_turns is {config.env.max_turns}, so the teacher would never take over"
        )


def _check_method(config: Experiment, mixed: MixedSection, method: Method) -> None:
    """What the method says of a token has to hold of its author's."""
    if method.rl.name != "none":
        raise UserError(
            f"rl '{method.rl.name}' credits the student with how an episode ends, and under mixed the teacher plays the end; "
            "drop one of the two"
        )
    if mixed.learn == "student":
        if "demonstrations" in method.needs:
            raise UserError(
                f"{method.wanting('demonstrations', 'imitate')} what the teacher wrote, and mixed.learn is 'student'; make it "
                "'teacher'"
            )
        return
    own = f"signal '{method.signal.name}'" if method.signal.name != "none" else f"divergence '{method.divergence.name}'"
    if method.signal.name != "none" or not method.needs & {"distribution", "demonstrations"}:
        raise UserError(
            f"{own} is an expectation over the student's own samples, and mixed.learn is '{mixed.learn}', whose tokens are the "
            "teacher's; take a divergence over full distributions or 'sft', or learn from the student"
        )
    if mixed.learn == "both" and "demonstrations" in method.needs:
        raise UserError(
            f"{method.wanting('demonstrations', 'imitate')} what the teacher wrote, and mixed.learn 'both' would imitate the "
            "student too; make it 'teacher'"
        )
    if method.importance.name != "none":
        raise UserError(
            f"importance '{method.importance.name}' weighs tokens by who sampled them, and mixed.learn is '{mixed.learn}': the "
            "student's sampler gave no log-probs of the teacher's tokens; learn from the student, or drop the importance"
        )
    if config.train.old_logprobs == "sampler":
        raise UserError(
            f"train.old_logprobs is 'sampler', and mixed.learn is '{mixed.learn}': the student's sampler gave no log-probs of "
            "the teacher's tokens; set train.old_logprobs to 'trainer'"
        )
