"""Steps a second of `agentdistill/WebShop-v0` on one core, against the 44 of the original (Flask pages and their parsing).

The original cannot be installed beside this project, so its speed is the measured one of ../shared/environments.md. Played are
the expert's actions with a look at the description and the next page in between; every goal is another, and what was found by a
search is forgotten before each repeat. Last line: one JSON object.

    python benchmarks/webshop.py [--goals 300] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from agentdistill.envs.webshop import WebShopEnv

ORIGINAL = 44


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goals", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    envs = {name: WebShopEnv(observation=name, max_turns=40) for name in ("text", "text_rich")}
    scores, episodes = [], []
    for seed in range(arguments.goals):
        actions, score = watched(envs["text"], seed)
        episodes.append((seed, actions))
        scores.append(score)
    print(f"expert: mean score {statistics.mean(scores):.4f}, success {scores.count(1.0)} of {len(scores)}")
    rates: dict[str, list[float]] = {name: [] for name in envs}
    for repeat in range(arguments.repeats):
        for name, env in envs.items():
            env.catalogue.search.cache_clear()
            began, steps = time.process_time(), 0
            for seed, actions in episodes:
                env.reset(seed=seed)
                for action in actions:
                    env.step(action)
                steps += len(actions)
            rates[name].append(steps / (time.process_time() - began))
            print(f"repeat {repeat}: {name:9} {rates[name][-1]:8.0f} steps/s")
    median = {name: round(statistics.median(values)) for name, values in rates.items()}
    result = {**median, "original": ORIGINAL, "ratio": round(median["text"] / ORIGINAL, 1)}
    result |= {"expert_score": round(statistics.mean(scores), 4), "expert_success": scores.count(1.0) / len(scores)}
    print(json.dumps({"benchmark": "webshop", **result}))


def watched(env: WebShopEnv, seed: int) -> tuple[list[str], float]:
    """The actions of an episode, and its score."""
    env.reset(seed=seed)
    actions: list[str] = []
    score, looked = 0.0, set()
    while (action := env.expert_action()) is not None:
        _, score, _, _, info = env.step(action)
        actions.append(action)
        for element, back in (("description", "< prev"), ("next >", "< prev")):
            if element in info["clickables"] and element not in looked:
                looked.add(element)
                for name in (element, back):
                    actions.append(f"click[{name}]")
                    env.step(actions[-1])
    return actions, score


if __name__ == "__main__":
    main()
