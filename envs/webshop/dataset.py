"""The data set of WebShop: the official files become a packed shop, and recorded or scripted episodes are played in it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentdistill.datasets import Check, Contents, DataSet, Job, Made
from agentdistill.envs.data import count_rows, read_rows, read_text
from agentdistill.envs.webshop import arrays, small
from agentdistill.envs.webshop.catalogue import Catalogue, forget, open_catalogue
from agentdistill.envs.webshop.env import EVAL, TEST, WebShopEnv
from agentdistill.envs.webshop.official import write_official
from agentdistill.envs.webshop.pack import TABLE
from agentdistill.envs.webshop.packages import INSTALL
from agentdistill.envs.webshop.reward import reward
from agentdistill.errors import UserError
from agentdistill.registration import needs_package

_EPISODES, _REWARDS, _RANKINGS = "golden_episodes.jsonl.gz", "golden_rewards.jsonl.gz", "lucene_rankings.jsonl.gz"
_GOALS = "goals_6910_seed0.jsonl.gz"
_LEAST = 0.9  # the expert scores 0.994 on the test goals of the 1,000 products


def _import(job: Job, seed: int = 0, nouns: bool = False) -> Made:
    """The sources are `items_shuffle.json`, `items_ins_v2.json` and, for human goals, `items_human_ins.json`."""
    if not 2 <= len(job.sources) <= 3:
        raise UserError(
            "WebShop is imported from items_shuffle.json, items_ins_v2.json and, for human goals, items_human_ins.json, in "
            f"this order, not from {len(job.sources)} files"
        )
    paths = tuple(Path(source).expanduser() for source in job.sources)
    write_official(
        paths[0], paths[1], paths[2] if len(paths) == 3 else None, job.folder, seed=seed, nouns=nouns,
        progress=lambda done: job.progress("products", done),
    )  # fmt: skip
    lengths = _lengths(job.folder)
    written = {arrays.path_of(job.folder, name).name: rows for name, rows in lengths.items()}
    return Made({TABLE: None, **written}, tuple((str(path), (path,)) for path in paths))


def _count(folder: Path) -> Contents:
    if (folder / TABLE).is_file():
        lengths = _lengths(folder)
        tasks = {"products": lengths["prices"], **_splits(lengths["synthetic_product"])}
        return Contents(tasks | {"human goals": lengths["human_product"]})
    if not (folder / small.FILE).is_file():
        return Contents({}, (f"'{small.FILE}' or an imported shop ('{TABLE}')",))
    goals = _splits(count_rows(folder / _GOALS)) if (folder / _GOALS).exists() else {}
    return Contents({"products": count_rows(folder / small.FILE), **goals})


def _splits(goals: int) -> dict[str, int]:
    last, first = min(EVAL, goals), min(TEST, goals)
    return {"train": goals - last, "valid": last - first, "test": first}


def _lengths(folder: Path) -> dict[str, int]:
    path = folder / TABLE
    try:
        lengths: dict[str, int] = json.loads(read_text(path))["lengths"]
        return {name: int(lengths[name]) for name in arrays.TYPES}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the data file '{path}' is damaged ({type(error).__name__}: {error}); import it again") from error


def _verify(folder: Path, sample: int | None) -> Iterator[Check]:
    shop = open_catalogue(folder)
    recorded = False
    for file, what, same in (
        (_EPISODES, "recorded episodes are equal", _same_episode),
        (_REWARDS, "recorded rewards are equal", _same_reward),
        (_RANKINGS, "recorded rankings are equal", _same_ranking),
    ):
        if not (folder / file).exists():
            continue
        recorded = True
        rows = list(enumerate(read_rows(folder / file), 1))
        chosen = rows if sample is None else random.Random(file).sample(rows, min(sample, len(rows)))
        yield Check(what, len(chosen), tuple(f"line {line}" for line, row in chosen if not same(folder, shop, row)))
    if not recorded:
        yield _expert(folder, sample)


def _same_episode(folder: Path, shop: Catalogue, row: dict[str, Any]) -> bool:
    env = WebShopEnv(folder=str(folder), max_turns=len(row["steps"]) + 1)
    observation, info = env.reset(seed=row["goal_index"])
    shown = [(observation, 0.0, False, _among(info, row["reset_available"]))]
    for step in row["steps"]:
        observation, score, done, _, info = env.step(step["action"])
        shown.append((observation, score, done, _among(info, step["available"])))
    expected = [(row["reset_obs"], 0.0, False, row["reset_available"])]
    expected += [(step["obs"], step["reward"], step["done"], step["available"]) for step in row["steps"]]
    return shown == expected and info.get("reward_parts") == row["reward_info"]


def _among(info: dict[str, Any], wanted: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if wanted is None else {key: info[key] for key in wanted}


def _same_reward(folder: Path, shop: Catalogue, row: dict[str, Any]) -> bool:
    product = next(each for each in map(shop.product, range(len(shop))) if each.asin == row["asin"])
    goal = shop.goal("synthetic", row["goal_index"])
    return bool(reward(product, goal, row["price"], row["options"]) == (row["reward"], row["info"]))


def _same_ranking(folder: Path, shop: Catalogue, row: dict[str, Any]) -> bool:
    return bool(list(shop.search(row["query"].lower())) == row["docs"])


def _expert(folder: Path, sample: int | None) -> Check:
    """The scripted expert on some goals; in a shop that is whole it scores well."""
    env = WebShopEnv(folder=str(folder))
    goals = range(env.catalogue.goal_count("synthetic"))
    chosen = goals if sample is None else random.Random("goals").sample(goals, min(sample, len(goals)))
    scores = {number: _played(env, number) for number in chosen}
    mean = sum(scores.values()) / len(scores) if scores else 0.0
    low = () if mean >= _LEAST else tuple(f"goal {number}" for number, score in scores.items() if score < _LEAST)
    return Check(f"goals played by the expert, mean score {mean:.3f} (at least {_LEAST})", len(scores), low)


def _played(env: WebShopEnv, goal: int) -> float:
    env.reset(seed=goal)
    score, ended = 0.0, False
    while not ended and (action := env.expert_action()) is not None:
        _, score, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
    return score


DATASET = DataSet(
    name="webshop",
    about="WebShop's products and goals (Yao et al., arXiv 2207.01206): 1,000 products, or all 1.18 million.",
    licence="WebShop is MIT; product texts are their sellers', for research only.",
    download="items_shuffle.json and items_ins_v2.json of the WebShop project of Princeton NLP (its script setup.sh)",
    sources="path/to/items_shuffle.json path/to/items_ins_v2.json",
    importer=_import,
    count=_count,
    verifier=_verify,
    requires=(needs_package("nltk", INSTALL), needs_package("rapidfuzz", INSTALL)),
    forget=forget,
)
