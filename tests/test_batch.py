"""Batches, their shift, and a loader that goes on where it was stopped."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnmt.dataset import batch as batch_module
from rnnmt.dataset.batch import Batch, BatchLoader, Sampling, Share, in_chunks, make_batch, pad
from rnnmt.dataset.store import ParallelStore, TokenStore, TokenStoreWriter, ids_dtype
from rnnmt.dataset.tokenizer import (
    BOS,
    EOS,
    PAD,
    UNK,
    BpeDropout,
    Tokenizer,
    TokenizerSettings,
    merge,
    train,
)
from rnnmt.errors import UserError

torch.set_num_threads(1)

Pair = tuple[tuple[int, ...], tuple[int, ...]]
SENTENCE = st.lists(st.integers(4, 60_000), max_size=9).map(tuple)
PAIRS = st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=25)
FUZZ = settings(max_examples=60, deadline=None, derandomize=True)


def make_store(pairs: list[Pair]) -> ParallelStore:
    with tempfile.TemporaryDirectory() as folder:
        for side in (0, 1):
            with TokenStoreWriter(Path(folder, str(side)), np.dtype("<u2")) as writer:
                for pair in pairs:
                    ids = np.array(pair[side], dtype=np.uint16)
                    writer.append(ids, np.array([len(ids)]))
        # Mapped files outlive their names.
        return ParallelStore(TokenStore(Path(folder, "0")), TokenStore(Path(folder, "1")))


def random_pairs(count: int, seed: int = 0, longest: int = 12) -> list[Pair]:
    """Pairs that all differ, since each begins with a number of its own."""
    generator = np.random.default_rng(seed)
    return [
        tuple(
            (i + 4, *generator.integers(4, 60_000, size=generator.integers(longest)).tolist())
            for _ in range(2)
        )
        for i in range(count)
    ]


def pairs_of(batch: Batch) -> list[Pair]:
    """The pairs that a batch was made of, read back from source and labels."""
    rows = zip(batch.source.tolist(), batch.labels.tolist(), strict=True)
    return [(tuple(s[: s.index(EOS)]), tuple(t[: t.index(EOS)])) for s, t in rows]


def epoch(loader: BatchLoader, number: int) -> list[list[Pair]]:
    loader.set_epoch(number)
    return [pairs_of(batch) for batch in loader]


# --- make_batch ---------------------------------------------------------------------------------


def round_up(length: int, step: int) -> int:
    return next(n for n in itertools.count(length) if n % step == 0)


def check(batch: Batch, pairs: list[Pair]) -> None:
    assert all(tensor.dtype == torch.int64 for tensor in batch)
    width = round_up(max(len(s) for s, _ in pairs) + 1, batch_module.SOURCE_STEP)
    height = round_up(max(len(t) for _, t in pairs) + 1, batch_module.TARGET_STEP)
    assert batch.source.shape == (len(pairs), width)
    assert batch.labels.shape == batch.decoder_input.shape == (len(pairs), height)
    assert batch.source_lengths.tolist() == [len(s) + 1 for s, _ in pairs]
    for row, (source, target) in enumerate(pairs):
        padding = [PAD] * (width - len(source) - 1)
        assert batch.source[row].tolist() == [*source, EOS, *padding]
        padding = [PAD] * (height - len(target) - 1)
        assert batch.labels[row].tolist() == [*target, EOS, *padding]
        # Beyond the labels nothing is learnt, so what stands there is nobody's business.
        assert batch.decoder_input[row, : len(target) + 1].tolist() == [BOS, *target]


@FUZZ
@given(PAIRS, st.randoms(use_true_random=False))
def test_a_batch_is_its_pairs_shifted_and_padded(pairs: list[Pair], random: object) -> None:
    rows = list(range(len(pairs)))
    random.shuffle(rows)
    check(make_batch(make_store(pairs), rows), [pairs[i] for i in rows])


@pytest.mark.parametrize(
    "pairs", [[((), ())], [((), (5, 6)), ((7,), ())], [((), ()), ((), ())]], ids=str
)
def test_empty_sentences_are_one_end_mark(pairs: list[Pair]) -> None:
    check(make_batch(make_store(pairs), range(len(pairs))), pairs)


def test_pad_takes_lists_and_arrays() -> None:
    rows, lengths = pad([[5, 6, 7], np.array([8], dtype=np.uint16), []])
    assert rows.tolist() == [[5, 6, 7, EOS], [8, EOS, PAD, PAD], [EOS, PAD, PAD, PAD]]
    assert lengths.tolist() == [4, 2, 1]
    assert rows.dtype == lengths.dtype == torch.int64


def test_large_ids_survive() -> None:
    """65535 fits the store's uint16; as int16 it would be -1."""
    batch = make_batch(make_store([((65_535,), (65_535, 40_000))]), [0])
    assert batch.labels[0, :3].tolist() == [65_535, 40_000, EOS]
    assert batch.source[0, :2].tolist() == [65_535, EOS]


