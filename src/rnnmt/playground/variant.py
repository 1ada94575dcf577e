"""One trained variant, and everything that the page shows of what it does with a sentence."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor

from rnnmt.corpora.clean import normalise
from rnnmt.dataset.batch import pad
from rnnmt.dataset.tokenizer import BOS, EOS
from rnnmt.errors import UserError
from rnnmt.model.cells import Recurrent
from rnnmt.model.folder import load_model
from rnnmt.model.seq2seq import Seq2Seq, greedy_limits
from rnnmt.params import Settings
from rnnmt.playground.gates import KEEPS, gates
from rnnmt.playground.tree import Node, Watch, grow, path
from rnnmt.search.beam import score
from rnnmt.search.translator import Translation, Translator

MAX_CHARACTERS = 1000
MAX_PIECES = 100  # of a sentence: a model that finds no end writes three times as many
MAX_BEAM = 10  # more would be no picture
CELLS = ("rnn", "gru", "lstm")


class Question(Settings):
    """What the page asks of one variant."""

    variant: str
    sentence: str = Field(max_length=MAX_CHARACTERS)
    prefix: str = Field(default="", max_length=MAX_CHARACTERS)  # the translation starts with it
    beam: int = Field(default=5, ge=1, le=MAX_BEAM)
    length_penalty: float = Field(default=1.0, ge=0.0, le=10.0)


class Variant:
    """A model's folder, loaded. Raises UserError where there is none.

    Calls from several threads wait for each other: a model's layers are watched while they run.
    """

    def __init__(self, folder: Path, max_length_ratio: float) -> None:
        self.trained = load_model(folder)
        self.folder = folder
        self.name: str = folder.name
        self.max_length_ratio = max_length_ratio
        self._translator = Translator(self.trained, max_length_ratio)
        self._lock = Lock()

    def describe(self) -> dict[str, Any]:
        settings = self.trained.settings
        parameters = sum(weight.numel() for weight in self.trained.model.parameters())
        return {
            "name": self.name,
            "cell": settings["model"]["cell"],
            "attention": settings["model"]["attention"],
            "hidden": settings["model"]["hidden"],
            "parameters": parameters,
        }

    def answer(self, question: Question) -> dict[str, Any]:
        """Both searches' translations, the beam's tree, the gates, and what each took.

        Raises UserError where sentence or prefix is empty or too long for this variant.
        """
        sentence, ids, prefix = self._read(question)
        with self._lock:
            clock = _Clock()
            greedy, best, tree = self._search(sentence, prefix, question)
            clock.stop("search")
            layers = self._layers(ids, list(best.hypothesis.ids))
            clock.stop("gates")
        marked = {
            name: path(tree, [*found.hypothesis.ids, *[EOS] * found.hypothesis.ended])
            for name, found in (("best", best), ("greedy", greedy))
        }
        return {
            "variant": self.name,
            "source": best.source_pieces,
            "forced": len(prefix),
            "greedy": _translation(greedy),
            "beam": _translation(best),
            "tree": {**marked, "nodes": self._nodes(tree, question.length_penalty)},
            "layers": layers,
            "milliseconds": clock.times,
        }

    def _read(self, question: Question) -> tuple[str, list[int], list[int]]:
        """The normalised sentence, its ids, and those of the prefix."""
        sentence, start = normalise(question.sentence), normalise(question.prefix)
        if not sentence:
            raise UserError("There is nothing to translate: type a sentence.")
        ids = self.trained.source.encode([sentence])[0]
        if len(ids) > MAX_PIECES:
            raise UserError(
                f"This sentence is {len(ids)} pieces of words long for {self.name}, and the "
                f"playground takes {MAX_PIECES}. Use `rnnmt translate` for more."
            )
        prefix = self.trained.target.encode([start])[0] if start else []
        limit = int(greedy_limits(torch.tensor([len(ids)]), self.max_length_ratio))
        if len(prefix) >= limit:
            raise UserError(
                f"The forced start is {len(prefix)} pieces of words long, and a translation of "
                f"this sentence ends at {limit}. Force a shorter start."
            )
        return sentence, ids, prefix

    def _search(
        self, sentence: str, prefix: list[int], question: Question
    ) -> tuple[Translation, Translation, list[Node]]:
        """Greedy search's and beam search's translation, and the beam's tree."""
        watch = Watch(prefix, self.trained.target.vocabulary_size, EOS)
        (best,), (greedy,) = self._translator.beam(
            [sentence, sentence], question.beam, 1, question.length_penalty, watch
        )
        return greedy, best, grow(watch.offers, question.beam, BOS, EOS)

    def _nodes(self, tree: list[Node], length_penalty: float) -> list[dict[str, Any]]:
        # Named once each: thousands of offers are a few hundred different tokens.
        tokens = {node.token for node in tree} | {t for node in tree for t, _ in node.offers}
        tokens |= {node.best_loser[0] for node in tree if node.best_loser}
        names = dict(zip(sorted(tokens), self.trained.target.pieces(sorted(tokens)), strict=True))
        names |= {BOS: "<BOS>", EOS: "<EOS>"}
        return [
            {
                "time": node.time,
                "place": node.place,
                "parent": node.parent,
                "piece": names[node.token],
                "step": _number(node.step),
                "log_prob": _number(node.log_prob),
                "score": _number(score(node.log_prob, max(node.time, 1), length_penalty)),
                "offers": [[names[t], _number(p)] for t, p in node.offers],
                "fate": node.fate,
                "loser": node.best_loser
                and [names[node.best_loser[0]], _number(node.best_loser[1])],
                "bar": None if node.bar is None else _number(node.bar),
            }
            for node in tree
        ]

    @torch.inference_mode()
    def _layers(self, source: list[int], target: list[int]) -> list[dict[str, Any]]:
        """The gates of each recurrent layer that has some, while it reads the two sentences."""
        model = self.trained.model
        seen = _recurrences(model, source, target)
        pieces = {
            "source": [*self.trained.source.pieces(source), "<EOS>"],
            "target": ["<BOS>", *self.trained.target.pieces(target)],
        }
        layers = []
        for place in _places(model):
            inputs, state = seen[place.layer]
            found = gates(place.layer, inputs[0], state)
            if place.mirrored:
                found = {name: values.flip(0) for name, values in found.items()}
            if found:
                layers.append(
                    {
                        "name": place.name,
                        "reads": place.side,
                        "mirrored": place.mirrored,
                        "pieces": pieces[place.side],
                        **_gates(found, KEEPS[place.layer.cell]),
                    }
                )
        return layers


