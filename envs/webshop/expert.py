"""A customer who knows the product: searches until it is found, opens it, chooses its options and buys it."""

from __future__ import annotations

from collections.abc import Iterator

from agentdistill.envs.webshop import pages
from agentdistill.envs.webshop.actions import can_click, click
from agentdistill.envs.webshop.catalogue import Catalogue
from agentdistill.envs.webshop.goals import Goal
from agentdistill.envs.webshop.session import Session

_BUTTONS = {name.lower() for name in (pages.BACK, pages.PREVIOUS, pages.NEXT, pages.BUY, *pages.SUB_PAGES)}


def next_action(session: Session) -> str | None:
    """What the expert does on the page that is shown; None once something is bought, or where no search finds the product."""
    if session.done:
        return None
    if session.doc is not None:
        return _on_product(session)
    if session.goal.doc not in session.found:
        query = best_query(session.catalogue, session.goal)
        return None if query is None else f"search[{query}]"
    page = session.found.index(session.goal.doc) // pages.PAGE_SIZE + 1
    if page == session.page:
        return click(session.goal.product.asin)
    return click(pages.NEXT if page > session.page else pages.PREVIOUS)


def best_query(catalogue: Catalogue, goal: Goal) -> str | None:
    """The first of some queries, from the instruction to the title, that shows the product on its first page; or on any."""
    later = None
    for query in _queries(goal):
        found = catalogue.search(query)
        if goal.doc in found:
            if found.index(goal.doc) < pages.PAGE_SIZE:
                return query
            later = later or query
    return later


def _queries(goal: Goal) -> Iterator[str]:
    instruction = goal.instruction.lower().partition(", and price lower than ")[0]
    wanted = " ".join((*goal.attributes, *goal.option_values()))
    for query in (instruction, f"{wanted} {goal.product.query}".lower(), goal.product.title.lower()):
        if query.strip() and not query.startswith("<"):
            yield " ".join(query.replace("[", " ").replace("]", " ").split())


def _on_product(session: Session) -> str:
    if session.doc != session.goal.doc or pages.BUY.lower() not in session.clickables:
        return click(pages.PREVIOUS)
    for value in session.goal.option_values():
        if value not in session.options.values() and _can_choose(session, value):
            return click(value)
    return click(pages.BUY)


def _can_choose(session: Session, value: str) -> bool:
    """Whether a click chooses the option: it is there, can be named, and has no button's name, which would go first."""
    return value in session.clickables and can_click(value) and value not in _BUTTONS