# --- an epoch -----------------------------------------------------------------------------------


@FUZZ
@given(PAIRS, st.integers(1, 60), st.integers(0, 2**31 - 1), st.integers(0, 5))
def test_every_epoch_has_every_pair_once_within_the_limit(
    pairs: list[Pair], batch_tokens: int, seed: int, number: int
) -> None:
    loader = BatchLoader(make_store(pairs), batch_tokens, seed)
    loader.set_epoch(number)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert Counter(p for batch in batches for p in pairs_of(batch)) == Counter(pairs)
    for batch in batches:
        assert batch.labels.numel() <= batch_tokens or len(batch.labels) == 1
        assert len(batch.labels) >= 1


def test_batches_are_as_full_as_they_can_be() -> None:
    """Of sentences sorted by length, so that little is padding."""
    pairs = random_pairs(300)
    batches = list(BatchLoader(make_store(pairs), 100, 1))
    real = sum(len(target) + 1 for _, target in pairs)
    cells = sum(batch.labels.numel() for batch in batches)
    assert real / cells > 0.85
    assert len(batches) < 1.25 * real / 100


def test_a_batch_may_have_just_as_many_tokens_as_are_allowed() -> None:
    store = make_store([((5,), (6, 7, 8))] * 9)  # four tokens each, with the end mark
    assert [len(batch.labels) for batch in BatchLoader(store, 12, 1)] == [3, 3, 3]
    assert len(BatchLoader(store, 11, 1)) == 5
    assert len(BatchLoader(store, 3, 1)) == 9


@FUZZ
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 60))
def test_batches_are_cut_as_if_filled_one_by_one(lengths: list[int], batch_tokens: int) -> None:
    store = make_store([((), (5,) * length) for length in lengths])
    filled, batch = [], 0
    for tokens in sorted(round_up(length + 1, batch_module.TARGET_STEP) for length in lengths):
        if batch and (batch + 1) * tokens > batch_tokens:
            filled.append(batch)
            batch = 0
        batch += 1
    sizes = [len(b.labels) for b in BatchLoader(store, batch_tokens, 1)]
    assert sorted(sizes) == sorted([*filled, batch])


def test_batches_have_few_shapes() -> None:
    """Each new shape would cost a new kernel."""
    store = make_store(random_pairs(2000, longest=40))
    shapes = {(b.labels.shape, b.source.shape[1]) for b in BatchLoader(store, 300, 1)}
    assert {labels[1] % batch_module.TARGET_STEP for labels, _ in shapes} == {0}
    assert {width % batch_module.SOURCE_STEP for _, width in shapes} == {0}


@FUZZ
@given(PAIRS, st.integers(1, 60), st.integers(1, 5))
def test_the_shares_of_a_batch_are_the_whole_of_it(
    pairs: list[Pair], tokens: int, processes: int
) -> None:
    store = make_store(pairs)
    whole = list(BatchLoader(store, tokens, seed=1))
    shares = [
        list(BatchLoader(store, tokens, seed=1, share=Share(rank, processes)))
        for rank in range(processes)
    ]
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        wanted = sorted(ids[ids != PAD].tolist() for ids in batch.labels)
        found = [ids[ids != PAD].tolist() for part in parts for ids in part.labels]
        assert sorted(ids for ids in found if ids) == wanted
        assert all(len(part.labels) for part in parts)  # a process always has work


@pytest.mark.parametrize(
    ("size", "dtype"), [(256, "<u2"), (1 << 16, "<u2"), ((1 << 16) + 1, "<u4"), (10**6, "<u4")]
)
def test_ids_take_two_bytes_where_that_is_enough(size: int, dtype: str) -> None:
    assert ids_dtype(size) == np.dtype(dtype)


