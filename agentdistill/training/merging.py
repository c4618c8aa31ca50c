"""An adapter added to the weights it belongs to: an ordinary model that needs neither the adapter nor its base."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from agentdistill.errors import UserError
from agentdistill.policies.adapter import CONFIG, Adapted, is_adapter
from agentdistill.policies.base import ScoreRequest
from agentdistill.policies.load import load_model
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.training.state import save_model

TOLERANCE = 1e-3
"""Nats by which a log-prob may change: fp32 sums in another order move one by 1e-6, and by more only in a broken model."""
_PROBES, _LENGTH = 4, 32


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged model's folder, the adapter's base, and the largest change of a log-prob in nats over `tokens` random tokens."""

    folder: Path
    base: str
    change: float
    tokens: int


def merge_adapter(source: str, out: Path) -> Merged:
    """Write the adapter's model as whole fp32 weights with its tokenizer, once it is seen to say the same.

    Args:
        source: folder of an adapter, or of a run that ended in one.
        out: a folder that does not exist yet, or is empty.

    Raises:
        UserError: when `source` is no adapter, `out` holds something, or merging changes what the model says.
    """
    ref = str(Path(source) / "final") if (Path(source) / "final").is_dir() else source
    if not is_adapter(ref):
        what = "is a whole model already" if (Path(ref) / "config.json").is_file() else f"holds no {CONFIG}"
        raise UserError(f"'{ref}' {what}, so there is no LoRA adapter to merge")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' already holds something; choose another --out, or remove it first")
    lm = load_model(ref)
    assert isinstance(lm, Adapted)
    before, base = _said(lm), lm.base
    merged = lm.merged()
    change = max(abs(a - b) for a, b in zip(before, _said(merged), strict=True))
    if not change < TOLERANCE:
        raise UserError(
            f"merged weights of '{ref}' change log-probs by up to {change:.1e} nats; the adapter or its base is broken"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_model(out, merged)
    return Merged(out, base, change, len(before))


def _said(lm: CausalLM) -> list[float]:
    """Log-probs of tokens drawn at random, in nats."""
    rng, width, length = random.Random(0), len(lm.tokenizer), min(_LENGTH, lm.context)
    asked = [ScoreRequest([rng.randrange(width) for _ in range(length)], range(1, length)) for _ in range(_PROBES)]
    return [float(value) for scores in TransformersScorer(lm).score(asked) for value in scores.logprobs]
