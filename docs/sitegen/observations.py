"""How an episode of each built-in environment begins, as it really does.

    python docs/sitegen/observations.py            # records them all anew into docs/observations

They are recorded and not made with the site, so that a site can be built without Java, games and data sets; a test plays
them again wherever the environment can run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentdistill import environment
from agentdistill.pool import EnvPool

FOLDER = Path(__file__).resolve().parents[1] / "observations"
SHOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "textworld": ("agentdistill/TextWorld-v0", {}),
    "textworld-facts": ("agentdistill/TextWorld-v0", {"observation": "facts"}),
    "textworld-express": ("agentdistill/TextWorldExpress-v0", {}),
    "alfworld": ("agentdistill/ALFWorld-v0", {}),
    "webshop": ("agentdistill/WebShop-v0", {}),
    "scienceworld": ("agentdistill/ScienceWorld-v0", {}),
    "arithmetic": ("agentdistill/Arithmetic-v0", {}),
    "math": ("agentdistill/MathPython-v0", {}),
    "code": ("agentdistill/Code-v0", {}),
}
TURNS = 2


def record(env_id: str, options: dict[str, Any]) -> dict[str, Any]:
    """Task counts, the first observation of the first training (or other) task, and the expert's first moves."""
    pool = EnvPool(env_id, options)
    try:
        env = pool.env(0)
        sizes = {split: len(seeds) for split, seeds in environment.splits(env).items()}
        split = next(name for name, size in sizes.items() if size)
        first = pool.reset(0, int(environment.task_seeds(env, split)[0]))
        moves = []
        while len(moves) < TURNS and (action := pool.expert_action(0)) is not None:
            answer = pool.step(0, action)
            moves.append({"action": action, "observation": answer.observation, "reward": answer.reward})
            if answer.terminated or answer.truncated:
                break
        return {
            "id": env_id, "options": options, "tasks": sizes, "system": environment.system_prompt(env),
            "task_id": first.task_id, "observation": first.observation, "moves": moves,
        }  # fmt: skip
    finally:
        pool.close()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, (env_id, options) in SHOWN.items():
        text = json.dumps(record(env_id, options), indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
