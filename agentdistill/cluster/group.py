"""The processes of all ranks as one group, and which of them are lost when it breaks."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store

BEAT = 0.5
"""Seconds between two signs of life."""
_PATIENCE = 8 * BEAT
"""Seconds without a sign of life that mean nothing."""
_FAREWELL = 4 * BEAT
"""Seconds that rank 0, who may be the store's server, waits for the others to be through with it."""


class Group:
    """This process's membership; there can be one a process.

    Args:
        store: what all of them see; its server outlives the ranks, or is rank 0.
        timeout: seconds that ranks at work wait for each other.
        local: number of this process's GPU.

    Attributes:
        device: `cuda` where there are GPUs, else `cpu`.
    """

    def __init__(self, store: Store, rank: int, world: int, timeout: float, local: int = 0) -> None:
        self.rank, self.world, self.device = rank, world, "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cuda":
            torch.cuda.set_device(local)
        self._store, self._timeout = store, timeout
        self._done, self._pulse, self._rounds = threading.Event(), 0, 0
        self._heart = threading.Thread(target=self._live, name="heartbeat", daemon=True)
        self._heart.start()
        backend = "cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo"
        own, patience = PrefixStore("group", store), timedelta(seconds=timeout)
        distributed.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=patience)
        self._who: list[Any] = [None] * world
        distributed.all_gather_object(self._who, (socket.gethostname(), os.getpid()))

    def lost(self) -> list[int]:
        """Ranks whose processes are gone or stand still, as far as it can be told in some seconds."""
        if gone := self.gone():
            return gone
        try:
            before = [self._beats(rank) for rank in range(self.world)]
            time.sleep(4 * BEAT)
            return [rank for rank in range(self.world) if self._gone(rank) or self._beats(rank) == before[rank]]
        except (RuntimeError, KeyboardInterrupt):  # no store any more, or torchrun is ending us: it has seen it too
            return self.gone() or ([0] if self.rank else [])

    def gone(self) -> list[int]:
        """Ranks whose processes are gone, as far as it can be told at once: those of this machine."""
        return [rank for rank in range(self.world) if self._gone(rank)]

    def deserted(self, serves: bool) -> bool:
        """Wait until rank 0 has shown no sign of life for `timeout` seconds; False once nothing can be said of it any more.

        Counted in this process's own beats, so that one that was stopped with rank 0 takes it for alive when both go on.

        Args:
            serves: whether rank 0 is the store's server. If it is, no answer is no sign of life; if not, it says nothing.
        """
        pulse, rounds, silent = self._pulse, self._rounds, 0
        while silent * BEAT < max(self._timeout, _PATIENCE):
            if self._done.wait(BEAT) or not self._heart.is_alive():
                return False
            if self._pulse != pulse:
                silent = 0
            elif serves or self._rounds != rounds:
                silent += 1
            pulse, rounds = self._pulse, self._rounds
        return True

    def leave(self) -> None:
        """End this process's part; the others notice when the process ends.

        They ask the store nothing more by then: torch complains at length on stderr of a server that ends before it answers.
        """
        self._done.set()
        self._heart.join(_FAREWELL)
        if distributed.is_initialized():
            distributed.destroy_process_group()
        until = time.monotonic() + (_FAREWELL if self.rank == 0 else 0)
        while time.monotonic() < until and not all(self._quiet(rank) for rank in range(self.world)):
            time.sleep(0.02)

    def _live(self) -> None:
        store = self._store.clone()  # type: ignore[attr-defined]  # a connection of its own, as every kind of store can
        with suppress(RuntimeError):  # the store is gone
            while not self._done.wait(BEAT) and not (self.rank and store.add("quiet/0", 0)):
                store.add(f"beat/{self.rank}", 1)
                self._pulse = store.add("beat/0", 0)
                self._rounds += 1
            store.add(f"quiet/{self.rank}", 1)

    def _beats(self, rank: int) -> int:
        return int(self._store.add(f"beat/{rank}", 0))

    def _quiet(self, rank: int) -> bool:
        """Whether a rank's heart has stopped."""
        try:
            return self._gone(rank) or self._store.add(f"quiet/{rank}", 0) > 0
        except RuntimeError:  # it was not ours, and is gone
            return True

    def _gone(self, rank: int) -> bool:
        """Whether a process of this machine is no more, or a zombie."""
        host, pid = self._who[rank]
        if host != socket.gethostname() or not Path("/proc/self/stat").exists():
            return False
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            return True
