"""What the analysis measures, of models and texts that are made so that the answer is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle, islice, permutations
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import browsers
from rnnmt.corpora.words import Link, Links
from rnnmt.dataset import batch
from rnnmt.dataset.batch import make_batch
from rnnmt.dataset.store import ParallelStore, TokenStore
from rnnmt.dataset.tokenizer import BOS, EOS
from rnnmt.errors import UserError
from rnnmt.insight import attending, pictures, remembering, searching, slices
from rnnmt.insight.alignment import owners
from rnnmt.insight.attending import Attended
from rnnmt.insight.gates import GATES, KEEPS
from rnnmt.insight.settings import AnalyzeSettings
from rnnmt.model.folder import TrainedModel
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import ModelSettings
from rnnmt.scoring.settings import EvaluateSettings, References
from rnnmt.stages import analyze

SCORING = EvaluateSettings(bootstrap_samples=100, confidence=0.95, seed=1)
LOG_HALF = math.log(0.5)
A, B, C, D = 4, 5, 6, 7  # pieces: two of one word, "ab", and two words
PIECES = {A: "▁a", B: "b", C: "▁c", D: "▁d"}
UP, DOWN = A, B  # where they are read as numbers


def blank(cell: str, attention: str = "none", embedding: int = 2, hidden: int = 4) -> TrainedModel:
    """A model whose weights are all zero."""
    settings = ModelSettings.model_validate(
        {
            "cell": cell, "attention": attention, "embedding": embedding, "hidden": hidden,
            "encoder_layers": 1, "decoder_layers": 1, "heads": 1, "layer_norm": False,
            "dropout": 0.0, "word_dropout": 0.0, "tie_embeddings": False,
        }
    )  # fmt: skip
    sizes = Vocabularies(8, 8, False)
    model = Seq2Seq(settings, sizes).eval()
    for weight in model.parameters():
        nn.init.zeros_(weight)
    letters = cast(Any, SimpleNamespace(pieces=lambda ids: [PIECES[i] for i in ids]))
    about = {"model": settings.model_dump(), "vocabularies": sizes._asdict(), "seed": 7}
    return TrainedModel(model, letters, letters, about)


def first_layer(trained: TrainedModel) -> dict[str, Tensor]:
    """The weights of the encoder's layer that is looked at, two cells wide unless made wider."""
    recurrent: Any = trained.model.encoder.forwards[0]
    return {name: weight.data for name, weight in recurrent.layer.named_parameters()}


# --- how far back gradients reach -----------------------------------------------------------------

LAGS = np.arange(1, remembering.LAGS + 1)


@pytest.mark.parametrize("kept", [(0.5, 0.5), (0.9, 0.6), (1.0, 0.0)])
def test_the_gradient_of_a_diagonal_rnn_is_its_diagonals_powers(kept: tuple[float, float]) -> None:
    trained = blank("rnn")  # which stays at zero, where tanh has slope one
    first_layer(trained)["weight_hh_l0"].copy_(torch.diag(torch.tensor(kept)))
    found = remembering.flow(trained, [[UP, DOWN], [UP]])  # few pieces, read again and again
    assert found["lags"] == LAGS.tolist()
    wanted = np.sqrt((kept[0] ** (2.0 * LAGS) + kept[1] ** (2.0 * LAGS)) / 2)
    for of_texts in ("norm", "low", "high"):
        assert np.allclose(found["trained"][of_texts], wanted, rtol=1e-3, atol=0)
    assert found["trained"]["radius"] == found["trained"]["recurrent_radius"] == max(kept)


def test_the_slope_of_tanh_shortens_what_the_matrix_keeps() -> None:
    """With a bias that keeps the state at 0.6 = tanh(0.6 + bias), where the slope is 0.64."""
    trained = blank("rnn")
    first_layer(trained)["weight_hh_l0"].copy_(torch.eye(2))
    first_layer(trained)["bias_ih_l0"].fill_(math.atanh(0.6) - 0.6)
    found = remembering.flow(trained, [[UP]])["trained"]
    assert np.allclose(found["norm"][:20], 0.64 ** LAGS[:20], rtol=1e-3, atol=0)
    assert found["recurrent_radius"] == 1
    assert found["radius"] == pytest.approx(0.64, abs=0.03)  # a mean with the first few steps


