"""YAML as experiments use it: plain data, every key once, `1e-6` a number, and errors of one sentence.

PyYAML reads YAML 1.1, where `1e-6` is text, `NO` is false, `010` is 8, `1:30` is 90, a date is an object that no JSON can hold,
and of a key given twice the last wins without a word.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from agentdistill.errors import UserError

_CORE = "tag:yaml.org,2002:"
_TAGS = frozenset(_CORE + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge"))
_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


class _Loader(yaml.SafeLoader):
    """Reads numbers and truth values as JSON does, and everything else that is plain as text."""


class _Dumper(yaml.SafeDumper):
    """Quotes whatever text `_Loader`, or a reader of YAML 1.1, would take for something else."""


_PLAIN = {
    "int": (r"[+-]?(0|[1-9][0-9]*)", "+-0123456789"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "float": (rf"{_EXPONENT.pattern}|[+-]?([0-9]+\.[0-9]*|\.[0-9]+)|[+-]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "+-.0123456789"),
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag in (_CORE + "null", _CORE + "merge")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(_CORE + _kind, re.compile(rf"({_pattern})\Z"), list(_first))
_Dumper.add_implicit_resolver(_CORE + "float", re.compile(rf"{_EXPONENT.pattern}\Z"), list("-+.0123456789"))


def read(text: str) -> Any:
    """The data in a YAML document.

    Raises:
        UserError: with what is wrong and at which line, to go behind the document's name: `is not valid YAML: …`.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, set(), set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number such as 0b, or one too long for Python
        raise UserError(f"is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError("is not valid YAML: it is nested too deeply") from error


def dump(data: Any) -> str:
    """Plain data as YAML that `read` reads back as it was, keys in their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _check(node: yaml.Node, above: set[int], done: set[int]) -> None:
    """Refuse keys given twice, anchors that hold themselves, and tags that make anything but plain data."""
    if id(node) in above:
        raise UserError(f"is not usable: the anchor at line {_line(node)} contains itself")
    if id(node) in done:
        return
    if node.tag not in _TAGS:
        raise UserError(f"is not usable: the tag {node.tag} at line {_line(node)} is not plain data")
    above.add(id(node))
    if isinstance(node, yaml.MappingNode):
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, value in node.value:
            name = (key.tag, str(key.value))
            if name in first and key.tag != _CORE + "merge":
                raise UserError(
                    f"is not usable: '{key.value}' stands twice in one mapping, at lines {_line(first[name])} and {_line(key)}"
                )
            first[name] = key
            _check(key, above, done)
            _check(value, above, done)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(item, above, done)
    above.discard(id(node))
    done.add(id(node))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
