"""`progress.json`: how far a run has come. Whatever is read from it is checked first, since a resumed run believes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from agentdistill.config import TEACHER_NAME
from agentdistill.errors import UserError, nearest
from agentdistill.training.integrity import RESTORE
from agentdistill.wording import sentence

STAGES = (
    "tokenizer", "sft-teacher", "sft-student", "eval-teacher", "eval-student", "eval-before", "rollouts",
    "train", "eval-after", "summary",
)  # fmt: skip
SAVED = ("sft-teacher", "sft-student", "train")
"""Stages that leave checkpoints on their way."""
_OF_ONE_OF_SEVERAL = re.compile(rf"(sft|eval)-teacher-{TEACHER_NAME.pattern}")
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Log = Literal["metrics.jsonl", "timings.jsonl"]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Checkpoint(_Checked):
    """Where a stage was saved last: its step, its files' digests, and what else it needs to go on."""

    stage: str
    step: int = Field(ge=0)
    files: dict[str, Sha256] = Field(min_length=1)
    state: dict[str, Any]

    @field_validator("stage")
    @classmethod
    def _known(cls, stage: str) -> str:
        if stage not in SAVED and not (_OF_ONE_OF_SEVERAL.fullmatch(stage) and stage.startswith("sft")):
            raise ValueError(f"no stage '{stage}' has checkpoints{nearest(stage, SAVED)}")
        return stage

    @property
    def name(self) -> str:
        """Its folder under `checkpoints/`."""
        return f"{self.stage}-{self.step:06d}"


class Progress(_Checked):
    """Contents of `progress.json`.

    Attributes:
        experiment: SHA-256 of `experiment.yaml`: whose folder this is; empty where nobody has claimed it.
        done: finished stages, and for each the digests of the files it left, by path in the folder.
        checkpoint: of the stage being worked on.
        sizes: bytes of the logs when this was written; what is longer was written later.
        metrics: digest of so many bytes of `metrics.jsonl`.
        seconds: wall time of the run up to then.
    """

    experiment: Sha256 | Literal[""] = ""
    done: dict[str, dict[str, Sha256]]
    checkpoint: Checkpoint | None
    sizes: dict[Log, Annotated[int, Field(ge=0)]]
    metrics: Sha256 | None = None
    seconds: float = Field(0.0, ge=0)

    @field_validator("done")
    @classmethod
    def _known(cls, done: dict[str, Any]) -> dict[str, Any]:
        for stage in done:
            if stage not in STAGES and not _OF_ONE_OF_SEVERAL.fullmatch(stage):
                raise ValueError(f"there is no stage '{stage}'{nearest(stage, STAGES)}")
        return done

    @model_validator(mode="after")
    def _unfinished(self) -> Self:
        if self.checkpoint is not None and self.checkpoint.stage in self.done:
            raise ValueError(f"stage '{self.checkpoint.stage}' is finished and has a checkpoint")
        return self


def untouched(experiment: str = "") -> Progress:
    """The progress of a run that has not begun."""
    return Progress(experiment=experiment, done={}, checkpoint=None, sizes={})


def read_progress(path: Path) -> Progress | None:
    """Read the file; None where there is none.

    Raises:
        UserError: when it is damaged, naming what is wrong with it.
    """
    try:
        return Progress.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise UserError(damaged(path, _first(error))) from error
    except OSError as error:
        raise UserError(damaged(path, error.strerror or str(error))) from error


def damaged(path: Path, reason: str) -> str:
    """The sentence for a progress file that cannot be true."""
    return f"'{path}' is damaged ({reason}); {RESTORE}"


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"it has an unknown entry '{name}'"
    return " ".join(sentence(first, f"'{name}'" if name else "it").split())
