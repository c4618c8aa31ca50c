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
from agentdistill.training.score_store import Added, StoreScoring


def score_run(
    folder: Path, name: str, model: str, batches: list[str], *, top_k: int = 0, entropy: bool = False, as_student: bool = False,
    token_budget: int | None = None, tokenizer: str = "", say: Callable[[str], None] | None = None,
) -> Added:  # fmt: skip
    """Score batches of the store in a run's folder (see `api.score`)."""
    if top_k < 0 or (token_budget is not None and token_budget < 1):
        raise UserError(f"top_k is {top_k} and token_budget {token_budget}; they count ids and tokens, so neither is below 1")
    if is_tiny(model):
        raise UserError(f"model '{model}' would be random weights; name the folder of a trained model")
    about = experiment_of(folder)
    budget = token_budget or about.get("train", {}).get("token_budget") or TrainSection.model_fields["token_budget"].default
    student = tokenizer_of(folder, tokenizer)
    lm = load_model(model)
    require_same_vocabulary(student, lm.tokenizer, model, "scorer")
    console = Console(say)
    try:
        scoring = StoreScoring(
            Store(folder / "store"), TransformersScorer(lm, budget=budget), identify(lm, as_student=as_student), name,
            top_k=min(top_k, lm.vocab_size), entropy=entropy, width=lm.head.in_features, say=console.say,
            tick=lambda done, total: console.tick("score", done, total),
        )  # fmt: skip
        added = scoring.run(batches)
        console.say(str(added))
        return added
    finally:
        console.close()


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
    model = experiment_of(folder).get("student", {}).get("model", "")
    try:
        if model and not is_tiny(model):
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
