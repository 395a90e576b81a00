"""What all parts of a document have in common."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, model_validator


class Part(BaseModel):
    """A part of a document: unknown keys are ignored, and a null is a figure that was not taken."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        """Take a null for a figure, or a whole part, that was not taken."""
        if not isinstance(value, Mapping):
            return value
        return {key: part for key, part in value.items() if part is not None}
