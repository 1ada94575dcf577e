"""The `model` and `train` sections, and what a variant changes in them."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import Field, model_validator

from rnnmt import params
from rnnmt.errors import UserError
from rnnmt.params import Settings

S = TypeVar("S", bound=Settings)


class ModelSettings(Settings):
    """Everything that is needed, with the vocabulary sizes, to build a model."""

    cell: Literal["rnn", "gru", "lstm"]
    attention: Literal["none", "dot", "general", "additive"]
    heads: int = Field(ge=1, le=64)
    embedding: int = Field(ge=1, le=8192)
    hidden: int = Field(ge=2, le=8192)
    encoder_layers: int = Field(ge=1, le=16)
    decoder_layers: int = Field(ge=1, le=16)
    layer_norm: bool
    dropout: float = Field(ge=0.0, lt=1.0)
    word_dropout: float = Field(ge=0.0, lt=1.0)
    tie_embeddings: bool

    @model_validator(mode="after")
    def _two_directions_share_the_width(self) -> ModelSettings:
        if self.hidden % 2:
            raise ValueError("hidden must be even: the encoder's two directions share it")
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads ({self.heads}), which share it")
        return self


class TrainSettings(Settings):
    """The `train` section: how a model is fitted."""

    fraction: float = Field(gt=0.0, le=1.0)
    batch_tokens: int = Field(ge=1, le=10_000_000)
    max_epochs: int = Field(ge=1, le=100_000)
    patience: int = Field(ge=1, le=100_000)
    monitor: Literal["val/bleu", "val/loss"]
    learning_rate: float = Field(gt=0.0, le=10.0)
    warmup_steps: int = Field(ge=0, le=1_000_000_000)
    schedule: Literal["cosine", "inverse-sqrt", "constant"]
    bpe_dropout: float = Field(ge=0.0, lt=1.0)
    label_smoothing: float = Field(ge=0.0, lt=1.0)
    gradient_clip: float = Field(gt=0.0)
    weight_decay: float = Field(ge=0.0, le=1.0)
    weight_average: float = Field(ge=0.0, lt=1.0)
    precision: Literal["float32", "bfloat16"]
    processes: int = Field(ge=1, le=1024)
    nodes: int = Field(ge=1, le=1024)
    checkpoint_seconds: float = Field(gt=0.0, le=1e9)


def variant(name: str) -> tuple[ModelSettings, TrainSettings]:
    """The settings of one variant: its entry's keys replace those of `model` and `train`.

    Raises UserError where there is no such variant or where one of its keys is wrong.
    """
    if name not in params.variants():
        known = ", ".join(params.variants())
        raise UserError(f"{params.path()}: no variant '{name}'; there are {known}")
    changes = params.read()["variants"][name]
    if changes is None:  # an entry without keys: as `model` and `train` say
        changes = {}
    known_keys = {*ModelSettings.model_fields, *TrainSettings.model_fields}
    params.check_keys(changes, known_keys, ("variants", name))
    return (
        _changed("model", ModelSettings, changes, name),
        _changed("train", TrainSettings, changes, name),
    )


def cores() -> int:
    """Processor cores that the training of one variant takes on a machine, at most."""
    return params.threads() * max(variant(name)[1].processes for name in params.variants())


def _changed(section: str, schema: type[S], changes: dict[str, object], name: str) -> S:
    base = params.load(section, schema)
    own = {key: value for key, value in changes.items() if key in schema.model_fields}
    return params.validate(base.model_dump() | own, schema, ("variants", name))
