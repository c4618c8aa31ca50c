"""The `engine` section of an experiment: where its roles run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from agentdistill.section import Section

LOCAL = "local"


class RaySection(Section):
    """How many actors each role has on a Ray cluster, and what one of them takes of it (see docs/scale.md)."""

    samplers: int = Field(1, ge=0, le=4096, description="actors that play the student; 0: it is played in this process")
    teachers: int = Field(1, ge=0, le=4096, description="actors of each teacher; 0: teachers are scored by engine.teacher")
    environments: int = Field(0, ge=0, le=256, description="actors that hold the environments, instead of env.workers")
    trainers: int = Field(0, ge=0, le=4096, description="ranks that train, a shard of the student each; 0: this process trains")
    cpus_per_sampler: float = Field(1, gt=0, description="CPUs of a sampler, whole ones as torch's threads")
    gpus_per_sampler: float = Field(0, ge=0, description="GPUs of a sampler, or a share of one")
    cpus_per_teacher: float = Field(1, gt=0, description="CPUs of a teacher's actor")
    gpus_per_teacher: float = Field(0, ge=0, description="GPUs of a teacher's actor")
    cpus_per_environment: float = Field(1, gt=0, description="CPUs of an environment actor")
    cpus_per_trainer: float = Field(1, gt=0, description="CPUs of a trainer rank")
    gpus_per_trainer: float = Field(0, ge=0, description="GPUs of a trainer rank")
    spread: bool = Field(False, description="put actors on as many nodes as there are, rather than on few")
    wait: float = Field(300, gt=0, description="seconds that an actor's place, or its successor's, may take to be there")


class EngineSection(Section):
    """Where the roles run (see docs/engines.md). The trainer is in this process, on a GPU when there is one."""

    kind: str = Field(LOCAL, min_length=1, description="who plays the student: local, vllm, vllm-server or ray")
    threads: int = Field(0, ge=0, le=4096, description="CPU threads for torch; 0: its own choice")
    async_rollouts: bool = Field(False, description="episodes at their own pace; needs env.workers (see docs/speed.md)")
    overlap: bool = Field(False, description="play the next episodes during the update, one step off policy")
    teacher: str = Field(
        LOCAL,
        min_length=1,
        description="who scores for teachers that are not the student's own weights: local (full distributions; with kind ray "
        "its teacher actors), vllm, ray, or the URL of a server that returns prompt log-probs",
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
    timeout: float = Field(600, gt=0, description="seconds that a server's or an actor's answer may take")
    address: str = Field(
        "auto", min_length=1,
        description="of the Ray cluster: auto (the one that this machine is part of), local (one of this machine alone, for "
        "the run), host:port or ray://host:port",
    )  # fmt: skip
    ray: RaySection = Field(default_factory=RaySection, description="actors of a Ray cluster")
    options: dict[str, Any] = Field(
        default_factory=dict, description="further arguments of vLLM's engine, such as {tensor_parallel_size: 2}"
    )
