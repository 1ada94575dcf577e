"""Distance to the limit: what training and decoding reach of the machine's own matrix products.

    .venv/bin/python benchmarks/limits.py

Counts the operations of a step, measures the rate of matrix products in the same run, and times
every part of a training step by itself. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import workers
from common import spread, table, write
from workers import DATA, SETTINGS, THREADS

os.environ["RNNMT_PARAMS"] = str(SETTINGS)
from rnnmt import params

params.use_threads(THREADS, params.SEARCH_SHAPES)  # before torch is imported

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from rnnmt.dataset.batch import Batch, make_batch  # noqa: E402
from rnnmt.dataset.store import open_split  # noqa: E402
from rnnmt.dataset.tokenizer import PAD, Tokenizer  # noqa: E402
from rnnmt.model.attention import Memory  # noqa: E402
from rnnmt.model.decoder import Output  # noqa: E402
from rnnmt.model.folder import TrainedModel  # noqa: E402
from rnnmt.model.loss import linear_cross_entropy  # noqa: E402
from rnnmt.model.prepared import PreparedDecoder  # noqa: E402
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies  # noqa: E402
from rnnmt.model.settings import variant  # noqa: E402
from rnnmt.model.training import LOG_STEPS, History, TranslationModule  # noqa: E402
from rnnmt.search.translator import Translator  # noqa: E402
from rnnmt.stages import train as stage  # noqa: E402
from rnnmt.tracking.training import training_logger  # noqa: E402

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# (M, K, N) of the products that a step consists of, and one that is easy for any processor.
SHAPES = [(1024, 256, 8000), (1024, 8000, 256), (1024, 512, 1024), (1024, 1024, 1024)]
WARM_UP, BATCHES, ROUNDS = 4, LOG_STEPS, 5  # in a trainer one of so many updates is logged
TRAINER = ("logging", "Lightning's loop")
Parts = dict[str, Callable[[Batch], Callable[[], Any]]]  # what is timed, made ready for a batch


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    workers.prepare_data()
    params.use_determinism()  # as the stages do
    batches = list(islice(_batches(), BATCHES))
    results: dict[str, Any] = {"training": {}, "decoding": {}}
    for precision in workers.usable(PRECISIONS):
        results["training"][precision] = training(precision, batches)
    for beam in (1, 5):
        results["decoding"][f"beam {beam}"] = decoding(beam)
    print(report(results))
    print(write("limits", THREADS, results))


def training(precision: str, batches: list[Batch]) -> dict[str, Any]:
    """Rates and times of whole updates and of their parts, taken in turn with those of products."""
    module, sizes = _module(precision)
    optimizer = module.configure_optimizers()["optimizer"]

    def update(batch: Batch) -> None:
        loss = module.training_step(batch, 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        _step(module, optimizer)

    parts = _parts(module, optimizer, precision)
    for batch in batches[:WARM_UP]:
        update(batch)
    operations = sum(training_operations(module.model, batch) for batch in batches)
    rates, seconds = [], []
    of_parts: dict[str, list[float]] = {name: [] for name in (*parts, *TRAINER)}
    for _ in range(ROUNDS):
        rates.append(product_rate(PRECISIONS[precision]))
        bare, whole, logging = _with_trainer(module, precision, batches, update)
        seconds.append(bare)
        of_parts["logging"].append(logging)
        of_parts["Lightning's loop"].append(whole - bare - logging)
        for name, part in parts.items():
            of_parts[name].append(sum(_seconds(part(batch)) for batch in batches))
    tokens = sum(int((batch.labels != PAD).sum()) for batch in batches)
    reached = [operations / s / 1e9 for s in seconds]
    return {
        "vocabulary": sizes.target,
        "operations_per_token": operations / tokens,
        "tokens_per_second": spread([tokens / s for s in seconds]),
        "product_gflops": spread(rates),
        "gflops": spread(reached),
        "fraction": spread([a / b for a, b in zip(reached, rates, strict=True)]),
        "update_ms": spread([1e3 * s / len(batches) for s in seconds]),
        "part_ms": {
            name: spread([1e3 * s / len(batches) for s in values])
            for name, values in of_parts.items()
        },
    }


def decoding(beam: int) -> dict[str, Any]:
    """As `training`, for a search over test_2016_flickr, batches of 64, all in float32."""
    module, _ = _module("float32")
    source, target = (Tokenizer(DATA / "tokens" / f"{side}.model") for side in ("source", "target"))
    translator = Translator(TrainedModel(module.model.eval(), source, target, {}))
    _teach(module)
    # An output layer in 8 bits has another limit than the products that it is compared with.
    translator._decoders = [PreparedDecoder(module.model.decoder, quantized=False)]
    sentences = (DATA / "tokens" / "test_2016_flickr.source.txt").read_text().split("\n")[:-1]
    pieces = source.encode(sentences)
    order = sorted(range(len(sentences)), key=lambda i: len(pieces[i]), reverse=True)
    chunks = [[sentences[i] for i in order[at : at + 64]] for at in range(0, len(order), 64)]

    def search() -> None:
        for chunk in chunks:
            if beam == 1:
                translator.greedy(chunk)
            else:
                translator.beam(chunk, beam, 1, 1.0)

    rows, [decoder] = 0, translator._decoders
    step = decoder.step

    def counted(tokens: Tensor, *given: Any) -> Output:
        nonlocal rows
        rows += len(tokens)
        return step(tokens, *given)

    decoder.step = counted  # type: ignore[method-assign]
    search()
    decoder.step = step  # type: ignore[method-assign]
    assert rows >= len(sentences), "the steps of the search were not seen"
    tokens = sum(len(ids) + 1 for ids in pieces)
    operations = decoding_operations(module.model, tokens, len(sentences), rows)
    rates, seconds = [], []
    for _ in range(ROUNDS):
        rates.append(product_rate(torch.float32))
        seconds.append(_seconds(search))
    reached = [operations / s / 1e9 for s in seconds]
    return {
        "steps_of_hypotheses": rows,
        "sentences_per_second": spread([len(sentences) / s for s in seconds]),
        "product_gflops": spread(rates),
        "gflops": spread(reached),
        "fraction": spread([a / b for a, b in zip(reached, rates, strict=True)]),
    }


def training_operations(model: Seq2Seq, batch: Batch) -> float:
    """Additions and multiplications of an update for the real tokens of a batch.

    Each weight of a matrix is multiplied once for each token that passes it, and twice more for
    the two gradients. Padding, element-wise functions and the optimizer are not counted.
    """
    source = int(batch.source_lengths.sum())
    labels = batch.labels != PAD
    target, sentences = int(labels.sum()), len(labels)
    decoder, attention = model.decoder, model.decoder.attention
    assert attention is not None
    pairs = int((labels.sum(dim=1) * batch.source_lengths).sum())
    matrices = (
        source * (_weights(model.encoder.forwards) + _weights(model.encoder.backwards))
        + source * _weights(attention)
        + sentences * _weights(decoder.bridge)
        + target * (_weights(decoder.layers) + _weights(decoder.combine))
        + target * (_weights(decoder.features) + _weights(decoder.output))
        + 2 * pairs * attention.hidden  # scores and contexts
    )
    return 3 * 2.0 * matrices


def decoding_operations(model: Seq2Seq, source: int, sentences: int, rows: int) -> float:
    """Of a search over `source` tokens in which hypotheses took `rows` steps altogether."""
    decoder, attention = model.decoder, model.decoder.attention
    assert attention is not None
    once = _weights(model.encoder.forwards) + _weights(model.encoder.backwards)
    # What is not counted: the features' product, which is folded into the output layer's, and that
    # of the words with the first layer's weights, which is looked up.
    looked_up = decoder.get_parameter("layers.0.layer.weight_ih_l0").numel()
    step: float = _weights(decoder.layers) - looked_up
    step += _weights(decoder.combine) + _weights(decoder.output)
    step += 2 * attention.hidden * source / sentences
    return 2.0 * (
        source * (once + _weights(attention)) + sentences * _weights(decoder.bridge) + rows * step
    )


def product_rate(dtype: torch.dtype) -> float:
    """The best matrix product of the machine in GFLOP/s, by any library and of any of SHAPES."""
    best, linear = 0.0, torch.ops.mkldnn._linear_pointwise
    for m, k, n in SHAPES:
        left, right = torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype)
        for product in (
            lambda left=left, right=right: left @ right.t(),
            lambda left=left, right=right: linear(left, right, None, "none", [], ""),
        ):
            product()
            seconds = min(_seconds(product) for _ in range(5))
            best = max(best, 2.0 * m * k * n / seconds / 1e9)
    return best


def _parts(module: TranslationModule, optimizer: torch.optim.Optimizer, precision: str) -> Parts:
    """The parts of an update, each forwards and backwards by itself, on inputs made before."""
    encoder, decoder = module.model.encoder, module.model.decoder
    attention, layer = decoder.attention, decoder.output
    assert attention is not None
    dtype, width, hidden = PRECISIONS[precision], layer.in_features, attention.hidden
    store = open_split(DATA / "tokens", "train")

    def alone(
        forward: Callable[..., Tensor], inputs: Callable[[Batch], list[Tensor]] = lambda _: []
    ) -> Callable[[Batch], Callable[[], None]]:
        def prepared(batch: Batch) -> Callable[[], None]:
            given = [values.requires_grad_() for values in inputs(batch)]

            def run() -> None:
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    output = forward(batch, *given)
                output.float().sum().backward()  # type: ignore[no-untyped-call]

            return run

        return prepared

    def random(tokens: Tensor, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*tokens.shape, width, dtype=dtype)

    def encode(_: Batch, states: Tensor) -> Tensor:
        right, _ = encoder.forwards[0](states)
        left, _ = encoder.backwards[0](states)
        return torch.cat([right, left], dim=2)

    def attend(batch: Batch, states: Tensor, queries: Tensor) -> Tensor:
        memory = Memory(states, attention.keys(states), batch.source != PAD)
        context: Tensor = attention(queries, memory)[0]
        return context

    def loss(batch: Batch) -> Callable[[], None]:
        labels = batch.labels[batch.labels != PAD]
        features = random(labels, width, dtype).requires_grad_()

        def run() -> None:
            total, _ = linear_cross_entropy(features, layer.weight, layer.bias, labels, 0.1)
            total.backward()  # type: ignore[no-untyped-call]

        return run

    return {
        "embedding": alone(
            lambda b: encoder.embedding(b.source).sum() + decoder.embedding(b.decoder_input).sum()
        ),
        "encoder": alone(encode, lambda b: [random(b.source, width)]),
        "decoder": alone(
            lambda _, inputs: decoder.layers[0](inputs)[0], lambda b: [random(b.labels, width)]
        ),
        "attention": alone(
            attend, lambda b: [random(b.source, hidden, dtype), random(b.labels, hidden, dtype)]
        ),
        "output layer and loss": loss,
        "optimizer and clipping": lambda _: lambda: _step(module, optimizer),
        "data loading": lambda b: lambda: make_batch(store, range(len(b.labels))),
    }


class Ended(Exception):  # noqa: N818
    """The batches that a trainer is measured with are over."""


def _with_trainer(
    module: TranslationModule,
    precision: str,
    batches: list[Batch],
    update: Callable[[Batch], None],
) -> tuple[float, float, float]:
    """Seconds of `update` and of the product's trainer, which take each batch in turn.

    The third are those of the trainer's logging, History's and MLflow's, which are among its own.
    """
    model, settings = variant(precision)
    bare, whole, logged = 0.0, 0.0, [0.0]

    def timed(call: Callable[..., None]) -> Callable[..., None]:
        return lambda *given, **how: logged.append(_seconds(lambda: call(*given, **how)))

    class Batches:
        def __len__(self) -> int:
            return 1 << 40  # an epoch's end would validate

        def __iter__(self) -> Iterator[Batch]:
            nonlocal bare, whole
            yield from batches[:WARM_UP]
            logged.clear()
            for batch in batches:
                started = time.perf_counter()
                yield batch
                whole += time.perf_counter() - started
                bare += _seconds(lambda batch=batch: update(batch))  # type: ignore[misc]
            raise Ended

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        named = argparse.Namespace(variant=precision, seed=1)
        description = stage._describe(named, model, settings, DATA / "tokens")
        history, logger = History(), training_logger(description, resume=False)
        history.on_train_batch_end = timed(history.on_train_batch_end)  # type: ignore[method-assign]
        logger.log_metrics = timed(logger.log_metrics)  # type: ignore[method-assign]
        trainer = stage._trainer(settings, Path(folder), [history], logger)
        with contextlib.suppress(Ended):
            trainer.fit(module, Batches())
    return bare, whole, sum(logged)


def report(results: dict[str, Any]) -> str:
    """The results as Markdown tables."""

    def cells(values: dict[str, Any]) -> list[str]:
        return [
            f"{values['gflops']['median']:,.0f}",
            f"{values['product_gflops']['median']:,.0f}",
            f"{100 * values['fraction']['median']:.0f} %",
        ]

    rows = [
        [
            f"training, {precision}",
            f"{values['tokens_per_second']['median']:,.0f} tokens/s",
            *cells(values),
        ]
        for precision, values in results["training"].items()
    ] + [
        [
            f"decoding, {name}",
            f"{values['sentences_per_second']['median']:,.0f} sentences/s",
            *cells(values),
        ]
        for name, values in results["decoding"].items()
    ]
    whole = table(["", "speed", "GFLOP/s", "of products", "reached"], rows)
    precisions = results["training"]
    names = next(iter(precisions.values()))["part_ms"]
    profile = [
        [name, *(f"{p['part_ms'][name]['median']:.1f}" for p in precisions.values())]
        for name in names
    ]
    sums = [sum(v["median"] for v in p["part_ms"].values()) for p in precisions.values()]
    besides = ("data loading", *TRAINER)  # the update that is timed as a whole has none of them
    updates = [
        p["update_ms"]["median"] + sum(p["part_ms"][name]["median"] for name in besides)
        for p in precisions.values()
    ]
    rest = [f"{update - known:.1f}" for update, known in zip(updates, sums, strict=True)]
    profile.append(["all else (dropout, other layers, sums)", *rest])
    profile.append(["an update", *(f"{update:.1f}" for update in updates)])
    return f"{whole}\n\n{table(['ms of an update', *precisions], profile)}\n"


def _module(precision: str) -> tuple[TranslationModule, Vocabularies]:
    torch.manual_seed(1)
    model, settings = variant(precision)
    target = Tokenizer(DATA / "tokens" / "target.model")
    sizes = Vocabularies(target.vocabulary_size, target.vocabulary_size, True)
    module = TranslationModule(Seq2Seq(model, sizes), settings, precision, 1, 1, target, [])
    return module, sizes


def _teach(module: TranslationModule, updates: int = 300) -> None:
    """Train enough that translations end: a fresh model's never do."""
    optimizer = module.configure_optimizers()["optimizer"]
    module.train()
    for batch in islice(_batches(), updates):
        loss = module.training_step(batch, 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        _step(module, optimizer)
    module.eval()


def _step(module: TranslationModule, optimizer: torch.optim.Optimizer) -> None:
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()


def _batches() -> Iterator[Batch]:
    """64 sentences of like lengths, in random order."""
    store = open_split(DATA / "tokens", "train")
    lengths = list(zip(store.source.lengths, store.target.lengths, strict=True))
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    starts = torch.randperm(len(order) // 64, generator=torch.Generator().manual_seed(1)) * 64
    for start in starts.tolist():
        yield make_batch(store, order[start : start + 64])


def _weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.dim() > 1)


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
