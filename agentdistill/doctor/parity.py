"""Whether an engine's numbers are those of the plain model: the teacher's scores, the sampler's cache, and its log-probs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from agentdistill.doctor.base import Finding, check, fail, ok, skipped, warn
from agentdistill.doctor.patient import SEQUENCES, Patient
from agentdistill.engines.registry import judge
from agentdistill.engines.section import LOCAL
from agentdistill.engines.vllm import dtype_of
from agentdistill.policies.adapter import Adapted
from agentdistill.policies.base import Request, Sample, Sampler, SamplingParams, ScoreRequest
from agentdistill.policies.model import CausalLM
from agentdistill.training.check import check_pair
from agentdistill.training.score import score, sequences_of

TOLERANCE = 2e-3
"""Nats between two engines' log-probs of a token, in fp32."""
_FAR = 2e-2  # a gap of half precision; a wrong temperature or a stale cache makes more
_HALF = 0.25
"""Nats by which an engine that computes in half precision may be off; what is wrong by more is not its rounding."""
_TEMPERATURES = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.5, 2.0)
_CONVERSATIONS, _TURNS, _NEW = 4, 3, 6
_SIZE = 0.05  # of an adapter's numbers


@check("models", "model", after=["chat template"])
def models(patient: Patient) -> Finding:
    """Student, teachers and reference load whole, and take sequences as long as will be played."""
    student, longest = patient.student, patient.experiment.env.max_context
    others = dict(patient.teachers)
    if patient.reference is not None:
        others["reference"] = patient.reference
    for role, lm in others.items():
        check_pair(student, lm, longest, "reference" if role == "reference" else "teacher")
    sizes = (
        f"{role} {sum(p.numel() for p in lm.named_weights().values()):,}" for role, lm in {"student": student, **others}.items()
    )
    return ok(f"parameters: {', '.join(sizes)}")


@check("engines", "model", after=["models"])
def engines(patient: Patient) -> Finding:
    """Who plays the student and who scores for its teachers can be reached, or started."""
    section = patient.experiment.engine
    patient.engines.sampler(patient.student)
    for role in patient.teachers:
        patient.scorer(role)
    return ok(f"the student is played by '{section.kind}'" + (f", scored by '{section.teacher}'" if patient.teachers else ""))


@check("context", "model", after=["engines", "tasks"])
def context(patient: Patient) -> Finding:
    """A teacher that is shown the plan has room for it behind a student's full context."""
    shown = {role: lm for role, lm in patient.teachers.items() if patient.experiment.teacher_roles[role].privileged}
    if not shown:
        return skipped("no teacher is shown more than the student")
    longest = min(patient.experiment.env.max_context, patient.student.context)
    turns = [turn for each in patient.played for turn in each.turns if turn.teacher_prompt_ids is not None]
    plan = max((len(turn.teacher_prompt_ids or ()) - len(turn.prompt_ids) for turn in turns), default=0)
    for role, lm in shown.items():
        if longest + plan > lm.context:
            return warn(
                f"a full context of {longest} tokens and the plan, {plan} tokens here, are longer than the {lm.context} that "
                f"{role} takes, which would end the run; take shorter episodes (env.max_turns, sampling.max_tokens)"
            )
    return ok(f"a full context of {longest} tokens leaves room for the plan, {plan} tokens here")


@check("teacher parity", "model", after=["engines", "tasks"])
def teacher_parity(patient: Patient) -> Finding:
    """The engine's scores of 8 sequences that the student played are those of one plain forward pass in this process."""
    if not patient.teachers:
        return skipped("there is no teacher in this process")
    worst = 0.0
    for role, lm in patient.teachers.items():
        privileged = patient.experiment.teacher_roles[role].privileged
        segments = sequences_of(patient.played)[:SEQUENCES]
        asked = [s.teacher if privileged else ScoreRequest(s.ids.tolist(), s.targets.tolist()) for s in segments]
        given = patient.scorer(role).score(asked)
        logits = [_plain(lm, request) for request in asked]
        ids = [torch.tensor([request.ids[t] for t in request.targets]) for request in asked]
        theirs = torch.cat([each.logprobs.double().cpu() for each in given])
        gap = float((theirs - _picked(logits, ids, 1.0)).abs().max())
        worst = max(worst, gap)
        if not gap <= _allowed(patient):
            return fail(
                f"scores of {role} '{patient.source(role) if role in patient.roles else lm.name}' by engine "
                f"'{judge(patient.experiment.engine).name}' differ from the plain model's by up to {gap:.2g} nats a token; "
                f"{_diagnosis(theirs, logits, ids)}"
            )
    return ok(f"log-probs within {worst:.1e} nats on {min(SEQUENCES, len(patient.played))} sequences")


