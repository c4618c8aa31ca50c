"""A page of thousands of trajectories: how long it takes to make, to show, and to search.

    python benchmarks/viewer.py [--episodes 2000] [--games 48] [--keep FOLDER] [--screenshot FILE.png]

An expert plays TextWorld cooking games in prose, with random actions among its own; in front of each action stands what it saw,
as a model's thinking would. The store is filled with these episodes under new ids and with drawn log-probs of a student, a
teacher (with entropies) and a reference, in batches of a training run. Chromium opens the page from its file: first paint and
the moment when everything answers, by the browser's own clock, since navigation began; a search through all text, from the last
key to the last result; a click on a trajectory, to its text. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from agentdistill import environment
from agentdistill.chat import Chat
from agentdistill.demonstrations import demonstrate, transcript
from agentdistill.policies.tiny import train_tokenizer
from agentdistill.pool import EnvPool
from agentdistill.store import Store
from agentdistill.trajectory import Scores, Trajectory, Turn
from agentdistill.viewer import write

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.viewer.browser import Viewer, chromium  # (the folder above)

ENV, OPTIONS = "agentdistill/TextWorld-v0", {"challenge": "cooking", "observation": "prose"}
BATCH = 32


def played(games: int) -> tuple[list[Trajectory], Chat]:
    """Episodes of real games, and the tokenizer they are stored with."""
    pool = EnvPool(ENV, OPTIONS)
    try:
        seeds = list(itertools.islice(environment.task_seeds(pool.prototype(), "train"), games))
        found = demonstrate(pool, seeds, Chat(train_tokenizer([""])), max_turns=30, max_context=1 << 24, noise=0.4)
    finally:
        pool.close()
    return found, Chat(train_tokenizer(map(transcript, found), 2048))


def thinking(item: Trajectory, chat: Chat) -> Trajectory:
    """The episode as a model that thinks aloud would have played it."""
    seen, turns = item.messages[-1]["content"], []
    for turn in item.turns:
        text = f"I see: {' '.join(seen.split())[:160]}. So I will {turn.action}.\n{turn.action}"
        turns.append(dataclasses.replace(turn, action_ids=chat.message_ids(text), action=text, author="student", finish="stop"))
        seen = turn.observation
    return dataclasses.replace(item, turns=turns)


def sampled(item: Trajectory, number: int, rng: np.random.Generator) -> Trajectory:
    """A further episode: the same words, and log-probs of its own, which grow apart from turn to turn."""

    def drawn(k: int, turn: Turn) -> tuple[Turn, np.ndarray, np.ndarray]:
        n = len(turn.action_ids)
        ours = -rng.exponential(0.4, n)
        return (dataclasses.replace(turn, logprobs=ours.tolist(), logprobs_t1=ours.tolist()),
                ours - 0.02 * k + rng.normal(0, 0.3, n), ours + rng.normal(0, 0.1, n))  # fmt: skip

    turns, teacher, reference = zip(*(drawn(k, turn) for k, turn in enumerate(item.turns)), strict=True)
    theirs = np.minimum(np.concatenate(teacher), -1e-4)
    scores = {
        "teacher": Scores(theirs, entropy=rng.exponential(0.5, len(theirs))),
        "reference:initial": Scores(np.minimum(np.concatenate(reference), -1e-4)),
    }
    name = f"iter-{1 + number // BATCH:06d}/{number % BATCH:04d}"
    return dataclasses.replace(
        item, id=name, turns=list(turns), scores=scores, success=bool(rng.random() < 0.5), policy="student"
    )


def run_folder(folder: Path, episodes: int, games: int) -> dict[str, Any]:
    """Fill a run's folder."""
    found, chat = played(games)
    told = [thinking(item, chat) for item in found if item.turns]
    chat.tokenizer.save_pretrained(folder / "tokenizer")
    experiment = {"method": "sod", "student": {"model": "tiny:32x2"}, "env": {"max_turns": 30}, "schedule": "none"}
    (folder / "experiment.yaml").write_text(json.dumps(experiment))
    store, tokens, rng = Store(folder / "store"), 0, np.random.default_rng(0)
    lines = []
    for start in range(0, episodes, BATCH):
        items = [sampled(told[n % len(told)], n, rng) for n in range(start, min(start + BATCH, episodes))]
        store.write(f"iter-{1 + start // BATCH:06d}", items)
        lines.append(json.dumps({"kind": "iteration", "iteration": 1 + start // BATCH, "depth": None}) + "\n")
        tokens += sum(item.n_action_tokens for item in items)
    (folder / "metrics.jsonl").write_text("".join(lines))
    return {
        "episodes": episodes,
        "turns": round(float(np.mean([len(item.turns) for item in told])), 1),
        "student_tokens": tokens,
    }


def watched(page: Path, screenshot: Path | None) -> dict[str, Any]:
    """What a reader waits for, in milliseconds."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise SystemExit("there is no Chromium with its driver: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory() as profile, chromium(browser, driver, Path(profile)) as started:
        viewer = Viewer(started, page.as_uri()).open()
        out = viewer.js(
            "const paints = Object.fromEntries(performance.getEntriesByType('paint').map((e) => [e.name, e.startTime]));"
            "return {first_paint: paints['first-paint'], first_contentful_paint: paints['first-contentful-paint'],"
            " ready: performance.getEntriesByName('ready')[0].startTime}"
        )
        for name, words in (("search", "frying pan"), ("search_again", "knife cookbook")):
            viewer.type("q", words)
            began = time.perf_counter()
            viewer.searched()
            out[name] = 1000 * (time.perf_counter() - began)
        viewer.find("#clear").click()
        viewer.js("document.getElementById('list').scrollTop = 40000")
        time.sleep(0.3)
        began = time.perf_counter()
        viewer.find("#list .row:nth-child(9)").click()
        viewer.wait(viewer.shown)
        out["open_trajectory"] = 1000 * (time.perf_counter() - began)
        if screenshot is not None:
            started.save_screenshot(str(screenshot))
        if lost := viewer.errors():
            raise SystemExit(f"the console was told of errors: {lost}")
    return {f"{name}_ms": round(value) for name, value in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--games", type=int, default=48)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--screenshot", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() if chosen.keep is None else contextlib.nullcontext(chosen.keep) as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        about = run_folder(folder, chosen.episodes, chosen.games)
        print(about, flush=True)
        began = time.perf_counter()
        page, _ = write(folder)
        about |= {"build_seconds": round(time.perf_counter() - began, 1), "page_bytes": page.stat().st_size}
        print(about, flush=True)
        about |= watched(page, chosen.screenshot)
    print(json.dumps(about))


if __name__ == "__main__":
    main()