def test_sentences_beyond_all_bounds_are_batched_as_any() -> None:
    """Longer than their bits can tell: they count as the longest, and stand at the end."""
    words = (5,) * 20_000
    pairs: list[Pair] = [((4, *words[: 5 * n]), (4, *words[: 400 * n])) for n in range(1, 50)]
    found = [pairs_of(batch) for batch in BatchLoader(make_store(pairs), 30_000, seed=1)]
    assert sorted(pair for rows in found for pair in rows) == sorted(pairs)
    longest = [max(len(target) for _, target in rows) for rows in found]
    assert all(
        max(len(target) for _, target in rows) - min(len(target) for _, target in rows) < 5_000
        for rows in found
    ), longest


def test_chance_is_fair() -> None:
    """Among pairs of equal lengths, each is in the first batch as often as any other."""
    lengths = np.zeros(8, dtype=np.uint32)
    random = np.random.default_rng(1)
    orders = [batch_module._shuffled(lengths, random) for _ in range(4000)]
    firsts = Counter(int(order[0]) for order in orders)
    assert set(firsts) == set(range(8))
    assert all(400 < count < 600 for count in firsts.values())  # 500, five standard deviations


@pytest.mark.parametrize("batch_tokens", [1, 13, 100, 10**9])
def test_an_epoch_is_a_pure_function_of_seed_and_number(batch_tokens: int) -> None:
    store = make_store(random_pairs(60))
    first, second = (BatchLoader(store, batch_tokens, 3) for _ in range(2))
    forwards = [epoch(first, number) for number in range(4)]
    # The other way round, and with the global random numbers elsewhere.
    np.random.seed(99)
    torch.manual_seed(99)
    backwards = [epoch(second, number) for number in reversed(range(4))]
    assert forwards == backwards[::-1]
    assert {len(batches) for batches in forwards} == {len(first)}


def test_epochs_and_seeds_differ_in_batches_and_in_their_order() -> None:
    # Of few lengths, so that sorting by length leaves much to chance.
    store = make_store(random_pairs(60, longest=3))
    one, other = BatchLoader(store, 40, 3), BatchLoader(store, 40, 4)
    runs = [epoch(one, 0), epoch(one, 1), epoch(other, 0), epoch(other, 1)]
    for left, right in itertools.combinations(runs, 2):
        assert left != right
        # Not only the same batches in another order:
        assert {frozenset(b) for b in left} != {frozenset(b) for b in right}
    for batches in runs:
        lengths = [len(batch[0][1]) for batch in batches]
        assert lengths != sorted(lengths)


# --- stopping and going on ------------------------------------------------------------------------


def as_lightning(loader: BatchLoader, epochs: range) -> Iterator[list[Pair]]:
    """`set_epoch` through the sampler before each epoch, then len(loader) batches.

    It counts, and so never asks the iterator for the StopIteration at its end.
    """
    for number in epochs:
        loader.sampler.set_epoch(number)
        remaining = len(loader) - loader.yielded
        batches = iter(loader)
        for _ in range(remaining):
            yield pairs_of(next(batches))


@pytest.mark.parametrize("batch_tokens", [30, 10**9])
def test_stopped_anywhere_it_goes_on_as_if_it_had_not_been(batch_tokens: int) -> None:
    store = make_store(random_pairs(40))
    size = len(BatchLoader(store, batch_tokens, 5))
    epochs = 3
    whole = list(as_lightning(BatchLoader(store, batch_tokens, 5), range(epochs)))
    assert len(whole) == epochs * size
    for stop in range(len(whole) + 1):
        before = BatchLoader(store, batch_tokens, 5)
        begun = list(itertools.islice(as_lightning(before, range(epochs)), stop))
        state = before.state_dict()
        # Stopped right after an epoch's last batch, Lightning goes on with that epoch when its
        # validation is still to come, and with the next one otherwise: the same batches.
        numbers = {stop // size, max(0, stop - 1) // size}
        for number in numbers:
            again = BatchLoader(store, batch_tokens, 5)
            again.load_state_dict(dict(state))
            rest = list(as_lightning(again, range(number, epochs)))
            assert begun + rest == whole, (stop, number)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_plain_loop_goes_on_too(count: int) -> None:
    store = make_store(random_pairs(40))
    loader = BatchLoader(store, 30, 7)
    whole = epoch(BatchLoader(store, 30, 7), 2)
    assert len(whole) > 3
    loader.set_epoch(2)
    begun = [pairs_of(batch) for batch in itertools.islice(loader, count)]
    state = loader.state_dict()
    resumed = BatchLoader(store, 30, 7)
    resumed.load_state_dict(state)
    assert begun + epoch(resumed, 2) == whole
    # The epoch after it is whole again.
    assert epoch(resumed, 3) == epoch(BatchLoader(store, 30, 7), 3)


def test_an_epoch_run_to_its_end_can_be_run_again() -> None:
    loader = BatchLoader(make_store(random_pairs(20)), 30, 7)
    assert [pairs_of(b) for b in loader] == [pairs_of(b) for b in loader]


def test_its_state_is_plain_numbers() -> None:
    """Checkpoints are read with weights_only=True."""
    loader = BatchLoader(make_store(random_pairs(20)), 30, 7)
    next(iter(loader))
    assert {type(value) for value in loader.state_dict().values()} == {int}
    assert loader.state_dict() == {"epoch": 0, "yielded": 1}


# --- sentences cut anew ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    settings = TokenizerSettings(algorithm="bpe", joint=True, vocabulary=90, byte_fallback=False)
    words = ["reader", "reading", "readable", "lowest", "lower", "slowly", "slower"]
    random = np.random.default_rng(1)
    return Tokenizer(train([" ".join(random.choice(words, 4)) for _ in range(300)], settings, ""))


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, str]]:
    """Pairs of texts of one to nine words, which all differ."""
    words = ["reader", "reading", "readable", "lowest", "lower", "slowly", "slower"]
    random = np.random.default_rng(2)
    sides = [
        {" ".join(random.choice(words, random.integers(1, 10))) for _ in range(99)} for _ in "st"
    ]
    return list(zip(sorted(sides[0])[:60], sorted(sides[1])[:60], strict=True))


