"""What an experiment must fulfil before anything is trained, so that hours of work do not end in a refusal."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import gymnasium as gym

from agentdistill import environment
from agentdistill.config import OWN_WEIGHTS, Experiment
from agentdistill.curricula import Schedule
from agentdistill.engines.registry import LanguageModel, check_section, judge
from agentdistill.engines.section import LOCAL
from agentdistill.errors import UserError, nearest
from agentdistill.loggers.registry import chosen
from agentdistill.policies.adapter import is_adapter, require_peft
from agentdistill.policies.base import TeacherScorer
from agentdistill.policies.load import check_reference, is_tiny
from agentdistill.policies.model import CausalLM, require_same_vocabulary
from agentdistill.policies.served import can_be_served
from agentdistill.recorded import read_records
from agentdistill.signals import Method
from agentdistill.signals.method import preset_schedule
from agentdistill.signals.registry import PROVISIONS
from agentdistill.training.mixed import check_mixed
from agentdistill.training.panel import ASSIGNMENTS, check_assignment
from agentdistill.training.reported import panel_of, reported_split, reported_tasks
from agentdistill.training.stored_check import check_stored
from agentdistill.view import load as load_view

REFERENCE = frozenset({"reference", "reference-distribution"})
"""What a method may need of a reference model."""


def first_seeds(env: gym.Env[str, str], env_id: str, split: str, n: int | None = None) -> list[int]:
    """The first `n` task seeds of a split (all by default).

    Raises:
        UserError: when the split has fewer, or none.
    """
    return _first(environment.task_seeds(env, split), env_id, split, n)


def look_up(
    env: gym.Env[str, str], config: Experiment, wanted: Sequence[tuple[str, int | None]]
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """The task seeds that are wanted of each split, and how many it has; each split is asked for once.

    Args:
        wanted: splits, and how many tasks of each (None: all). One that is named several times gives the most.

    Raises:
        UserError: when a split is missing or too small, or reported tasks are also trained on (see `require_held_out`).
    """
    there = {split: environment.task_seeds(env, split) for split in dict.fromkeys(split for split, _ in wanted)}
    chosen: dict[str, list[int]] = {}
    for split, n in wanted:
        chosen[split] = max(_first(there[split], config.env.id, split, n), chosen.get(split, []), key=len)
    require_held_out(config, chosen)
    return chosen, {split: len(seeds) for split, seeds in there.items()}


def _first(all_seeds: Sequence[int], env_id: str, split: str, n: int | None) -> list[int]:
    seeds = list(all_seeds)
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
    reported, held = reported_split(config), set(reported_tasks(config, chosen))
    for split, seeds in chosen.items():
        if split != reported and (common := held.intersection(seeds)):
            raise UserError(
                f"splits '{split}' and '{reported}' of '{config.env.id}' share {len(common)} tasks (as seed {min(common)}), so "
                f"what is reported would not be held out; mend task_seeds, or name '{split}' as eval.split too if that is meant"
            )


def required_tasks(config: Experiment) -> list[tuple[str, int | None]]:
    """Every split that a run of the experiment draws tasks from, and how many it needs (None: any)."""
    tasks = config.eval.tasks if panel_of(config) is None else None
    wanted: list[tuple[str, int | None]] = [(config.env.split, None), (reported_split(config), tasks)]
    if config.eval.every:
        wanted.append((config.eval.every_split, config.eval.every_tasks))
    for section in (config.student, *config.teacher_roles.values()):
        if section.sft is not None and section.sft.eval_every:
            wanted.append(("valid", section.sft.eval_tasks))
    return wanted


def without_effect(config: Experiment) -> str | None:
    """A sentence on settings that nothing reads, or None: of workers where there are none, of a full context under a view
    that has no such, a factor of a term that the method has not.
    """
    return _bounds_nothing(config) or _multiplies_nothing(Method.load(config.method))


def _multiplies_nothing(method: Method) -> str | None:
    terms = {
        "rl_coef": (method.rl.name != "none", "the reward term", "method.rl"),
        "kd_coef": (
            method.signal.name != "none" or method.exact,
            "the distillation term",
            "method.signal or method.divergence",
        ),
    }
    for name, (there, term, axis) in terms.items():
        if not there and getattr(method, name) != Method.model_fields[name].default:
            return f"method.{name} multiplies {term}, and there is none; set {axis}, or drop {name}"
    return None


def _bounds_nothing(config: Experiment) -> str | None:
    env = config.env
    full = [name for name in ("overflow", "window") if getattr(env, name) != type(env).model_fields[name].default]
    if full and not load_view(env.view).extends:
        return f"env.{full[0]} is for a view that extends one context until it is full, which {env.view!r} does not"
    named = [f"env.{name}" for name in ("timeout", "memory") if getattr(env, name) != type(env).model_fields[name].default]
    if config.workers or not named:
        return None
    said = " and ".join(named)
    return f"{said} can bound worker processes only, and env.workers is 0, so nothing is bounded; set env.workers to 1 or more"


def check(config: Experiment, method: Method, schedule: Schedule) -> None:
    """Refuse at once what could only fail later.

    Raises:
        UserError: naming both sides of what does not fit.
    """
    chosen(config.log.backends)
    load_view(config.env.view)
    if config.env.demonstrations:
        read_records(config.env.demonstrations)
    check_stored(config, method)
    _check_models(config)
    _check_providers(config, method)
    _check_engine(config, method)
    _check_schedule(config)
    _check_teachers(config, schedule)
    _check_own_weights(config, method)
    _check_pace(config)
    check_mixed(config, method)
    played = config.rollouts is None  # stored groups are counted when the store is read (`StoredEpisodes.require`)
    if played and config.train.rollouts == 1 and method.rewarded:
        raise UserError(
            f"method {config.method!r} compares rollouts of one task (rl: {method.rl.name}), and train.rollouts is 1; "
            "set it to 2 or more"
        )
    if played and config.train.rollouts == 1 and "groups" in method.needs:
        raise UserError(
            f"method {config.method!r} needs {PROVISIONS['groups']} ({method.wanting('groups')}), and train.rollouts is 1; "
            "set it to 2 or more"
        )
    for section in (config.student, *config.teacher_roles.values()):
        if is_tiny(section.model) and section.sft is None:
            raise UserError(f"model '{section.model}' starts from random weights; give it an sft section")


def _check_pace(config: Experiment) -> None:
    """Refuse what neither episodes at their own pace nor episodes played ahead can be combined with."""
    for name in ("async_rollouts", "overlap"):
        if getattr(config.engine, name) and config.mixed is not None:
            raise UserError(f"engine.{name} is for episodes that the student plays alone; drop it or the mixed section")
        if getattr(config.engine, name) and config.rollouts is not None:
            raise UserError(f"engine.{name} is for episodes that are played; drop it or the rollouts section")
    if config.env.workers and config.engine.ray.environments:
        raise UserError(
            f"env.workers is {config.env.workers} and engine.ray.environments {config.engine.ray.environments}, and "
            "environments are in processes of this machine or in actors; set one of them to 0"
        )
    if config.engine.async_rollouts and not config.workers:
        raise UserError(
            "engine.async_rollouts needs environments in worker processes, since a step in this one would stop the sampler; "
            "set env.workers to the number of episodes that are played at once"
        )
    if config.engine.overlap and config.student.lora is not None:
        raise UserError(
            "engine.overlap plays with a copy of the student's weights, and adapters share theirs with what is trained; drop "
            "engine.overlap or student.lora"
        )


def _check_models(config: Experiment) -> None:
    """Refuse model references that mean nothing in their place."""
    sections = {"student": config.student, **config.teacher_roles, "reference": config.reference}
    for role, section in sections.items():
        if section is not None and section.model not in OWN_WEIGHTS:
            check_reference(section.model)
            if role != "student":
                _check_spelling(role, section.model)
    if config.student.model in OWN_WEIGHTS:
        raise UserError(
            f"student.model cannot be '{config.student.model}'; for a teacher, that names the student's own weights"
        )
    if config.student.lora is not None:
        require_peft()
        if is_adapter(config.student.model):
            raise UserError(
                f"student.model '{config.student.model}' is an adapter, and student.lora would put another on it; merge it "
                f"first (agentdistill merge {config.student.model} --out FOLDER), and name that folder"
            )
    if config.reference is None:
        return
    model = config.reference.model
    if model in OWN_WEIGHTS and model != "initial":
        raise UserError(f"reference.model cannot be '{model}', since a reference does not change; 'initial' can")
    if is_tiny(model):
        raise UserError(f"reference.model '{model}' would be random weights; name the folder of a trained model, or 'initial'")


def _check_spelling(role: str, model: str) -> None:
    """Refuse a word that is almost the name of the student's own weights; the hub has few models without an owner."""
    own = OWN_WEIGHTS if role != "reference" else ("initial",)
    if "/" in model or "@" in model or ":" in model or Path(model).exists():
        return
    if hint := nearest(model, own) if difflib.get_close_matches(model.casefold(), own, cutoff=0.75) else "":
        raise UserError(f"{role}.model '{model}' is no folder here (a model of the hub is written '{model}@main'){hint}")


