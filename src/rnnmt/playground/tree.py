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
    attention: NDArray[np.float32] | None  # (N, S) weights over the source, if there are any


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
    attention: NDArray[np.float32] | None = None  # (S,) of the step that made the offers


class Watch:
    """Wraps the step function of one beam search of one sentence (`Translator.beam`)."""

    def __init__(self, prefix: list[int], vocabulary: int) -> None:
        self.prefix = prefix
        self.vocabulary = vocabulary
        self.offers: list[Offer] = []

    def __call__(self, step: StepFunction) -> StepFunction:
        def watched(tokens: Tensor, state: Any, count: int) -> Step[Any]:
            time = len(self.offers)
            forces = time < len(self.prefix)
            # The token to force may be anywhere among all of them.
            found = step(tokens, state, self.vocabulary if forces else count)
            log_probs, words = found.log_probs[:, :count], found.tokens[:, :count]
            forced = None
            if forces:
                token = self.prefix[time]
                place = int((found.tokens[0] == token).nonzero())
                only = slice(place, place + 1)
                found = found._replace(
                    log_probs=found.log_probs[:, only], tokens=found.tokens[:, only]
                )
                forced = (token, float(found.log_probs))
            weights = None if found.attention is None else found.attention.numpy()
            self.offers.append(
                Offer(tokens.tolist(), log_probs.double().numpy(), words.numpy(), forced, weights)
            )
            return found

        return watched


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
            weights = None if offer.attention is None else offer.attention[row]
            node = nodes[parent]._replace(offers=tuple(offered), fate="extended", attention=weights)
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


def greedy_path(nodes: list[Node], forced: int) -> list[int] | None:
    """Greedy search's translation after a prefix of `forced` tokens, where it is in the tree.

    None where a wider search left it, or did not see its end.
    """
    children: dict[int, dict[int, int]] = {}
    for index, node in enumerate(nodes[1:], 1):
        children.setdefault(node.parent, {})[node.token] = index
    found = [0]
    while nodes[found[-1]].fate == "extended":
        node, own = nodes[found[-1]], children[found[-1]]
        likeliest = next(iter(own)) if node.time < forced else node.offers[0][0]
        if likeliest not in own:
            return None
        found.append(own[likeliest])
    return found if nodes[found[-1]].fate == "ended" else None
