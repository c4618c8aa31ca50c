"""What the program itself spends on an iteration's episodes: tables, a method's columns, metrics, the store."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from agentdistill.config import Experiment
from agentdistill.cost.episodes import made_up
from agentdistill.cost.work import Work
from agentdistill.errors import UserError
from agentdistill.policies.base import ScoreRequest, TeacherScores
from agentdistill.signals import Method
from agentdistill.store import Store
from agentdistill.training.loop import batch_metrics
from agentdistill.training.score import score

_EPISODES = 16  # that are measured at most
_LENGTH = 1024  # tokens of a measured episode at most; longer ones take as much longer


class _Guess:
    """A scorer without a model, so that what is measured is all the rest."""

    name, capabilities = "guess", frozenset({"teacher", "distribution"})

    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        return [TeacherScores(-torch.rand(len(each.targets)), torch.rand(len(each.targets))) for each in requests]


def own_seconds(config: Experiment, work: Work) -> float:
    """Seconds an iteration of this machine's Python, by the functions themselves, over made-up episodes and no model.

    A method that refuses such episodes is left out.
    """
    whole, n = work.lengths, min(work.episodes, _EPISODES)
    longer = max(1.0, whole.read / _LENGTH)
    turns, written, read = (each / longer for each in (whole.turns, whole.written, whole.read))
    rows = made_up(n, dataclasses.replace(whole, turns=turns, written=written, read=read), round(whole.contexts))
    method, scorer, rng = Method.load(config.method), _Guess(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        store = Store(Path(folder) / "store")

        def once() -> float:
            began = time.perf_counter()
            scored = score(
                cast(Any, None), scorer, rows, config.train.token_budget, measures=method.measures, reference=scorer, later=True
            )
            assert scored.student is not None
            for values in scored.student.values.values():
                values[:] = -rng.random(len(values))
            scored.settle()
            try:
                streams = method.apply(scored.table, 1)
            except UserError:
                return time.perf_counter() - began
            json.dumps(batch_metrics(rows, rows, scored, streams, True))
            if config.train.keep_rollouts:
                store.write("plan", rows)
            return time.perf_counter() - began

        once()
        return min(once(), once()) * longer * work.episodes / n
