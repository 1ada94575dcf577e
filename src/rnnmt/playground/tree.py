"""A beam search of one sentence as the tree that it grew.

A `Watch` stands between the search and the model's step function: it forces a prefix and writes
down what the model offered. What the search then chose follows from the offers, by its own rule:
of all extensions the likeliest, as many as the beam has places that no ended hypothesis holds.

Shapes: N live hypotheses, K offered tokens of each (the beam size), V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rnnmt.search.beam import Step

Fate = Literal["extended", "ended", "dropped", "open"]
StepFunction = Callable[[Tensor, Any, int], Step[Any]]


class Offer(NamedTuple):
    """What the model said at one step: the likeliest next tokens of each live hypothesis."""

    read: list[int]  # (N,) the token that each hypothesis ended with
    log_probs: NDArray[np.float64]  # (N, K), best first
    tokens: NDArray[np.int64]  # (N, K)
    forced: tuple[int, float] | None  # the token that the prefix demands, and its log-probability


class Node(NamedTuple):
    """A hypothesis: the path from the root to here."""

    time: int  # tokens so far
    place: int  # in the beam at that time, 0 is the likeliest
    parent: int  # index of the node that it extends; -1 for the root
    token: int
    step: float  # log-probability of this token after those before
    log_prob: float  # of the path
    # extended  it lives on in one that stands in the tree
    # ended     its token is <EOS>
    # dropped   none of its extensions was among the likeliest of all: `best_loser` was too weak
    # open      it was unfinished when the search was over
    fate: Fate = "open"
    offers: tuple[tuple[int, float], ...] = ()  # next tokens, log-probabilities, best first
    best_loser: tuple[int, float] | None = None  # a dropped one's best extension, its log_prob
    bar: float | None = None  # the log_prob that it would have had to exceed


class Watch:
    """Wraps the step function of one beam search (`Translator.beam`) of a sentence given twice.

    The second time only the likeliest token is let through at each step, which is greedy search.
    Both together take hardly longer than one, since no sentence changes another's translation.
    """

    def __init__(self, prefix: list[int], vocabulary: int, eos: int) -> None:
        self.prefix = prefix
        self.vocabulary = vocabulary
        self.eos = eos
        self.offers: list[Offer] = []
        self._time = 0
        self._greedy = True  # its hypothesis, the last row, is alive

    def __call__(self, step: StepFunction) -> StepFunction:
        def watched(tokens: Tensor, state: Any, count: int) -> Step[Any]:
            forces = self._time < len(self.prefix)
            # The token to force may be anywhere among all of them.
            found = step(tokens, state, self.vocabulary if forces else count)
            rows = len(tokens) - self._greedy
            forced = None
            steered = self._force(found) if forces else self._narrow(found)
            if forces:
                forced = (self.prefix[self._time], float(steered.log_probs[0, 0]))
            if rows:
                self.offers.append(_offer(tokens, found, rows, count, forced))
            self._time += 1
            return steered

        return watched

    def _force(self, found: Step[Any]) -> Step[Any]:
        places = (found.tokens == self.prefix[self._time]).nonzero()[:, 1:]  # (N, 1)
        log_probs, tokens = (x.gather(1, places) for x in (found.log_probs, found.tokens))
        return found._replace(log_probs=log_probs, tokens=tokens)

    def _narrow(self, found: Step[Any]) -> Step[Any]:
        if not self._greedy:
            return found
        log_probs = found.log_probs.clone()
        log_probs[-1, 1:] = -math.inf
        ends = int(found.tokens[-1, 0]) == self.eos
        self._greedy = not ends and bool(log_probs[-1, 0] > -math.inf)
        return found._replace(log_probs=log_probs)


def _offer(
    tokens: Tensor, found: Step[Any], rows: int, count: int, forced: tuple[int, float] | None
) -> Offer:
    return Offer(
        tokens[:rows].tolist(),
        found.log_probs[:rows, :count].double().numpy(),
        found.tokens[:rows, :count].numpy(),
        forced,
    )


def grow(offers: list[Offer], beam: int, bos: int, eos: int) -> list[Node]:
    """The tree of a search with `beam` places, parents before children, from what was offered."""
    nodes = [Node(0, 0, -1, bos, 0.0, 0.0)]
    live, places = [0], beam
    for offer in offers:
        log_probs, tokens = offer.log_probs, offer.tokens
        if offer.forced is not None:
            token, log_prob = offer.forced
            log_probs, tokens = np.array([[log_prob]]), np.array([[token]])
        totals = np.array([nodes[i].log_prob for i in live])[:, None] + log_probs
        # Stable: of equals the first, as in the search.
        order = np.argsort(-totals, axis=None, kind="stable")[:places]
        rows, columns = np.unravel_index(order[np.isfinite(totals.flat[order])], totals.shape)
        bar = float(totals[rows[-1], columns[-1]]) if len(rows) else -math.inf
        for row, parent in enumerate(live):
            offered = zip(offer.tokens[row].tolist(), offer.log_probs[row].tolist(), strict=True)
            node = nodes[parent]._replace(offers=tuple(offered), fate="extended")
            if row not in rows:
                loser = (int(tokens[row, 0]), float(totals[row, 0]))
                node = node._replace(fate="dropped", best_loser=loser, bar=bar)
            nodes[parent] = node
        born = []
        for place, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            token, parent = int(tokens[row, column]), live[row]
            fate: Fate = "ended" if token == eos else "open"
            if fate == "open":
                born.append(len(nodes))
            step, total = float(log_probs[row, column]), float(totals[row, column])
            nodes.append(Node(nodes[parent].time + 1, place, parent, token, step, total, fate))
        live, places = born, places - (len(rows) - len(born))
    return nodes


def path(nodes: list[Node], tokens: list[int]) -> list[int]:
    """The nodes that spell `tokens`, from the root as far as the tree has them."""
    children = {(node.parent, node.token): index for index, node in enumerate(nodes)}
    found = [0]
    for token in tokens:
        child = children.get((found[-1], token))
        if child is None:
            break
        found.append(child)
    return found
