"""What the doctor looks at: an experiment's environment, models and a few episodes, each made when it is first asked for."""

from __future__ import annotations

import functools
from pathlib import Path

from transformers import PreTrainedTokenizerBase

import agentdistill.view as views
from agentdistill.chat import Chat
from agentdistill.config import OWN_WEIGHTS, Experiment, ModelSection, ReferenceSection
from agentdistill.demonstrations import demonstrate, transcript
from agentdistill.engines.registry import Engines, Setup
from agentdistill.errors import UserError
from agentdistill.modules import import_module
from agentdistill.policies.adapter import Adapted, attach
from agentdistill.policies.base import TeacherScorer
from agentdistill.policies.load import is_tiny, load_model, load_tokenizer
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.policies.served import served
from agentdistill.policies.tiny import train_tokenizer
from agentdistill.pool import EnvPool
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.seeds import derive
from agentdistill.signals import Method
from agentdistill.toolcall import DEFAULT_FORMAT
from agentdistill.training.check import REFERENCE, first_seeds
from agentdistill.training.evaluate import env_failures
from agentdistill.training.score import trainable
from agentdistill.training.session import BYTES_PER_TOKEN, tiny_context
from agentdistill.training.teachers import is_elsewhere, own_weights
from agentdistill.trajectory import Trajectory

SEQUENCES = 8
_TRANSCRIPTS = 32  # of the expert, for a tokenizer
_TURNS, _TOKENS, _GROUP = 3, 16, 4  # at most, of an episode of the doctor's


