"""ALFWorld as it comes (`AlfredTWEnv`) against `agentdistill/ALFWorld-v0`: the same games and commands, side by side.

The packed games are written out to a temporary folder, from which the stock environment plays. Each game is begun twice
by both: first some random commands, then its walkthrough. Who goes first alternates. Every observation and every list of
admissible commands is compared. Memory is measured in a process of its own for each. Prints a table and, last, one JSON
object; `ratio` is stock seconds a step over ours.

    python benchmarks/alfworld_engine.py [--games 50] [--memory 60] [--walkthroughs] [--expert]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agentdistill.envs.alfworld.env import ALFWorldEnv
from agentdistill.envs.alfworld.library import library
from agentdistill.envs.alfworld.official import write_games

RANDOM_COMMANDS = 6
WARM_UP = 20
Seen = tuple[str, list[str], bool]


class Stock:
    """`AlfredTWEnv` in this process, over official files; it takes them in an order of its own."""

    def __init__(self, folder: Path) -> None:
        from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv

        config = {
            "env": {
                "goal_desc_human_anns_prob": 0, "task_types": [1, 2, 3, 4, 5, 6], "domain_randomization": False,
                "expert_type": "handcoded",
            },
            "dataset": {"eval_ood_data_path": str(folder), "num_eval_games": -1},
            "general": {"training_method": "dqn"},
            "rl": {"training": {"max_nb_steps_per_episode": 1000}},
        }  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            self.env = AlfredTWEnv(config, train_eval="eval_out_of_distribution").init_env(batch_size=1)
        self.folder = folder

    def first(self) -> tuple[str, Seen]:
        """Load and begin the next game: its id, and what is seen."""
        texts, infos = self.env.reset()
        path = Path(infos["extra.gamefile"][0])
        return str(path.parent.relative_to(self.folder)), self._seen(texts, infos)

    def again(self) -> Seen:
        """Begin the same game once more."""
        return self._seen(*self.env.batch_env.reset())

    def step(self, command: str) -> Seen:
        """Carry out a command."""
        texts, _, _, infos = self.env.step([command])
        return self._seen(texts, infos)

    @staticmethod
    def _seen(texts: Any, infos: dict[str, Any]) -> Seen:
        return texts[0], [c for c in infos["admissible_commands"][0] if c != "help"], bool(infos["won"][0])


class Ours:
    """Our environment, by game id."""

    def __init__(self) -> None:
        plain = {"first": "{observation}", "later": "{observation}"}
        self.env = ALFWorldEnv(max_turns=1000, admissible=False, prompt=plain)
        self.seeds = {library().game(seed).id: seed for seed in library().seeds("valid_unseen")}

    def start(self, game_id: str) -> Seen:
        """Begin a game."""
        text, info = self.env.reset(seed=self.seeds[game_id])
        return text, info["admissible"], False

    def step(self, command: str) -> Seen:
        """Carry out a command."""
        _, _, _, _, info = self.env.step(command)
        return info["text"], info["admissible"], info["success"]


class Clock:
    """CPU seconds of either side by what they were spent on; what else the machine does is not in them."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def time(self, what: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """What `work` returns; its time is noted under `what`."""
        began = time.process_time()
        result = work(*arguments)
        self.spent.setdefault(what, []).append(time.process_time() - began)
        return result

    def mean(self, what: str) -> float:
        """Seconds on average."""
        return sum(self.spent[what]) / len(self.spent[what])


def side_by_side(games: int) -> dict[str, Any]:
    chosen = library().seeds("valid_unseen")[:: max(1, 134 // games)][:games]
    clock, equal, compared, wins = Clock(), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        write_games(Path(folder), [library().game(seed) for seed in chosen])
        stock, ours = Stock(Path(folder)), Ours()
        for index in range(len(chosen)):
            same, steps, won = one_game(stock, ours, clock, ours_first=index % 2 == 1)
            equal, compared, wins = equal + same, compared + steps, wins + won
            print(f"{index + 1} of {len(chosen)}: {'equal' if same else 'DIFFERENT'}, {'won' if won else 'LOST'}", flush=True)
    figures = {f"{what}_seconds": round(clock.mean(what), 4) for what in sorted(clock.spent)}
    return {
        "games": len(chosen), "equal_games": equal, "won": wins, "compared_steps": compared, **figures,
        "stock_steps_per_second": round(1 / clock.mean("stock_step"), 1),
        "steps_per_second": round(1 / clock.mean("step"), 1),
        "ratio": round(clock.mean("stock_step") / clock.mean("step"), 2),
        "second_start_speedup": round(clock.mean("first_start") / clock.mean("second_start"), 1),
        "first_start_ratio": round(clock.mean("stock_first_start") / clock.mean("first_start"), 2),
    }  # fmt: skip


def one_game(stock: Stock, ours: Ours, clock: Clock, *, ours_first: bool) -> tuple[bool, int, bool]:
    """Both play one game: whether they saw the same, steps, and whether the walkthrough won."""
    game_id, theirs = clock.time("stock_first_start", stock.first)
    seen = clock.time("first_start", ours.start, game_id)
    same, steps, rng = theirs == seen, 0, random.Random(game_id)

    def both(command: str) -> tuple[Seen, Seen]:
        calls = [("stock_step", stock.step), ("step", ours.step)]
        results = {what: clock.time(what, call, command) for what, call in (reversed(calls) if ours_first else calls)}
        return results["stock_step"], results["step"]

    for _ in range(RANDOM_COMMANDS):
        theirs, seen = both(rng.choice([*seen[1], "help", "dance"]))
        same, steps = same and theirs == seen, steps + 1
        if seen[2]:
            break
    theirs, seen = clock.time("stock_second_start", stock.again), clock.time("second_start", ours.start, game_id)
    same = same and theirs == seen
    for command in library().game(ours.seeds[game_id]).walkthrough:
        theirs, seen = both(command)
        same, steps = same and theirs == seen, steps + 1
    return same, steps, seen[2]


def memory(side: str, games: int) -> float:
    """MB that a process grows by for every new game, begun and played for some steps, after the first few."""
    rows = [library().game(seed) for seed in library().seeds("valid_unseen")[:games]]
    with tempfile.TemporaryDirectory() as folder:
        write_games(Path(folder), rows)
        stock = Stock(Path(folder)) if side == "stock" else None
        ours = Ours() if side == "ours" else None
        before = 0.0
        for index, game in enumerate(rows):
            if index == WARM_UP:
                before = resident()
            played = stock.first()[0] if stock else game.id
            if ours:
                ours.start(played)
            for command in ("look", "inventory", "dance"):
                (stock or ours).step(command)  # type: ignore[union-attr]
        return (resident() - before) / (games - WARM_UP)


def resident() -> float:
    """MB of memory that this process takes now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def apart(side: str, games: int) -> float:
    """`memory` in a process of its own."""
    command = [sys.executable, __file__, "--only-memory", side, "--memory", str(games)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return float(done.stdout.split()[-1])


def play(env: ALFWorldEnv, split: str) -> Iterator[tuple[bool, int]]:
    """The environment's expert on every game of a split: whether it won, and its steps."""
    for seed in env.task_seeds(split):
        env.reset(seed=seed)
        won, steps = False, 0
        while (action := env.expert_action()) is not None and steps < env.max_turns:
            won, steps = env.step(action)[4]["success"], steps + 1
        yield won, steps


def experts(names: list[str]) -> dict[str, Any]:
    """How often each expert wins."""
    figures: dict[str, Any] = {}
    for name in names:
        env = ALFWorldEnv(max_turns=200, admissible=False, expert=name)
        for split in ("valid_seen", "valid_unseen"):
            began, played = time.process_time(), list(play(env, split))
            figures[f"{name}_{split}"] = {
                "won": sum(won for won, _ in played), "games": len(played),
                "steps": round(sum(steps for _, steps in played) / len(played), 1),
                "cpu_seconds": round(time.process_time() - began, 1),
            }  # fmt: skip
            print(name, split, figures[f"{name}_{split}"], flush=True)
        env.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=50)
    parser.add_argument("--memory", type=int, default=0, metavar="GAMES", help="games to measure memory growth on; 0: not")
    parser.add_argument("--walkthroughs", action="store_true", help="play every walkthrough of both valid splits")
    parser.add_argument("--expert", action="store_true", help="play the handcoded expert on them too")
    parser.add_argument("--only-memory", choices=("stock", "ours"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_memory:
        print(memory(arguments.only_memory, arguments.memory))
        return
    figures: dict[str, Any] = {"benchmark": "alfworld"}
    if arguments.games:
        figures |= side_by_side(arguments.games)
    if arguments.memory:
        figures["mb_per_game"] = round(apart("ours", arguments.memory), 3)
        figures["stock_mb_per_game"] = round(apart("stock", arguments.memory), 3)
    names = ["walkthrough"] * arguments.walkthroughs + ["handcoded"] * arguments.expert
    print(json.dumps(figures | experts(names)))


if __name__ == "__main__":
    main()