def sampled(
    tokenizer: Tokenizer, texts: list[tuple[str, str]], tokens: int = 40, seed: int = 3
) -> BatchLoader:
    pairs = [tuple(map(tuple, tokenizer.encode(list(pair)))) for pair in texts]
    return BatchLoader(make_store(pairs), tokens, seed, Sampling(*[BpeDropout(tokenizer, 0.3)] * 2))


@pytest.mark.parametrize("batch_tokens", [1, 40, 10**9])
def test_sentences_cut_anew_are_the_same_texts(
    tokenizer: Tokenizer, texts: list[tuple[str, str]], batch_tokens: int
) -> None:
    loader = sampled(tokenizer, texts, batch_tokens)
    batches = epoch(loader, 0)
    assert len(batches) == len(loader)
    assert all(batches)
    pairs = [pair for batch in batches for pair in batch]
    read = [tuple(tokenizer.decode([list(ids) for ids in pair])) for pair in pairs]
    assert sorted(read) == sorted(texts)
    for side in (0, 1):
        plain = tokenizer.encode([text[side] for text in read])
        differ = [list(pair[side]) != ids for pair, ids in zip(pairs, plain, strict=True)]
        assert 0.3 < np.mean(differ) <= 1.0


def test_each_epoch_cuts_in_another_way_and_always_in_the_same(
    tokenizer: Tokenizer, texts: list[tuple[str, str]]
) -> None:
    first, second = (sampled(tokenizer, texts) for _ in range(2))
    forwards = [epoch(first, number) for number in range(3)]
    random.seed(99)
    assert [epoch(second, number) for number in reversed(range(3))] == forwards[::-1]
    kinds = [{pair for batch in batches for pair in batch} for batches in forwards]
    other = {pair for batch in epoch(sampled(tokenizer, texts, seed=4), 0) for pair in batch}
    for one, another in itertools.combinations([*kinds, other], 2):
        assert len(one & another) < 30


def test_stopped_anywhere_it_goes_on_with_the_same_cuts(
    tokenizer: Tokenizer, texts: list[tuple[str, str]]
) -> None:
    whole = list(as_lightning(sampled(tokenizer, texts), range(2)))
    for stop in range(0, len(whole), 3):
        before = sampled(tokenizer, texts)
        begun = list(itertools.islice(as_lightning(before, range(2)), stop))
        again = sampled(tokenizer, texts)
        again.load_state_dict(dict(before.state_dict()))
        number = stop // len(before)
        assert begun + list(as_lightning(again, range(number, 2))) == whole


def test_batches_of_sentences_cut_anew_are_alike(
    tokenizer: Tokenizer, texts: list[tuple[str, str]]
) -> None:
    loader = sampled(tokenizer, texts * 5, 200)
    sizes = [sum(len(t) + 1 for _, t in batch) for batch in epoch(loader, 0)]
    assert max(sizes) < 1.5 * min(sizes)
    real, cells = sum(sizes), sum(batch.labels.numel() for batch in loader)
    assert real / cells > 0.85


