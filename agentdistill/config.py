"""An experiment, typed: every field documented, and whatever is not known is refused with the nearest name that is."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator

from agentdistill import yamltext
from agentdistill.engines.section import EngineSection
from agentdistill.errors import UserError, nearest
from agentdistill.policies.base import SamplingParams, Temperature
from agentdistill.rollout import Overflow
from agentdistill.section import Section
from agentdistill.signals.method import preset_schedule
from agentdistill.trajectory import Author
from agentdistill.wording import place, sentence, shown

SAME_EPISODES = (
    "{samples} samples of a task at temperature 0 are one and the same episode, counted {samples} times; "
    "set eval.samples to 1, or eval.temperature above 0"
)
OWN_WEIGHTS = ("initial", "ema", "live")
_BY_NAME = {"method": "preset", "schedule": "kind", "view": "kind", "assign": "kind", "env": "id"}


def _spec(value: Any) -> Any:
    """`method`, `schedule` and `env.view`: a name, or a mapping that `signals`, `curricula` and `view` check."""
    if not isinstance(value, str) and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
        raise ValueError(f"must be a name or a mapping of settings, not {shown(value)}")
    return value


def _plain(value: Any, at: str = "it") -> Any:
    """`value` as a file can hold it: an environment is made from the same options in the first and in a resumed session."""
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, at) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"'{key}'") for key, item in value.items()}
    raise ValueError(f"must hold text, finite numbers, true, false, null, lists, and mappings by name; {at} is {shown(value)}")


Share = Annotated[float, Field(ge=0, lt=1)]
Spec = Annotated[str | dict[str, Any], BeforeValidator(_spec)]
LrSchedule = Literal["constant", "linear", "cosine"]
Learn = Literal["teacher", "student", "both"]
TEACHER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class EnvSection(Section):
    """The environment, and the tasks the student trains on."""

    id: str = Field(min_length=1, description="registered Gymnasium id")
    module: str = Field(
        "", description="module, or .py file beside the experiment, imported first: it registers the environment"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the environment")
    split: str = Field("train", description="task split to train on")
    demonstrations: str = Field(
        "", description="JSONL file of recorded action lists, which go before the environment's own expert"
    )
    max_turns: int = Field(30, ge=1, description="messages an episode may have")
    max_context: int = Field(2048, ge=8, description="tokens of one context")
    view: Spec = Field("chat", description="how an episode is shown: chat, window, or one with settings")
    overflow: Overflow = Field("end", description="end the episode, or window the context, when a prompt leaves no room")
    window: int = Field(2, ge=1, description="turns kept when the context is windowed")
    workers: int = Field(0, ge=0, le=256, description="processes that hold the environments; 0: this one, for fast ones")
    timeout: float = Field(
        300,
        gt=0,
        description="seconds of a call in a worker, which is killed then and asked once more; no bound without workers",
    )
    recycle: int = Field(200, ge=0, description="episodes after which a worker is replaced; 0: never")
    memory: int = Field(
        0, ge=0, description="MiB, those of its children with them, beyond which a worker is replaced (Linux); 0: no bound"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_id(cls, value: Any) -> Any:
        """`env: lab/Units-v0` is short for `env: {id: lab/Units-v0}`."""
        return {"id": value} if isinstance(value, str) else value

    @field_validator("options", mode="after")
    @classmethod
    def _plain_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {key: _plain(item, f"'{key}'") for key, item in value.items()}

    @field_validator("module", "demonstrations", mode="after")
    @classmethod
    def _file_from_here(cls, value: str) -> str:
        return located(value, Path.cwd())


class SftSection(Section):
    """Supervised training on the environment's expert, from scratch or as a warm-up."""

    demonstrations: int = Field(1600, ge=1, description="expert episodes to imitate")
    noisy: float = Field(0.5, ge=0, le=1, description="share of demonstrations with random actions")
    noise: float = Field(0.15, ge=0, lt=1, description="chance of a random action before each expert action")
    steps: int = Field(800, ge=1, description="optimizer steps")
    batch: int = Field(32, ge=1, description="sequences a step")
    lr: float = Field(3e-3, gt=0, le=1e30, description="peak learning rate")
    lr_schedule: LrSchedule = Field("cosine", description="after the warm-up: constant, or down to 0")
    warmup: int = Field(20, ge=0, description="steps of linear warm-up")
    betas: tuple[Share, Share] = Field((0.9, 0.98), description="AdamW's")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, of matrices")
    grad_clip: float = Field(1.0, gt=0, description="largest gradient norm")
    eval_every: int = Field(0, ge=0, description="steps between success rates on validation tasks; 0: never")
    eval_tasks: int = Field(64, ge=1, description="validation tasks")
    stop_at_success: float | None = Field(None, gt=0, le=1, description="stop when validation success reaches this")
    checkpoint_every: int = Field(100, ge=1, description="steps")


