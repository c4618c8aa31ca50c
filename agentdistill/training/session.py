"""One process working on one run folder: makes the models, plays, evaluates and distils, each stage once."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import agentdistill.view as views
from agentdistill import curricula
from agentdistill.chat import Chat
from agentdistill.config import OWN_WEIGHTS, Experiment, ModelSection, ReferenceSection, SftSection, TeacherSection
from agentdistill.console import Console
from agentdistill.demonstrations import Example, demonstrate, examples, transcript
from agentdistill.engines.registry import Engines, LanguageModel, Setup
from agentdistill.errors import UserError
from agentdistill.evaluation import Evaluation
from agentdistill.intervals import Rate
from agentdistill.loggers.hub import Hub
from agentdistill.loggers.registry import RunInfo, chosen
from agentdistill.modules import import_module
from agentdistill.policies.adapter import Adapted, attach
from agentdistill.policies.base import Sampler, SamplingParams, TeacherScorer
from agentdistill.policies.identity import identify
from agentdistill.policies.load import is_tiny, load_model, load_tokenizer
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.served import served
from agentdistill.pool import EnvPool, Workers
from agentdistill.pool_process import WorkerProcess
from agentdistill.recorded import Recorded, read_records, usable, with_expert
from agentdistill.rollout import Limits, Rollout
from agentdistill.rollout_async import AsyncRollout
from agentdistill.seeds import derive
from agentdistill.signals import Method
from agentdistill.store import Store
from agentdistill.toolcall import DEFAULT_FORMAT
from agentdistill.training.ahead import Ahead
from agentdistill.training.check import check, first_seeds, look_up, required_tasks, without_effect
from agentdistill.training.claim import claim
from agentdistill.training.evaluate import caveats, evaluate
from agentdistill.training.journal import Journal, write_atomic
from agentdistill.training.loop import Roles, distil
from agentdistill.training.meta import record_environment, record_session, run_id
from agentdistill.training.panel import Panel
from agentdistill.training.reported import keep_panel, panel_of, reported_name, reported_tasks
from agentdistill.training.sft import supervise
from agentdistill.training.state import copy_into, save_model, writing
from agentdistill.training.stored_check import check_stored
from agentdistill.training.teachers import MovingAverage, frozen_copy, is_elsewhere
from agentdistill.training.trainer import LocalTrainer, Opener
from agentdistill.trajectory import Trajectory

TOKENIZER_EPISODES = 64
PINNED = "rollouts.json"
"""Names in a run's folder the files of the store that it trains on."""
BYTES_PER_TOKEN = 8  # more than any tokenizer trained here saves on a whole episode


def tiny_context(config: Experiment) -> int:
    """Tokens that models from scratch take: what is played, and as much again where a teacher is shown the plan before it."""
    privileged = any(section.privileged for section in config.teacher_roles.values())
    return config.env.max_context * (2 if privileged else 1)