def test_the_texts_are_looked_at_one_by_one() -> None:
    """`UP` resets a gru's state and `DOWN` keeps it: only a text of `DOWN` alone loses nothing."""
    trained = reading("gru", [0.0, 0.0], moved=-30.0)
    n = remembering.LAGS + 1
    found = remembering.flow(trained, [[DOWN] * n, [UP] * n, [DOWN] * (n - 1), [UP], [UP] * n])
    assert found["trained"]["high"] == [1.0] * remembering.LAGS
    assert max(found["trained"]["low"]) < 1e-9


def test_before_training_a_model_is_the_one_of_its_seed() -> None:
    trained = blank("rnn")
    torch.manual_seed(trained.settings["seed"])
    settings = ModelSettings.model_validate(trained.settings["model"])
    wanted = Seq2Seq(settings, Vocabularies(**trained.settings["vocabularies"])).state_dict()
    found = remembering.fresh(trained).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())
    flow = remembering.flow(trained, [[UP, DOWN]])
    assert flow["trained"]["recurrent_radius"] == 0
    assert flow["fresh"]["recurrent_radius"] == 1  # its matrix begins orthogonal


# --- what gates keep ------------------------------------------------------------------------------


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def reading(cell: str, bias: Sequence[float], moved: float = 0.0) -> TrainedModel:
    """A gated model whose two cells read `UP` as 1, `DOWN` as -1, and write that; the gate that
    keeps has this bias, and is `moved` by what is read."""
    trained, gate, new = blank(cell), slice(2, 4), slice(4, 6)
    trained.model.encoder.embedding.weight.data[[UP, DOWN], 0] = torch.tensor([1.0, -1.0])
    first_layer(trained)["bias_ih_l0"][gate] = torch.tensor(bias)
    first_layer(trained)["weight_ih_l0"][gate, 0] = moved
    first_layer(trained)["weight_ih_l0"][new, 0] = 1.0
    return trained


GATED = pytest.mark.parametrize("cell", ["gru", "lstm"])


@GATED
def test_gates_that_nothing_moves(cell: str) -> None:
    trained = reading(cell, [logit(0.3), logit(0.9)])
    found = remembering.kept(trained, [[UP, DOWN], [DOWN, DOWN, UP, UP]], words=3)
    lives = [LOG_HALF / math.log(share) / 2 for share in (0.3, 0.9)]  # two pieces are a word
    assert found["keeps"] == KEEPS[cell]
    assert found["gates"] == {
        gate: {"mean": 0.6, "p10": 0.3, "p50": 0.6, "p90": 0.9}
        if gate == KEEPS[cell]
        else dict.fromkeys(("mean", "p10", "p50", "p90"), 0.5)
        for gate in GATES[cell]
    }
    assert found["half_life_words"] == pytest.approx(lives, rel=1e-3)
    assert [one["half_life"] for one in found["cells"]] == pytest.approx(lives, rel=1e-3)
    assert found["keeps_per_sentence"] == [0.6, 0.6]
    assert (found["closed"], found["within_cell_sd"]) == (0.5, 0)


@GATED
def test_gates_that_every_piece_moves(cell: str) -> None:
    """0.8 at one piece, 0.2 at the other: 0.4 is the geometric mean."""
    trained = reading(cell, [0.0, 0.0], moved=logit(0.8))
    found = remembering.kept(trained, [[UP, UP], [DOWN, DOWN]], words=2)
    assert found["gates"][KEEPS[cell]] == {"mean": 0.5, "p10": 0.2, "p50": 0.5, "p90": 0.8}
    assert found["keeps_per_sentence"] == [0.8, 0.2]
    assert (found["closed"], found["within_cell_sd"]) == (0.5, 0.3)
    assert found["half_life_words"] == pytest.approx([LOG_HALF / math.log(0.4) / 2] * 2, rel=1e-3)


@GATED
def test_a_cell_that_reads_chance_stays_like_itself_for_its_half_life(cell: str) -> None:
    """What it keeps of it is all that is alike: a share f after one step, f^k after k."""
    text = np.random.default_rng(0).choice([UP, DOWN], 3000).tolist()
    found = remembering.kept(reading(cell, [logit(0.7), logit(0.9)]), [text], len(text))["cells"]
    times = [one["correlation_time"] for one in found]
    assert times == pytest.approx([LOG_HALF / math.log(share) for share in (0.7, 0.9)], rel=0.2)


