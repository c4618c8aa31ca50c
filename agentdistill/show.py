"""A stored result in words again: an evaluation, a comparison, a panel. Nothing is played."""

from __future__ import annotations

import json
from pathlib import Path

from agentdistill.compare import load_comparison
from agentdistill.errors import UserError
from agentdistill.evaluation import OWN, load_eval, open_run, split_name
from agentdistill.panel import load_panel
from agentdistill.verbs import callable_as_verb


def show(what: str | Path) -> list[str]:
    """The lines of a stored result.

    Args:
        what: the folder of an `eval` or a `rollout`, or `FOLDER:BATCH`; a run's folder, for each of its stored evaluations; the
            file of a comparison or of a panel.

    Raises:
        UserError: when there is nothing of the kind.
    """
    path = Path(what)
    if not path.is_file():
        folder, batch = split_name(str(what))
        known = [name for name in open_run(folder).batches() if name in OWN or name.startswith("eval-")]
        if batch or len(known) < 2:
            return load_eval(what).lines
        return [line for name in known for line in load_eval(f"{folder}:{name}").lines]
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{what}' is no result that is kept as JSON: name a panel, a comparison or a folder") from error
    if isinstance(stored, dict) and "panel" in stored and "tasks" in stored and isinstance(stored["tasks"], list):
        return load_panel(path).lines
    if isinstance(stored, dict) and "p_value" in stored:
        sides = stored.get("sides") or ["the first", "the second"]
        return [" and ".join(map(str, sides)), *load_comparison(path).lines]
    return load_eval(path.parent).lines if path.name == "eval.json" else _unknown(what)


def _unknown(what: str | Path) -> list[str]:
    raise UserError(f"'{what}' is neither a panel nor a comparison; name one of those, or the folder of an evaluation")


callable_as_verb(__name__)