class Patient:
    """An experiment under examination, or, without one, the machine.

    Args:
        config: the experiment.
        folder: where its run is, or will be.
        trained: whether models that the run has made by now are looked at, and not those that the experiment names.
    """

    def __init__(self, config: Experiment | None = None, folder: Path | None = None, *, trained: bool = False) -> None:
        self.config, self.folder, self.trained = config, folder, trained
        self._scorers: dict[str, TeacherScorer] = {}

    @property
    def experiment(self) -> Experiment:
        """The experiment; only checks with one ask for it."""
        assert self.config is not None
        return self.config

    def close(self) -> None:
        """Close the engines and the environments, where they were made."""
        if "engines" in self.__dict__:
            self.engines.close()
        if "pool" in self.__dict__:
            self.pool.close()

    @functools.cached_property
    def method(self) -> Method:
        """The experiment's method."""
        return Method.load(self.experiment.method)

    @functools.cached_property
    def engines(self) -> Engines:
        """Who plays and scores in the experiment."""
        config, lora = self.experiment, self.experiment.student.lora
        rank, context = None if lora is None else lora.r, config.env.max_context
        return Engines(
            Setup(
                config.engine, config.train.token_budget, context, tiny_context(config), self.method.top or 0, rank,
                config.elsewhere,
            )
        )  # fmt: skip

    def scorer(self, role: str) -> TeacherScorer:
        """Who scores for a teacher: this process for one that is made of the student's own weights, or its engine.

        Asked for once: an engine may start something for it.
        """
        if role not in self._scorers:
            self._scorers[role] = self._scorer(role)
        return self._scorers[role]

    def _scorer(self, role: str) -> TeacherScorer:
        lm, section = self.teachers[role], self.experiment.teacher_roles[role]
        if section.own:
            return TransformersScorer(lm, budget=self.experiment.train.token_budget)
        # As a run has it: by the model's name, so that another one that is served there is not asked instead.
        asked = served(section.model) if is_elsewhere(self.experiment, section) else lm
        return self.engines.scorer(asked, width=self.student.vocab_size)

    @functools.cached_property
    def pool(self) -> EnvPool:
        """The experiment's environments, in this process."""
        env = self.experiment.env
        if env.module:
            import_module(env.module)
        return EnvPool(env.id, env.options)

    @functools.cached_property
    def seeds(self) -> list[int]:
        """Training tasks."""
        env = self.experiment.env
        return first_seeds(self.pool.prototype(), env.id, env.split)

    @property
    def sections(self) -> dict[str, ModelSection | ReferenceSection]:
        """Whose models a run loads: the student's, and teachers' and the reference's that are not its own weights."""
        config = self.experiment
        found: dict[str, ModelSection | ReferenceSection] = {"student": config.student, **config.teacher_roles}
        if config.reference is not None:
            found["reference"] = config.reference
        return {role: section for role, section in found.items() if role == "student" or section.model not in OWN_WEIGHTS}

    @functools.cached_property
    def roles(self) -> list[str]:
        """Those of `sections` that take part: a reference only where the method reads one."""
        return [role for role in self.sections if role != "reference" or self.method.needs & REFERENCE]

    def source(self, role: str) -> str:
        """Where a role's model comes from: as the experiment says, or from the run's folder."""
        for name in ("final", "student") if role == "student" else (role,):
            if self.trained and self.folder is not None and any((self.folder / name).glob("*config.json")):
                return str(self.folder / name)
        return self.sections[role].model

    def tokenizer(self, role: str) -> PreTrainedTokenizerBase:
        """A role's tokenizer, without its weights."""
        return self._shared if is_tiny(self.source(role)) else load_tokenizer(self.source(role))

    @functools.cached_property
    def _shared(self) -> PreTrainedTokenizerBase:
        """Of models from scratch: another role's, or one like that which the run would train."""
        for role in self.roles:
            if not is_tiny(source := self.source(role)):
                return load_tokenizer(source)
        chat, view_ = self.chat(train_tokenizer([""])), views.load(self.experiment.env.view)
        longest = BYTES_PER_TOKEN * self.experiment.env.max_context
        shown = demonstrate(
            self.pool, self.seeds[:_TRANSCRIPTS], chat, max_turns=self.experiment.env.max_turns, max_context=longest, noise=0.0,
            seed=self.experiment.seed, view=view_,
        )  # fmt: skip
        return train_tokenizer([*map(transcript, shown), self.pool.system_prompt(0)], self.experiment.tokenizer_vocab)

    def chat(self, tokenizer: PreTrainedTokenizerBase) -> Chat:
        """The chat format of a tokenizer, with the environment's tools."""
        world = self.pool.prototype().unwrapped
        return Chat(tokenizer, getattr(world, "tools", ()), getattr(world, "call_format", DEFAULT_FORMAT))

    def model(self, role: str) -> CausalLM:
        """A role's model, as `train` would load it; one from scratch is untrained."""
        source, config = self.source(role), self.experiment
        tokenizer = self._shared if is_tiny(source) else None
        seed = derive(config.seed, "init", role) % 2**31
        return load_model(source, tokenizer=tokenizer, seed=seed, context=tiny_context(config))

    @functools.cached_property
    def student(self) -> CausalLM:
        """The student, with its adapter where it has one."""
        lm, lora = self.model("student"), self.experiment.student.lora
        if lora is None or isinstance(lm, Adapted):
            return lm
        return attach(lm, r=lora.r, alpha=lora.alpha, targets=lora.targets, seed=0, base=self.source("student"))

    @functools.cached_property
    def teachers(self) -> dict[str, CausalLM]:
        """The teachers by role; those of the student's own weights too."""
        sections = self.experiment.teacher_roles
        return {
            role: own_weights(self.student, section.model) if section.own else self.model(role)
            for role, section in sections.items()
        }

    @functools.cached_property
    def reference(self) -> CausalLM | None:
        """The reference, where the method reads one."""
        section = self.experiment.reference
        if section is None or not self.method.needs & REFERENCE:
            return None
        return own_weights(self.student, section.model) if section.model in OWN_WEIGHTS else self.model("reference")

    @functools.cached_property
    def played(self) -> list[Trajectory]:
        """`SEQUENCES` short episodes of training tasks by the student, those that can carry loss.

        Raises:
            UserError: when there is none.
        """
        config = self.experiment
        group = min(config.train.rollouts, _GROUP)
        seeds = self.seeds[: max(1, SEQUENCES // group)]
        tasks = [
            Task(seed=seed, sample_seed=derive(config.seed, "doctor", i, k), group=i)
            for i, seed in enumerate(seeds)
            for k in range(group)
        ]
        few = {"max_tokens": min(config.sampling.max_tokens, _TOKENS)}
        played = self.rollout().run(tasks, config.sampling.model_copy(update=few), "doctor")
        rows = trainable(played)
        if not rows:
            faults = env_failures(played)
            raise UserError(
                "no episode of the student has a token that could be trained on" + "".join(f": {f}" for f in faults[:1])
            )
        return rows

    def rollout(self) -> Rollout:
        """The episode loop of short episodes, with the engine's sampler."""
        env, privileged = self.experiment.env, any(each.privileged for each in self.experiment.teacher_roles.values())
        context = min(env.max_context, self.student.context)
        limits = Limits(min(env.max_turns, _TURNS), context, env.overflow, env.window, views.load(env.view))
        sampler = self.engines.sampler(self.student)
        return Rollout(self.pool, sampler, self.chat(self.student.tokenizer), limits, privileged=privileged)
