"""vLLM in a process of its own that this one starts: each model that plays or scores has an engine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from agentdistill.engines.guard import Guard, children
from agentdistill.engines.heads import widen_heads
from agentdistill.engines.registry import LanguageModel, Setup
from agentdistill.engines.sampler import ServedSampler
from agentdistill.engines.scorer import ServedScorer
from agentdistill.engines.weights import WeightSync
from agentdistill.engines.wire import Ask, Said
from agentdistill.errors import UserError
from agentdistill.policies.adapter import Adapted
from agentdistill.policies.model import CausalLM

GIB = 1 << 30
_ADAPTER = "student"
_LOOK = 1.0  # seconds between two looks at the processes that are being started
_MEMORY = Path("/dev/shm")  # Linux's memory as a file system
_MORE = "what it says above tells more (VLLM_LOGGING_LEVEL=INFO: all of it)"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks of adapters that vLLM can be started for."""
# Set before vLLM is imported, unless the user did: new processes and no forks of one that has run torch; no chatter; no
# statistics sent; a context of one token more than the model's, since the last token of a scored sequence is never forwarded.
_ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
}  # fmt: skip


def dtype_of(name: str) -> torch.dtype:
    """The weights' type that `engine.dtype` asks for."""
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    found: torch.dtype = getattr(torch, name)
    return found