def _check_teachers(config: Experiment, schedule: Schedule) -> None:
    """Refuse a schedule that listens to a teacher where there is none, and teachers that cannot sit side by side."""
    if not config.teacher_roles and schedule.needs_teacher:
        raise UserError(
            f"schedule {config.schedule!r} listens to the divergence from a teacher, and there is no teacher section"
        )
    if config.teachers:
        check_assignment(ASSIGNMENTS.resolve(config.assign), list(config.teachers))
    averages = [name for name, section in config.teachers.items() if section.model == "ema"]
    if len(averages) > 1:
        raise UserError(
            f"teachers {averages[0]} and {averages[1]} are both 'ema', and a run keeps one moving average; make one of them "
            "'initial', 'live' or another model"
        )


def _check_own_weights(config: Experiment, method: Method) -> None:
    """Refuse to distil from the student's own weights where they see no more than the student, and so say nothing else.

    Beside a reward, weights as they were hold the student back later, and what reads a reference or imitates has more to say.
    """
    teacher = config.teacher
    if teacher is None or not teacher.own or teacher.privileged or not method.distils or "teacher" not in method.needs:
        return
    holds = teacher.model != "live" and method.rewarded
    if not holds and not method.needs & (REFERENCE | {"ids"}):
        raise UserError(
            f"method {config.method!r} distils from the student's own weights (teacher.model: {teacher.model}), which say "
            "nothing that the student does not; show them more, by teacher.privileged: true, or name another teacher.model"
        )


