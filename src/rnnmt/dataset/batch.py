"""Batches of sentences of like lengths, and a loader that can go on in the middle of an epoch.

Shapes: B sentences, S source tokens with <EOS>, T target tokens with <BOS> or <EOS>.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnnmt.dataset.store import ParallelStore, TokenStore
from rnnmt.dataset.tokenizer import BOS, EOS, PAD, BpeDropout

# Of what batches are sorted by; 64 - 24 bits are left for a pair's place and chance.
TARGET_BITS, SOURCE_BITS = 14, 10
# Training batches are as long as a multiple of these. oneDNN makes a kernel for every new shape
# and keeps it: with all the shapes there are, a fifth of the time and gigabytes go to kernels.
TARGET_STEP, SOURCE_STEP = 2, 4

CHUNK_TOKENS = 16_384  # of one side, padding included, that are read together outside training


class Batch(NamedTuple):
    """What the model learns from. Nobody else knows about the shift between the last two."""

    source: Tensor  # (B, S) ids, <EOS> last, then padding
    source_lengths: Tensor  # (B,) tokens with <EOS>
    decoder_input: Tensor  # (B, T) <BOS> and the target
    labels: Tensor  # (B, T) the target and <EOS>


class Sampling(NamedTuple):
    """Subword regularisation: all sentences are cut anew, at random, for each epoch."""

    source: BpeDropout
    target: BpeDropout

    def store(self, store: ParallelStore, seed: tuple[int, ...]) -> ParallelStore:
        """The sentences of `store`, cut as `seed` determines, in memory."""
        return ParallelStore(
            TokenStore.of(*self.source.sample(store.source, (*seed, 0))),
            TokenStore.of(*self.target.sample(store.target, (*seed, 1))),
        )


class Share(NamedTuple):
    """Which part of every batch is a process' own, of those that train one model together."""

    rank: int
    of: int


WHOLE = Share(0, 1)


def pad(sentences: Sequence[Sequence[int] | NDArray[Any]], step: int = 1) -> tuple[Tensor, Tensor]:
    """Sentences of ids -> ids with <EOS> and padding (B, S) and lengths with <EOS> (B,).

    S is the next multiple of `step`.
    """
    lengths = np.array([len(ids) + 1 for ids in sentences])
    width = _round_up(lengths.max(), step)
    rows = np.full((len(sentences), width), PAD, dtype=np.int64)
    for row, ids in zip(rows, sentences, strict=True):
        row[: len(ids)] = ids
        row[len(ids)] = EOS
    return torch.from_numpy(rows), torch.from_numpy(lengths)


def in_chunks(rows: Sequence[int], length: Callable[[int], int], at_most: int) -> list[list[int]]:
    """Rows in their order, as many together as `at_most` and CHUNK_TOKENS allow, one at least.

    `length` says how many tokens a row has: one long sentence pads all that are read with it.
    """
    chunks: list[list[int]] = []
    longest = 0
    for row in rows:
        longest = max(longest, length(row))
        if (
            not chunks
            or len(chunks[-1]) == at_most
            or longest * (len(chunks[-1]) + 1) > CHUNK_TOKENS
        ):
            chunks.append([])
            longest = length(row)
        chunks[-1].append(row)
    return chunks


def make_batch(store: ParallelStore, rows: Iterable[int]) -> Batch:
    """The sentence pairs `rows` (B,) of a store."""
    pairs = [(store.source[i], store.target[i]) for i in rows]
    source, lengths = pad([ids for ids, _ in pairs], SOURCE_STEP)
    labels, _ = pad([ids for _, ids in pairs], TARGET_STEP)
    # Shifted by one: the <EOS> that the roll leaves within padding is read where no loss is taken.
    decoder_input = labels.roll(1, dims=1)
    decoder_input[:, 0] = BOS
    return Batch(source, lengths, decoder_input, labels)


