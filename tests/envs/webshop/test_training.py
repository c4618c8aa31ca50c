from __future__ import annotations

import json
import math
from pathlib import Path

import agentdistill as ad
from tests.envs.webshop import shop

EXPERIMENT = Path(__file__).parents[3] / "experiments" / "webshop" / "tiny.yaml"


def test_one_iteration_of_the_experiment_trains_a_student(tmp_path: Path):
    shop.require()
    run = ad.train(EXPERIMENT, out=tmp_path / "run")
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    (iteration,) = [line for line in lines if line["kind"] == "iteration"]
    assert math.isfinite(iteration["loss"])
    assert iteration["grad_norm"] > 0
    assert run.summary["after"]["tasks"] == 4
