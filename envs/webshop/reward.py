"""What a purchase is worth, part by part as the original computes it.

Source: Yao et al., WebShop (arXiv 2207.01206), section 3 and appendix, and its `web_agent_site/engine/goal.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agentdistill.envs.webshop.goals import Goal
from agentdistill.envs.webshop.nouns import nouns_of
from agentdistill.envs.webshop.packages import package
from agentdistill.envs.webshop.products import Product

_CLOSE = 85  # two texts with a ratio above this count as equal
# The first of these that a text contains stands for it.
_COLOUR_WORDS = """
alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo caramel
champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal dark denim
eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory ivy khaki
lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom mustard
natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire seashell silver
skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white wine yellow
"""
_COLOURS = _COLOUR_WORDS.split()
_LATIN_1 = dict.fromkeys(range(128, 256))


def reward(product: Product, goal: Goal, price: float, options: Mapping[str, str]) -> tuple[float, dict[str, Any]]:
    """The score in [0, 1] of buying `product` with `options` at `price`, and its parts by the original's names.

    It is `r_type · (attributes found + options found + [price ≤ limit]) / (attributes + options + 1)`.

    Raises:
        UserError: when rapidfuzz is not installed, or spaCy where the titles' nouns are not known.
    """
    kind = type_reward(product, goal)
    found = _attributes_found(product, goal.attributes)
    # A quirk of the original: options of synthetic goals are pairs (name, value), so a colour is looked for among the two and
    # not inside them.
    wanted: list[Any] = list(goal.options.items()) if isinstance(goal.options, dict) else list(goal.options)
    chosen = _options_found(options.values(), wanted)
    cheap = price <= goal.limit
    parts = len(goal.attributes) + len(wanted) + 1
    info = {
        "r_type": kind["r_type"],
        "r_att": found / len(goal.attributes),
        "w_att": len(goal.attributes) / parts,
        "query_match": kind["query_match"],
        "category_match": kind["category_match"],
        "title_score": kind["title_score"],
    }
    if wanted:
        info |= {"r_option": chosen / len(wanted), "w_option": len(wanted) / parts}
    info |= {"r_price": cheap, "w_price": 1 / parts}
    return (found + chosen + cheap) / parts * kind["r_type"], info


def type_reward(product: Product, goal: Goal) -> dict[str, Any]:
    """Whether the product is of the goal's kind: by query, by two shared categories, or by the nouns of the title."""
    query_match = product.query == goal.product.query
    category_match = len(_categories(product) & _categories(goal.product)) >= 2
    bought, desired = nouns_of(product), nouns_of(goal.product)
    title_score = len(set(bought) & set(desired)) / len(desired) if desired else 0.2
    worth = 1.0 if query_match or category_match or title_score > 0.2 else 0.5
    if title_score < 0.1:
        worth = 0.1
    if title_score == 0:
        worth = 0.0
    return {"r_type": worth, "query_match": query_match, "category_match": category_match, "title_score": title_score}


def colour_of(text: Any) -> Any:
    """The first colour that occurs in a text, or is a member of a pair; otherwise the argument itself."""
    return next((colour for colour in _COLOURS if colour in text), text)


def similarity(one: Any, other: Any) -> int:
    """From 0 to 100, the `token_set_ratio` of thefuzz: without case, punctuation and the letters of Latin-1's upper half."""
    first, second = (package("rapidfuzz.utils").default_process(str(each).translate(_LATIN_1)) for each in (one, other))
    ratio: float = package("rapidfuzz.fuzz").token_set_ratio(first, second)
    return round(ratio)


def _categories(product: Product) -> set[str]:
    return {each.strip() for each in product.product_category.split("›")}


def _attributes_found(product: Product, wanted: Iterable[str]) -> int:
    texts = product.title.lower(), " ".join(product.bullets).lower(), product.description.lower()
    return sum(
        any(similarity(has, each) > _CLOSE for has in product.attributes) or any(each in text for text in texts)
        for each in wanted
    )


def _options_found(chosen: Iterable[str], wanted: Iterable[Any]) -> int:
    values = [colour_of(each) for each in chosen]
    return sum(any(similarity(value, each) > _CLOSE for value in values) for each in map(colour_of, wanted))
