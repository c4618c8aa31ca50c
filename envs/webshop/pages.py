"""The shop's pages as runs of visible text, and the two ways in which the original shows them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from agentdistill.envs.webshop.products import Product

Kind = Literal["text", "button", "option", "asin"]

SEARCH, BACK, PREVIOUS, NEXT, BUY = "Search", "Back to Search", "< Prev", "Next >", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews", "Attributes")
PAGE_SIZE = 10
_SEPARATOR = " [SEP] "
_BLANK = " \n\t\f\r"
# Characters that a page's template writes as escapes inside JSON.
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&'"}


class Node(NamedTuple):
    """One run of text and what it is a part of."""

    text: str
    kind: Kind = "text"


def start_page(instruction: str) -> list[Node]:
    """Where a session begins."""
    return [Node("WebShop"), Node("Instruction: "), Node(instruction), Node(SEARCH, "button")]


def results_page(instruction: str, page: int, total: int, products: Iterable[Product]) -> list[Node]:
    """One page of what a search found; it can be gone past its end."""
    nodes = [*_top(instruction), Node(f"Page {page} (Total results: {total})")]
    if page > 1:
        nodes.append(Node(PREVIOUS, "button"))
    nodes.append(Node(NEXT, "button"))
    for product in products:
        nodes += (Node(product.asin, "asin"), Node(product.title), Node(product.price_tag))
    return nodes


def item_page(instruction: str, product: Product, show_attributes: bool) -> list[Node]:
    """A product with its options."""
    nodes = [*_top(instruction), Node(PREVIOUS, "button")]
    for name, values in product.options.items():
        nodes.append(Node(name))
        nodes += (Node(value, "option") for value in values)
    nodes += (Node(product.title), Node(f"Price: {product.price_tag}"), Node("Rating: N.A."))
    nodes += (Node(name, "button") for name in (SUB_PAGES if show_attributes else SUB_PAGES[:-1]))
    nodes.append(Node(BUY, "button"))
    return nodes


def sub_page(instruction: str, product: Product, name: str) -> list[Node]:
    """A product's description, features, reviews (of which the data has none) or attributes."""
    nodes = [*_top(instruction), Node(PREVIOUS, "button")]
    if name == "Description":
        nodes.append(Node(product.description))
    elif name == "Features":
        nodes += (Node(f" {bullet}") for bullet in product.bullets)
    elif name == "Attributes":
        nodes += (Node(f" {attribute}") for attribute in product.attributes)
        nodes += (Node(product.category), Node(product.query), Node(product.product_category))
    return nodes


def done_page(asin: str, options: Mapping[str, str], score: float) -> list[Node]:
    """What follows a purchase; the page's hidden parts are text as well, most of them empty."""
    chosen = json.dumps(options, sort_keys=True).translate(_ESCAPED)
    bought = {"asin": asin, "options": chosen, "attrs": "None", "category": "None", "query": "None", "product category": "None"}
    target = ("asin", "options", "attrs", "price upper", "instuction text", "category", "product category", "query")
    texts = ["Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)", "Purchased"]
    for name, value in bought.items():
        texts += (name, value)
    texts += ("Target", *target, "Goal ", "None", "Reward")
    texts += ("Your score (min 0.0, max 1.0)", str(score), "Reward Details ", "None")
    return [Node(text) for text in texts]


def without_instruction(nodes: Sequence[Node]) -> list[Node]:
    """A page without the instruction that stands on all but the last one, for a view that tells it in a place of its own."""
    label = next((place for place, node in enumerate(nodes[:2]) if node.text.strip() == "Instruction:"), None)
    return list(nodes) if label is None else [*nodes[:label], *nodes[label + 2 :]]


def as_text(nodes: Sequence[Node]) -> str:
    """The observation mode `text`: the runs in one line, with separators."""
    return _SEPARATOR.join(node.text.strip() for node in _visible(nodes))


def as_rich_text(nodes: Sequence[Node], url: str, opened: Collection[str]) -> str:
    """The observation mode `text_rich`: a run a line, with what can be clicked marked, and what has been.

    Args:
        nodes: the page.
        url: the page's address; an option counts as clicked where its value stands in it in quotes.
        opened: asins of the products that have been opened since the session's start page.
    """
    clicked, lines = [], []
    for text, kind in _visible(nodes):
        if kind == "text":
            lines.append(text)
        elif kind == "button":
            lines.append(f"[button] {text} [button_]")
        else:
            before = "  " if kind == "option" else "\n"
            is_clicked = f'"{text}"' in url if kind == "option" else text in opened
            if is_clicked and kind == "option":
                clicked.append(f"You have clicked {text}.")
            word = "clicked button" if is_clicked else "button"
            lines.append(f"{before}[{word}] {text} [{word}_]")
    return "".join(f"{line}\n" for line in (*reversed(clicked), *lines))


def _top(instruction: str) -> tuple[Node, ...]:
    return Node("Instruction:"), Node(instruction), Node(BACK, "button")


def _visible(nodes: Iterable[Node]) -> Iterable[Node]:
    """Without empty runs, as an HTML parser sees them: blank ones with a line break vanish, others become one space."""
    for node in nodes:
        if node.text.strip(_BLANK):
            yield node
        elif node.text and "\n" not in node.text:
            yield Node(" ", node.kind)