class ModelSection(Section):
    """A model by its reference (see `policies.load`), and how it is warmed up."""

    model: str = Field(min_length=1, description="folder, hub id, pip:package or tiny:<width>x<depth>")
    sft: SftSection | None = Field(None, description="supervised stage before distillation")


class LoraSection(Section):
    """LoRA (arXiv 2106.09685): distillation trains small matrices beside the student's linear layers, and nothing else."""

    r: int = Field(64, ge=1, description="rank of the adapter")
    alpha: float = Field(128, gt=0, description="the adapter's share is multiplied by alpha/r")
    dropout: float = Field(0, ge=0, lt=1, description="must be 0: the policy that is trained is the one that played")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="the linear layers with an adapter: all but the output head, or names such as q_proj"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_target(cls, value: Any) -> Any:
        """`targets: q_proj` is short for `targets: [q_proj]`."""
        if isinstance(value, Mapping) and isinstance(one := value.get("targets"), str) and one != "all-linear":
            return {**value, "targets": [one]}
        return value

    @field_validator("dropout", mode="after")
    @classmethod
    def _no_dropout(cls, value: float) -> float:
        if value:
            raise ValueError(
                f"must be 0, not {shown(value)}: dropout would make the policy that is trained another than the one that played"
            )
        return value

    @field_validator("targets", mode="after")
    @classmethod
    def _some_target(cls, value: str | list[str]) -> str | list[str]:
        if value != "all-linear" and (not value or not all(value)):
            raise ValueError("must name at least one layer, such as q_proj, or be all-linear")
        return value


class StudentSection(ModelSection):
    """The student: a model, how it is warmed up, and whether all of it or an adapter is distilled into."""

    lora: LoraSection | None = Field(None, description="train a LoRA adapter instead of all weights")


class TeacherSection(ModelSection):
    """The teacher: another model, or the student's own weights, by one of three names.

    `initial`: as they were when distillation began. `ema`: their moving average, from `initial` on. `live`: as they are.
    """

    privileged: bool = Field(False, description="show the teacher (only) the environment's plan for the task")
    decay: float | None = Field(
        None, ge=0, lt=1, description="of model: ema, by iteration: ema ← decay·ema + (1−decay)·student; 0.99 by default"
    )

    @property
    def own(self) -> bool:
        """Whether the teacher is made of the student's weights."""
        return self.model in OWN_WEIGHTS

    @model_validator(mode="after")
    def _decays(self) -> Self:
        if self.decay is not None and self.model != "ema":
            raise ValueError(f"teacher.decay is of the moving average, model: ema, and teacher.model is {shown(self.model)}")
        return self


class MixedSection(Section):
    """Episodes that the student begins and the teacher ends (DASD, arXiv 2601.09088)."""

    least: int = Field(0, ge=0, description="turns that the student plays first, at least")
    most: int = Field(ge=0, description="and at most: a number between the two is drawn for every rollout")
    learn: Learn = Field("teacher", description="whose tokens carry loss: teacher, student or both")

    @property
    def authors(self) -> tuple[Author, ...]:
        """Whose tokens carry loss."""
        return ("student", "teacher") if self.learn == "both" else (self.learn,)

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.most < self.least:
            raise ValueError(f"mixed.most is {self.most}, below mixed.least, which is {self.least}")
        return self


class ReferenceSection(Section):
    """A frozen model that the distillation is taken against, by methods that need one. It sees what the student sees."""

    model: str = Field(min_length=1, description="folder, hub id, pip:package, or initial: the student before distillation")


class RolloutsSection(Section):
    """Stored episodes that are trained on, instead of playing new ones (Lightning OPD, arXiv 2604.13010)."""

    store: str = Field(min_length=1, description="folder of a run or a rollout, whose stored episodes are trained on")
    scorer: str = Field("", description="whose stored scores stand for the teacher, which is not loaded then")
    reference: str = Field("", description="whose stored scores stand for the reference, which is not loaded then")
    batches: list[str] = Field(default_factory=list, description="stored batches; by default all but evaluations")