@GATED
def test_an_example_has_its_slowest_cell_on_top(cell: str) -> None:
    found = remembering.example(reading(cell, [logit(0.3), logit(0.9)]), [UP, DOWN, UP])
    assert found["pieces"] == ["▁a", "b", "▁a"]
    assert found["mean"][KEEPS[cell]] == [0.6] * 3
    assert found["cells"][KEEPS[cell]] == [[0.9] * 3, [0.3] * 3]


def test_an_rnn_has_no_gates() -> None:
    assert remembering.kept(blank("rnn"), [[UP, DOWN]], 2) == {}
    assert remembering.example(blank("rnn"), [UP, DOWN]) == {}


# --- attention ------------------------------------------------------------------------------------


def looking(sharpness: float) -> TrainedModel:
    """A model that, to write a, b, c, d and the end, looks for the same in the source: its decoder
    has for each piece the code of the next one, its encoder that of the piece itself."""
    trained, code = blank("rnn", "general", embedding=8, hidden=16), torch.eye(8)
    model = cast(Any, trained.model)
    model.encoder.embedding.weight.data[[A, B, C, D, EOS]] = code[[A, B, C, D, EOS]]
    model.decoder.embedding.weight.data[[BOS, A, B, C, D]] = code[[A, B, C, D, EOS]]
    for layer, copies in ((model.encoder.forwards[0], 1), (model.encoder.backwards[0], 1),
                          (model.decoder.layers[0], 2)):  # fmt: skip
        layer.layer.weight_ih_l0.data.copy_(3 * code.repeat(copies, 1))
    model.decoder.attention.project.weight.data.copy_(sharpness * torch.eye(16))
    return trained


def stored(*sides: Sequence[Sequence[int]]) -> ParallelStore:
    return ParallelStore(
        *(
            TokenStore.of(
                np.array([i for ids in side for i in ids], dtype=np.uint16),
                np.array([len(ids) for ids in side]),
            )
            for side in sides
        )
    )


WORDS = {"ab": [A, B], "c": [C], "d": [D]}


def spelled(words: Sequence[str]) -> list[int]:
    return [piece for word in words for piece in WORDS[word]]


