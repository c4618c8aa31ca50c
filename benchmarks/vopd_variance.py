"""How much quieter vOPD's baseline makes the policy gradient, on a real batch.

The batch is what an experiment's student plays, scored by the experiment's teacher. At every token of it the student draws
anew, many times; each draw gives the batch's gradient once under OPD's advantage `r = log T(a) − log π(a)` and once under
vOPD's `r + KL(π‖T)` (arXiv 2605.07865), token-mean, in the parameters of the last layer and the final norm. Compared is the
trace of the gradient's covariance over draws. The mean is the same for both, the reverse KL's gradient, which is known exactly:
how far the two means end up from it says whether the comparison can be believed.

    python benchmarks/vopd_variance.py [experiments/smollm2/textworld.yaml] [--draws 256]

Last line: one JSON object with `variance_ratio`, vOPD's trace over OPD's.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agentdistill.config import load_experiment
from agentdistill.policies.load import is_tiny
from agentdistill.policies.model import CausalLM, pad_right
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.rollout import Task
from agentdistill.seeds import derive
from agentdistill.training.score import Scored, score, trainable
from agentdistill.training.session import Session

HERE = Path(__file__).parent.parent


def batch(path: str, folder: str) -> tuple[CausalLM, Scored]:
    """The student, and a batch that it has played and the teacher scored."""
    config = load_experiment(path)
    session = Session(config, Path(folder), resume=False)
    try:
        assert config.teacher is not None
        own = session.tokenizer() if is_tiny(config.student.model) or is_tiny(config.teacher.model) else None
        student = session.model("student", config.student, own)
        teacher = copy.deepcopy(student)
        if config.teacher.model != "initial":
            teacher = session.model("teacher", config.teacher, own)
        seeds = session.seeds(config.env.split, config.train.tasks)
        tasks = [Task(seed, derive(config.seed, "rollout", seed), group=i) for i, seed in enumerate(seeds)]
        played = session.rollout(student, config.teacher.privileged).run(tasks, config.sampling, "batch")
        budget = config.train.token_budget
        return student, score(student, TransformersScorer(teacher, budget=budget), trainable(played), budget)
    finally:
        session.close()


def compare(lm: CausalLM, scored: Scored, draws: int) -> dict[str, Any]:
    """Variances of both gradients, and how far their means are from the exact one."""
    model: Any = lm.model
    subset = [*model.model.layers[-1].parameters(), *model.model.norm.parameters()]
    model.requires_grad_(False)
    for p in subset:
        p.requires_grad_(True)
    states, theirs = [], []
    for sequence, answer in zip(scored.sequences, scored.answers or [], strict=True):
        hidden = lm.hidden(pad_right([sequence.ids.tolist()], lm.device))
        states.append(hidden[0, torch.as_tensor(sequence.targets - 1)])
        assert answer.distribution is not None
        theirs.append(answer.distribution.logprobs(slice(None)))
    given = torch.cat(states)
    with torch.no_grad():
        ours = torch.log_softmax(lm.logits(given), -1)
        ratio, probs = torch.cat(theirs) - ours, ours.exp()
        kl = -(probs * ratio).sum(-1)
        middle = probs @ lm.head.weight  # ∇ log π(a) at a hidden state is W_a − Σ π W

    def gradient(at_states: Tensor) -> Tensor:
        parts = torch.autograd.grad(given, subset, at_states / len(given), retain_graph=True)
        return torch.cat([g.flatten() for g in parts]).double()

    with torch.no_grad():
        exact_at = (probs * ratio) @ lm.head.weight + kl[:, None] * middle
    exact = gradient(exact_at)
    sums = {name: [torch.zeros_like(exact), 0.0] for name in ("opd", "vopd")}  # Σ (g − exact), Σ |g − exact|²
    chance = torch.Generator().manual_seed(0)
    for _ in range(draws):
        ids = torch.multinomial(probs, 1, generator=chance)[:, 0]
        slope = lm.head.weight.detach()[ids] - middle
        r = ratio.gather(1, ids[:, None])
        for name, advantage in (("opd", r), ("vopd", r + kl[:, None])):
            off = gradient(advantage * slope) - exact
            sums[name][0] += off
            sums[name][1] += float(off @ off)
    trace = {n: (square - float(total @ total) / draws) / (draws - 1) for n, (total, square) in sums.items()}
    bias = {n: float((total / draws).norm()) / (trace[n] / draws) ** 0.5 for n, (total, _) in sums.items()}
    return {
        "tokens": len(given), "parameters": len(exact), "draws": draws, "kl": round(float(kl.mean()), 4),
        "opd_variance": trace["opd"], "vopd_variance": trace["vopd"], "gradient_norm_squared": float(exact @ exact),
        # 1 is what chance leaves of an unbiased mean
        "opd_off_mean": round(bias["opd"], 3), "vopd_off_mean": round(bias["vopd"], 3),
        "variance_ratio": round(trace["vopd"] / trace["opd"], 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", default=str(HERE / "experiments" / "smollm2" / "textworld.yaml"))
    parser.add_argument("--draws", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lm, scored = batch(arguments.experiment, str(Path(folder) / "run"))
    found = compare(lm, scored, arguments.draws)
    print(json.dumps({"benchmark": "vopd_variance", "experiment": arguments.experiment, **found}))


if __name__ == "__main__":
    main()