class BatchLoader:
    """Batches of at most `batch_tokens` target tokens, padding included, in random order.

    An epoch is a pure function of (seed, epoch). Sentences are sorted by target length, then by
    source length, then at random, and cut, so that every epoch has as many batches as every
    other. Lightning puts `state_dict` in its checkpoints: a resumed epoch goes on with the next
    batch. Memory: 4 bytes for each pair, and 20 more while an epoch begins.

    With `sampling`, an epoch has as many batches as without, of about equally many tokens each:
    more than `batch_tokens`, since its sentences have more. They are held in memory.

    Of a batch it yields the `share` of its process. The batches are the same for all, and so is
    their number.
    """

    def __init__(
        self,
        store: ParallelStore,
        batch_tokens: int,
        seed: int,
        sampling: Sampling | None = None,
        share: Share = WHOLE,
    ) -> None:
        self.store = store
        self.sampling = sampling
        self.share = share
        self.seed = seed
        self.epoch = 0
        self.yielded = 0  # batches of this epoch that were handed out
        self.sampler = self  # where Lightning looks for set_epoch
        self._lengths = _lengths(store)
        target = (self._lengths >> np.uint32(SOURCE_BITS)) + 1
        self._bounds = _cut(np.bincount(_round_up(target, TARGET_STEP)), batch_tokens)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[Batch]:
        random = np.random.default_rng((self.seed, self.epoch))
        store, lengths, bounds = self.store, self._lengths, self._bounds
        if self.sampling:
            store = self.sampling.store(store, (self.seed, self.epoch))
            lengths = _lengths(store)
            bounds = _cut_evenly(np.sort(store.target.lengths) + 1, len(self))
        order = _shuffled(lengths, random)
        batches = random.permutation(len(self))
        for i in batches[self.yielded :]:
            self.yielded += 1
            yield self._own(store, order[bounds[i] : bounds[i + 1]].tolist())
        self.yielded = 0

    def _own(self, store: ParallelStore, rows: list[int]) -> Batch:
        """This process' share of the sentence pairs `rows` of a batch."""
        own = rows[self.share.rank :: self.share.of]
        if own:
            return make_batch(store, own)
        # There are more processes than pairs: it gets one of which no loss is taken.
        batch = make_batch(store, rows[:1])
        return batch._replace(labels=torch.full_like(batch.labels, PAD))

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.yielded = epoch, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "yielded": self.yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.yielded = state["epoch"], state["yielded"]


def _round_up(length: Any, step: int) -> Any:
    """The next multiple of `step`, of one length or of many."""
    return (length + step - 1) // step * step


def _lengths(store: ParallelStore) -> NDArray[np.uint32]:
    """What pairs (N,) are sorted by: the target's length above the bits of the source's."""
    target = _capped(store.target, TARGET_BITS)
    target <<= np.uint32(SOURCE_BITS)
    target |= _capped(store.source, SOURCE_BITS)
    return target


def _capped(store: TokenStore, bits: int) -> NDArray[np.uint32]:
    """The lengths of all sentences (N,), of which longer ones count as the longest of so many bits.

    No sentence is that long, unless `cleaning` lets it pass.
    """
    lengths = store.lengths
    return np.minimum(lengths, (1 << bits) - 1, out=lengths).astype(np.uint32)


def _cut(counts: NDArray[np.int64], batch_tokens: int) -> NDArray[np.int64]:
    """Where batches begin in sentences sorted by length, and the end; a longer one stands alone.

    `counts[n]` of the sentences have n tokens.
    """
    begin = end = 0  # of the batch that has room, of the sentences so far
    begins = [np.zeros(1, dtype=np.int64)]
    for length in np.flatnonzero(counts):
        size = max(1, batch_tokens // int(length))
        full = max(end, begin + size)
        end += int(counts[length])
        if full < end:
            begins.append(np.arange(full, end, size))
            begin = int(begins[-1][-1])
    return np.concatenate([*begins, [end]])


def _cut_evenly(lengths: NDArray[np.int64], batches: int) -> NDArray[np.int64]:
    """Where each of so many batches begins in sentences of `lengths` (N,), and the end.

    None is empty, and but for that each has as many tokens as every other.
    """
    ends = np.cumsum(lengths)
    bounds = np.searchsorted(ends, np.linspace(0, ends[-1], batches + 1))
    bounds[-1] = len(lengths)
    places = np.arange(batches + 1)
    bounds = np.maximum.accumulate(bounds - places) + places  # at least one apart
    return np.minimum(bounds, len(lengths) - batches + places)


def _shuffled(lengths: NDArray[np.uint32], random: np.random.Generator) -> NDArray[np.uint32]:
    """The places (N,) of `lengths` (N,) in ascending order, equal ones at random."""
    # One number for each: its length, a random part, its place, which makes all differ. Sorting
    # numbers takes a tenth of the time, and half of the memory, of sorting places by a key.
    place_bits = len(lengths).bit_length()
    random_bits = min(16, 64 - TARGET_BITS - SOURCE_BITS - place_bits)
    keys = lengths.astype(np.uint64)
    keys <<= np.uint64(random_bits)
    keys |= random.integers(1 << random_bits, size=len(keys), dtype=np.uint16)
    keys <<= np.uint64(place_bits)
    keys |= np.arange(len(keys), dtype=np.uint32)
    keys.sort()
    keys &= np.uint64((1 << place_bits) - 1)
    return keys.astype(np.uint32)