def _check_schedule(config: Experiment) -> None:
    """Refuse a preset that is a curriculum under another one, as where the method alone was overridden."""
    own = preset_schedule(config.method)
    kind = config.schedule.get("kind") if isinstance(config.schedule, dict) else config.schedule
    if own is not None and kind != own:
        raise UserError(
            f"method {config.method!r} is distillation under schedule '{own}', and the experiment's schedule is {kind!r}; "
            f"set schedule to {own}, or drop it, or choose another method"
        )


def _check_providers(config: Experiment, method: Method) -> None:
    """Refuse a method that needs scores which no section provides. Without a reference nothing else may stand in for it."""
    stored = config.rollouts
    if stored is not None and stored.reference and "reference-distribution" in method.needs:
        raise UserError(
            f"{method.wanting('reference-distribution', 'need')} {PROVISIONS['reference-distribution']}, and "
            f"rollouts.reference '{stored.reference}' gives stored scores of sampled tokens only; name a reference section "
            "instead"
        )
    for section, needs in (("teacher", {"teacher", "distribution", "topk"}), ("reference", REFERENCE)):
        if stored is not None and (stored.scorer if section == "teacher" else stored.reference):
            continue  # `check_stored` knows what is stored
        missing = sorted(method.needs & needs)
        if missing and not (config.teacher_roles if section == "teacher" else config.reference):
            raise UserError(
                f"method {config.method!r} needs a {section}'s scores, and the experiment has no {section} section "
                f"({method.wanting(missing[0], 'ask for')} {PROVISIONS[missing[0]]})"
            )


def _check_engine(config: Experiment, method: Method) -> None:
    """Refuse an engine that is not there, and one that cannot score as the method or the teacher asks."""
    place = config.engine.teacher
    check_section(config.engine)
    roles = {role: section for role, section in config.teacher_roles.items() if not section.own}
    spec = judge(config.engine)
    if spec.name == LOCAL or not roles:
        return
    wanting = "distribution" in method.needs and "distribution" not in spec.gives
    if wanting and (method.top is None or "topk" not in spec.gives):
        gives = " and ".join(PROVISIONS[each] for each in sorted(spec.gives, reverse=True))
        raise UserError(
            f"{method.wanting('distribution')} needs {PROVISIONS['distribution']}, and engine.teacher '{place}' gives {gives} "
            f"only; set engine.teacher to {LOCAL}, or choose another method"
        )
    for role, section in roles.items():
        made = section.sft is not None
        if not spec.makes and (made or not can_be_served(section.model)):
            what = "this run trains it first" if made else "no server can load that"
            raise UserError(
                f"engine.teacher '{place}' is a server, and {role}.model is '{section.model}': {what}; set engine.teacher to "
                f"{LOCAL}, or name the folder or hub id of the model that is served there"
            )


def require_given(method: Method, role: str, scorer: TeacherScorer) -> None:
    """Refuse a scorer that cannot give what the method needs of it.

    Args:
        role: `teacher` or `reference`.

    Raises:
        UserError: naming the scorer, what it does not give and which axis asks for it.
    """
    wanted = {"teacher": "teacher", "distribution": "distribution", "topk": "topk"}
    if role == "reference":
        wanted = {"reference": "teacher", "reference-distribution": "distribution"}
    tops = role == "teacher" and "topk" in scorer.capabilities and method.top is not None
    for need, capability in wanted.items():
        if tops and need == "distribution" and getattr(scorer, "top_k", 0) >= (method.top or 0):
            continue  # the likeliest ids are all that it reads
        if need in method.needs and capability not in scorer.capabilities:
            raise UserError(
                f"{method.wanting(need, 'need')} {PROVISIONS[need]}, and {role} '{scorer.name}' gives "
                f"{' and '.join(PROVISIONS[each] for each in sorted(scorer.capabilities)) or 'no scores'} only"
            )


def check_pair(student: CausalLM, teacher: LanguageModel, max_context: int, role: str = "teacher") -> None:
    """Refuse a teacher that cannot score what this student says.

    Args:
        max_context: tokens of the longest context that is played.
        role: `teacher` or `reference`.

    Raises:
        UserError: when the vocabularies differ, or the teacher takes shorter sequences than the student will make.
    """
    require_same_vocabulary(student.tokenizer, teacher.tokenizer, teacher.name, role)
    longest = min(max_context, student.context)
    if teacher.context < longest:
        raise UserError(
            f"{role} '{teacher.name}' takes {teacher.context} tokens, and the student's contexts may reach {longest}; "
            f"set env.max_context to {teacher.context} or less, or choose another {role}"
        )
