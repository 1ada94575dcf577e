"""What search finds: with wider and wider beams, and after greedy search's first wrong word.

Shapes: B sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from rnnmt.corpora.words import words
from rnnmt.dataset.batch import in_chunks, pad
from rnnmt.dataset.tokenizer import BOS, EOS
from rnnmt.model.folder import TrainedModel
from rnnmt.model.seq2seq import Seq2Seq, greedy_limits
from rnnmt.scoring import metrics
from rnnmt.search.sets import in_batches
from rnnmt.search.translator import Translation, Translator

BATCH = 32
SAME = 1e-3  # of a score: how wide a beam is decides how exactly its words are weighed


def by_beam(
    translator: Translator,
    sources: Sequence[str],
    wanted: Sequence[str],
    beams: Sequence[int],
    length_penalty: float,
) -> list[dict[str, Any]]:
    """BLEU, mean log-probability, length ratio and search errors of each beam size.

    A search error is a translation that scores less than another one, found by another size.
    """

    def best(beam: int) -> list[Translation]:
        def search(batch: list[str]) -> list[Translation]:
            return [first for [first] in translator.beam(batch, beam, 1, length_penalty)]

        return in_batches(translator, search, list(sources), BATCH)

    ends = {beam: best(beam) for beam in beams}
    scores = np.array([[one.hypothesis.score for one in some] for some in ends.values()])
    reached = scores.max(axis=0)
    found = [[one.hypothesis.ids for one in some] for some in ends.values()]
    best_ids = [found[row][column] for column, row in enumerate(scores.argmax(axis=0))]
    target = translator.trained.target
    pieces = sum(map(len, target.encode(list(wanted))))
    score = partial(metrics.score, "bleu")
    return [
        {
            "beam": beam,
            "bleu": round(
                score(metrics.statistics("bleu", [o.text for o in ends[beam]], wanted).sum(axis=0)),
                2,
            ),
            "log_prob": round(float(np.mean([o.hypothesis.log_prob for o in ends[beam]])), 4),
            "length_ratio": round(sum(len(o.hypothesis.ids) for o in ends[beam]) / pieces, 4),
            "search_errors": round(
                float(
                    np.mean(
                        (scores[row] < reached - SAME)
                        & [a != b for a, b in zip(found[row], best_ids, strict=True)]
                    )
                ),
                4,
            ),
        }
        for row, beam in enumerate(beams)
    ]


@torch.inference_mode()
def continued(
    model: Seq2Seq, source: list[list[int]], prefixes: list[list[int]], ratio: float
) -> list[list[int]]:
    """Greedy translations (B,) that begin with the given pieces: forced decoding, then free."""
    ids, lengths = pad(source)
    limits = greedy_limits(lengths, ratio).tolist()
    state, memory = model.encode(ids, lengths)
    tokens = torch.full((len(source),), BOS)
    made: list[list[int]] = [[] for _ in source]
    alive = set(range(len(source)))
    while alive:
        output = model.decoder(tokens.unsqueeze(1), state, memory)
        state = output.state
        tokens = model.decoder.logits(output.features[:, 0]).argmax(dim=1)
        for row in sorted(alive):
            time = len(made[row])
            if time < len(prefixes[row]):
                tokens[row] = prefixes[row][time]
            if tokens[row] == EOS or time >= limits[row]:
                alive.discard(row)
            else:
                made[row].append(int(tokens[row]))
    return made


def outcomes(
    trained: TrainedModel, source: list[list[int]], wanted: list[list[int]], ratio: float
) -> list[str]:
    """What greedy search's first wrong piece did to each translation (B,).

    right: there is none. one word: all but one word is right, which is another, missing or too
    many. ruined: more is wrong, and all is right as soon as the wanted piece is forced in the
    place of the first wrong one. lost: wrong even then.
    """
    model, spell = trained.model, trained.target.decode
    found = []
    for rows in in_chunks(range(len(source)), lambda row: len(source[row]), BATCH):
        some = [source[row] for row in rows], [wanted[row] for row in rows]
        greedy = continued(model, some[0], [[] for _ in some[0]], ratio)
        firsts = [first_difference(*pair) for pair in zip(greedy, some[1], strict=True)]
        prefixes = [[*ids, EOS][: at + 1] for ids, at in zip(some[1], firsts, strict=True)]
        forced = continued(model, some[0], prefixes, ratio)
        texts = [spell(made) for made in (greedy, some[1], forced)]
        found += [outcome(*one) for one in zip(*texts, strict=True)]
    return found


def first_difference(made: Sequence[object], wanted: Sequence[object]) -> int:
    """The place of the first that differs; the length of both where none does."""
    pairs = enumerate(zip(made, wanted, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(made), len(wanted)))


def outcome(greedy: str, wanted: str, forced: str) -> str:
    """One of `OUTCOMES`, from three texts; see `outcomes`."""
    if greedy == wanted:
        return "right"
    if differ_in_one(words(greedy), words(wanted)):
        return "one word"
    return "ruined" if forced == wanted else "lost"


def differ_in_one(made: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether at most one word has to be replaced, left out or added."""
    shorter = min(len(made), len(wanted))
    begin = first_difference(made, wanted)
    end = min(first_difference(made[::-1], wanted[::-1]), shorter - begin)
    return max(len(made), len(wanted)) - begin - end <= 1