class TrainSection(Section):
    """The on-policy loop."""

    iterations: int = Field(60, ge=0, description="rounds of rollout and update")
    tasks: int = Field(32, ge=1, description="tasks an iteration")
    rollouts: int = Field(1, ge=1, description="rollouts a task (a group)")
    minibatches: int = Field(1, ge=1, description="optimizer steps an iteration")
    epochs: int = Field(1, ge=1, description="passes over an iteration's rollouts")
    lr: float = Field(1e-3, gt=0, le=1e30, description="peak learning rate")
    lr_schedule: LrSchedule = Field("constant", description="after the warm-up: constant, or down to 0")
    warmup: int = Field(0, ge=0, description="optimizer steps of linear warm-up")
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="AdamW's")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, of matrices")
    grad_clip: float = Field(1.0, gt=0, description="largest gradient norm")
    token_budget: int = Field(8192, ge=1, description="tokens that one forward pass computes")
    packing: bool | None = Field(
        None, description="lay the sequences of a pass into one row, without padding; by default where a model can"
    )
    activation_checkpointing: bool = Field(
        False, description="compute layers again in the backward pass, and do not keep them: less memory, a third more time"
    )
    rank_timeout: float = Field(
        600,
        gt=0,
        description="seconds that trainer ranks wait for each other, or for a sign of life of rank 0 (see docs/scale.md)",
    )
    old_logprobs: Literal["trainer", "sampler"] = Field("trainer", description="whose log-probs the surrogate starts from")
    checkpoint_every: int = Field(10, ge=1, description="iterations")
    keep_rollouts: bool = Field(True, description="store every iteration's trajectories")


class EvalSection(Section):
    """Success on tasks that no choice is made on."""

    split: str = Field("test", description="split of the reported evaluations")
    panel: str = Field("", description="a stored list of tasks, a .json file, to report on instead of the split's first")
    tasks: int = Field(200, ge=1, description="tasks of the reported evaluations")
    samples: int = Field(1, ge=1, description="episodes a task; more than 1 only at a temperature above 0")
    every: int = Field(0, ge=0, description="iterations between evaluations; 0: before and after only")
    every_split: str = Field("valid", description="split of the evaluations during training")
    every_tasks: int = Field(64, ge=1, description="tasks of the evaluations during training")
    temperature: Temperature = 0.0
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the likeliest tokens of this mass")

    @field_validator("panel", mode="after")
    @classmethod
    def _found(cls, value: str) -> str:
        return located(value, Path.cwd())

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(SAME_EPISODES.format(samples=self.samples))
        return self


class LogSection(Section):
    """Where the numbers of `metrics.jsonl` are shown as well (see docs/logging.md)."""

    backends: list[str] = Field(default_factory=list, description="of wandb, tensorboard, trackio; jsonl is always written")
    project: str = Field("agentdistill", min_length=1, description="under which W&B and trackio list the run")
    mode: Literal["offline", "online"] = Field("offline", description="W&B's; the variable WANDB_MODE goes before it")

    @model_validator(mode="before")
    @classmethod
    def _from_names(cls, value: Any) -> Any:
        """`log: [wandb]` and `log: wandb` are short for `log: {backends: [wandb]}`."""
        named = [value] if isinstance(value, str) else value
        return {"backends": named} if isinstance(named, list) else value


