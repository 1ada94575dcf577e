"""The `decode` section: how translations are searched."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from rnnmt.params import Settings

Penalty = Annotated[float, Field(ge=-10.0, le=10.0)]


class DecodeSettings(Settings):
    beam: int = Field(ge=1, le=1000)
    nbest: int = Field(ge=1, le=1000)
    length_penalty: list[Penalty] = Field(min_length=1)
    max_length_ratio: float = Field(gt=0.0, le=100.0)
    batch_sentences: int = Field(ge=1, le=100_000)

    @model_validator(mode="after")
    def _nbest_fits(self) -> DecodeSettings:
        if self.nbest > self.beam:
            raise ValueError(f"nbest ({self.nbest}) cannot exceed beam ({self.beam})")
        return self