class _Place(NamedTuple):
    """Where a recurrent layer stands in a model."""

    layer: Recurrent
    name: str
    side: str  # which sentence it reads
    mirrored: bool  # from the last word to the first


def _places(model: Seq2Seq) -> list[_Place]:
    rows = (
        (model.encoder.forwards, "Encoder, left to right", "source", False),
        (model.encoder.backwards, "Encoder, right to left", "source", True),
        (model.decoder.layers, "Decoder", "target", False),
    )
    return [
        _Place(
            cast(Recurrent, layer),
            name + (f", layer {number}" if len(stack) > 1 else ""),
            side,
            mirrored,
        )
        for stack, name, side, mirrored in rows
        for number, layer in enumerate(stack, 1)
    ]


def _recurrences(
    model: Seq2Seq, source: list[int], target: list[int]
) -> dict[Recurrent, tuple[Tensor, Tensor | None]]:
    """Inputs (1, T, I) and first state of every recurrent layer while `target` is forced."""
    seen: dict[Recurrent, tuple[Tensor, Tensor | None]] = {}

    def note(layer: Recurrent, arguments: tuple[Any, ...]) -> None:
        inputs, state = (*arguments, None)[:2]
        seen[layer] = (inputs, state)

    with _hooked([place.layer for place in _places(model)], note):
        model(*pad([source]), torch.tensor([[BOS, *target]]))
    return seen


@contextmanager
def _hooked(layers: list[Recurrent], note: Any) -> Iterator[None]:
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _gates(found: dict[str, Tensor], keeps: str) -> dict[str, Any]:
    """Averages and cells of each gate (T, H), the cells that keep longest first.

    A cell's half-life: after how many words it has half of what it held, by the geometric mean
    of what it keeps at each word.
    """
    kept = found[keeps].clamp(1e-6, 1 - 1e-6).log().mean(0)  # (H,)
    order = kept.argsort(descending=True)
    return {
        "keeps": keeps,
        "cells": len(order),
        "half_lives": _rounded(math.log(0.5) / kept[order], 2),
        "gates": {
            name: {
                "mean": _rounded(values.mean(1), 3),
                # (H, T) in bytes, 255 is a gate that is wide open.
                "cells": base64.b64encode(
                    (values[:, order].T.nan_to_num() * 255)
                    .round()
                    .byte()
                    .contiguous()
                    .numpy()
                    .tobytes()
                ).decode(),
            }
            for name, values in found.items()
        },
    }


def _translation(found: Translation) -> dict[str, Any]:
    weights = found.alignment
    return {
        "text": found.text,
        "pieces": found.target_pieces,
        "log_prob": _number(found.hypothesis.log_prob),
        "score": _number(found.hypothesis.score),
        "ended": found.hypothesis.ended,
        "alignment": None
        if weights is None
        else [_rounded(row, 3) for row in torch.from_numpy(weights)],
    }


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return round(value, 4) if math.isfinite(value) else None


def _rounded(values: Tensor, digits: int) -> list[float]:
    """Nor has it NaN, which a model has whose training failed."""
    return [round(value, digits) for value in values.nan_to_num().tolist()]


class _Clock:
    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, name: str) -> None:
        now = time.perf_counter()
        self.times[name] = round((now - self._last) * 1000, 1)
        self._last = now


def load_variants(models: Path, seed: int | None, max_length_ratio: float) -> list[Variant]:
    """Each variant in the folder `models`, `VARIANT-SEED` by name, with its lowest or that seed.

    Those without attention come first, plain cells before gated ones. Raises UserError where
    there are none or where one is damaged.
    """
    found: dict[str, tuple[int, Path]] = {}
    for file in sorted(models.glob("*/settings.json")):
        name, _, number = file.parent.name.rpartition("-")
        own = int(number) if number.isdecimal() and name else 0
        key = name if number.isdecimal() and name else file.parent.name
        if seed in (None, own) and own <= found.get(key, (own,))[0]:
            found[key] = (own, file.parent)
    if not found:
        wanted = "" if seed is None else f" with seed {seed}"
        raise UserError(
            f"{models}: no trained model{wanted} there; train some by `make repro`, or say "
            "--models FOLDER"
        )
    return sorted((Variant(f, max_length_ratio) for _, f in found.values()), key=_teaching_order)


def _teaching_order(variant: Variant) -> tuple[bool, int, str]:
    model = variant.trained.settings["model"]
    return model["attention"] != "none", CELLS.index(model["cell"]), variant.name