class Experiment(Section):
    """One experiment file."""

    name: str = Field("run", description="what the run is called; its folder is runs/<name>")
    seed: int = Field(0, description="every random choice follows from it")
    env: EnvSection
    student: StudentSection
    teacher: TeacherSection | None = None
    teachers: dict[str, TeacherSection] = Field(
        default_factory=dict,
        description="several teachers by name, instead of teacher: each scores the trajectories assigned to it",
    )
    assign: Spec = Field("round-robin", description="which of teachers scores a trajectory: round-robin over tasks, or task")
    reference: ReferenceSection | None = None
    mixed: MixedSection | None = None
    rollouts: RolloutsSection | None = None
    tokenizer_vocab: int = Field(512, ge=262, le=1_000_000, description="for tiny models: most tokens of their tokenizer")
    method: Spec = Field("opd", description="a preset, or axes over one (see docs/methods.md)")
    schedule: Spec = Field(
        "none", description="none, tcod-f2b, tcod-b2f, adaptive, or one with settings; the preset's own by default"
    )
    sampling: SamplingParams = Field(default_factory=lambda: SamplingParams(max_tokens=64))
    train: TrainSection = Field(default_factory=TrainSection)
    eval: EvalSection = Field(default_factory=EvalSection)
    engine: EngineSection = Field(default_factory=EngineSection)
    log: LogSection = Field(default_factory=LogSection)

    @model_validator(mode="before")
    @classmethod
    def _schedule_of_the_preset(cls, value: Any) -> Any:
        """`method: tcod-f2b` is short for that and its schedule, where none is named."""
        if isinstance(value, Mapping) and "schedule" not in value and (own := preset_schedule(value.get("method"))):
            return {**value, "schedule": own}
        return value

    @field_validator("name", mode="after")
    @classmethod
    def _names_one_folder(cls, value: str) -> str:
        if value in ("", ".", "..") or any(c in "/\\" or not c.isprintable() for c in value):
            raise ValueError(
                f"must be the name of one folder (the run goes to runs/<name>), not {shown(value)}; --out takes a path"
            )
        return value

    @property
    def workers(self) -> int:
        """Processes that hold the environments, wherever they are; 0: the one that runs the experiment."""
        return self.env.workers or self.engine.ray.environments

    @property
    def teacher_roles(self) -> dict[str, TeacherSection]:
        """Every teacher by its role, which names folders and stages: `teacher`, or `teacher-<name>` where there are several.

        Where stored scores stand for the teacher, nobody is one: the section only says whose scores are expected.
        """
        if self.rollouts is not None and self.rollouts.scorer:
            return {}
        if self.teacher is not None:
            return {"teacher": self.teacher}
        return {f"teacher-{name}": section for name, section in self.teachers.items()}

    @property
    def elsewhere(self) -> int:
        """How many teachers are models of their own, which an engine may hold."""
        return sum(not section.own for section in self.teacher_roles.values())

    @field_validator("teachers", mode="after")
    @classmethod
    def _names_folders(cls, value: dict[str, TeacherSection]) -> dict[str, TeacherSection]:
        for name in value:
            if not TEACHER_NAME.fullmatch(name):
                raise ValueError(f"teachers names {shown(name)}; a name is of letters, digits, dots, dashes and underscores")
        if len(value) == 1:
            raise ValueError(
                f"teachers names one, {shown(next(iter(value)))}; name another, or write it as the teacher section"
            )
        return value

    @model_validator(mode="after")
    def _one_way_to_teach(self) -> Self:
        if self.teacher is not None and self.teachers:
            raise ValueError(
                f"teacher is {shown(self.teacher.model)} and teachers names {', '.join(self.teachers)}; put all of them into "
                "teachers, or drop one of the two"
            )
        if self.assign != "round-robin" and not self.teachers:
            raise ValueError(
                f"assign {shown(self.assign)} shares trajectories among teachers, and there is no teachers section"
            )
        return self

    @model_validator(mode="after")
    def _stored_or_loaded(self) -> Self:
        if self.rollouts is None:
            return self
        scorer, teacher = shown(self.rollouts.scorer), self.teacher
        if self.rollouts.scorer and self.teachers:
            raise ValueError(f"rollouts.scorer is {scorer}, one scorer, and teachers names several; drop one of the two")
        if self.rollouts.scorer and teacher is not None and (teacher.own or teacher.sft is not None):
            what = f"are the student's own weights, {shown(teacher.model)}" if teacher.own else "has an sft section"
            raise ValueError(f"rollouts.scorer is {scorer}, so no teacher is loaded, and teacher {what}; drop one of the two")
        if self.rollouts.reference and self.reference is not None:
            raise ValueError(
                f"rollouts.reference is {shown(self.rollouts.reference)}, so no reference is loaded, and there is a reference "
                "section; drop one of the two"
            )
        return self

    @model_validator(mode="after")
    def _rollouts_differ(self) -> Self:
        if self.train.rollouts > 1 and self.sampling.temperature == 0:
            raise ValueError(
                f"train.rollouts is {self.train.rollouts} and sampling.temperature is 0, so a task's rollouts would be one and "
                "the same episode; raise the temperature, or set train.rollouts to 1"
            )
        return self


