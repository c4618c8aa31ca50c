"""Who a model is: digests of its weights and of its vocabulary, which stored scores are held against."""

from __future__ import annotations

import hashlib
import json

import torch
from transformers import PreTrainedTokenizerBase

from agentdistill.policies.model import CausalLM
from agentdistill.store_scores import Identity


def identify(lm: CausalLM, *, as_student: bool = False) -> Identity:
    """Who the model is as it stands in memory; a copy in another folder is the same one.

    Args:
        as_student: whether it reads the student's prompts even where a trajectory has others for its teacher.
    """
    return Identity(lm.name, weights(lm), vocabulary(lm.tokenizer), "student" if as_student else "teacher")


def weights(lm: CausalLM) -> str:
    """SHA-256 of the parameters by name, a tied one once."""
    summary = hashlib.sha256()
    for name, parameter in sorted(lm.named_weights().items()):
        summary.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        summary.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return summary.hexdigest()


def vocabulary(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the tokens with their ids."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()