def _allowed(patient: Patient) -> float:
    """Nats between two engines' log-probs of a token, by what the experiment's engines compute in."""
    section = patient.experiment.engine
    served = section.kind != LOCAL or judge(section).name != LOCAL
    return _HALF if served and dtype_of(section.dtype) is not torch.float32 else TOLERANCE


@torch.no_grad()
def _plain(lm: CausalLM, request: ScoreRequest) -> torch.Tensor:
    """`[targets, V]` logits by the model's own whole forward pass: no cache, no chunks, no padding."""
    with lm.active():
        whole: torch.Tensor = lm.model(input_ids=torch.tensor([list(request.ids)], device=lm.device)).logits[0]
    return whole[torch.tensor(list(request.targets)) - 1].float().cpu()


def _picked(logits: Sequence[torch.Tensor], ids: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
    """`[n]` log-probs of the tokens at a temperature."""
    return torch.cat(
        [
            torch.log_softmax(each.double() / temperature, -1).gather(1, token[:, None])[:, 0]
            for each, token in zip(logits, ids, strict=True)
        ]
    )


def _diagnosis(theirs: torch.Tensor, logits: Sequence[torch.Tensor], ids: Sequence[torch.Tensor]) -> str:
    """Which of the usual mistakes explains the scores, if one does."""
    right = _picked(logits, ids, 1.0)
    for shift, word in ((1, "the token before"), (-1, "the token after")):
        moved = torch.roll(right, shift)[1:-1]
        if len(moved) and float((theirs[1:-1] - moved).abs().median()) <= TOLERANCE:
            return f"they are shifted by one: a token gets the score of {word} it"
    fits = {t: float((theirs - _picked(logits, ids, t)).abs().median()) for t in _TEMPERATURES}
    best = min(fits, key=lambda t: fits[t])
    if fits[best] < 0.3 * float((theirs - right).abs().median()):
        return f"they look like scores at temperature {best:g}; scores are to be taken at 1"
    return "they are another model's, or of other tokens"


@check("prefix cache", "model", after=["engines", "tasks"])
def prefix_cache(patient: Patient) -> Finding:
    """A sampler that keeps its cache across turns says what one without says, and forgets it when the weights change."""
    lm, engines, allowed = patient.student, patient.engines, _allowed(patient)
    exact = allowed == TOLERANCE  # in half precision rounding may change a token
    kept, plain = engines.sampler(lm), engines.sampler(lm, cache=False)
    contexts = [list(t.turns[0].prompt_ids) for t in patient.played[:_CONVERSATIONS]]
    rng = random.Random(0)
    words = [i for i in range(len(lm.tokenizer)) if i not in lm.tokenizer.all_special_ids]
    worst = 0.0
    for turn in range(_TURNS):
        gap, differing = _compared(kept, plain, contexts, turn, exact)
        if differing or not gap <= allowed:
            what = "say other tokens" if differing else f"differ by {gap:.2g} nats"
            return fail(
                f"with a cache kept across turns, the sampler's log-probs are wrong in turn {turn + 1}: they {what} without"
            )
        worst = max(worst, gap)
        for i, context in enumerate(contexts):  # ragged
            context += [rng.choice(words) for _ in range(2 + 3 * ((i + turn) % 3))]
    with _other_weights(lm):
        kept.release()
        plain.release()
        gap, differing = _compared(kept, engines.sampler(lm, cache=False), contexts, _TURNS, exact)
    kept.release()
    if differing or not gap <= allowed:
        return fail("after the weights changed, the sampler still speaks from a cache of the old ones: it is stale")
    return ok(f"log-probs within {worst:.1e} nats with and without, over {_TURNS} turns and a change of weights")


def _compared(kept: Sampler, plain: Sampler, contexts: Sequence[list[int]], turn: int, exact: bool) -> tuple[float, bool]:
    """The largest difference of log-probs, and whether tokens differ; the contexts grow by what was sampled.

    Args:
        exact: whether any token that differs counts; otherwise most of the first ones must.
    """
    params = SamplingParams(temperature=1.0, max_tokens=_NEW)
    requests = [Request(k, list(context), 100 * turn + k, frozenset()) for k, context in enumerate(contexts)]
    ours = kept.generate(requests, params)
    plain.release()
    theirs: list[Sample] = plain.generate(requests, params)
    plain.release()
    for context, sample in zip(contexts, ours, strict=True):
        context += sample.ids
    gaps, unlike = [0.0], 0
    for a, b in zip(ours, theirs, strict=True):
        for i, (x, y) in enumerate(zip(a.logprobs_t1, b.logprobs_t1, strict=False)):
            if a.ids[i] != b.ids[i]:  # what follows has other contexts
                break
            gaps.append(abs(x - y))
        unlike += a.ids != b.ids if exact else a.ids[:1] != b.ids[:1]
    return float(np.max(gaps)), unlike > (0 if exact else len(ours) // 2)


@contextmanager
def _other_weights(lm: CausalLM) -> Iterator[None]:
    """Other weights for a while, as an update would leave them: an adapter, or else the input embeddings."""
    embeddings: Any = lm.model.get_input_embeddings()
    changed = list(lm.own().values()) if isinstance(lm, Adapted) else [embeddings.weight]
    before = [weight.detach().clone() for weight in changed]
    try:
        with torch.no_grad():
            for weight, old in zip(changed, before, strict=True):
                weight.copy_(_waves(old) if isinstance(lm, Adapted) else old.roll(1, 0))
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(changed, before, strict=True):
                weight.copy_(old)


def _waves(weight: torch.Tensor) -> torch.Tensor:
    """Numbers of an adapter's usual size: half of a new one is zeros, which would make none of any change."""
    return _SIZE * torch.sin(torch.arange(weight.numel(), device=weight.device)).view_as(weight)


@check("weight sync", "model", after=["prefix cache"])
def weight_sync(patient: Patient) -> Finding:
    """After the weights have changed, all of what the sampler says is said with the new ones."""
    lm, sampler = patient.student, patient.engines.sampler(patient.student)
    contexts = [list(t.turns[0].prompt_ids) for t in patient.played[:_CONVERSATIONS]]
    asked = [Request(k, context, k, frozenset()) for k, context in enumerate(contexts)]
    sampler.release()
    with _other_weights(lm):
        samples = sampler.generate(asked, SamplingParams(temperature=1.0, max_tokens=_NEW))
        gaps = [_gap(lm, request, sample) for request, sample in zip(asked, samples, strict=True)]
    sampler.release()
    if not max(gaps) <= _allowed(patient):
        return fail(
            f"after the weights changed, the sampler's log-probs are up to {max(gaps):.2g} nats from those of the new weights: "
            "some of the old ones are still in use"
        )
    return ok(f"log-probs within {max(gaps):.1e} nats of the new weights'")


def _gap(lm: CausalLM, request: Request, sample: Sample) -> float:
    """The largest difference between a sample's log-probs and those of the plain model."""
    start = len(request.context)
    ids = [*request.context, *sample.ids]
    logits = _plain(lm, ScoreRequest(ids, range(start, len(ids))))
    ours = _picked([logits], [torch.tensor(sample.ids)], 1.0)
    return float((ours - torch.tensor(sample.logprobs_t1, dtype=torch.float64)).abs().max())


@check("sampler gap", "model", after=["engines", "tasks"])
def sampler_gap(patient: Patient) -> Finding:
    """The trainer gives sampled tokens the log-probs that the sampler gave them."""
    config = patient.experiment
    table = score(patient.student, None, patient.played, config.train.token_budget).table
    gaps = np.abs(table["recomputed"] - table["sampler"])[table.mask]
    worst, mean = float(gaps.max()), float(gaps.mean())
    said = f"sampler and trainer differ by {worst:.1e} nats a token at most, {mean:.1e} on average, over {len(gaps)} tokens"
    if not worst <= max(_FAR, _allowed(patient)):
        return fail(f"{said}; the policy that is trained is not the one that plays")
    return warn(said) if worst > TOLERANCE else ok(said)