def test_a_model_that_looks_at_the_right_words_makes_no_error() -> None:
    """Of sources in all orders a diagonal finds one word of three, in more than one batch."""
    orders = [*permutations(WORDS)] * (attending.BATCH // 6 + 1)
    target = [*WORDS]
    links = [
        Links([*order], target, right, right)
        for order in orders
        for right in [{(order.index(word), j) for j, word in enumerate(target)}]
    ]
    store = stored([spelled(order) for order in orders], [spelled(target)] * len(orders))
    texts = [" ".join(order) for order in orders], [" ".join(target)] * len(orders)
    attended = list(attending.forced(looking(100), store, texts))
    for one, pair in zip(attended, links, strict=True):
        assert one.pieces.shape == (5, 5)  # with the ends
        wanted = [[float((i, j) in pair.sure) for i in range(3)] for j in range(3)]
        assert np.allclose(one.words, wanted)
    found = attending.judged(attended, links, SCORING)
    none = {"score": 0, "low": 0, "high": 0}
    assert found["aer"] == found["aer_least"] == found["entropy_bits"] == none
    assert found["aer_diagonal"]["score"] == pytest.approx(100 * 2 / 3, abs=0.01)
    assert found["entropy_uniform"] == pytest.approx(math.log2(5), abs=0.01)


def test_empty_sentences_have_no_gates_to_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test set keeps every pair, those too whose source is empty."""
    sources = ["", "ab c", " ", "d"]
    monkeypatch.setattr(analyze, "_sources", lambda *_: sources)
    wanted = References("x", "en-fr", {"valid": ["a"], "test": ["a"] * 4})
    settings = AnalyzeSettings(sentences=4, beams=[1, 2], examples=4)
    trained = blank("lstm")
    words = SimpleNamespace(
        encode=lambda texts: [[4] * len(text.split()) for text in texts],
        pieces=trained.source.pieces,
    )
    trained = trained._replace(source=cast(Any, words))
    found = analyze.memory(trained, wanted, settings)
    assert len(found["examples"]) == 2
    assert np.isfinite(found["flow"]["trained"]["norm"]).all()
    sources[:] = ["", " "]
    with pytest.raises(UserError, match=r"test\.source: no sentence has a word"):
        analyze.memory(trained, wanted, settings)


def test_a_model_that_looks_everywhere() -> None:
    """Every piece of the source, its end too, has the same share; padding has none."""
    sources: list[list[str]] = [["ab"], ["d", "ab", "c", "ab", "d"], ["c", "d"]]
    targets: list[list[str]] = [["d", "c", "ab"], ["c"], ["ab", "ab", "d", "c"]]
    ids = [[spelled(words) for words in side] for side in (sources, targets)]
    texts = [" ".join(words) for words in sources], [" ".join(words) for words in targets]
    attended = list(attending.forced(looking(0), stored(*ids), texts))
    for one, source, target, words, wrote in zip(attended, *ids, sources, targets, strict=True):
        seen = len(source) + 1
        assert one.pieces.shape == (len(target) + 1, seen)
        assert np.allclose(one.pieces, 1 / seen)
        assert np.allclose(one.words, [[len(WORDS[w]) / seen for w in words] for _ in wrote])
    links = [Links(*sides, set(), set()) for sides in zip(sources, targets, strict=True)]
    found = attending.judged(attended, links, SCORING)
    bits = sum(math.log2(len(source) + 1) for source in ids[0]) / 3
    assert found["entropy_bits"]["score"] == pytest.approx(bits, abs=0.01)
    assert found["entropy_uniform"] == found["entropy_bits"]["score"]


def test_no_pair_is_padded_to_one_that_is_very_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its attention is what it would be otherwise."""
    sources, targets = [["ab"], ["d"] * 9, ["c", "d"]], [["d", "c"], ["c"], ["ab"] * 5]
    store = stored(*([spelled(words) for words in side] for side in (sources, targets)))
    texts = [" ".join(words) for words in sources], [" ".join(words) for words in targets]
    together = list(attending.forced(looking(1), store, texts))
    monkeypatch.setattr(batch, "CHUNK_TOKENS", 10)
    made: list[list[int]] = []
    monkeypatch.setattr(
        attending, "make_batch", lambda *chunk: made.append(chunk[1]) or make_batch(*chunk)
    )
    for one, alone in zip(together, attending.forced(looking(1), store, texts), strict=True):
        assert np.allclose(one.pieces, alone.pieces)
        assert np.allclose(one.words, alone.words)
    assert made == [[0], [1], [2]]


def looked(*columns: int) -> Attended:
    """One-hot attention of as many words as there are pieces."""
    weights = np.eye(3)[list(columns)]
    return Attended(weights, weights)


def linked(*links: Link) -> Links:
    return Links([*"abc"], [*"xyz"][: len(links)], {*links}, {*links})


STRAIGHT = linked((0, 0), (1, 1), (2, 2))


@pytest.mark.parametrize(
    ("attended", "links", "aer", "of_diagonal"),
    [
        ([looked(0, 1, 2)], [STRAIGHT], 0, 0),
        ([looked(1, 2, 0)], [STRAIGHT], 100, 0),
        ([looked(2, 1, 0)], [STRAIGHT], 100 * 2 / 3, 0),
        ([looked(2, 1, 0)], [linked((2, 0), (1, 1), (0, 2))], 0, 100 * 2 / 3),
        # Over the links of all sentences, not the mean of 0 and 100.
        ([looked(1), looked(1, 2, 0)], [linked((1, 0)), STRAIGHT], 75, 0),
    ],
)
def test_one_hot_attention_against_links(
    attended: list[Attended], links: list[Links], aer: float, of_diagonal: float
) -> None:
    found = attending.judged(attended, links, SCORING)
    assert found["aer"]["score"] == pytest.approx(aer, abs=0.01)
    assert found["aer"]["low"] <= found["aer"]["score"] <= found["aer"]["high"]
    assert found["aer_diagonal"]["score"] == pytest.approx(of_diagonal, abs=0.01)
    assert found["entropy_bits"]["score"] == 0


@pytest.mark.parametrize(
    ("one", "other", "percent"),
    [
        (["0 1 2"], ["0 1 2"], 100),
        (["0 1 2"], ["0 2 2"], 100 * 2 / 3),
        (["0 1"], ["1 0"], 0),
        (["0", "1 1 1"], ["0", "2 2 2"], 25),  # of all words, not of sentences
        (["", "7"], ["", "7"], 100),
        (["0 -1 2"], ["0 1 1"], 50),  # one attends to no word
        ([""], [""], 0),
        ([], [], 0),
    ],
)
def test_how_many_words_two_models_agree_on(
    one: list[str], other: list[str], percent: float
) -> None:
    assert pictures.agreement(one, other) == pictures.agreement(other, one)
    assert pictures.agreement(one, other) == pytest.approx(percent)


@pytest.mark.parametrize(
    "pieces",
    [
        ["▁a", "▁", "<0xC3>", "<0xA9>", "▁c", "▁d", "<EOS>"],
        ["▁a", "▁", "<unk>", "▁c", "▁d", "<EOS>"],
    ],
)
def test_a_letter_that_is_no_piece_moves_no_word_after_it(pieces: list[str]) -> None:
    rest = pieces[2:-3]
    assert owners("a é c d", pieces) == [0, 1, *(1 for _ in rest), 2, 3, -1]


# --- search ---------------------------------------------------------------------------------------


def test_each_beam_is_judged_on_all_sentences_against_the_best_of_any() -> None:
    """Of 40 sentences, the shortest anywhere: beam 1 misses what beam 4 finds in the first ten, and
    finds what beam 4 misses in the last ten."""
    sources = [f"{'x ' * (37 * i % 41)}{i}" for i in range(40)]
    wanted = [f"le chat numéro {i} dort ici ." for i in range(40)]
    scores = {1: [-2.0] * 10 + [-1.0] * 30, 4: [-1.0] * 30 + [-1.5] * 10}
    scores[4][15] -= 1e-4  # a score may be that much wrong
    scores[1][20], wanted[20] = -1.5, "chien"  # the same translation is no error

    def beam(some: list[str], width: int, nbest: int, penalty: float) -> list[list[Any]]:
        assert (nbest, penalty) == (1, 0.5)
        assert len(some) <= searching.BATCH
        rows = [sources.index(text) for text in some]
        texts = [wanted[i] if width == 1 else "chien" for i in rows]
        found = [
            SimpleNamespace(score=scores[width][i], log_prob=10 * scores[width][i], ids=t.split())
            for i, t in zip(rows, texts, strict=True)
        ]
        return [
            [SimpleNamespace(text=text, hypothesis=one)]
            for text, one in zip(texts, found, strict=True)
        ]

    side = SimpleNamespace(encode=lambda lines: [line.split() for line in lines])
    trained = SimpleNamespace(source=side, target=side)
    translator = cast(Any, SimpleNamespace(beam=beam, trained=trained))
    assert searching.by_beam(translator, sources, wanted, [1, 4], 0.5) == [
        {
            "beam": 1, "bleu": 100, "log_prob": -12.625, "length_ratio": 1, "search_errors": 0.25,
        },
        {
            "beam": 4, "bleu": 0, "log_prob": -11.25, "length_ratio": 0.146,
            "search_errors": 0.25,
        },
    ]  # fmt: skip


class Rules:
    """A trained model, and its own network, that knows which piece follows which, by the first
    piece of the source. Every piece is a word."""

    def __init__(self, rules: dict[int, dict[int, int]]) -> None:
        self.rules, self.model, self.decoder = rules, self, self
        spell = lambda rows: [" ".join(f"w{i}" for i in row) for row in rows]  # noqa: E731
        self.target = SimpleNamespace(decode=spell)

    def encode(self, ids: Tensor, lengths: Tensor) -> tuple[list[int], None]:
        assert len(ids) == len(lengths) <= searching.BATCH
        return ids[:, 0].tolist(), None

    def __call__(self, tokens: Tensor, state: list[int], memory: None) -> Any:
        assert memory is None
        after = [
            self.rules[first][before]
            for first, before in zip(state, tokens[:, 0].tolist(), strict=True)
        ]
        features = nn.functional.one_hot(torch.tensor(after), 10).unsqueeze(1)
        return SimpleNamespace(features=features, state=state)

    def logits(self, features: Tensor) -> Tensor:
        return features


# What is wanted is 5 6 7.
STORIES: dict[int, tuple[str, dict[int, int]]] = {
    4: ("right", {BOS: 5, 5: 6, 6: 7, 7: EOS, EOS: EOS}),
    5: ("ruined", {BOS: 5, 5: 9, 9: 8, 8: EOS, 6: 7, 7: EOS, EOS: EOS}),
    6: ("lost", {BOS: 5, 5: 9, 9: 8, 8: EOS, 6: 8, EOS: EOS}),
    7: ("ruined", {BOS: 8, 8: 8, 5: 6, 6: 7, 7: EOS, EOS: EOS}),  # says 8 for ever
    8: ("lost", {BOS: 8, 8: 8, 5: 5, EOS: EOS}),  # and 5 for ever
    9: ("ruined", {BOS: 5, 5: EOS, 6: 7, 7: EOS, EOS: EOS}),  # says nothing more
}


def test_what_became_of_translations_that_go_wrong() -> None:
    """Each of the stories again and again, in more than one batch."""
    told = list(islice(cycle(STORIES), searching.BATCH + 9))
    model = cast(Any, Rules({first: rules for first, (_, rules) in STORIES.items()}))
    source = [[first, *[4] * (i % 3)] for i, first in enumerate(told)]
    found = searching.outcomes(model, source, [[5, 6, 7] for _ in told], 1.5)
    assert found == [STORIES[first][0] for first in told]


@pytest.mark.parametrize(
    ("made", "wanted", "place"),
    [
        ([5, 6], [5, 6], 2),
        ([5, 9, 7], [5, 6, 7], 1),
        ([9, 6, 9], [5, 6, 7], 0),
        ([5], [5, 6], 1),
        ([5, 6], [5], 1),
        ([], [5], 0),
    ],
)
def test_where_translations_begin_to_differ(made: list[int], wanted: list[int], place: int) -> None:
    assert searching.first_difference(made, wanted) == place


# --- word order -----------------------------------------------------------------------------------

SAME = linked((0, 0), (1, 1), (2, 2))  # tau 1
SWAPPED = linked((0, 0), (1, 2), (2, 1))  # tau 1/3
TURNED = linked((0, 2), (1, 1), (2, 0))  # tau -1


@pytest.mark.parametrize(
    ("links", "parts"),
    [
        ([SAME, linked((2, 0))], [("same order", 1, 2)]),
        (
            [SWAPPED, SAME, TURNED, SAME],
            [("same order", 1, 2), ("a little", 0.333, 1), ("most", -1, 1)],
        ),
        ([TURNED, SWAPPED, SWAPPED], [("a little", 0.333, 2), ("most", -1, 1)]),
        ([SWAPPED, SWAPPED], [("a little", 0.333, 2)]),  # half of equals cannot be told apart
        ([TURNED, TURNED, SWAPPED], [("a little", -0.556, 3)]),
    ],
)
def test_sentences_by_how_much_their_order_changes(
    links: list[Links], parts: list[tuple[str, float, int]]
) -> None:
    """Where it changes most, nothing is right; all else is."""
    wanted = [f"le chat numéro {i} dort ici ." for i in range(len(links))]
    least = parts[-1][0] == "most"
    lines = [
        "chien" if least and pair is TURNED else line
        for pair, line in zip(links, wanted, strict=True)
    ]
    found = slices.by_order(links, slices.statistics(lines, wanted), SCORING)
    assert [(one["order"], one["tau"], one["sentences"]) for one in found] == parts
    for one in found:
        right = 0 if one["order"] == "most" else 100
        assert one["bleu"] == {"score": right, "low": right, "high": right}
        assert (one["chrf"]["score"] == 100) == (right == 100)


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("colours", ["cividis", "PuOr"])
def test_the_numbers_of_a_matrix_can_be_read_on_all_its_colours(colours: str) -> None:
    import matplotlib.pyplot as plt

    values = np.linspace(0, 1, 101)
    with pictures.style():
        figure, (panel,) = pictures.panels(1)
        names = [""] * len(values)
        pictures.heat(panel, [values], ["row"], names, ".2f", cmap=colours, vmin=0, vmax=1)
        plt.close(figure)
    (image,) = panel.images
    for value, text in zip(values, panel.texts, strict=True):
        own = {"white": [255.0] * 3, "black": [0.0] * 3}[str(text.get_color())]
        behind = 255 * np.array(image.cmap(image.norm(value))[:3])
        assert browsers.ratio(own, behind) >= browsers.READABLE, value
