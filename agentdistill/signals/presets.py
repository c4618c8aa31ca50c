"""Published combinations of axes, by name. They are only names until one is loaded (`Method.load`).

A preset is a method. What else a paper asks for stands in the experiment: a teacher that sees the plan (OPSD), a reference
(G-OPD, ADPA), cached scores (Lightning). TCOD's two bring their schedule along.
"""

from __future__ import annotations

from typing import Any

from agentdistill.signals.method import register_preset

# OPD's and TCOD's clips are the same, so that a schedule is compared with plain OPD under identical settings.
OPD: dict[str, Any] = {"signal": "opd", "clip_high": 0.2}

register_preset("opd", source='Thinking Machines, "On-Policy Distillation", 2025', **OPD)
register_preset("opd-exact", source="as `opd`, its expectation over the vocabulary", divergence="rkl")
register_preset("tcod", source="arXiv 2604.24005, its loss without a curriculum", **OPD)
register_preset("tcod-f2b", source="arXiv 2604.24005", schedule="tcod-f2b", **OPD)
register_preset("tcod-b2f", source="arXiv 2604.24005", schedule="tcod-b2f", **OPD)

register_preset("sod", source="arXiv 2605.07725", signal="opd", rl="grpo", step_weight="sod")
# SOD is GRPO plus the weighted distillation term; this one differs in that term only, exact instead of sampled.
register_preset("sod-exact", source="ours, after `sod`", divergence="rkl", rl="grpo", step_weight="sod")

register_preset("gkd", source="arXiv 2306.13649", divergence={"kind": "jsd", "beta": 0.5})
register_preset("rkl", source="arXiv 2306.13649", divergence="rkl")
register_preset("fkl", source="arXiv 2306.13649", divergence="fkl")
register_preset("jsd", source="arXiv 2306.13649", divergence={"kind": "jsd", "beta": 0.5})
register_preset("tvd", source="arXiv 2604.00626", divergence="tvd")
register_preset("skew", source="arXiv 2402.03898", divergence={"kind": "skew-rkl", "alpha": 0.1})

register_preset("tip-soft-or", source="arXiv 2604.14084", divergence="rkl", selection={"kind": "tip", "score": "soft-or"})
register_preset("tip-entropy", source="arXiv 2604.14084", divergence="rkl", selection={"kind": "tip", "score": "entropy"})
register_preset("tip-q3", source="arXiv 2604.14084", divergence="rkl", selection={"kind": "tip", "score": "q3", "ratio": 0.2})

register_preset("vopd", source="arXiv 2605.07865", baseline="vopd", **OPD)
register_preset("vopd-topk", source="arXiv 2605.07865", baseline={"kind": "vopd", "top_k": 100}, **OPD)
# At λ = 1 G-OPD is OPD, with the needs and the code path of ExOPD: what that is to be compared with.
register_preset("gopd", source="arXiv 2602.12125", signal={"kind": "g-opd", "lam": 1.0}, clip_high=0.2)
register_preset("exopd", source="arXiv 2602.12125", signal={"kind": "g-opd", "lam": 1.25}, clip_high=0.2)
register_preset("iw-opd", source="arXiv 2606.22600", signal="iw-opd", clip_high=0.2)
register_preset("lightning", source="arXiv 2604.13010", signal="lightning", clip_high=0.2)
register_preset("gated-opd", source="arXiv 2607.04037", gate="gated", **OPD)
register_preset("opsd", source="arXiv 2601.18734", divergence="opsd")

# β(n) = max(5e-3 − 5e-5·n, 1e-3), at its floor from n = 80 on.
ANNEALED: dict[str, Any] = {"kind": "linear", "start": 5e-3, "by": -5e-5, "floor": 1e-3}
register_preset("kdrl", source="arXiv 2506.02208", divergence="k2", rl="grpo", kd_coef=ANNEALED)
register_preset("kdrl-masked", source="arXiv 2506.02208", divergence="k2", rl="grpo", kd_coef=ANNEALED, gate="wrong")
# The paper's α and clip are not known: these are the entry's own α and OPD's clip.
register_preset("rlad", source="arXiv 2602.22495", ratio={"kind": "trrd", "alpha": 0.5}, rl="grpo", clip_high=0.2)

register_preset("grpo", source="arXiv 2402.03300, in SOD's form", rl="grpo")
register_preset("dr-grpo", source="arXiv 2503.20783", rl="dr-grpo", clip_high=0.2)
register_preset("rloo", source="arXiv 2402.14740", rl="rloo", clip_high=0.2)

# ADPA's own term has no minimum but all mass on one id; half of an anchor at the reference is ours.
register_preset("adpa", source="arXiv 2502.17927", divergence={"kind": "adpa", "anchor": 0.5})
# Half the paper's loss, averaged over the pairs of each task. It is the stage before ADPA there.
register_preset(
    "dckd", source="arXiv 2502.17927", divergence={"kind": "dckd", "alpha": 0.2}, gate="paired",
    aggregation="seq-mean-token-mean",
)  # fmt: skip
register_preset("dasd", source="arXiv 2601.09088", divergence="sft")
register_preset("sinkd", source="arXiv 2402.17110", divergence={"kind": "sinkd", "fkl": 1.0})
register_preset("pld", source="arXiv 2506.12542", divergence="pld")
register_preset("logit-std", source="arXiv 2403.01427", divergence="logit-std")
register_preset("eakl", source="arXiv 2605.04062", divergence="eakl")
# On the student's own tokens the cross-entropy has no gradient in expectation.
register_preset("bd-kd", source="arXiv 2212.12965", divergence={"kind": "bd-kd", "ce": 0.0})
