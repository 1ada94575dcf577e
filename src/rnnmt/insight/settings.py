"""The `analyze` and `memory` sections: how much is looked at."""

from __future__ import annotations

from pydantic import Field, field_validator

from rnnmt.params import Settings

# What becomes of a greedy translation (see `searching.outcomes`); here, where no torch is loaded.
OUTCOMES = ("right", "one word", "ruined", "lost")
# Below this part of the error of one who remembers nothing, a memory task is solved.
SOLVED = 0.1


class AnalyzeSettings(Settings):
    sentences: int = Field(ge=1, le=1_000_000_000)
    beams: list[int] = Field(min_length=2)
    examples: int = Field(ge=1, le=100)

    @field_validator("beams")
    @classmethod
    def _from_greedy_up(cls, beams: list[int]) -> list[int]:
        if beams != sorted(set(beams)) or beams[0] != 1 or beams[-1] > 1000:
            raise ValueError("beams must ascend from 1, which is greedy search, to 1000 at most")
        return beams


class MemorySettings(Settings):
    seeds: int = Field(ge=1, le=100)
    lags: list[int] = Field(min_length=1)
    parameters: int = Field(ge=100, le=10_000_000)
    updates: int = Field(ge=1, le=1_000_000_000)

    @field_validator("lags")
    @classmethod
    def _ascending(cls, lags: list[int]) -> list[int]:
        if lags != sorted(set(lags)) or lags[0] < 2 or lags[-1] > 10_000:
            raise ValueError("lags must ascend, from 2 at least to 10000 at most")
        return lags
