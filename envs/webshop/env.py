"""The environment: options, prompt, actions, limits and splits."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gymnasium.error import ResetNeeded

from agentdistill.environment import TextEnv, pick_split
from agentdistill.envs.data import data_folder
from agentdistill.envs.webshop import expert, pages
from agentdistill.envs.webshop.actions import action_of, can_click, click, parse, tagged
from agentdistill.envs.webshop.catalogue import open_catalogue
from agentdistill.envs.webshop.goals import KINDS
from agentdistill.envs.webshop.packages import package
from agentdistill.envs.webshop.session import Session
from agentdistill.errors import UserError, nearest

_PACKAGES = ("regex", "nltk.stem.porter", "rapidfuzz.fuzz")
OBSERVATIONS = ("text", "text_rich")
INSTRUCTIONS = (
    "You are shopping in a web shop. Find and buy a product that fits the instruction. In each turn, think between <think> "
    "and </think>, then give one action between <action> and </action>: search[words] to search, or click[element] to click a "
    "button, a product or an option that the page shows, for example <action>click[buy now]</action>."
)
TEST, EVAL = 500, 1_500  # the first goals of the original's order are for tests, the next for evaluation


class WebShopEnv(TextEnv):
    """WebShop (Yao et al., arXiv 2207.01206) in this process, with the pages, search, goals and rewards of the original.

    A message's action is its last `<action>…</action>`, or all of it where there is none: `search[words]` or
    `click[element]`. Any other costs a turn and changes nothing. The reward is the original's score in [0, 1] when something
    is bought, and success is a score of 1.

    Args:
        goals: `synthetic` (6,910 of the 1,000 products) or `human`.
        observation: `text`, or `text_rich` with a line for each element, and buttons marked.
        max_turns: the episode is truncated after so many messages (the original has no limit; 15 is usual).
        admissible: list the possible actions in every observation; `info["admissible"]` has them in any case.
        show_attributes: let products have a page of their attributes.
        folder: what `import_official` wrote, or a folder with `products_1000.jsonl.gz`; `$AGENTDISTILL_DATA/webshop` where it
            is None. It is opened once in a process.

    Raises:
        UserError: for an option there is not, or when data or packages are missing or damaged.
    """

    system_prompt = INSTRUCTIONS

    def __init__(
        self,
        goals: str = "synthetic",
        observation: str = "text",
        max_turns: int = 15,
        admissible: bool = False,
        show_attributes: bool = False,
        folder: str | None = None,
    ) -> None:
        for option, value, known in (("goals", goals, KINDS), ("observation", observation, OBSERVATIONS)):
            if value not in known:
                raise UserError(f"WebShop's option '{option}' is '{value}'{nearest(str(value), known)}")
        if max_turns < 1:
            raise UserError(f"WebShop's option 'max_turns' is {max_turns} but must be at least 1")
        self.goals, self.observation, self.max_turns = goals, observation, max_turns
        self.admissible, self.show_attributes = admissible, show_attributes
        for name in _PACKAGES:
            package(name)
        self.catalogue = open_catalogue(data_folder("webshop") if folder is None else Path(folder))
        self._session: Session | None = None
        self._turns = 0

    def task_seeds(self, split: str) -> Sequence[int]:
        """Numbers of the goals of a split, which are the original's: test (the first 500), eval = valid (the next 1,000), and
        train (all others).

        Raises:
            UserError: when there is no such split.
        """
        count = self.catalogue.goal_count(self.goals)
        first, last = min(TEST, count), min(EVAL, count)
        splits = {"train": range(last, count), "eval": range(first, last), "valid": range(first, last), "test": range(first)}
        return pick_split(splits, split, "WebShop")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin goal number `seed`, or a training goal drawn by the original's weights (any goal where none is for training).

        `info` carries `task_id`, `task_type` (the product's category), `goal` (the instruction), `text` (the page but for
        the instruction), `has_search_bar`, `clickables` and `admissible`.

        Raises:
            UserError: when there is no such goal.
        """
        count = self.catalogue.goal_count(self.goals)
        if seed is not None and not 0 <= seed < count:
            raise UserError(f"WebShop has no {self.goals} goal of seed {seed}; take seeds from task_seeds(split)")
        super().reset(seed=seed)
        if seed is None:
            seed = self.catalogue.draw_goal(self.goals, EVAL if count > EVAL else 0, float(self.np_random.random()))
        goal = self.catalogue.goal(self.goals, seed)
        self._session, self._turns = Session(self.catalogue, goal, seed, self.show_attributes), 0
        view, named = self._view(), {"task_id": f"{self.goals}/{seed}", "task_type": goal.product.category}
        return self._shown(view), {**named, "goal": goal.instruction, **view}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Carry out a message's action; `info` as of `reset`, with `command`, `success`, and after buying `reward_parts`."""
        session = self._current()
        if session.done:
            raise ResetNeeded("the episode has ended: call reset()")
        score = session.act(*parse(action))
        self._turns += 1
        view = self._view()
        info = {"success": session.done and score == 1.0, "command": action_of(action), **view}
        if session.parts is not None:
            info["reward_parts"] = session.parts
        return self._shown(view), score, session.done, not session.done and self._turns >= self.max_turns, info

    def close(self) -> None:
        """End the episode; a reset begins another."""
        super().close()
        self._session = None

    def expert_action(self) -> str | None:
        """The expert's next action as `<action>…</action>`; None once something is bought or where it finds no product."""
        action = expert.next_action(self._current())
        return None if action is None else tagged(action)

    def plan(self) -> str | None:
        """The expert's actions from the start, separated by commas, or None where it finds no product."""
        now = self._current()
        session = Session(self.catalogue, now.goal, now.number, self.show_attributes)
        actions = []
        while (action := expert.next_action(session)) is not None:
            actions.append(action)
            session.act(*parse(action))
        return ", ".join(actions) if session.done else None

    def random_action(self, rng: random.Random) -> str:
        """A plausible action other than the expert's, from which it can recover: it buys nothing."""
        session = self._current()
        expected = expert.next_action(session)
        words = session.goal.product.query.split() or ["shop"]
        choices = [f"search[{' '.join(rng.sample(words, min(2, len(words))))}]"]
        choices += [each for each in self._clicks() if each != click(pages.BUY)]
        return tagged(rng.choice([each for each in choices if each != expected] or ["click[nothing]"]))

    def _current(self) -> Session:
        if self._session is None:
            raise ResetNeeded("call reset() before anything else")
        return self._session

    def _view(self) -> dict[str, Any]:
        """What the original tells of the page, and the actions that do something there."""
        session = self._current()
        searches = ["search[<words>]"] if session.has_search_bar else []
        return {
            "text": self._page(instruction=False),
            "has_search_bar": session.has_search_bar,
            "clickables": list(session.clickables),
            "admissible": [*searches, *self._clicks()],
        }

    def _clicks(self) -> list[str]:
        return [f"click[{name}]" for name in self._current().clickables if name != pages.SEARCH.lower() and can_click(name)]

    def _page(self, *, instruction: bool = True) -> str:
        session = self._current()
        show = session.text if self.observation == "text" else session.rich_text
        return show(instruction=instruction)

    def _shown(self, view: Mapping[str, Any]) -> str:
        """A page, with the possible actions if they are to be listed."""
        listed = self.admissible and not self._current().done
        page = self._page()
        return f"{page}\n\nAdmissible actions: {', '.join(view['admissible'])}." if listed else page
