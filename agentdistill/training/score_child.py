"""What each of several scoring processes runs: it loads the model, and is sent portions over a link until that ends."""

from __future__ import annotations

import contextlib
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection

from agentdistill import child
from agentdistill.errors import UserError
from agentdistill.store_scores import Identity
from agentdistill.training.score_portion import Columns, PortionScorer

CODE = "from agentdistill.training.score_child import serve; serve()"


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is told first.

    Attributes:
        store: its folder.
        name: of the scorer in the store.
        model: reference it is loaded by.
        identity: who that has to be.
        columns: what is kept of its answers.
        budget: tokens of one forward pass.
    """

    store: str
    name: str
    model: str
    identity: Identity
    columns: Columns
    budget: int


def serve() -> None:
    """Answer portions with `Done`, numbers of tokens read in between, and a sentence when there is no going on."""
    number, parent = map(int, sys.argv[1:])
    if not child.end_with(parent):
        return
    with Connection(number) as link, contextlib.suppress(EOFError, ConnectionError):  # the parent may be gone at any moment
        try:
            _serve(link)
        except UserError as error:
            link.send(str(error))
        except (EOFError, ConnectionError):
            raise
        except Exception as error:
            traceback.print_exc()
            link.send(f"a scoring process failed with {type(error).__name__}: {error}; its own lines are above")


def _serve(link: Connection) -> None:
    from agentdistill.policies.identity import identify
    from agentdistill.policies.load import load_model
    from agentdistill.policies.scorer import TransformersScorer
    from agentdistill.store import Store

    job: Job = link.recv()
    lm = load_model(job.model)
    if identify(lm, as_student=job.columns.as_student) != job.identity:
        raise UserError(f"model '{job.model}' changed while its scoring processes loaded it; score again")
    scorer = TransformersScorer(lm, budget=job.budget, passed=link.send)
    portions = PortionScorer(Store(job.store), scorer, job.name, job.columns)
    while True:
        link.send(portions.score(link.recv()))
