"""Training in bfloat16 learns what training in float32 does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rnnmt.dataset.batch import Batch, pad
from rnnmt.dataset.tokenizer import BOS, Tokenizer
from rnnmt.model import training
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import ModelSettings, TrainSettings
from rnnmt.model.training import TranslationModule, usable_precision

torch.set_num_threads(1)

VOCABULARY, LENGTH, UPDATES = 40, 7, 250


def batch(sentences: int, generator: torch.Generator) -> Batch:
    """Random sentences, whose translation is the sentence backwards."""
    words = torch.randint(4, VOCABULARY, (sentences, LENGTH), generator=generator)
    source, lengths = pad([row.numpy() for row in words])
    labels, _ = pad([row.numpy() for row in words.flip(1)])
    decoder_input = labels.roll(1, dims=1)
    decoder_input[:, 0] = BOS
    return Batch(source, lengths, decoder_input, labels)


def module(cell: str, precision: str) -> TranslationModule:
    torch.manual_seed(1)
    model = ModelSettings(
        cell=cell, attention="general", heads=1, embedding=32, hidden=64,
        encoder_layers=1, decoder_layers=1, layer_norm=False,
        dropout=0.0, word_dropout=0.0, tie_embeddings=True,
    )  # fmt: skip
    train = TrainSettings(
        fraction=1.0, batch_tokens=1, max_epochs=1, patience=1, monitor="val/loss",
        learning_rate=0.005, warmup_steps=20, schedule="cosine", bpe_dropout=0.0,
        label_smoothing=0.1, gradient_clip=1.0,
        weight_decay=0.0, weight_average=0.0, precision=precision,
        processes=1, nodes=1, checkpoint_seconds=60.0,
    )  # fmt: skip
    seq2seq = Seq2Seq(model, Vocabularies(VOCABULARY, VOCABULARY, True))
    return TranslationModule(seq2seq, train, precision, UPDATES, 1, object.__new__(Tokenizer), [])


def fit(cell: str, precision: str) -> float:
    """The loss on new sentences, in nats per token, after UPDATES updates."""
    made, generator = module(cell, precision), torch.Generator().manual_seed(2)
    configured = made.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    for _ in range(UPDATES):
        loss = made.training_step(batch(32, generator), 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    made.eval()
    with torch.no_grad():
        _, nll, tokens = made._loss(batch(200, generator), 0.0)
    return float(nll) / tokens


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="the processor has no bfloat16 products",
)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_bfloat16_learns_as_much_as_float32(cell: str) -> None:
    exact, rounded = fit(cell, "float32"), fit(cell, "bfloat16")
    assert exact < 3.0  # chance is 3.6 nats: something was learnt
    assert rounded < 1.05 * exact + 0.02


def test_validation_is_in_float32_whatever_the_precision_of_training() -> None:
    given = batch(8, torch.Generator().manual_seed(3))
    losses = []
    for precision in ("float32", "bfloat16"):
        made = module("lstm", precision).eval()
        with torch.no_grad():
            losses.append(float(made._loss(given, 0.0)[1]))
    assert losses[0] == losses[1]


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="the processor has no bfloat16 products",
)
@pytest.mark.parametrize(
    ("vendor", "amx", "usable"),
    [
        ("AuthenticAMD", False, "bfloat16"),
        ("GenuineIntel", True, "bfloat16"),
        ("GenuineIntel", False, "float32"),
        (None, False, "bfloat16"),
    ],
)
def test_bfloat16_only_where_it_is_faster(
    vendor: str | None, amx: bool, usable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if vendor:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    monkeypatch.setattr(training, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert usable_precision("bfloat16") == usable
    assert usable_precision("float32") == "float32"