class AsyncVllm:
    """A `Connection` to vLLM's `AsyncLLM`, whose event loop runs in a thread of this process and whose workers in others.

    Args:
        source: folder or hub id of a model.
        name: how errors call it.
        context: tokens of a context and its answer together, at most.
        top: likeliest ids that may be asked for.
        lora: rank of the adapter that may be loaded.
        guard: is told of the processes that vLLM starts.

    Raises:
        UserError: when vLLM cannot be started.
    """

    def __init__(
        self, source: str, name: str, context: int, setup: Setup, *,
        top: int = 0, lora: int | None = None, guard: Guard | None = None,
    ) -> None:  # fmt: skip
        for key, value in _ENVIRONMENT.items():
            os.environ.setdefault(key, value)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        section = setup.section
        self.name, self.context, self._numbers = name, context, itertools.count()
        self._adapter: Any = None
        self._transfer = _transfer() if section.transfer == "memory" else None
        cache = section.cache or (0 if torch.cuda.is_available() else 1)
        repository, _, revision = source.partition("@")
        arguments: dict[str, Any] = {
            "model": repository, "revision": revision or None, "dtype": str(dtype_of(section.dtype)).partition(".")[2],
            "max_model_len": context, "skip_tokenizer_init": True, "generation_config": "vllm", "disable_log_stats": True,
            "max_logprobs": max(1, top), "use_tqdm_on_load": False, "logprobs_mode": "raw_logprobs",
            "kv_cache_memory_bytes": int(cache * GIB) if cache else None,
            **({} if torch.cuda.is_available() else {"enforce_eager": True, "block_size": 32}),
            **({"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(lora)} if lora else {}),
            **(self._transfer.arguments() if self._transfer else {}),
        }  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"vllm {name}", daemon=True)
        self._thread.start()

        async def start() -> Any:  # within the loop, where its output handler is to run
            llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**{**arguments, **section.options}))
            if self._transfer:
                await self._transfer.begin(llm)
            return llm

        try:
            self._llm: Any = self._guarded(start(), guard)
        except Exception as error:
            self._stop()
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"vLLM could not be started ({name}): {reason}; {_MORE}") from error
        except BaseException:
            self._stop()
            raise

    def ask(self, asks: Sequence[Ask]) -> list[Said]:
        """See `Connection`."""

        async def all_of_them() -> list[Said]:
            return list(await asyncio.gather(*(self._one(each) for each in asks)))

        answers: list[Said] = self._answered(all_of_them())
        return answers

    def load(self, folder: Path) -> None:
        """See `Connection`."""
        if self._transfer:
            self._answered(self._transfer.send(self._llm, folder))
        else:
            self._answered(self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)}))
        self.forget()

    def load_adapter(self, folder: Path) -> None:
        """See `Connection`; the adapter before is replaced where it lies."""
        from vllm.lora.request import LoRARequest

        self._answered(self._llm.add_lora(LoRARequest(_ADAPTER, 1, str(folder), load_inplace=True)))
        self._adapter = LoRARequest(_ADAPTER, 1, str(folder))
        self.forget()

    def forget(self) -> None:
        """Drop what was computed so far: it is of other weights."""
        if not self._answered(self._llm.reset_prefix_cache()):
            raise UserError(f"{self.name} was still computing when its weights changed; nothing may be asked meanwhile")

    def close(self) -> None:
        """See `Connection`."""
        self._run(_cancelled())  # before the engine is gone, or its readers complain of it
        self._llm.shutdown()
        self._stop()
        del self._llm

    async def _one(self, ask: Ask) -> Said:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        scoring = ask.prompt_top is not None
        params = SamplingParams(
            max_tokens=ask.max_tokens, temperature=ask.temperature, top_p=ask.top_p, top_k=ask.top_k, seed=ask.seed,
            stop_token_ids=sorted(ask.stop_ids), ignore_eos=True, logprobs=None if scoring else 0,
            prompt_logprobs=ask.prompt_top, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY,
            skip_reading_prefix_cache=not ask.cached,
        )  # fmt: skip
        last: Any = None
        prompt, number = {"prompt_token_ids": list(ask.ids)}, f"{next(self._numbers)}"
        async for output in self._llm.generate(prompt, params, number, lora_request=self._adapter):
            last = output
        said = last.outputs[0]
        ids = [int(token) for token in said.token_ids]
        if scoring:
            return Said(ids, [], [{i: each.logprob for i, each in (row or {}).items()} for row in last.prompt_logprobs])
        return Said(ids, [row[i].logprob for i, row in zip(ids, said.logprobs, strict=True)])

    def _answered(self, what: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self._run(what)
        except Exception as error:
            if isinstance(error, UserError):
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(f"{self.name} failed: {reason}; {_MORE}") from error

    def _run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()

    def _guarded(self, what: Coroutine[Any, Any, Any], guard: Guard | None) -> Any:
        """What vLLM starts meanwhile is guarded as soon as it is there, and ended where the start is given up."""
        before, future = set(children()), asyncio.run_coroutine_threadsafe(what, self._loop)
        told = set(before)
        try:
            while True:
                done = wait([future], _LOOK).done
                if guard is not None:
                    new = set(children()) - told
                    guard.processes(new)
                    told |= new
                if done:
                    return future.result()
        except BaseException:
            for each in set(children()) - before:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _transfer() -> Any:
    """The module that speaks vLLM's weight-transfer API; it cannot be imported without vLLM."""
    from agentdistill.engines import transfer

    return transfer


async def _cancelled() -> None:
    """End whatever else runs in this event loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _rank(wanted: int) -> int:
    for rank in _RANKS:
        if rank >= wanted:
            return rank
    raise UserError(f"student.lora.r is {wanted}, and vLLM takes adapters of rank {_RANKS[-1]} at most")


@dataclass(frozen=True, slots=True)
class _Model:
    """A model that has an engine."""

    lm: LanguageModel
    connection: AsyncVllm
    sync: WeightSync | None

    def up_to_date(self) -> None:
        if self.sync is not None:
            self.sync()


class VllmEngine:
    """An `Engine` that starts vLLM for each model that it is asked about, once."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._models: dict[int, _Model] = {}
        self._guard: Guard | None = None

    def sampler(self, lm: LanguageModel, *, cache: bool = True) -> ServedSampler:
        """See `Engine`."""
        model = self._model(lm)
        return ServedSampler(lm, model.connection, sync=model.up_to_date, cache=cache, budget=self._setup.budget)

    def scorer(self, lm: LanguageModel, *, width: int = 0) -> ServedScorer:
        """See `Engine`."""
        model, setup = self._model(lm), self._setup
        model.up_to_date()
        return ServedScorer(lm, model.connection, budget=setup.budget, top=setup.top, width=width)

    def close(self) -> None:
        """See `Engine`."""
        models, self._models = self._models, {}
        with contextlib.ExitStack() as stack:  # one that fails keeps no other from its end
            for model in models.values():
                stack.callback(model.connection.close)
                if model.sync is not None:
                    stack.callback(model.sync.close)
        if self._guard is not None:  # where one failed, it has work to do when this process ends
            self._guard.close()
            self._guard = None

    def _model(self, lm: LanguageModel) -> _Model:
        if id(lm) not in self._models:
            self._models[id(lm)] = self._started(lm)
        return self._models[id(lm)]

    def _started(self, lm: LanguageModel) -> _Model:
        setup = self._setup
        context = min(lm.context, max(setup.context, setup.scored)) + 1
        name = f"vLLM's engine of model '{lm.name}'"
        setup.say(f"starting {name}")
        guard = self._guard = self._guard or Guard()
        if not isinstance(lm, CausalLM):
            return _Model(lm, AsyncVllm(lm.name, name, context, setup, top=setup.top, guard=guard), None)
        dtype, exchange = dtype_of(setup.section.dtype), setup.section.exchange
        if setup.section.transfer == "memory" and not exchange and _MEMORY.is_dir():
            exchange = str(_MEMORY)
        reshape = None if torch.cuda.is_available() else widen_heads
        lora = setup.lora if isinstance(lm, Adapted) else None
        if lora and reshape is not None and getattr(lm.model.config, "head_dim", None) == 16:
            raise UserError(
                f"vLLM on a CPU takes no adapter of model '{lm.name}', whose heads are of 16; take engine.kind local"
            )
        sync = WeightSync(lm, dtype, exchange, reshape, private=True)
        guard.folder(sync.folder)
        try:
            with sync.written() as folder:
                connection = AsyncVllm(str(folder), name, context, setup, top=setup.top, lora=lora, guard=guard)
        except BaseException:
            sync.close()
            raise
        sync.to(connection)
        return _Model(lm, connection, sync)


def open_vllm(setup: Setup) -> VllmEngine:
    """See `EngineSpec`."""
    return VllmEngine(setup)