@FUZZ
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.data())
def test_cut_evenly_no_batch_is_empty(lengths: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(lengths)))
    bounds = batch_module._cut_evenly(np.sort(lengths), count)
    assert len(bounds) == count + 1
    assert bounds[0] == 0
    assert bounds[-1] == len(lengths)
    assert (np.diff(bounds) >= 1).all()


def test_an_unknown_piece_stays_where_it_is(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(["reader Ω slowly"])[0]
    store = make_store([(tuple(ids), ())]).source
    seen = set()
    for seed in range(20):
        flat, lengths = BpeDropout(tokenizer, 0.5).sample(store, (seed,))
        assert lengths.tolist() == [len(flat)]
        assert flat.tolist().count(UNK) == 1
        seen.add(tokenizer.decode([flat.tolist()])[0])
    assert seen == set(tokenizer.decode([ids]))


def test_without_dropout_merges_are_those_of_sentencepiece(tokenizer: Tokenizer) -> None:
    """Also of words that were never seen."""
    chance = random.Random(1)
    words = ["".join(chance.choices("readinglowsyt", k=chance.randint(1, 12))) for _ in range(300)]
    store = make_store([(tuple(tokenizer.encode([" ".join(words)])[0]), ())]).source
    for rate, same in ((0.0, True), (0.1, False)):
        flat, _ = BpeDropout(tokenizer, rate).sample(store, (1,))
        assert (flat.tolist() == store[0].tolist()) == same


def test_each_cut_is_as_likely_as_its_dropped_merges() -> None:
    """ab, then abc: nothing is merged where ab is dropped, which leaves no other merge."""
    rate, scores = 0.3, {"ab": 0.0, "abc": -1.0}
    chance = random.Random(1)
    cuts = Counter(
        tuple(merge(list("abc"), scores, lambda: chance.random() < rate)) for _ in range(5000)
    )
    expected = {("a", "b", "c"): rate, ("ab", "c"): (1 - rate) * rate, ("abc",): (1 - rate) ** 2}
    assert set(cuts) == set(expected)
    for cut, share in expected.items():
        assert cuts[cut] / 5000 == pytest.approx(share, abs=0.03)


def test_another_process_cuts_in_the_same_way(
    tokenizer: Tokenizer, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.write_bytes(tokenizer._model.serialized_model_proto())
    flat, lengths = BpeDropout(tokenizer, 0.3).sample(sampled(tokenizer, texts).store.source, (1,))
    printed = subprocess.run(
        [sys.executable, "-c", _SAMPLE, str(model)],
        input="\n".join(source for source, _ in texts),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "99"},
    ).stdout
    assert printed == f"{flat.tolist()} {lengths.tolist()}\n"


_SAMPLE = """
import sys
from rnnmt.dataset.store import TokenStore
from rnnmt.dataset.tokenizer import BpeDropout, Tokenizer
tokenizer = Tokenizer(sys.argv[1])
store = TokenStore.of(*tokenizer.encode_flat(sys.stdin.read().split("\\n")))
flat, lengths = BpeDropout(tokenizer, 0.3).sample(store, (1,))
print(flat.tolist(), lengths.tolist())
"""


def test_a_unigram_tokenizer_is_refused() -> None:
    settings = TokenizerSettings(
        algorithm="unigram", joint=True, vocabulary=40, byte_fallback=False
    )
    unigram = Tokenizer(train(["reader reading lowest lower"] * 30, settings, ""))
    with pytest.raises(UserError, match=r"train\.bpe_dropout.*algorithm bpe"):
        BpeDropout(unigram, 0.1)


def test_what_is_read_together_is_never_too_much() -> None:
    lengths = [1] * 300 + [200, 200, 9_000, 9_000, 20_000, 30_000]
    chunks = in_chunks(list(range(len(lengths))), lengths.__getitem__, 128)
    assert [row for rows in chunks for row in rows] == list(range(len(lengths)))
    sizes = [(len(rows), max(lengths[row] for row in rows)) for rows in chunks]
    assert sizes == [
        (128, 1), (128, 1), (46, 200), (1, 9_000), (1, 9_000), (1, 20_000), (1, 30_000),
    ]  # fmt: skip
    assert in_chunks([0, 1, 2], lambda _: 8_192, 128) == [[0, 1], [2]]  # as many as are allowed
