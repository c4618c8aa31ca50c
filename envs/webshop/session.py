"""One customer's visit: which page is shown, what can be clicked there, and what a click does."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from agentdistill.envs.webshop import pages
from agentdistill.envs.webshop.catalogue import FOUND, Catalogue
from agentdistill.envs.webshop.goals import Goal
from agentdistill.envs.webshop.pages import Node
from agentdistill.envs.webshop.reward import reward

_ADDRESS = "http://127.0.0.1:3000"
_PLACES = ("search_results", "item_page", "item_sub_page")
_SUB_PAGES = {name.lower(): name for name in pages.SUB_PAGES}


class Session:
    """A visit with a goal, in the original's states and transitions.

    Attributes:
        nodes: the page.
        url: its address, by which the original tells its pages apart.
        clickables: what can be clicked, in the page's order, with the node that it stands for. The search button is among
            them, though only `search` does something there.
        found: numbers of the products that the last search found.
        doc: the product that is open, or None.
        options: values chosen for it, by name.
        parts: the parts of the reward, once something was bought.
    """

    def __init__(self, catalogue: Catalogue, goal: Goal, number: int, show_attributes: bool = False) -> None:
        self.catalogue, self.goal, self.number, self.show_attributes = catalogue, goal, number, show_attributes
        self._keywords: list[str] = []
        self._rng = random.Random(number)  # of the search for random products
        self.parts: dict[str, Any] | None = None
        self.done = False
        self._start()

    @property
    def has_search_bar(self) -> bool:
        """Whether the page asks for a search; the action works on any page."""
        return "search" in self.clickables

    def text(self, *, instruction: bool = True) -> str:
        """The page in the mode `text`, with or without the instruction on it."""
        return pages.as_text(self.nodes if instruction else pages.without_instruction(self.nodes))

    def rich_text(self, *, instruction: bool = True) -> str:
        """The page in the mode `text_rich`, likewise."""
        nodes = self.nodes if instruction else pages.without_instruction(self.nodes)
        return pages.as_rich_text(nodes, self.url, self.opened)

    def act(self, name: str, argument: str) -> float:
        """Carry out `search` or `click`; any other action does nothing. The reward, which is 0 until something is bought."""
        if name == "search" and argument:
            self._keywords = argument.split(" ")
            self._results(1)
        elif name == "click" and argument in self.clickables and argument != "search":
            return self._click(argument)
        return 0.0

    def _click(self, name: str) -> float:
        place = next((each for each in _PLACES if each in self.url), "")
        if name == pages.BUY.lower():
            return self._buy()
        if name == pages.BACK.lower():
            self._start()
        elif name == pages.NEXT.lower() and place == "search_results":
            self._results(self.page + 1)
        elif name == pages.PREVIOUS.lower() and place == "search_results":
            self._results(self.page - 1)
        elif name == pages.PREVIOUS.lower() and place == "item_page":
            self._results(self.page)
        elif name in _SUB_PAGES:
            self._sub_page(_SUB_PAGES[name])
        else:
            self._item(name)
        return 0.0

    def _start(self) -> None:
        self._keywords = []
        self.found: Sequence[int] = ()
        self.page = 0
        self.doc: int | None = None
        self.options: dict[str, str] = {}
        self.opened: set[str] = set()
        self._show(pages.start_page(self.goal.instruction), "")

    def _results(self, page: int) -> None:
        self.page, self.doc, self.options = page, None, {}
        self.found = self._search()
        shown = self.found[(page - 1) * pages.PAGE_SIZE : page * pages.PAGE_SIZE]
        products = [self.catalogue.product(doc) for doc in shown]
        self._show(
            pages.results_page(self.goal.instruction, page, len(self.found), products),
            f"search_results/{self.number}/{'+'.join(self._keywords)}/{page}",
        )
        self._asins = dict(zip((product.asin.lower() for product in products), shown, strict=True))

    def _search(self) -> Sequence[int]:
        """What the keywords find; three of them are commands."""
        command, *words = self._keywords
        if command == "<r>":
            return self._rng.sample(range(len(self.catalogue)), min(FOUND, len(self.catalogue)))
        if command == "<c>":
            return self.catalogue.of_category(words[0].strip() if words else "")
        if command == "<q>":
            return self.catalogue.of_query(" ".join(words).strip())
        return self.catalogue.search(" ".join(self._keywords))

    def _item(self, clicked: str) -> None:
        node, option = self.clickables[clicked]
        if node.kind == "asin":
            self.doc = self._asins[clicked]
            self.opened.add(node.text)
        elif node.kind == "option":
            self.options[option] = clicked
        product = self.catalogue.product(self._open())
        nodes = pages.item_page(self.goal.instruction, product, self.show_attributes)
        self._show(nodes, f"item_page/{self._address()}/{json.dumps(self.options)}")

    def _sub_page(self, name: str) -> None:
        product = self.catalogue.product(self._open())
        nodes = pages.sub_page(self.goal.instruction, product, name)
        self._show(nodes, f"item_sub_page/{self._address()}/{name}/{self.options}")

    def _buy(self) -> float:
        doc = self._open()
        product = self.catalogue.product(doc)
        score, self.parts = reward(product, self.goal, self.catalogue.price(doc), self.options)
        self.done = True
        self._show(pages.done_page(product.asin, self.options, score), "done")
        return score

    def _open(self) -> int:
        assert self.doc is not None
        return self.doc

    def _address(self) -> str:
        asin = self.catalogue.product(self._open()).asin
        return f"{self.number}/{asin}/{'+'.join(self._keywords)}/{self.page}"

    def _show(self, nodes: list[Node], path: str) -> None:
        self.nodes, self.url = nodes, f"{_ADDRESS}/{path}"
        self.clickables: dict[str, tuple[Node, str]] = {}
        for wanted in ("button", "asin"):
            self.clickables |= {node.text.lower(): (node, "") for node in nodes if node.kind == wanted}
        name = ""
        for node, before in zip(nodes[1:], nodes, strict=False):
            if node.kind == "option":
                name = name if before.kind == "option" else before.text
                self.clickables[node.text] = (node, name)
