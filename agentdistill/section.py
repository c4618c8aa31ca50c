"""What every section of an experiment file is: typed, frozen, and closed to names that it does not know."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic import ValidationInfo as Info

from agentdistill.wording import no_truth_for_a_number


class Section(BaseModel):
    """Base of every section."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: Info) -> Any:
        return no_truth_for_a_number(cls.model_fields[str(info.field_name)].annotation, value)
