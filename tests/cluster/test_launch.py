"""The files of docs/launch: shells and YAML read them, and the commands and options that they name exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentdistill import cli, config
from tests.needs import needs

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "docs" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sbatch"))
VALUES = {"$experiment": "experiments/tiny.yaml", "/data/experiment.yaml": "experiments/tiny.yaml", "$out": "runs/x"}


def commands(text: str) -> list[list[str]]:
    """Words of a script's lines, those that go on joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [shlex.split(line, comments=True) for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def job() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((LAUNCH / "kuberay.yaml").read_text())
    return found


def trained(words: list[str]) -> Any:
    """The experiment that a command line trains."""
    command: Any = cli._command([VALUES.get(word, word) for word in words])
    assert isinstance(command, cli.Train)
    return config.load_experiment(ROOT / command.experiment, config.parse_overrides(command.overrides))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_shell_reads_the_script_and_it_says_how_it_is_submitted(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert f"sbatch docs/launch/{script.name} " in script.read_text()


def test_the_runs_that_they_start_are_experiments_on_a_cluster() -> None:
    (slurm,) = [words for words in commands((LAUNCH / "ray.sbatch").read_text()) if words[0] == "agentdistill"]
    engines = [trained(slurm[1:]).engine, trained(shlex.split(job()["spec"]["entrypoint"])[1:]).engine]
    assert all(engine.kind == "ray" and engine.ray.samplers > 1 and engine.ray.gpus_per_sampler for engine in engines)
    (torchrun,) = [words for words in commands((LAUNCH / "torchrun.sbatch").read_text()) if words[0] == "torchrun"]
    module = torchrun.index("-m")
    assert torchrun[module + 1] == "agentdistill"
    assert trained(torchrun[module + 2 :]).env.workers == 16


def test_torchrun_takes_its_options() -> None:
    from torch.distributed.run import get_args_parser

    (torchrun,) = [words for words in commands((LAUNCH / "torchrun.sbatch").read_text()) if words[0] == "torchrun"]
    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    assert {word for word in torchrun[: torchrun.index("-m")] if word.startswith("-")} <= known


def test_ray_takes_its_options() -> None:
    needs("ray", "pip install 'agentdistill[ray]'")
    from ray.scripts.scripts import healthcheck, start

    known = {option for parameter in start.params for option in parameter.opts}
    lines = commands((LAUNCH / "ray.sbatch").read_text())
    started = [words[words.index("start") :] for words in lines if "start" in words]
    assert len(started) == 2
    given = {word.partition("=")[0] for words in started for word in words if word.startswith("--")}
    assert given <= known
    assert healthcheck.name == "health-check"
    assert {"--" + name for group in groups() for name in group["rayStartParams"]} <= known


def groups() -> list[dict[str, Any]]:
    cluster = job()["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_the_job_reserves_no_more_than_its_pods_have() -> None:
    from agentdistill.cluster.connect import Node
    from agentdistill.cluster.placement import places, shortage

    engine = trained(shlex.split(job()["spec"]["entrypoint"])[1:]).engine
    nodes = []
    for group in groups():
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        gpus = group["rayStartParams"].get("num-gpus", limits["nvidia.com/gpu"])
        about = {"CPU": float(limits["cpu"]), "GPU": float(gpus)}
        nodes += [Node(str(i), group.get("groupName", "head"), about) for i in range(group.get("replicas", 1))]
        assert container["volumeMounts"][0]["name"] == group["template"]["spec"]["volumes"][0]["name"]
    assert shortage(places(engine, 1), nodes) == ""
