"""The nouns of a product's title: from the data, or by spaCy's tagger where the data has none."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

from agentdistill.envs.webshop.products import Product
from agentdistill.errors import UserError

MODEL = "en_core_web_sm"
_INSTALL = f"pip install spacy, then python -m spacy download {MODEL}"
_KINDS = ("NOUN", "PROPN")


def nouns_of(product: Product) -> list[str]:
    """The nouns of the title, in lower case and with repetitions; tagged once and then kept with the product.

    Raises:
        UserError: when they are not known and spaCy is not installed.
    """
    if product.nouns is None:
        product.nouns = next(tagged([product.title]))
    return product.nouns


def tagged(titles: Iterable[str]) -> Iterator[list[str]]:
    """The nouns of each title; raises as `nouns_of` does."""
    for document in _tagger().pipe(titles):
        yield [token.text.lower() for token in document if token.pos_ in _KINDS]


def require_tagger() -> None:
    """Raise a `UserError` unless titles can be tagged."""
    if importlib.util.find_spec("spacy") is None or importlib.util.find_spec(MODEL) is None:
        raise UserError(f"the titles' nouns, which WebShop's reward needs, are not in the data; {_INSTALL}")


@functools.cache
def _tagger() -> Any:
    require_tagger()
    import spacy

    return spacy.load(MODEL, exclude=["parser", "ner", "lemmatizer", "senter"])
