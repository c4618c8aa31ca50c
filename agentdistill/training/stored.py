"""Stored episodes to train on, instead of new ones: which there are, which of them an iteration takes, and who scored them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentdistill.config import Experiment, RolloutsSection
from agentdistill.durable import digest
from agentdistill.errors import UserError, nearest
from agentdistill.policies.identity import vocabulary
from agentdistill.policies.model import CausalLM
from agentdistill.seeds import derive, permutation
from agentdistill.signals import Method
from agentdistill.signals.registry import PROVISIONS
from agentdistill.store import Store
from agentdistill.training.integrity import RESTORE
from agentdistill.training.score import trainable
from agentdistill.training.score_run import tokenizer_of
from agentdistill.training.stored_scorer import StoredScorer
from agentdistill.trajectory import Trajectory

ROLES = {"teacher": "scorer", "reference": "reference"}
"""Fields of `RolloutsSection` that name a scorer, by the role its scores stand for."""


@dataclass(slots=True)
class Survey:
    """What a store has for an experiment.

    Attributes:
        units: for each group of rollouts of one task its batch, and its rows there.
        seeds: of its tasks, by environment id.
        episodes, left_out, tokens: how many may be trained on, how many may not, and student tokens of the former.
        warm: how many were sampled at another temperature than 1.
        unrewarded: how many nobody has told the reward of.
        imported: how many were not sampled here at all.
    """

    units: list[tuple[str, list[int]]] = field(default_factory=list)
    seeds: dict[str, set[int]] = field(default_factory=dict)
    episodes: int = 0
    left_out: int = 0
    tokens: int = 0
    warm: int = 0
    unrewarded: int = 0
    imported: int = 0

    def __str__(self) -> str:
        said = f"{self.episodes} stored episodes in {len(self.units)} groups, {self.tokens} student tokens"
        left = f"; {self.left_out} are left out" if self.left_out else ""
        own = f"; {self.imported} were imported" if self.imported else ""
        return said + left + own + (f"; {self.warm} were not sampled at temperature 1" if self.warm else "")


class StoredEpisodes:
    """The stored episodes that an experiment trains on, and who scored them.

    Args:
        section: names the store, and whose scores are taken.
        tasks: groups of rollouts an iteration takes.
        seed: of the experiment; their order follows from it.

    Attributes:
        scorers: by role, `teacher` and `reference`, as far as stored scores stand for them.

    Raises:
        UserError: when there is no such store, batch or scorer, or it is not written down who the scorer was.
    """

    def __init__(self, section: RolloutsSection, tasks: int, seed: int) -> None:
        self.store, self._tasks, self._seed = open_store(section.store), tasks, seed
        self.batches = _batches(self.store, section.batches)
        self.scorers = {
            role: _scorer(self.store, self.batches, getattr(section, name), f"rollouts.{name}")
            for role, name in ROLES.items()
            if getattr(section, name)
        }
        self._survey: Survey | None = None

    @property
    def survey(self) -> Survey:
        """What there is; the whole store is read once for it.

        Raises:
            UserError: when an episode has no scores, not one a student token, or one that is not finite; when there are fewer
                groups than an iteration takes; when a file is not as it was written.
        """
        if self._survey is None:
            self._survey = self._look()
        return self._survey

    def require(self, config: Experiment, method: Method, held_out: Sequence[int]) -> None:
        """Refuse a store that cannot serve an experiment.

        Args:
            held_out: seeds of the tasks that are reported.

        Raises:
            UserError: as `survey`; for tasks that are reported too, for groups of one where rollouts are compared, and for
                episodes without a reward where one is read.
        """
        survey = self.survey
        if common := survey.seeds.get(config.env.id, set()) & set(held_out):
            raise UserError(
                f"the store {self.store.path} holds episodes of {len(common)} tasks of split '{config.eval.split}' (as seed "
                f"{min(common)}), so what is reported would not be held out; name other rollouts.batches, or another eval.split"
            )
        if (teacher := self.scorers.get("teacher")) is not None:
            require_enough(method, self.store, teacher)  # of every trajectory, now that all were seen
        if survey.unrewarded and "rewards" in method.needs:
            raise UserError(
                f"method {config.method!r} needs {PROVISIONS['rewards']} ({method.wanting('rewards')}), and "
                f"{survey.unrewarded} of {survey.episodes} episodes in the store {self.store.path} have no reward that was "
                "told; choose another method, or name other rollouts.batches"
            )
        self._require_authors(config, method)
        alone = sum(len(rows) == 1 for _, rows in survey.units)
        if alone and (method.rewarded or "groups" in method.needs):
            raise UserError(
                f"method {config.method!r} compares rollouts of one task, and {alone} of {len(survey.units)} groups in the "
                f"store {self.store.path} are of one; take a store with several rollouts a task"
            )

    def _require_authors(self, config: Experiment, method: Method) -> None:
        """Refuse to learn from imported conversations as if the student had sampled them, and to imitate its own samples."""
        survey, where = self.survey, self.store.path
        if "demonstrations" in method.needs and survey.imported < survey.episodes:
            raise UserError(
                f"method {config.method!r} needs {PROVISIONS['demonstrations']}, and {survey.episodes - survey.imported} of "
                f"{survey.episodes} episodes in the store {where} were played here; take a store of imported conversations"
            )
        if not survey.imported:
            return
        axis = next((name for name in ("signal", "rl") if getattr(method, name).name != "none"), "")
        if axis or config.train.old_logprobs == "sampler":
            what = f"{axis} '{getattr(method, axis).name}' is" if axis else "train.old_logprobs 'sampler' are log-probs"
            raise UserError(
                f"{what} of the student's own samples, and {survey.imported} episodes in the store {where} were imported; "
                "imitate them with method dasd, or take a divergence over a teacher's full distributions"
            )

    def meet(self, student: CausalLM) -> None:
        """Get to know the student, and refuse one to whom the stored ids mean something else than to who scored them.

        Raises:
            UserError: naming both.
        """
        if not self.scorers and vocabulary(tokenizer_of(self.store.path.parent)) != vocabulary(student.tokenizer):
            raise UserError(
                f"student '{student.name}' has another vocabulary than the episodes of the store {self.store.path}; choose a "
                "student of the family that played them"
            )
        for scorer in self.scorers.values():
            scorer.width = student.vocab_size
            if scorer.identity.vocabulary != vocabulary(student.tokenizer):
                raise UserError(
                    f"student '{student.name}' and scorer '{scorer.name}' of the store {self.store.path} (model "
                    f"'{scorer.identity.model}') have different vocabularies; choose a student of the scorer's family"
                )

    def take(self, iteration: int) -> list[Trajectory]:
        """An iteration's episodes: groups in an order shuffled anew for every pass over the store, each group whole.

        They come in the order of the store, so that one pass in one iteration is the batch as it was.
        """
        units = self.survey.units
        places = [divmod((iteration - 1) * self._tasks + i, len(units)) for i in range(self._tasks)]
        order = [permutation(len(units), derive(self._seed, "stored", lap))[place] for lap, place in places]
        chosen = [units[i] for i in sorted(order)]
        names = [scorer.name for scorer in self.scorers.values()]
        rows: dict[str, set[int]] = {}
        for batch, members in chosen:
            rows.setdefault(batch, set()).update(members)
        there = {
            (batch, row): trajectory
            for batch, wanted in rows.items()
            for row, trajectory in zip(sorted(wanted), self.store.pick(batch, wanted, names), strict=True)
        }
        out = [
            dataclasses.replace(there[batch, row], group=group)
            for group, (batch, members) in enumerate(chosen)
            for row in members
        ]
        for scorer in self.scorers.values():
            scorer.hold(out)
        return out

    def passes(self, iteration: int) -> float:
        """Passes over the store when an iteration is done."""
        return iteration * self._tasks / len(self.survey.units)

    def pin(self, path: Path, *, begun: bool) -> str:
        """What the store is now, as text for a file; a resumed run goes on from the very files it began with.

        Args:
            path: that file.
            begun: whether it was written in an earlier session, and holds.

        Raises:
            UserError: when a file of the store is not what it was then.
        """
        if not begun:
            return json.dumps({"store": str(self.store.path), "files": self._files()}, indent=1)
        text = path.read_text(encoding="utf-8")
        before: Mapping[str, str] = json.loads(text)["files"]
        self.batches = [batch for batch in self.batches if f"{batch}.parquet" in before]
        now = self._files()
        for name, sha256 in before.items():
            if now.get(name) != sha256:
                state = "has changed" if name in now else "is missing"
                raise UserError(f"'{self.store.path / name}' {state} since the run began; {RESTORE}")
        self._survey = None
        return text

    def _files(self) -> dict[str, str]:
        """SHA-256 of the batches and of the scores that are read, by path in the store."""
        files = [self.store.path / f"{batch}.parquet" for batch in self.batches]
        for scorer in self.scorers.values():
            given = self.store.scores(scorer.name)
            files += sorted(path for batch in self.batches for path in given.paths(batch))
        return {file.relative_to(self.store.path).as_posix(): digest(file) for file in files if file.is_file()}

    def _look(self) -> Survey:
        if problems := self.store.problems():
            raise UserError(problems[0])
        out = Survey()
        for batch in self.batches:
            groups: dict[int, list[int]] = {}
            for row, trajectory in enumerate(self.store.trajectories(batch, [s.name for s in self.scorers.values()])):
                if not trainable([trajectory]):
                    out.left_out += 1
                    continue
                for role, scorer in self.scorers.items():
                    _require_scores(role, scorer, trajectory)
                groups.setdefault(trajectory.group, []).append(row)
                out.seeds.setdefault(trajectory.env_id, set()).add(trajectory.seed)
                out.episodes += 1
                out.tokens += trajectory.n_action_tokens
                out.unrewarded += not np.isfinite(trajectory.reward)
                out.warm += trajectory.temperature != 1 and not trajectory.imported
                out.imported += trajectory.imported
            out.units += [(batch, rows) for rows in groups.values()]
        where = ", ".join(self.batches) or "no batch"
        if not out.units:
            raise UserError(
                f"the store {self.store.path} has no episode that can be trained on in {where}; look at the stop reasons with "
                "agentdistill view, and play them again"
            )
        if len(out.units) < self._tasks:
            raise UserError(
                f"train.tasks is {self._tasks}, and the store {self.store.path} has {len(out.units)} groups of episodes that "
                f"can be trained on in {where}; set train.tasks to {len(out.units)} or less"
            )
        return out


def open_store(folder: str) -> Store:
    """The store of a run's folder, or in a folder itself.

    Raises:
        UserError: when there is none.
    """
    path = Path(folder).expanduser()
    for store in (path / "store", path):
        if store.is_dir() and any(store.glob("*.parquet")):
            return Store(store)
    raise UserError(f"rollouts.store '{folder}' holds no stored episodes; name the folder of a run or of a rollout")


def _batches(store: Store, wanted: Sequence[str]) -> list[str]:
    known = store.batches()
    for name in wanted:
        if name not in known:
            raise UserError(
                f"rollouts.batches names '{name}', which the store {store.path} does not have{nearest(name, known)}"
            )
    return list(wanted) or [name for name in known if not name.startswith("eval")]


def _scorer(store: Store, batches: Sequence[str], name: str, where: str) -> StoredScorer:
    files = store.scores(name)
    identity = files.identity()
    if identity is None:
        raise UserError(
            f"{where} is '{name}', and the store {store.path} does not say who that is; add scores with "
            f"`agentdistill score`{nearest(name, store.scorers())}"
        )
    parts = [part for batch in batches for part in files.parts(batch)]
    scored = [part.k for part in parts if part.scored]
    return StoredScorer(name, identity, min(scored, default=0))


def _require_scores(role: str, scorer: StoredScorer, trajectory: Trajectory) -> None:
    scores = trajectory.scores_by(scorer.name)
    if not np.isfinite(scores.logprobs).all():
        raise UserError(f"trajectory '{trajectory.id}' has a score by '{scorer.name}' that is not finite; score it again")
    k = 0 if scores.topk_ids is None else scores.topk_ids.shape[1]
    scorer.top_k = min(scorer.top_k, k)
    privileged = any(turn.teacher_prompt_ids is not None for turn in trajectory.turns)
    if role == "reference" and privileged and scorer.identity.prompt == "teacher":
        raise UserError(
            f"a reference sees what the student sees, and scorer '{scorer.name}' was shown the teacher's prompt of trajectory "
            f"'{trajectory.id}'; score it again under another name with --as-student"
        )


def require_enough(method: Method, store: Store, scorer: StoredScorer) -> None:
    """Refuse a method that reads more of its teacher than what was stored.

    Raises:
        UserError: naming who asks for it, and the scorer.
    """
    if "distribution" not in method.needs:
        return
    wanted = method.top
    asking = method.wanting("distribution", "need")
    if wanted is None:
        there = f"scores of sampled tokens{f' and the {scorer.top_k} likeliest ids' if scorer.top_k else ''}"
        raise UserError(
            f"{asking} the teacher's full distributions, and the store {store.path} has {there} by "
            f"'{scorer.name}' only; choose another method, or drop rollouts.scorer and let the teacher be loaded"
        )
    if wanted > scorer.top_k:
        raise UserError(
            f"{asking} the teacher's {wanted} likeliest ids, and the store {store.path} has {scorer.top_k} by "
            f"'{scorer.name}'; score it with --top-k {wanted}, or lower k"
        )


def describe(stored: StoredEpisodes) -> dict[str, Any]:
    """What is trained on, for a dry run."""
    survey = stored.survey
    return {
        "store": str(stored.store.path), "batches": len(stored.batches), "groups": len(survey.units),
        "episodes": survey.episodes, "left_out": survey.left_out, "tokens": survey.tokens,
        "scorers": {role: dataclasses.asdict(scorer.identity) for role, scorer in stored.scorers.items()},
    }  # fmt: skip
