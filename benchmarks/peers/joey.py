"""The worker of joeynmt 2.3.0.

Kinds: `own` batches, as its sampler makes them: 64 random sentences, sorted only within; and
`bucketed`, which gives it this benchmark's batches of like lengths, since it has none itself.
Input feeding is on, its default.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gate import BATCH, SEED, Gate, LengthBuckets, arguments, read_lines, timed
from joeynmt.config import parse_global_args
from joeynmt.prediction import predict, prepare

NEVER = 1_000_000_000


def config(data: Path, work: Path, model: Path | None) -> dict[str, Any]:
    """Its configuration file as a dictionary; what is not here has joeynmt's default."""
    side = {"level": "word", "lowercase": False, "voc_file": str(data / "pieces" / "vocabulary")}
    embeddings = {"embedding_dim": 256, "dropout": 0.3}
    recurrent = {"type": "recurrent", "rnn_type": "lstm", "num_layers": 1, "embeddings": embeddings}
    return {
        "name": "benchmark",
        "model_dir": str(work),
        "use_cuda": False,
        "random_seed": SEED,
        "data": {
            "train": str(data / "pieces" / "train"),
            "dev": str(data / "pieces" / "valid"),
            "src": {"lang": "source", **side},
            "trg": {"lang": "target", **side},
        },
        "model": {
            "tied_embeddings": True,
            "tied_softmax": True,
            # As its annotated example for recurrent models has it. The default, a sixth of that
            # width, makes a tied output layer start so slowly that 300 updates learn very little.
            "embed_initializer": "normal",
            "embed_init_weight": 0.1,
            "encoder": {**recurrent, "hidden_size": 128, "bidirectional": True, "dropout": 0.3},
            "decoder": {
                **recurrent,
                "hidden_size": 256,
                "hidden_dropout": 0.3,
                "attention": "luong",
                "init_hidden": "bridge",
            },
        },
        "training": {
            "optimizer": "adam",
            "learning_rate": 0.001,
            # Without a schedule joeynmt stops with an error; this one multiplies by one. The usual
            # one, `plateau`, passes `verbose`, which torch no longer knows.
            "scheduling": "exponential",
            "decrease_factor": 1.0,
            "label_smoothing": 0.1,
            "clip_grad_norm": 1.0,
            "normalization": "tokens",
            "batch_size": BATCH,
            "batch_type": "sentence",
            "epochs": NEVER,
            "validation_freq": NEVER,
        },
        "testing": {"load_model": model and str(model)},
    }


class Gated:
    """The toolkit's data loader, through the gate; with `buckets` they choose the rows."""

    def __init__(self, gate: Gate, loader: Any, buckets: LengthBuckets | None) -> None:
        self.gate, self.loader, self.buckets = gate, loader, buckets
        self.batch_sampler = loader.batch_sampler

    def __iter__(self) -> Iterator[Any]:
        batches = self.loader if self.buckets is None else self._bucketed(self.buckets)
        return self.gate.batches(batches, lambda batch: int(batch.ntokens))

    def _bucketed(self, buckets: LengthBuckets) -> Iterator[Any]:
        for rows in buckets:
            yield self.loader.collate_fn([self.loader.dataset[row] for row in rows])


class Worker:
    def __init__(self, data: Path, args: Any, model: Any, valid: Any) -> None:
        self.data, self.args, self.model, self.valid = data, args, model, valid

    @property
    def actions(self) -> dict[str, Any]:
        return {"loss": self.loss, "translate": self.translate, "save": self.save}

    def loss(self) -> dict[str, Any]:
        nll, tokens = 0.0, 0
        self.model.eval()
        batches = self.valid.make_iter(
            batch_size=BATCH, pad_index=self.model.pad_index, eos_index=self.model.eos_index
        )
        with torch.no_grad():
            for batch in batches:
                batch.sort_by_src_length()
                _, log_probs, _, _ = self.model(return_type="loss", **vars(batch))
                gold = log_probs.gather(2, batch.trg.unsqueeze(2)).squeeze(2)
                nll -= float(gold[batch.trg != self.model.pad_index].sum())
                tokens += int(batch.ntokens)
        self.model.train()
        return {"nll": nll, "tokens": tokens}

    def translate(self, split: str, beam: int, batch: int, every: int = 1) -> dict[str, Any]:
        # alpha 1 divides by (5 + length) / 6, the nearest it has to the average log-probability.
        test = self.args.test._replace(beam_size=beam, beam_alpha=1.0, batch_size=batch)
        stream = self._stream()

        def search(sentences: list[str]) -> list[list[str]]:
            for sentence in sentences:
                stream.set_item(sentence)
            found = predict(
                model=self.model,
                data=stream,
                device=self.args.device,
                n_gpu=0,
                args=test,
                autocast=self.args.autocast,
            )
            eos = self.model.trg_vocab.specials[self.model.eos_index]
            return [[piece for piece in pieces if piece != eos] for pieces in found[3]]

        sentences = read_lines(self.data / "pieces" / f"{split}.source", every)
        pieces, seconds = timed(search, sentences)
        self.model.train()
        return {"pieces": pieces, "seconds": seconds}

    def save(self, model: str) -> dict[str, Any]:
        torch.save({"model_state": self.model.state_dict()}, model)
        return {}

    def _stream(self) -> Any:
        """Its data set for sentences that come one by one, which knows how to encode them."""
        from joeynmt.datasets import StreamDataset

        return StreamDataset(
            path=None,
            src_lang="source",
            trg_lang="target",
            has_prompt={"source": False, "target": False},
            tokenizer=self.valid.tokenizer,
            sequence_encoder=self.valid.sequence_encoder,
        )


def train(gate: Gate, kind: str, data: Path, args: Any) -> None:
    """As its `training.train`, with the gate between the data and the loop."""
    from joeynmt.training import TrainManager  # its memory is not decoding's

    model, train_data, valid, _ = prepare(args, rank=0, mode="train")
    gate.actions |= Worker(data, args, model, valid).actions
    lengths = (
        [len(line.split()) for line in read_lines(data / "pieces" / f"train.{side}")]
        for side in ("source", "target")
    )
    buckets = LengthBuckets(*lengths) if kind == "bucketed" else None
    make_iter = train_data.make_iter
    train_data.make_iter = lambda **how: Gated(gate, make_iter(**how), buckets)
    manager = TrainManager(
        rank=0,
        model=model,
        model_dir=args.model_dir,
        device=args.device,
        autocast=args.autocast,
        seed=args.seed,
        train_args=args.train,
        dev_args=args.test,
    )
    manager.train_and_validate(train_data=train_data, valid_data=valid)


def main() -> None:
    chosen = arguments()
    gate = Gate("joeynmt")
    torch.set_num_threads(chosen.threads)
    logging.basicConfig(level=logging.WARNING)
    chosen.work.mkdir(parents=True, exist_ok=True)
    cfg = config(chosen.data, chosen.work, chosen.model)
    if chosen.model is None:
        train(gate, chosen.kind, chosen.data, parse_global_args(cfg, mode="train"))
        return
    args = parse_global_args(cfg, mode="translate")
    model, _, _, stream = prepare(args, rank=0, mode="translate")
    gate.actions["translate"] = Worker(chosen.data, args, model, stream).translate
    gate.serve()


if __name__ == "__main__":
    main()
