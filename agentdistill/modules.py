"""The user's own modules, imported by name or by file, here and in worker processes."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path

from agentdistill.durable import digest
from agentdistill.errors import UserError
from agentdistill.faults import described

_FILE = "agentdistill_user_"
_STATE = "__agentdistill_sha256__"


def import_module(name: str) -> None:
    """Import a module by name, or a `.py` file by path, for what it registers. A file that changed since is run again.

    Raises:
        UserError: when there is none, or it fails or ends the program while it is imported.
    """
    path = Path(name)
    if path.suffix != ".py":
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise UserError(f"env.module '{name}' cannot be imported: {_reason(error)}") from error
        return
    # The whole path names the module: two files may have one stem.
    key = f"{_FILE}{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    state = digest(path) if path.is_file() else ""
    if key in sys.modules and getattr(sys.modules[key], _STATE, "") == state:
        return
    spec = importlib.util.spec_from_file_location(key, path.resolve())
    if spec is None or spec.loader is None or not path.exists():
        raise UserError(f"env.module '{name}' does not exist")
    module = importlib.util.module_from_spec(spec)
    setattr(module, _STATE, state)
    sys.modules[key] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[key]
        raise UserError(f"env.module '{name}' failed while it was imported: {_reason(error)}") from error


def elsewhere(name: str) -> str:
    """What another process gives `import_module` to import the loaded module `name`; empty where there is no such thing."""
    module = sys.modules.get(name)
    if module is None or name == "__main__":
        return ""
    return str(module.__file__) if name.startswith(_FILE) else name


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it ends the program (sys.exit({error.code!r})); guard that with if __name__ == '__main__'"
    return described(error)
