"""Which environments there are: how they are registered, found, listed and made."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym

from agentdistill.errors import UserError, nearest
from agentdistill.faults import described, fault, one_line
from agentdistill.option_types import misfit

E = TypeVar("E", bound=type)
Requirement = Callable[[], str]
"""Something an environment needs: an empty string where it is there, else a sentence that says what to install or set."""

BUILT_IN = "built in"
_GYM_OPTIONS = ("max_episode_steps", "disable_env_checker")  # taken by gym.make itself


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered environment, as `agentdistill envs` lists it.

    Attributes:
        id: versioned Gymnasium id.
        source: `built in`, the entry point and distribution, or the module or script that registered it.
        missing: a sentence for each part that it lacks on this machine; empty where it can run.
    """

    id: str
    source: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Registered:
    source: str
    requires: tuple[Requirement, ...] = ()
    module: str = ""  # name of the one that called `register`


# In order; Gymnasium's own registry also holds what does not speak text.
_registered: dict[str, _Registered] = {}
_broken: list[str] = []  # a sentence for each plugin that could not be imported
_loading: list[str] = []  # whose registrations are being imported, the innermost last


def register(
    env_id: str, entry: Any = None, *, requires: Requirement | Sequence[Requirement] = (), **kwargs: Any
) -> Callable[[E], E]:
    """Register an environment under a versioned Gymnasium id; usable as a class decorator.

        @ad.register("lab/Guess-v0")
        class Guess(ad.TextEnv): ...

        ad.register("lab/Units-v0", tools=[convert], tasks="units.jsonl", grade=ad.graders.number)

    Args:
        env_id: `namespace/Name-vN`.
        entry: the class, or a `module:Class` string. When it is missing and `tools` or `tasks` are given, the
            environment is an `agentdistill.envs.tool.ToolEnv`.
        requires: what it needs of the machine (see `Requirement` and `needs_package`); asked when environments are listed,
            and told where its module cannot be imported.
        kwargs: default keyword arguments of the class; they can be overridden under `env.options`.
    """
    names = sys._getframe(1).f_globals
    source = _loading[-1] if _loading else _caller(names)
    needs = (requires,) if callable(requires) else tuple(requires)

    def add(entry_point: Any) -> None:
        _registered[env_id] = _Registered(source, needs, str(names.get("__name__", "")))
        gym.register(env_id, entry_point=entry_point, kwargs=kwargs, disable_env_checker=True, order_enforce=False)

    def decorate(cls: E) -> E:
        add(cls)
        return cls

    if entry is not None:
        add(entry)
    elif kwargs.keys() & {"tools", "tasks"}:
        add("agentdistill.envs.tool:ToolEnv")
    return decorate


def unregister(env_id: str) -> None:
    """Forget an environment, if it is known."""
    gym.registry.pop(env_id, None)
    _registered.pop(env_id, None)


def registering_module(env_id: str) -> str:
    """Name of the module that called `register` for an environment; empty where it is not known."""
    return _registered[env_id].module if env_id in _registered else ""


def needs_package(module: str, install: str) -> Requirement:
    """A requirement of a module, looked for without importing it; `install` is the command that brings it."""
    return _Package(module, install)


@dataclass(frozen=True, slots=True)
class _Package:
    module: str
    install: str

    def __call__(self) -> str:
        return "" if importlib.util.find_spec(self.module) is not None else f"needs {self.module}: {self.install}"


def packages(env_id: str) -> dict[str, str]:
    """Versions (see `package_version`) of the packages that an environment was registered as needing, by their modules."""
    known = _registered.get(env_id)
    return {each.module: package_version(each.module) for each in known.requires if isinstance(each, _Package)} if known else {}


def package_version(module: str) -> str:
    """The installed distributions that have a top-level module, with their versions."""
    names = sorted(set(importlib.metadata.packages_distributions().get(module, ())))
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names) or "not installed"


@functools.cache
def load_plugins() -> None:
    """Import the built-in registrations and every module under the entry-point group `agentdistill.envs`, once.

    A plugin that cannot be imported is left out with one warning; no verb fails for it.
    """
    importlib.import_module("agentdistill.envs")
    for point in importlib.metadata.entry_points(group="agentdistill.envs"):
        source = f"entry point '{point.name}'" + (f" of {point.dist.name} {point.dist.version}" if point.dist else "")
        before = set(gym.registry)
        try:
            with _registering(source):
                point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            _broken.append(f"{source} could not be loaded: {described(error)}")
            warnings.warn(f"agentdistill goes on without a plugin: {_broken[-1]}", RuntimeWarning, stacklevel=2)
        for name in gym.registry:
            if name not in before:
                _registered.setdefault(name, _Registered(source))


def registered() -> list[str]:
    """Ids of the text environments: the built-in ones, plugins', and what `register` was called for."""
    load_plugins()
    return sorted(_registered)


