"""Every verb as a function that a notebook can call; the command line calls the same ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentdistill import config as config_module
from agentdistill import curricula, environment, yamltext
from agentdistill.branch import Branches
from agentdistill.cluster.torchrun import joined
from agentdistill.compare import Comparison, Measure, load_comparison
from agentdistill.compare import compare as compare_pairs
from agentdistill.config import Experiment, load_experiment, located, override, parse_experiment
from agentdistill.cost import estimate
from agentdistill.cost.devices import HERE
from agentdistill.cost.plan import Plan
from agentdistill.datasets import data_import, data_list, data_verify
from agentdistill.doctor import Diagnosis, begin, diagnose
from agentdistill.doctor import Result as CheckResult
from agentdistill.errors import UserError
from agentdistill.evaluation import PANEL, Evaluation, differences, load_eval, open_run, read_episodes
from agentdistill.exchange.verbs import export, import_trajectories
from agentdistill.modules import import_module
from agentdistill.panel import given, load_panel, look_at, panel
from agentdistill.policies.load import is_tiny, load_model
from agentdistill.pool import EnvPool
from agentdistill.provenance import provenance
from agentdistill.recording import record_demonstrations
from agentdistill.replay import Report as ReplayReport
from agentdistill.report import report
from agentdistill.rollout import Task
from agentdistill.runs import named_folder
from agentdistill.seeds import derive
from agentdistill.show import show
from agentdistill.signals import Method
from agentdistill.store import Store
from agentdistill.training.branch_run import branch_run
from agentdistill.training.check import check, look_up, required_tasks, without_effect
from agentdistill.training.evaluate import caveats, evaluate
from agentdistill.training.journal import write_atomic
from agentdistill.training.merging import merge_adapter
from agentdistill.training.replay_run import replay_run
from agentdistill.training.run import Run
from agentdistill.training.run import train as train_run
from agentdistill.training.score_run import score_run
from agentdistill.training.score_store import Added
from agentdistill.training.session import Session
from agentdistill.training.stored import describe
from agentdistill.training.stored_check import check_stored
from agentdistill.training.trainer import LocalTrainer
from agentdistill.training.what_if import WhatIf, what_if_run
from agentdistill.trajectory import Trajectory
from agentdistill.view import load as load_view
from agentdistill.viewer import view

Say = Callable[[str], None] | None
__all__ = [
    "EnvInfo",
    "branch",
    "compare",
    "data_import",
    "data_list",
    "data_verify",
    "doctor",
    "dry_run",
    "envs",
    "evaluate_run",
    "experiment",
    "export",
    "import_trajectories",
    "load_comparison",
    "load_eval",
    "load_panel",
    "load_run",
    "merge",
    "panel",
    "plan",
    "provenance",
    "record_demonstrations",
    "replay",
    "report",
    "rollout",
    "score",
    "sft",
    "show",
    "train",
    "view",
    "what_if",
]


def experiment(source: str | Path | Mapping[str, Any] | Experiment, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """An experiment from a file, a mapping or itself, with overrides by dotted name (`{"train.lr": 1e-6}`)."""
    if isinstance(source, str | Path):
        return load_experiment(source, overrides)
    raw = source.model_dump() if isinstance(source, Experiment) else source
    return parse_experiment(override(raw, overrides or {}))


def train(
    source: str | Path | Mapping[str, Any] | Experiment,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    say: Say = None,
    **overrides: Any,
) -> Run:
    """Run an experiment: models, evaluation, distillation, evaluation, report.

        run = ad.train("experiments/quickstart.yaml", env="lab/Units-v0", method="sod", **{"train.lr": 1e-4})

    Args:
        source: experiment file, mapping or object.
        out: run folder; `runs/<name>` by default.
        resume: go on with a run that was stopped, to the same numbers.
        say: takes progress lines; the terminal by default.
        overrides: sections, or fields by dotted name.

    Where `torchrun` has started several processes, this one's is a trainer rank: the first runs the experiment and returns, the
    others train as it says, and end here (see docs/scale.md).

    Raises:
        UserError: for whatever the user can mend.
        SystemExit: on a rank other than the first, when the run has ended.
    """
    config = experiment(source, overrides)
    folder = _folder(config, out)
    with joined(config) as ranks:
        if ranks is not None and not ranks.controls:
            raise SystemExit(ranks.serve())
        begin(config, folder, say or print)
        if ranks is not None:
            (say or print)(f"{ranks.size} trainer ranks on {ranks.device}")
        return train_run(config, folder, resume=resume, say=say, trainer=LocalTrainer if ranks is None else ranks.trainer)


def sft(
    source: str | Path | Mapping[str, Any] | Experiment,
    *,
    role: str = "teacher",
    out: str | Path | None = None,
    resume: bool = False,
    say: Say = None,
    **overrides: Any,
) -> Path:
    """Only the supervised stage of one role; the model's folder, to be named in other experiments.

    Args:
        role: `teacher`, `student`, or `teacher-<name>` where there are several teachers.
    """
    config = experiment(source, overrides)
    section = {**config.teacher_roles, "student": config.student}.get(role)
    if section is None or section.sft is None:
        raise UserError(f"the experiment has no {role}.sft section, so there is nothing to train")
    session = Session(config, _folder(config, out), resume=resume, say=say)
    try:
        lm = session.model(role, section, session.tokenizer() if is_tiny(section.model) else None)
        rate = session.measure(role, lm)
        session.say(f"{role}: success {rate}; model in {session.folder / role}")
        return session.folder / role
    finally:
        session.close()


def rollout(
    model: str, env: str, *, out: str | Path, tasks: int = 32, split: str = "test", temperature: float = 1.0,
    max_tokens: int = 64, max_turns: int = 30, max_context: int = 2048, options: Mapping[str, Any] | None = None,
    view: str | Mapping[str, Any] = "chat", module: str = "", workers: int = 0, seed: int = 0, say: Say = None,
) -> list[Trajectory]:  # fmt: skip
    """Play tasks with a model and store the trajectories under `OUT/store`, batch `rollout`.

    Args:
        view: how an episode is shown (see `view.py`): a name, or a mapping such as `{"kind": "window", "pairs": 4}`.
        module: Python module, or `.py` file, to import first, which registers the environment.
        workers: processes that hold the environments; 0: this one. It changes no result.

    Raises:
        UserError: for an argument out of range, an unknown model or environment, or an `out` that holds an earlier result.
    """
    config = _arguments(
        model, env, tasks, split, 1, temperature, max_tokens, max_turns, max_context, options, view, module, workers, seed
    )  # fmt: skip
    folder = _new_result(out, "store/rollout.parquet")
    _resolve_environment(config, [(split, tasks)])
    lm = load_model(model)
    session = Session(config, folder, resume=True, say=say)
    try:
        jobs = [Task(s, derive(seed, "rollout", s), group=i) for i, s in enumerate(session.seeds(split, tasks))]
        played = session.rollout(lm).run(jobs, session.config.sampling, "rollout")
        path = session.store.write("rollout", played)
        for note in caveats(played):
            session.say(note)
        won = sum(t.success for t in played)
        session.say(f"{won} of {len(played)} episodes succeeded; stored in {path}")
        return played
    finally:
        session.close()


def evaluate_run(
    model: str, env: str | None = None, *, out: str | Path, tasks: int | None = None, split: str | None = None,
    samples: int = 1, temperature: float = 0.0, max_tokens: int = 64, max_turns: int = 30, max_context: int = 2048,
    options: Mapping[str, Any] | None = None, view: str | Mapping[str, Any] = "chat", module: str = "", workers: int = 0,
    seed: int = 0, panel: str | Path | None = None, say: Say = None,
) -> Evaluation:  # fmt: skip
    """Success and mean reward of a model on fixed tasks with 95 % intervals, by task type too; written to `OUT/eval.json`.

    Args:
        env, options, split, tasks: the first `tasks` of a split, 200 of `test` by default; or they are the panel's.
        samples: episodes a task; more than 1 only at a temperature above 0.
        view, module, workers: as for `rollout`.
        panel: a stored list of tasks (see `panel.panel`); a copy goes to `OUT/panel.json`.

    Raises:
        UserError: as `rollout`, and when the environment's tasks are no longer the panel's.
    """
    fixed = None if panel is None else load_panel(panel)
    if fixed is not None:
        given(fixed, {"env": env, "options": options or None, "split": split, "tasks": tasks})
        env, options, split, tasks = fixed.env, fixed.options, fixed.split, len(fixed.tasks)
    if env is None:
        raise UserError("an evaluation needs an environment, or a --panel that names one")
    split, tasks = split or "test", 200 if tasks is None else tasks
    config = _arguments(
        model, env, tasks, split, samples, temperature, max_tokens, max_turns, max_context, options, view, module, workers, seed
    )  # fmt: skip
    folder = _new_result(out, "eval.json", "store/eval.parquet")
    if fixed is None:
        _resolve_environment(config, [(split, tasks)])
    lm = load_model(model)
    session = Session(config, folder, resume=True, say=say)
    try:
        about: dict[str, Any] = {
            "model": model, "env": env, "split": split, "temperature": temperature, "samples": samples, "max_turns": max_turns,
            "max_tokens": max_tokens, "max_context": max_context, "view": view,
        }  # fmt: skip
        if fixed is not None:
            fixed.require_same(look_at(session.pool, fixed.seeds))
            write_atomic(folder / PANEL, fixed.text())
            about["panel"] = {"name": fixed.name, "sha256": fixed.sha256}
        seeds = fixed.seeds if fixed is not None else session.seeds(split, tasks)
        params = session.config.sampling
        _, played = evaluate(session.rollout(lm), seeds, params, seed=seed, label="eval", samples=samples)
        session.store.write("eval", played)
        for note in caveats(played):
            session.say(note)
        found = Evaluation.of(str(out), played, about)
        write_atomic(session.folder / "eval.json", json.dumps(found.as_dict()))
        which = f"panel {fixed.name}" if fixed is not None else f"{split} tasks of {env}"
        session.say(f"success {found.result.success} on {which}")
        session.say(f"reward {found.result.reward}")
        for kind, each in found.by_type.items():
            session.say(f"  {kind or 'no type'}: {each}")
        return found
    finally:
        session.close()


class EnvInfo(dict[str, Any]):
    """What is known of a registered environment: id, tasks by split, whether it has an expert, a first observation."""


def envs(
    env_id: str | None = None, options: Mapping[str, Any] | None = None, *, module: str = ""
) -> list[str] | EnvInfo:  # fmt: skip
    """Ids of the environments that speak text and are ours, a plugin's or `module`'s, or what is known of one.

    Where each comes from and what it lacks here: `environment.catalogue()`.

    Raises:
        UserError: for an unknown id, or an environment that has no tasks.
    """
    if module:
        import_module(located(module, Path.cwd()))
    if env_id is None:
        return environment.registered()
    pool = EnvPool(env_id, options)
    try:
        env = pool.env(0)
        sizes = {split: len(seeds) for split, seeds in environment.splits(env).items()}
        split = next((name for name, size in sizes.items() if size), None)
        if split is None:
            raise UserError(f"environment '{env_id}' has no task in any of the splits {', '.join(sizes)}")
        first = pool.reset(0, int(environment.task_seeds(env, split)[0]))
        return EnvInfo(
            id=env_id, tasks=sizes, expert=pool.expert_action(0) is not None,
            system=environment.system_prompt(env), task_id=first.task_id, observation=first.observation,
        )  # fmt: skip
    finally:
        pool.close()


def dry_run(source: str | Path | Mapping[str, Any] | Experiment, **overrides: Any) -> str:
    """Resolve everything of an experiment but the weights; what it comes to, as text.

    The environment is made and one task of each split that is used is looked up; the method, the schedule and what they need
    are matched with the teacher; model references are checked as far as that goes without loading them.

    Raises:
        UserError: for the first thing that does not resolve.
    """
    config = experiment(source, overrides)
    if config.env.module:
        import_module(config.env.module)
    method, schedule = Method.load(config.method), curricula.load(config.schedule)
    check(config, method, schedule)
    tasks, expert = _resolve_environment(config, required_tasks(config))
    steps = config.train.iterations * config.train.minibatches * config.train.epochs
    found = {
        "tasks": tasks, "expert": expert, "needs": sorted(method.needs), "axes": method.model_dump(mode="json"),
        "episodes": config.train.iterations * config.train.tasks * config.train.rollouts, "optimizer_steps": steps,
    }  # fmt: skip
    if (stored := check_stored(config, method)) is not None:
        found["stored"] = describe(stored)
        found["episodes"] = round(stored.passes(config.train.iterations) * stored.survey.episodes)
    if (note := without_effect(config)) is not None:
        found["note"] = note
    return config_module.dump(config) + "---\n" + yamltext.dump({"resolved": found})


def replay(
    run: str | Path, batch: str | None = None, *, module: str = "", workers: int = 0, say: Say = None
) -> ReplayReport:  # fmt: skip
    """Carry out a run's stored actions again in fresh environments and compare all they answer (see `agentdistill.replay`).

    Nothing is written. What cannot be read is told and passed over.

    Args:
        run: folder of a run, a rollout or an evaluation.
        batch: one stored batch, such as `iter-000001`; all by default.
        module: Python module, or `.py` file, that registers the environment; the run's own by default.
        workers: processes that hold the environments; 0: this one.
        say: takes a line for each batch and each difference; the terminal by default.

    Raises:
        UserError: when there is no such run or batch, or an environment cannot be made.
    """
    store = load_run(run)
    if batch is not None:
        store.size(batch)  # refuses an unknown one
    return replay_run(Path(run), store, None if batch is None else [batch], module, workers, say or print)


def score(
    run: str | Path, model: str, *, name: str = "", batch: str | None = None, top_k: int = 0, entropy: bool = False,
    as_student: bool = False, token_budget: int | None = None, tokenizer: str = "", workers: int = 0, say: Say = None,
) -> Added:  # fmt: skip
    """Put what a model says of the stored student tokens beside them, in the same numbers that training would have used.

    Stored trajectories are not touched. What the store has already is not asked again; a killed call goes on where it was.
    The scores are `trajectory.scores[name]` of `load_run(run).read(batch)` from then on.

    Args:
        run: folder of a run, a rollout or an evaluation.
        model: folder, hub id or `pip:package`; of the vocabulary that the tokens are of.
        name: under which the scores stand; the model's own by default.
        batch: one stored batch, such as `iter-000001`; all by default.
        top_k: its likeliest ids a token to keep, with their log-probs; 0: none.
        entropy: keep the entropy of every distribution.
        as_student: show it the student's prompts even where a trajectory has others, with the plan, for its teacher.
        token_budget: tokens that one pass computes; the run's own by default, as in training.
        tokenizer: a model with the tokenizer of the stored tokens, where the run's folder does not have it.
        workers: processes that share the work, each with the model (on a GPU of its own, where there are several); 0: this one.
        say: takes lines of progress; the terminal by default.

    Returns:
        What was added: episodes, tokens, seconds, and bytes on disk by column.

    Raises:
        UserError: for an unknown run, batch or model, another vocabulary, or a name that is another model's or that another
            process is adding scores under.
    """
    store = load_run(run)
    batches = store.batches()
    if batch is not None:
        store.size(batch)  # refuses an unknown one
        batches = [batch]
    store.require_whole(None if batch is None else batches)
    return score_run(
        Path(run), name or model, model, batches, top_k=top_k, entropy=entropy, as_student=as_student,
        token_budget=token_budget, tokenizer=tokenizer, workers=workers, say=say,
    )  # fmt: skip


def branch(
    run: str | Path, policy: str, turn: int, *, out: str | Path, batch: str | None = None, temperature: float | None = None,
    module: str = "", workers: int = 0, seed: int = 0, say: Say = None,
) -> Branches:  # fmt: skip
    """Play stored episodes again up to a turn and let another policy go on from there (see `agentdistill.branch`).

    The branches are stored under `OUT/store`, batch `branch`, and the episodes they left, in the same order, as batch
    `parents`, so that `agentdistill compare OUT:parents OUT:branch` says what the policy would have made of them. View, limits
    and sampling are those of the run's experiment.

    Args:
        run: folder of a run, a rollout or an evaluation.
        policy: model that takes over.
        turn: messages that are kept of each episode.
        batch: the stored batch to branch from; the last evaluation by default.
        temperature: of the policy; the one that the episodes were sampled at by default.
        module, workers: as for `replay`.

    Raises:
        UserError: when the run, the batch or the model is missing, or no episode goes on after that turn.
    """
    folder, source = _new_result(out, "store/branch.parquet"), Path(run)
    parents = read_episodes(f"{run}:{batch}" if batch else str(run))
    return branch_run(
        source, folder, parents, policy, turn, temperature=temperature, module=module, workers=workers, seed=seed, say=say
    )  # fmt: skip


def what_if(
    run: str | Path, method: str, *, scorer: str = "", batch: str | None = None, out: str | Path | None = None
) -> WhatIf:
    """The step weights and advantages that another method would have given to stored episodes, beside the run's own.

        ad.what_if("runs/sod", "method=sod,delta=0.5").as_dict()["steps"][0]["what_if"]["weight"]

    Args:
        run: folder of a run, a rollout or an evaluation.
        method: a preset with settings, such as `method=sod,delta=0.5`; without `method=`, settings over the run's own.
        scorer: whose stored scores stand for the teacher's; the run's own teacher's by default.
        batch: one stored batch; by default all that were trained on, or all where the folder is no training run's.
        out: a JSON file for the result; not written by default.

    Raises:
        UserError: for an unknown run, batch, scorer or setting, and for a method that reads what is not stored.
    """
    found = what_if_run(Path(run), load_run(run), method, scorer, batch)
    if out is not None:
        path = named_folder(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"run": str(run), **found.as_dict()}, indent=1))
    return found


def compare(
    first: str | Path, second: str | Path, *, measure: Measure = "success", out: str | Path | None = None, say: Say = None
) -> Comparison:
    """Compare two evaluations on the same tasks, in pairs (see `agentdistill.compare`).

        ad.compare("runs/opd", "runs/sod")                               # what each had after training
        ad.compare("runs/opd:eval-before", "runs/opd:eval-after")

    Args:
        first, second: folder of a run or an evaluation, or `FOLDER:BATCH` for one of its stored batches.
        measure: `success`, or `reward`, the sum over an episode.
        out: a JSON file for the result; not written by default.
        say: takes the result in words; the terminal by default.

    Raises:
        UserError: when one of them holds no evaluation, or they share fewer than two tasks.
    """
    ours, theirs = read_episodes(str(first)), read_episodes(str(second))
    sides, tell = [load_eval(first), load_eval(second)], say or print
    found = compare_pairs(ours, theirs, measure)
    found = dataclasses.replace(found, notes=differences(*sides))
    for side in sides:
        tell(f"{side.name}: {side.result}")
    for line in found.lines:
        tell(line)
    if out is not None:
        path = named_folder(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"sides": [str(first), str(second)], **found.as_dict()}, indent=1))
    return found


def doctor(
    source: str | Path | Mapping[str, Any] | Experiment | None = None, *, out: str | Path | None = None, cheap: bool = False,
    tell: Callable[[CheckResult], None] | None = None, **overrides: Any,
) -> Diagnosis:  # fmt: skip
    """Look an experiment, its models and the machine over, check by check (see `agentdistill.doctor`). Nothing is trained.

        ad.doctor("experiments/quickstart.yaml").healthy

    Args:
        source: experiment file, mapping or object, or a run's folder, whose own models are looked at; None: the machine alone.
        out: where the run is, or will be; `runs/<name>` by default.
        cheap: leave out what loads environments, tokenizers or models.
        tell: called with each result as it comes.
        overrides: sections, or fields by dotted name.

    Raises:
        UserError: when the experiment cannot be read. What is wrong with it is in the result.
    """
    trained = isinstance(source, str | Path) and Path(source).is_dir()
    if isinstance(source, str | Path) and trained:
        source, out = Path(source) / "experiment.yaml", source if out is None else out
    config = None if source is None else experiment(source, overrides)
    folder = None if config is None else _folder(config, out)
    return diagnose(config, folder, trained=trained, cheap=cheap, tell=tell or (lambda _: None))


def plan(
    source: str | Path | Mapping[str, Any] | Experiment,
    *,
    device: str = HERE,
    like: str | Path | None = None,
    ranks: int | None = None,
    **overrides: Any,
) -> Plan:
    """What an experiment will cost: memory, seconds an iteration, hours, devices, and what binds. Nothing is trained.

        print(ad.plan("experiments/gpu/tcod_alfworld_7b.yaml", device="h100").hours)

    Args:
        source: experiment file, mapping or object.
        device: `here`, which measures this machine's CPU for some seconds, or `h100`, `a100`, `a100-40gb` by their makers'
            figures.
        like: folder of a run whose episodes are taken for this one's, in length and in the environment's time; by default
            they are as long as the experiment allows.
        ranks: that torchrun starts; by default as few as hold it, one a device; Ray's roles are those of `engine.ray`.
        overrides: sections, or fields by dotted name.

    Raises:
        UserError: for an unknown device or run, a number of ranks that cannot be, or a model whose size is not known.
    """
    return estimate(experiment(source, overrides), device, like, ranks)


def merge(source: str | Path, *, out: str | Path, say: Say = None) -> Path:
    """Write an adapter's model as whole fp32 weights, which any program of Transformers loads.

    Args:
        source: folder of an adapter, or of a run that distilled into one.
        out: the new model's folder.
        say: takes a line about the result; the terminal by default.

    Returns:
        The folder.

    Raises:
        UserError: when there is no adapter, something stands in `out` already, or merging changes what the model says.
    """
    found = merge_adapter(str(source), named_folder(out))
    (say or print)(
        f"merged into {found.folder}: '{found.base}' with the adapter of '{source}'; log-probs of {found.tokens} tokens differ "
        f"by {found.change:.1e} nats at most"
    )
    return found.folder


def load_run(folder: str | Path) -> Store:
    """The trajectories of a run, a rollout or an evaluation.

    Raises:
        UserError: when there is no such folder, or nothing of the kind in it.
    """
    return open_run(folder)


def _folder(config: Experiment, out: str | Path | None) -> Path:
    return Path("runs") / config.name if out is None else named_folder(out)


def _new_result(out: str | Path, *files: str) -> Path:
    """The folder for a result, where none of its files is there yet."""
    folder = named_folder(out)
    for name in files:
        if (folder / name).exists():
            raise UserError(f"'{folder}' already holds a result ({name}); choose another --out, or remove it first")
    return folder


def _arguments(
    model: str, env: str, tasks: int, split: str, samples: int, temperature: float, max_tokens: int, max_turns: int,
    max_context: int, options: Mapping[str, Any] | None, view: str | Mapping[str, Any], module: str, workers: int, seed: int,
) -> Experiment:  # fmt: skip
    """The arguments of a verb that only plays, in an experiment's form and checked; its teacher and method mean nothing."""
    fields: dict[str, Any] = {
        "seed": seed, "env.id": env, "env.options": dict(options or {}), "env.module": module, "env.max_turns": max_turns,
        "env.view": view, "env.workers": workers, "env.max_context": max_context, "student.model": model,
        "teacher.model": "initial", "teacher.privileged": True, "method": "opd",
        "sampling.temperature": temperature, "sampling.max_tokens": max_tokens,
        "eval.split": split, "eval.tasks": tasks, "eval.samples": samples, "eval.temperature": temperature,
    }  # fmt: skip
    names = {name: name.rpartition(".")[2] for name in fields} | {"env.id": "env", "student.model": "model"}
    config = parse_experiment(override({}, fields), "arguments", names)
    if config.env.module:
        import_module(config.env.module)
    load_view(config.env.view)
    return config


def _resolve_environment(config: Experiment, wanted: Sequence[tuple[str, int | None]]) -> tuple[dict[str, int], bool]:
    """Make the environment and look the wanted tasks up; the sizes of those splits, and whether there is an expert."""
    pool = EnvPool(config.env.id, config.env.options)
    try:
        env = pool.env(0)
        chosen, sizes = look_up(env, config, wanted)
        pool.reset(0, next(iter(chosen.values()))[0])
        return sizes, pool.expert_action(0) is not None
    finally:
        pool.close()
