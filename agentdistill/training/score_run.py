"""Scoring a run's store with another model: what the run's own folder says about its tokens, and the model that is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from agentdistill import yamltext
from agentdistill.config import TrainSection
from agentdistill.console import Console
from agentdistill.errors import UserError
from agentdistill.policies.identity import identify
from agentdistill.policies.load import is_tiny, load_model, load_tokenizer
from agentdistill.policies.model import require_same_vocabulary
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.store import Store
from agentdistill.training.score_portion import Columns
from agentdistill.training.score_store import Added, StoreScoring, in_this_process
from agentdistill.training.score_workers import in_processes, job_for


def score_run(
    folder: Path, name: str, model: str, batches: list[str], *, top_k: int = 0, entropy: bool = False, as_student: bool = False,
    token_budget: int | None = None, tokenizer: str = "", workers: int = 0, say: Callable[[str], None] | None = None,
) -> Added:  # fmt: skip
    """Score batches of the store in a run's folder (see `api.score`)."""
    if top_k < 0:
        raise UserError(f"top_k is {top_k}; it is how many of the likeliest ids are kept, 0 or more")
    if token_budget is not None and token_budget < 1:
        raise UserError(f"token_budget is {token_budget}; it is how many tokens are read in one pass, 1 or more")
    if is_tiny(model):
        raise UserError(f"model '{model}' would be random weights; name the folder of a trained model")
    if workers < 0:
        raise UserError(f"workers is {workers}; it is a number of processes, 0 or more")
    store = Store(folder / "store")
    if not batches:
        raise UserError(f"'{folder}' holds no stored episodes, so there is nothing to score")
    stored = setting(folder, "train", "token_budget")
    budget = token_budget or (stored if isinstance(stored, int) and stored > 0 else TrainSection().token_budget)
    student = tokenizer_of(folder, tokenizer)
    lm = load_model(model)
    require_same_vocabulary(student, lm.tokenizer, model, "scorer")
    columns, identity = Columns(min(top_k, lm.vocab_size), entropy, as_student), identify(lm, as_student=as_student)
    console = Console(say)
    try:
        scoring = StoreScoring(
            store, identity, name, columns, width=lm.head.in_features, processes=max(1, workers), say=console.say,
            tick=lambda done, total, rate: console.tick(f"score, {rate:,.0f} tokens/s", done, total),
        )  # fmt: skip
        if workers:
            del lm  # each process has its own
            job = job_for(store.path, name, model, identity, columns=columns, budget=budget)
            added = scoring.run(batches, in_processes(workers, job, scoring.passed))
        else:
            scorer = TransformersScorer(lm, budget=budget, passed=scoring.passed)
            added = scoring.run(batches, in_this_process(store, scorer, name, columns))
        console.say(str(added))
        return added
    finally:
        console.close()


def setting(folder: Path, section: str, field: str) -> Any:
    """A field of a run's experiment, unchecked; None where there is none or it cannot be read."""
    found = experiment_of(folder).get(section)
    return found.get(field) if isinstance(found, dict) else None


def experiment_of(folder: Path) -> dict[str, Any]:
    """The experiment of a run's folder as it was written, unchecked; empty where it cannot be read."""
    try:
        raw = yamltext.read((folder / "experiment.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UserError):
        return {}
    return raw if isinstance(raw, dict) else {}


def tokenizer_of(folder: Path, named: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer whose ids a run's store holds: the student's.

    Args:
        named: the model to take it from instead of what the folder says.

    Raises:
        UserError: when it is nowhere to be found.
    """
    if named:
        return load_tokenizer(named)
    for own in ("final", "student", "tokenizer"):
        if (folder / own / "tokenizer_config.json").is_file():
            return _plain_tokenizer(folder / own)
    model = setting(folder, "student", "model")
    try:
        if isinstance(model, str) and model and not is_tiny(model):
            return load_tokenizer(model)
    except UserError as error:
        raise UserError(
            f"'{folder}' does not hold its student's tokenizer, and {error}; name a model with it by --tokenizer"
        ) from error
    raise UserError(f"'{folder}' does not say whose tokens its store holds; name a model with their tokenizer by --tokenizer")


def _plain_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"the tokenizer in '{folder}' cannot be read; name a model with it by --tokenizer") from error
