"""The packages of the extra `webshop`, imported when they are first needed."""

from __future__ import annotations

import importlib
from typing import Any

from agentdistill.errors import UserError

INSTALL = "pip install 'agentdistill[webshop]'"


def package(name: str) -> Any:
    """A module of nltk, regex or rapidfuzz.

    Raises:
        UserError: when it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"WebShop needs a package that is missing ({error}): {INSTALL}") from error
