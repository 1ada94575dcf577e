"""What a variant costs: operations by its equations, time and speed as they were measured."""

from __future__ import annotations

import statistics
from typing import Any

from rnnmt.insight.evidence import Evidence
from rnnmt.scoring.comparison import rate

PIECES = 15  # of the sentence that operations are counted for, on either side
_GATES = {"rnn": 1, "gru": 3, "lstm": 4}
_STATES = {"rnn": 1, "gru": 1, "lstm": 2}


def operations(model: dict[str, Any], vocabulary: int) -> int:
    """Multiply-adds for each target piece, of a sentence of `PIECES` pieces on either side.

    Those of all matrix products: reading the source and making the decoder's first state of it,
    once a sentence, then one step of the decoder. `model` is as in settings.json, `vocabulary` the
    number of target pieces.
    """
    gates = _GATES[model["cell"]]
    hidden, embedding = int(model["hidden"]), int(model["embedding"])
    half = hidden // 2
    encoder = 2 * gates * half * (embedding + half)
    encoder += (int(model["encoder_layers"]) - 1) * 2 * gates * half * (hidden + half)
    decoder = gates * hidden * (embedding + hidden)
    decoder += (int(model["decoder_layers"]) - 1) * gates * hidden * 2 * hidden
    bridge = int(model["decoder_layers"]) * _STATES[model["cell"]] * hidden * hidden // PIECES
    attends = model["attention"] != "none"
    combine = (2 * hidden if attends else hidden) * hidden
    output = hidden * embedding + embedding * vocabulary
    return encoder + bridge + decoder + combine + output + _attention(model["attention"], hidden)


def _attention(kind: str, hidden: int) -> int:
    if kind == "none":
        return 0
    scores_and_context = 2 * PIECES * hidden
    keys = 0 if kind == "dot" else hidden * hidden  # once for each source piece
    query = hidden * hidden if kind == "additive" else 0
    return scores_and_context + keys + query


def of_variant(evidence: Evidence, variant: str) -> int:
    """The `operations` of a variant."""
    run = next(run for run in evidence.runs.values() if run.variant == variant)
    vocabulary = run.settings()["vocabularies"]["target"]
    return operations(evidence.settings(variant, "model"), vocabulary)


def costs(evidence: Evidence) -> list[dict[str, Any]]:
    """One row for each variant; times and peak memory are means over the seeds.

    `epoch_seconds` and tokens a second are of training alone, `seconds_until_best` with validation.
    """
    rows = []
    for variant in evidence.variants:
        values = evidence.comparison["variants"][variant]
        training = values["training"]
        until_best = [sum(t["epoch_seconds"][: t["best_epoch"]]) for t in training]
        rows.append(
            {
                "variant": variant,
                "parameters": training[0]["parameters"],
                "operations": of_variant(evidence, variant),
                "epoch_seconds": _mean([statistics.mean(t["training_seconds"]) for t in training]),
                "seconds_until_best": _mean(until_best),
                "training_tokens_per_second": _mean(
                    [t["target_tokens_per_second"] for t in training]
                ),
                "training_memory_mb": _mean([t["memory_mb"] for t in training]),
                "decoding_memory_mb": _mean([d["memory_mb"] for d in values["decoding"]]),
                **{
                    f"{search}_sentences_per_second": _mean(
                        [rate(d, search) for d in values["decoding"]]
                    )
                    for search in ("greedy", "beam")
                },
            }
        )
    return rows


def _mean(values: list[float]) -> float:
    return round(statistics.mean(values), 2)
