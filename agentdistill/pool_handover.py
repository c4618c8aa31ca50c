"""What a worker process must import to make the same environment: handed over as names, since it is a new interpreter."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from agentdistill import environment, modules
from agentdistill.errors import UserError
from agentdistill.faults import described
from agentdistill.registration import registering_module

MEND = "put it at the top level of a module or a .py file of its own and name that as env.module, or set env.workers to 0"


@dataclass(frozen=True, slots=True)
class Handover:
    """An environment's id and options, and where a new interpreter finds it.

    Attributes:
        options: pickled apart, since what they name may be in `imports`.
        imports: imported with `modules.import_module`, in order, whatever they register.
        origin: imported if nothing has registered the id yet; empty for a session's own module.
        entry: names the class or function that must be under the id in the end.
        spec: the pickled registration, for an id that importing does not register; None where it cannot be pickled.
    """

    env_id: str
    options: bytes
    imports: tuple[str, ...]
    origin: str
    entry: str
    spec: bytes | None


def hand_over(env_id: str, options: Mapping[str, Any], imports: Sequence[str]) -> bytes:
    """Pack an environment of this process for a worker, which imports the modules `imports` first.

    Raises:
        UserError: for an unknown id, or options that cannot leave this process.
    """
    environment.load_plugins()
    if ":" not in env_id and env_id not in gym.registry:
        environment.make(env_id, **options)  # says what there is instead
    found = gym.registry.get(env_id)
    origin = registering_module(env_id)
    if (given := _pickled(dict(options))) is None:
        raise UserError(f"env.options of '{env_id}' hold what cannot be sent to worker processes; set env.workers to 0")
    return pickle.dumps(Handover(env_id, given, tuple(imports), modules.elsewhere(origin), _entry(found), _pickled(found)))


def take_over(packed: bytes) -> tuple[str, dict[str, Any]]:
    """In the worker: import what the environment needs; its id and options.

    Raises:
        UserError: where it cannot be found, with what to do about it.
    """
    given: Handover = pickle.loads(packed)
    for module in given.imports:
        modules.import_module(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of plugins that cannot be imported: the main process has said so
        environment.load_plugins()
    reason = "it was registered in this session (__main__), which they cannot import"
    if ":" not in given.env_id:
        if given.env_id not in gym.registry and given.origin:
            modules.import_module(given.origin)
            reason = f"importing '{given.origin}' does not register it"
        if given.env_id not in gym.registry and given.spec is not None:
            try:
                gym.registry[given.env_id] = pickle.loads(given.spec)
            except Exception as error:
                reason += f", and its parts cannot be found by name: {described(error)}"
        if _entry(gym.registry.get(given.env_id)) != given.entry:
            raise UserError(f"environment '{given.env_id}' cannot be made in worker processes: {reason}; {MEND}")
    try:
        return given.env_id, pickle.loads(given.options)
    except Exception as error:
        raise UserError(
            f"env.options of '{given.env_id}' cannot be read in worker processes: {described(error)}; {MEND}"
        ) from error


def _pickled(value: Any) -> bytes | None:
    try:
        return pickle.dumps(value)
    except Exception:
        return None


def _entry(spec: Any) -> str:
    point = getattr(spec, "entry_point", None)
    if point is None or isinstance(point, str):
        return str(point)
    return f"{getattr(point, '__module__', '')}:{getattr(point, '__qualname__', type(point).__qualname__)}"