class Session:
    """One process working on one run folder.

    Args:
        trainer: who distils into the student.
    """

    def __init__(
        self, config: Experiment, folder: Path, *, resume: bool, say: Callable[[str], None] | None = None,
        trainer: Opener = LocalTrainer,
    ) -> None:  # fmt: skip
        self.config, self.folder, self._trainer = config, folder, trainer
        self.console = Console(say)
        if config.env.module:
            import_module(config.env.module)
        self.method = Method.load(config.method)
        self.schedule = curricula.load(config.schedule)
        self.view = views.load(config.env.view)
        check(config, self.method, self.schedule)
        self.engines = Engines(self._setup())
        self.stored = check_stored(config, self.method)
        self._records = read_records(config.env.demonstrations) if config.env.demonstrations else []
        self._threads = torch.get_num_threads()
        self.journal = Journal(folder, lambda stored: claim(folder, config, stored, resume=resume))
        try:
            for note in self.journal.notes + record_session(folder, config, begun=self.journal.begun):
                self.say(note)
            if (unused := without_effect(config)) is not None:
                self.say(unused)
            self.store = Store(folder / "store")
            env = config.env
            modules = [env.module] if env.module else []
            start = self.engines.worker() or WorkerProcess
            workers = Workers(config.workers, env.timeout, env.recycle, env.memory, modules, start)
            self.pool = EnvPool(env.id, env.options, workers=workers)
            for note in record_environment(folder, self.pool.run_metadata()):
                self.say(note)
            self.hub = self._hub()
            self.limits = Limits(env.max_turns, env.max_context, env.overflow, env.window, self.view)
            self._demonstrations: dict[tuple[object, ...], list[Example]] = {}
        except BaseException:
            self.engines.close()
            self.journal.close()
            torch.set_num_threads(self._threads)
            raise

    def prepare(self) -> None:
        """Take what the engines have to reserve, before anything is trained.

        Raises:
            UserError: when there is not enough of it.
        """
        self.engines.prepare()
        if (ranks := self.engines.trainer()) is not None:
            if self._trainer is not LocalTrainer:
                raise UserError("engine.ray.trainers and torchrun both start trainer ranks; take one of the two")
            self._trainer = ranks

    def say(self, text: str) -> None:
        """One line of progress."""
        self.console.say(text)

    def _hub(self) -> Hub:
        """The run's logging back-ends; they hear of whatever is written from here on."""
        log, config = self.config.log, self.config
        specs = chosen(log.backends)
        identity = run_id(self.folder) if specs else ""
        about = RunInfo(self.folder, config.name, identity, log.project, log.mode, config.model_dump(mode="json"))
        hub = Hub(specs, about, self.say)
        self.journal.heard = hub.catch_up
        return hub

    def close(self) -> None:
        """Close environments and give the folder up."""
        self.console.close()
        self.hub.close()
        self.pool.close()  # its workers may be at an engine's
        self.engines.close()
        self.journal.close()
        torch.set_num_threads(self._threads)

    def seeds(self, split: str, n: int | None = None) -> list[int]:
        """The first `n` task seeds of a split (all by default).

        Raises:
            UserError: when the split has fewer.
        """
        return first_seeds(self.pool.prototype(), self.config.env.id, split, n)

    def require_tasks(self) -> None:
        """Refuse splits that are missing or too small before anything is trained."""
        chosen, _ = look_up(self.pool.prototype(), self.config, required_tasks(self.config))
        if self.stored is not None and not self.journal.done("train"):
            path = self.folder / PINNED
            self._pinned = self.stored.pin(path, begun=self.journal.done("rollouts"))
            self.stored.require(self.config, self.method, reported_tasks(self.config, chosen))
            self.say(str(self.stored.survey))
        if not self.journal.done("eval-after"):
            keep_panel(self.config, self.pool, self.folder)
        if self._records:
            self.say(f"recorded demonstrations: {self.recorded}")

    @functools.cached_property
    def recorded(self) -> Recorded:
        """Recorded demonstrations of the training split's tasks, each played once; none where the experiment names no file."""
        if not self._records:
            return Recorded()
        env = self.config.env
        return usable(self._records, self.pool, self.seeds(env.split), self.limits.max_turns, env.demonstrations)

    def _imitable(self) -> list[int]:
        """Training tasks that can be imitated."""
        seeds = self.seeds(self.config.env.split)
        return with_expert(self.pool, seeds, self.recorded) if self._records else seeds

    def require_plan(self) -> None:
        """Refuse a privileged teacher where there is nothing to show it."""
        self.pool.reset(0, self.seeds(self.config.env.split)[0])
        if self.pool.plan(0) is None:
            raise UserError(
                f"teacher.privileged shows the teacher the environment's plan, and '{self.config.env.id}' has none; "
                "give the environment a plan() or set teacher.privileged to false"
            )

    def chat(self, tokenizer: PreTrainedTokenizerBase) -> Chat:
        """The chat format of a tokenizer, with the environment's tools."""
        env = self.pool.prototype().unwrapped
        return Chat(tokenizer, getattr(env, "tools", ()), getattr(env, "call_format", DEFAULT_FORMAT))

    def rollout(
        self, lm: LanguageModel, privileged: bool = False, partner: LanguageModel | None = None, *, here: bool = False
    ) -> Rollout:
        """The episode loop with a model as the policy, and another to go on where a task is handed over.

        Args:
            here: sample a model that is in this process here, whatever engine plays the student: a teacher, or one that is
                not trained on policy yet.
        """
        context = min(self.limits.max_context, lm.context)
        limits = dataclasses.replace(self.limits, max_context=context)
        chat = self.chat(lm.tokenizer)
        sampler: Sampler = TransformersSampler(lm) if here and isinstance(lm, CausalLM) else self.engines.sampler(lm)
        if self.config.engine.async_rollouts:
            return AsyncRollout(self.pool, sampler, chat, limits, privileged=privileged)
        other: Sampler | None = None
        if partner is not None:
            other = TransformersSampler(partner) if isinstance(partner, CausalLM) else self.engines.sampler(partner)
        return Rollout(self.pool, sampler, chat, limits, privileged=privileged, partner=other)

    def _setup(self) -> Setup:
        """What the experiment asks of its engines."""
        config, lora = self.config, self.config.student.lora
        return Setup(
            config.engine, config.train.token_budget, config.env.max_context, tiny_context(config), self.method.top or 0,
            None if lora is None else lora.r, config.elsewhere, self.say,
            config.train.packing is False,
        )  # fmt: skip

    def teacher(self, role: str, section: TeacherSection, tokenizer: PreTrainedTokenizerBase | None) -> LanguageModel:
        """A teacher that is another model: one of this process, or what is known of one that an engine loads itself."""
        if is_elsewhere(self.config, section):
            return served(section.model)
        return self.load(role, section, tokenizer)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of `tiny:` models: of the other role's model, or the run's own where both are tiny.

        The run's own is trained on expert transcripts of training tasks, once.
        """
        for role, section in {**self.config.teacher_roles, "student": self.config.student}.items():
            if section.model not in OWN_WEIGHTS and not is_tiny(section.model):
                return load_tokenizer(self._source(role, section))
        from agentdistill.policies.tiny import train_tokenizer

        path = self.folder / "tokenizer"
        if not self.journal.done("tokenizer"):
            any_chat = self.chat(train_tokenizer([""]))
            seeds = self._imitable()[:TOKENIZER_EPISODES]
            # `any_chat` makes a token of each byte; beyond that a student's context would not hold the episode either.
            longest = BYTES_PER_TOKEN * self.limits.max_context
            shown = self._play_expert(seeds, any_chat, noise=0.0, max_context=longest)
            texts = [transcript(t) for t in shown] + [self.pool.system_prompt(0)]
            if not self.view.extends:  # its prompts have words of their own
                texts += [any_chat.decode(turn.prompt_ids) for t in shown for turn in t.turns]
            with writing(f"tokenizer '{path}'"):
                train_tokenizer(texts, self.config.tokenizer_vocab).save_pretrained(path)
            self.journal.finish("tokenizer", path)
        try:
            return AutoTokenizer.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(f"the run's tokenizer in '{path}' cannot be read; start over with another --out") from error

    def model(self, role: str, section: ModelSection, tokenizer: PreTrainedTokenizerBase | None) -> CausalLM:
        """A role's model, after its supervised stage where it has one; kept under `RUN/<role>`."""
        lm = self.load(role, section, tokenizer)
        self.warm_up(role, section, lm)
        return lm

    def load(self, role: str, section: ModelSection | ReferenceSection, tokenizer: PreTrainedTokenizerBase | None) -> CausalLM:
        """A role's model as far as the run has brought it, untrained at first."""
        seed = derive(self.config.seed, "init", role) % 2**31
        source = self._source(role, section)
        lm = load_model(source, tokenizer=tokenizer, seed=seed, context=tiny_context(self.config))
        if isinstance(lm, Adapted) and (role == "student" or getattr(section, "sft", None) is not None):
            lm = lm.merged()  # its weights are to be trained, all of them
        lm.name = section.model
        if self.config.train.packing is False:
            lm.packed = False
        return lm

    def adapt(self, student: CausalLM) -> CausalLM:
        """The student with a new adapter, where the experiment distils into one; it plays as before."""
        lora = self.config.student.lora
        if lora is None:
            return student
        adapted = attach(
            student, r=lora.r, alpha=lora.alpha, targets=lora.targets, base=self._source("student", self.config.student),
            seed=derive(self.config.seed, "lora") % 2**31,
        )  # fmt: skip
        own, whole = (sum(t.numel() for t in each.values()) for each in (adapted.own(), adapted.named_weights()))
        self.say(
            f"LoRA of rank {lora.r}: {own:,} of {whole:,} parameters are trained; a checkpoint takes "
            f"{12 * own / 1e6:.1f} MB, where all parameters would take {12 * (whole - own) / 1e6:.1f} MB"
        )
        return adapted

    def _source(self, role: str, section: ModelSection | ReferenceSection) -> str:
        """Where a role's model is to be loaded from: the run's own folder once its supervised stage is finished."""
        return str(self.folder / role) if self.journal.done(f"sft-{role}") else section.model

    def warm_up(self, role: str, section: ModelSection, lm: CausalLM) -> None:
        """The supervised stage of a role, in place, where it has one that is not finished."""
        path, stage = self.folder / role, f"sft-{role}"
        if section.sft is None or self.journal.done(stage):
            return
        rollout = self.rollout(lm, here=True)
        valid = self.seeds("valid", section.sft.eval_tasks) if section.sft.eval_every else []
        greedy = SamplingParams(temperature=0, max_tokens=self.config.sampling.max_tokens)

        def validate(step: int) -> Rate:
            return evaluate(rollout, valid, greedy, seed=self.config.seed, label=stage)[0]

        data = self.demonstrations(section.sft, rollout)
        supervise(
            lm, data, section.sft, self.journal,
            role=role, seed=derive(self.config.seed, "sft"), budget=self.config.train.token_budget, validate=validate,
            console=self.console,
        )  # fmt: skip
        save_model(path, lm)
        self.journal.finish(stage, path)

    def demonstrations(self, sft: SftSection, rollout: Rollout) -> list[Example]:
        """Expert sequences over the training split, shown as in a role's rollouts; made once for all that ask for the same."""
        chat, most = rollout.chat, rollout.limits.max_context
        key = (sft.demonstrations, sft.noisy, sft.noise, most, chat.template, tuple(sorted(chat.tokenizer.get_vocab().items())))
        if key not in self._demonstrations:
            seeds = self._imitable()
            clean = sft.demonstrations - round(sft.demonstrations * sft.noisy)
            laps = [seeds[i % len(seeds)] for i in range(sft.demonstrations)]
            shown = self._play_expert(laps[:clean], chat, 0.0, most) + self._play_expert(laps[clean:], chat, sft.noise, most)
            won = sum(t.success for t in shown)
            without = f", {missing} tasks without an expert left out" if (missing := len(laps) - len(shown)) else ""
            self.say(f"{len(shown)} demonstrations, {won} won, {sum(len(t.turns) for t in shown)} turns{without}")
            self._demonstrations[key] = [e for t in shown for e in examples(t)]
        return self._demonstrations[key]

    def _play_expert(self, seeds: Sequence[int], chat: Chat, noise: float, max_context: int) -> list[Trajectory]:
        return demonstrate(
            self.pool, seeds, chat, max_turns=self.limits.max_turns, max_context=max_context, noise=noise,
            seed=self.config.seed, recorded=self.recorded if self._records else None, view=self.view,
        )  # fmt: skip

    def measure(self, label: str, lm: LanguageModel) -> Rate:
        """Success on the reported tasks, once per label; trajectories go to the store."""
        stage, section = f"eval-{label}", self.config.eval
        path = self.folder / "evals" / f"{label}.json"
        if self.journal.done(stage):
            try:
                return Rate(**json.loads(path.read_text()))
            except (OSError, ValueError, TypeError) as error:
                raise UserError(f"'{path}' is missing or damaged; restore it, or start over with another --out") from error
        iteration = self.config.train.iterations if label == "after" else 0
        rollout = self.rollout(lm, here=label in self.config.teacher_roles)
        rollout.sampler.version = iteration * self.config.train.minibatches * self.config.train.epochs
        rate, played = evaluate(
            rollout, self._reported(), self._eval_params(), seed=self.config.seed, label=label, samples=section.samples
        )
        if not all(math.isfinite(lp) for t in played for turn in t.turns for lp in turn.logprobs_t1):
            raise UserError(
                f"model '{lm.name}' gave log-probs that are not finite in evaluation '{label}'; its weights are broken"
            )
        self.store.write(stage, played)
        for note in caveats(played):
            self.say(note)
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, json.dumps(rate.as_dict()))
        record = Evaluation.of(label, played, {"label": label, "iteration": iteration, "temperature": section.temperature})
        self.journal.metric("eval", **{k: v for k, v in record.as_dict().items() if k != "stop_reasons"})
        self.journal.finish(stage, path)
        self.say(f"{label}: success {rate} on {reported_name(self.config)}")
        return rate

    def _reported(self) -> list[int]:
        panel, section = panel_of(self.config), self.config.eval
        return self.seeds(section.split, section.tasks) if panel is None else panel.seeds

    def _eval_params(self) -> SamplingParams:
        section = self.config.eval
        return SamplingParams(temperature=section.temperature, top_p=section.top_p, max_tokens=self.config.sampling.max_tokens)

    def distil(
        self,
        student: CausalLM,
        teacher: TeacherScorer | Panel | None,
        reference: TeacherScorer | None = None,
        average: MovingAverage | None = None,
        partner: LanguageModel | None = None,
    ) -> None:
        """The on-policy loop; the trained student ends up under `RUN/final`.

        Args:
            average: the teacher, where it follows the student.
            partner: plays on where the experiment's `mixed` section has the student stop.
        """
        path = self.folder / "final"
        if self.journal.done("train"):
            copy_into(student, load_model(str(path)).own(), f"'{path}'")
            return
        privileged = any(section.privileged for section in self.config.teacher_roles.values())
        rollout = self.rollout(student, privileged, partner)
        section = self.config.eval
        valid = self.seeds(section.every_split, section.every_tasks) if section.every else []
        params = self._eval_params()

        def validate(iteration: int) -> Rate:
            return evaluate(rollout, valid, params, seed=self.config.seed, label="during")[0]

        if self.stored is not None:
            write_atomic(self.folder / PINNED, self._pinned)
            self.journal.finish("rollouts", self.folder / PINNED)
        else:
            self._name_scorers([teacher, reference] if average is None else [reference])
        roles = Roles(
            student, teacher, self.method, self.schedule, rollout, self.seeds(self.config.env.split), self.recorded,
            reference, average, self.stored, self._ahead(student, privileged), self._trainer(student, self.config),
        )  # fmt: skip
        try:
            distil(self.config, roles, self.journal, self.store, validate=validate, console=self.console)
        finally:
            if roles.ahead is not None:
                roles.ahead.close()
            if roles.trainer is not None:
                roles.trainer.close()
        save_model(path, student)
        self.journal.finish("train", path)

    def _ahead(self, student: CausalLM, privileged: bool) -> Ahead | None:
        """Who plays the next episodes during the update, where the experiment has it so."""
        if not self.config.engine.overlap:
            return None
        if self.method.importance.name == "none":
            self.say("note: engine.overlap trains on episodes of an update ago; method.importance: truncated corrects for it")
        copy = frozen_copy(student, student.name)
        return Ahead(student, self.rollout(copy, privileged), copy)

    def _name_scorers(self, scorers: Sequence[TeacherScorer | Panel | None]) -> None:
        """Write into the store who its scorers are, as far as their weights stay what they are."""
        for scorer in scorers:
            members = [seat.scorer for seat in scorer.seats.values()] if isinstance(scorer, Panel) else [scorer]
            for each in members:
                lm = getattr(each, "lm", None)
                if each is not None and isinstance(lm, CausalLM) and not getattr(each, "live", False):
                    self.store.scores(each.name).claim(identify(lm))
