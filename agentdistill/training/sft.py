"""Supervised training on expert demonstrations: makes a teacher, or warms a student up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from agentdistill.config import SftSection
from agentdistill.console import Console
from agentdistill.demonstrations import Example
from agentdistill.errors import UserError
from agentdistill.intervals import Rate
from agentdistill.policies.model import CausalLM
from agentdistill.policies.shared import budget_batches, states_at
from agentdistill.seeds import derive, permutation
from agentdistill.training.head import backward_through_head
from agentdistill.training.journal import Journal
from agentdistill.training.optim import adamw, apply_step, lr_factor
from agentdistill.training.state import load_state, require_finite, save_state

LOG_EVERY = 10


def supervise(
    lm: CausalLM,
    data: Sequence[Example],
    config: SftSection,
    journal: Journal,
    *,
    role: str,
    seed: int,
    budget: int,
    validate: Callable[[int], Rate],
    console: Console,
) -> None:
    """Train `lm` in place on the examples' target tokens (mean cross-entropy in nats), resuming from a checkpoint.

    Args:
        role: `teacher` or `student`, for logs and checkpoints.
        budget: tokens that one pass computes.
        validate: success on validation tasks after a step; called every `eval_every` steps, and able to end the training
            when `stop_at_success` is set.
    """
    if config.stop_at_success is not None and not config.eval_every:
        raise UserError(f"{role}.sft.stop_at_success needs {role}.sft.eval_every, or success is never measured")
    data = [example for example in data if any(example.target[1:])]
    if not data:
        raise UserError(f"no demonstration for the {role} holds an expert's message; env.max_context may be too small")
    stage = f"sft-{role}"
    optimizer = adamw(lm.model, config.lr, config.betas, config.weight_decay)
    start = 0
    if (point := journal.resume_point(stage, config.steps - 1)) is not None:
        folder, start, _ = point
        load_state(folder, lm, optimizer)
    batches = _batches(data, config, seed, start)
    for step in range(start, config.steps):
        lm.model.train(False)  # gradients flow all the same; dropout would make a resumed run another run
        batch = next(batches)
        loss, tokens = _backward(lm, batch, budget)
        lr = config.lr * lr_factor(step, config.steps, config.warmup, config.lr_schedule)
        norm = apply_step(optimizer, lr, config.grad_clip, f"SFT step {step + 1} of the {role}")
        done = step + 1
        validating = bool(config.eval_every) and (done % config.eval_every == 0 or done == config.steps)
        saving = done % config.checkpoint_every == 0 and done < config.steps
        if validating or saving or done == config.steps:
            require_finite(lm, batch[0].ids, f"SFT step {done} of the {role}", f"{role}.sft.lr")
        if done % LOG_EVERY == 0 or done == config.steps:
            journal.metric("sft", role=role, step=done, loss=loss, lr=lr, grad_norm=norm, tokens=tokens)
        rate = None
        if validating:
            rate = validate(done)
            journal.metric("sft_eval", role=role, step=done, **rate.as_dict())
        if done % (10 * LOG_EVERY) == 0 or rate is not None:
            note = f", validation success {rate}" if rate is not None else ""
            console.say(f"{role} SFT {done}/{config.steps}: loss {loss:.3f} nats/token{note}")
        console.tick(f"{role} SFT", done, config.steps)
        if rate is not None and config.stop_at_success is not None and rate.success >= config.stop_at_success:
            console.close()
            return
        if saving:
            journal.checkpoint(stage, done, lambda path: save_state(path, lm, optimizer), {})
    if config.stop_at_success is not None:
        console.say(f"{role} SFT ended without reaching validation success {config.stop_at_success:.2f}")


def _batches(data: Sequence[Example], config: SftSection, seed: int, start: int) -> Iterator[list[Example]]:
    """Batches from `start` on; each epoch is shuffled by its own seed, and a batch may span two epochs."""
    at = start * config.batch
    while True:
        batch = []
        for _ in range(config.batch):
            epoch, place = divmod(at, len(data))
            batch.append(data[permutation(len(data), derive(seed, "sft-epoch", epoch))[place]])
            at += 1
        yield batch


def _backward(lm: CausalLM, batch: Sequence[Example], budget: int) -> tuple[float, int]:
    """Add the gradient of the mean cross-entropy over target tokens to `.grad`; that mean in nats, and how many they are.

    Args:
        budget: tokens that one pass computes (see `budget_batches`).
    """
    sequences = [example.ids for example in batch]
    # Nothing precedes the first token; the others are predicted one position before theirs.
    columns = [np.flatnonzero(example.target[1:]) for example in batch]
    count, total = sum(map(len, columns)), 0.0
    for group in budget_batches(sequences, budget, lm.packed):
        wanted = torch.tensor([sequences[i][at + 1] for i in group for at in columns[i]], device=lm.device)

        def loss(part: slice, logits: torch.Tensor, wanted: torch.Tensor = wanted) -> torch.Tensor:
            nonlocal total
            share = F.cross_entropy(logits, wanted[part], reduction="sum") / count
            total += float(share.detach())
            return share

        states = states_at(lm, [sequences[i] for i in group], [columns[i] for i in group])
        backward_through_head(lm, states, loss)
    return total, count