def catalogue() -> list[Entry]:
    """Every registered text environment by id, with where it comes from and what it lacks here. Nothing is imported for it."""
    return [Entry(name, _registered[name].source, _missing(name)) for name in registered()]


def make(env_id: str, /, **options: Any) -> gym.Env[str, str]:
    """Make a registered environment.

    Raises:
        UserError: for an unknown id (the nearest one, and plugins that could not be loaded, are named), an option the
            environment does not take, or whatever the environment itself refuses.
        EnvironmentFault: when its `__init__` raises anything else.
    """
    load_plugins()
    name = _import_named(env_id)
    if name not in gym.registry:
        broken = "".join(f"; {each}" for each in _broken)
        near = nearest(name, _registered)
        hint = "" if "did you mean" in near else "; one of yours is there once its file is imported: --module, or env.module"
        raise UserError(f"no environment is registered as '{env_id}'{near}{hint}{broken}")
    spec = gym.registry[name]
    _check_options(env_id, _creator(env_id, spec), spec.kwargs, options)
    try:
        return gym.make(name, **options)
    except (KeyboardInterrupt, UserError):
        raise
    except gym.error.Error as error:
        raise UserError(f"environment '{env_id}' cannot be made: {described(error)}") from error
    except BaseException as error:
        # Gymnasium raises a TypeError anew, with all arguments in its message.
        own = error.__cause__ if isinstance(error, TypeError) and isinstance(error.__cause__, TypeError) else error
        raise fault(env_id, "__init__()", own) from error


def _import_named(env_id: str) -> str:
    """The id itself; in `module:Name-v0` the module is imported for what it registers, and the rest is the id."""
    module, colon, name = env_id.rpartition(":")
    if not colon:
        return env_id
    try:
        importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(
            f"environment '{env_id}' cannot be made: the module '{module}' cannot be imported: {described(error)}"
        ) from error
    return name


def _creator(env_id: str, spec: Any) -> Callable[..., Any]:
    """The class or function that makes an environment."""
    if callable(spec.entry_point):
        found: Callable[..., Any] = spec.entry_point
        return found
    try:
        found = gym.envs.registration.load_env_creator(str(spec.entry_point))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        needs = "".join(f"; it {each}" for each in _missing(spec.id))
        raise UserError(
            f"environment '{env_id}' cannot be made: '{spec.entry_point}' cannot be imported: {described(error)}{needs}"
        ) from error
    return found


def _check_options(env_id: str, creator: Callable[..., Any], defaults: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse options that do not fit the signature, by name or type, so that no TypeError from within is mistaken for one."""
    try:
        signature = inspect.signature(creator)
    except (TypeError, ValueError):  # some built-in callables have none
        return
    given = {key: value for key, value in {**defaults, **options}.items() if key not in _GYM_OPTIONS}
    try:
        signature.bind(**given)
    except TypeError as error:
        taken = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        odd = next((key for key in given if key not in taken), None)
        near = nearest(odd, taken) if odd is not None else ""
        what = "the arguments it was registered with" if odd in defaults and odd not in options else "env.options"
        raise UserError(
            f"environment '{env_id}' did not accept {what} {one_line(repr(dict(options)), 200)}: {error}{near}"
        ) from error
    if wrong := misfit(creator, given):
        raise UserError(f"environment '{env_id}' did not accept an option: {one_line(wrong, 300)}")


def _missing(env_id: str) -> tuple[str, ...]:
    known = _registered.get(env_id)
    sentences = [_ask(each) for each in known.requires] if known else []
    entry = gym.registry[env_id].entry_point if env_id in gym.registry else None
    if isinstance(entry, str) and not any(sentences):
        package = entry.partition(":")[0].partition(".")[0]
        if package not in sys.modules and (not package or importlib.util.find_spec(package) is None):
            sentences.append(f"needs the module '{package}', which cannot be found")
    return tuple(each for each in sentences if each)


def _ask(requirement: Requirement) -> str:
    try:
        return one_line(str(requirement() or ""))
    except Exception as error:
        return f"cannot say what it needs: {described(error)}"


@contextmanager
def _registering(source: str) -> Iterator[None]:
    _loading.append(source)
    try:
        yield
    finally:
        _loading.pop()


def _caller(names: Mapping[str, Any]) -> str:
    """`built in`, `module x.y`, `script x.py`, or `this session`, of the code with these globals."""
    name, file = str(names.get("__name__", "")), names.get("__file__")
    if name.partition(".")[0] == __name__.partition(".")[0]:
        return BUILT_IN
    if not isinstance(file, str):
        return "this session"
    path = Path(file).with_suffix("")
    parts = path.parts[:-1] if path.name == "__init__" else path.parts
    own = tuple(name.split("."))
    if parts[-len(own) :] == own:
        return f"module {name}"
    return f"script {Path(file).name}"