def load_experiment(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read an experiment file.

    `extends: other.yaml` (relative to the file) starts from another experiment; mappings are merged, the rest replaced.

    Args:
        path: YAML file.
        overrides: values by dotted name, such as `{"train.lr": 1e-6}`.

    Raises:
        UserError: for a missing or malformed file, an unknown field (the nearest is named) or a wrong type.
    """
    raw = override(_read(Path(path), ()), overrides or {})
    return parse_experiment(_with_files(raw, Path.cwd(), Path(path).parent), str(path))


def parse_experiment(raw: Mapping[str, Any], origin: str = "experiment", names: Mapping[str, str] | None = None) -> Experiment:
    """Validate a mapping as an experiment (see `load_experiment`).

    Args:
        origin: what errors call the mapping.
        names: what errors call a field, where that is not its dotted name.
    """
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = place(first)
        if first["type"] == "extra_forbidden":
            known = _fields_at(first["loc"][:-1])
            raise UserError(f"{origin}: unknown field '{where}'{nearest(str(first['loc'][-1]), known)}") from error
        raise UserError(f"{origin}: {sentence(first, (names or {}).get(where, where) or 'an experiment')}") from error


def located(module: str, *folders: Path) -> str:
    """A file by its absolute path, in the first folder that has it; anything else, such as a module's name, as it is."""
    path = Path(module).expanduser()
    if path.suffix in (".py", ".jsonl", ".json"):
        for folder in folders:
            if (folder / path).is_file():
                return str((folder / path).resolve())
    return module


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`--train.lr 1e-6 --name=x` as a mapping; values are read as YAML.

    Raises:
        UserError: for a word that is no `--name` or has no value.
    """
    out: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) < 3:
            raise UserError(f"did not understand '{word}'; fields are overridden as --section.field value")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"--{name} needs a value")
            value = rest.pop(0)
        out[name] = _scalar(name, value)
    return out


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` over it; mappings are merged unless the change names another `kind` or `preset`."""

    def another(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        return any(key in new and new[key] != old.get(key) for key in ("kind", "preset"))

    out = dict(base)
    for key, value in change.items():
        old = out.get(key)
        if isinstance(value, Mapping) and isinstance(old, str) and key in _BY_NAME and not value.keys() & {"kind", "preset"}:
            old = {_BY_NAME[key]: old}  # `method: opd` is short for `method: {preset: opd}`
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not another(old, value):
            out[key] = merge(old, value)
        else:
            out[key] = value
    return out


def override(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` with values changed by dotted name, such as `{"train.lr": 1e-6}`."""
    out = dict(raw)
    for dotted, value in overrides.items():
        out = merge(out, _nest(dotted.split("."), value))
    return out


def dump(experiment: Experiment) -> str:
    """The experiment as YAML, every field written out."""
    return yamltext.dump(experiment.model_dump(mode="json"))


def _scalar(name: str, text: str) -> Any:
    try:
        return yamltext.read(text)
    except UserError as error:
        raise UserError(f"the value of --{name} {error}") from error


def _nest(path: Sequence[str], value: Any) -> dict[str, Any]:
    return {path[0]: value if len(path) == 1 else _nest(path[1:], value)}


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if "\0" in str(path):
        raise UserError(f"experiment file {str(path)!r} cannot be read: no file's name has a null byte")
    if path.resolve() in seen:
        raise UserError(f"{path} extends itself by way of {' → '.join(str(p) for p in seen)}")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"experiment file '{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"experiment file '{path}' is not valid YAML: {error}") from error
    try:
        raw = yamltext.read(text)
    except UserError as error:
        raise UserError(f"experiment file '{path}' {error}") from error
    if not isinstance(raw, dict):
        raise UserError(f"experiment file '{path}' must hold a mapping of sections")
    raw = _with_files(raw, path.parent)
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    if not isinstance(parent, str) or not parent:
        raise UserError(f"{path}: extends must be the path of another experiment file, not {shown(parent)}")
    return merge(_read(path.parent / parent, (*seen, path.resolve())), raw)


def _with_files(raw: Mapping[str, Any], *folders: Path) -> dict[str, Any]:
    """`raw` with the files that it names located in the folders."""
    out = dict(raw)
    for section, names in (("env", ("module", "demonstrations")), ("eval", ("panel",))):
        if isinstance(there := raw.get(section), Mapping):
            named = {name: there[name] for name in names if isinstance(there.get(name), str)}
            out[section] = {**there, **{name: located(value, *folders) for name, value in named.items()}}
    return out


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """Field names of the section at a location."""
    section: Any = Experiment
    for part in location:
        if isinstance(section, type) and issubclass(section, BaseModel) and part in section.model_fields:
            annotation = section.model_fields[str(part)].annotation
            options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
            section = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), annotation)
        elif typing.get_origin(section) is dict:  # sections by name
            section = typing.get_args(section)[1]
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
