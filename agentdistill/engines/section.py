"""The `engine` section of an experiment: where its roles run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from agentdistill.section import Section

LOCAL = "local"


class EngineSection(Section):
    """Where the roles run (see docs/engines.md). The trainer is in this process, on a GPU when there is one."""

    kind: str = Field(LOCAL, min_length=1, description="who plays the student: local, vllm or vllm-server")
    threads: int = Field(0, ge=0, le=4096, description="CPU threads for torch; 0: its own choice")
    async_rollouts: bool = Field(False, description="episodes at their own pace; needs env.workers (see docs/speed.md)")
    overlap: bool = Field(False, description="play the next episodes during the update, one step off policy")
    teacher: str = Field(
        LOCAL,
        min_length=1,
        description="who scores for teachers that are not the student's own weights: local (full distributions), vllm, "
        "or the URL of a server that returns prompt log-probs",
    )
    url: str = Field("", description="of kind vllm-server: where the server is, such as http://127.0.0.1:8000/v1")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="vLLM's; auto: float32 on a CPU, bfloat16 on a GPU"
    )
    cache: float = Field(0, ge=0, description="GiB of vLLM's key-value cache; 0: 1 on a CPU, its own choice on a GPU")
    exchange: str = Field(
        "", description="folder that trainer and vLLM both see, for new weights; by default a temporary one of this machine"
    )
    transfer: Literal["files", "memory"] = Field(
        "files", description="how kind vllm gets new weights: read again from files, or by its weight-transfer API from memory"
    )
    timeout: float = Field(600, gt=0, description="seconds that a server's answer may take")
    options: dict[str, Any] = Field(
        default_factory=dict, description="further arguments of vLLM's engine, such as {tensor_parallel_size: 2}"
    )
