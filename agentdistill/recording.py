"""Writes recorded demonstrations (see `recorded.py`): of an environment's expert, or of a stored run's successes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agentdistill import environment
from agentdistill.durable import replace
from agentdistill.episode import episode
from agentdistill.errors import UserError
from agentdistill.modules import import_module
from agentdistill.pool import EnvPool, Workers
from agentdistill.store import Store


def record_demonstrations(
    out: str | Path, env: str = "", *, run: str | Path | None = None, split: str = "train", tasks: int | None = None,
    max_turns: int = 30, options: Mapping[str, Any] | None = None, module: str = "", workers: int = 0,
) -> int:  # fmt: skip
    """Write the successful episodes of an environment's expert, or those in a run's store, to a JSON-lines file.

        ad.record_demonstrations("demos.jsonl", "agentdistill/WebShop-v0", tasks=100)
        ad.record_demonstrations("demos.jsonl", run="runs/quickstart")

    Args:
        out: the file; one that is there already is not written over.
        env: id of the environment whose expert plays.
        run: folder of a run instead; of each task's successes the one of fewest actions is taken.
        split, tasks: whose first tasks the expert plays; all by default.
        max_turns: most actions of the expert's.
        options: keyword arguments of the environment.
        module: module, or `.py` file, that registers it.
        workers: processes that hold the environments; 0: this one.

    Returns:
        How many demonstrations were written.

    Raises:
        UserError: when both or neither of `env` and `run` are given, nothing succeeds, or the file cannot be written.
    """
    if bool(env) == (run is not None):
        raise UserError("name either the environment whose expert is to be recorded, or the run whose successes are")
    path = Path(out).expanduser()
    if path.exists():
        raise UserError(f"'{path}' exists already; name another file, or remove it")
    if run is not None:
        rows = list(_of_run(Path(run)))
    else:
        if module:
            import_module(module)
        pool = EnvPool(env, options, workers=Workers(workers, modules=[module] if module else []) if workers else None)
        try:
            seeds = list(environment.task_seeds(pool.prototype(), split))[:tasks]
            played = pool.play(episode(seed, max_turns) for seed in seeds)
        finally:
            pool.close()
        rows = [_row(env, e.seed, e.task_id, e.actions, e.observations) for e in played if e.success]
    if not rows:
        source = f"run '{run}'" if run is not None else f"the expert of '{env}'"
        raise UserError(f"no episode of {source} succeeds, so there is nothing to write")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, text.encode())
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror or error}") from error
    return len(rows)


def _of_run(folder: Path) -> Iterator[dict[str, Any]]:
    store = Store(folder / "store")
    best = dict[tuple[str, str, int], dict[str, Any]]()
    for t in store.trajectories():
        key = (t.env_id, json.dumps(t.env_options, sort_keys=True), t.seed)
        if t.success and t.turns and (key not in best or len(t.turns) < len(best[key]["actions"])):
            said = [turn.observation for turn in t.turns]
            best[key] = _row(t.env_id, t.seed, t.task_id, [turn.action for turn in t.turns], said)
    yield from best.values()


def _row(env: str, seed: int, task_id: str, actions: list[str], observations: list[str]) -> dict[str, Any]:
    return {
        "env": env, "seed": seed, "task_id": task_id, "success": True, "actions": actions, "observations": observations
    }  # fmt: skip
