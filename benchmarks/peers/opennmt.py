"""The worker of OpenNMT-py 3.5.1.

Kinds: `feed`, with input feeding, its default, and `nofeed`, its faster decoder without.
Its batches are of like lengths: it reads a bucket of sentences, sorts them and shuffles the
batches. The bucket is the training data, once; its default would be nine times as large as
Multi30k, and it drops what comes twice in a batch.
"""

from __future__ import annotations

import argparse
import io
import sys
import types
from pathlib import Path
from typing import Any

import torch
import yaml
from gate import BATCH, SEED, Gate, arguments, read_lines, timed

# Its terminology transform imports spacy, which is large; nothing here uses that transform.
sys.modules["spacy"] = types.ModuleType("spacy")
# torch.load reads only plain weights by default now, and its models hold their options as well.
torch.serialization.add_safe_globals([argparse.Namespace])

from onmt.constants import CorpusTask, DefaultTokens  # noqa: E402
from onmt.inputters.dynamic_iterator import build_dynamic_dataset_iter  # noqa: E402
from onmt.opts import train_opts, translate_opts  # noqa: E402
from onmt.translate import GNMTGlobalScorer, Translator  # noqa: E402
from onmt.utils.parse import ArgumentParser  # noqa: E402

NEVER = 1_000_000_000


def training_options(kind: str, data: Path, work: Path) -> argparse.Namespace:
    """Its command line; what is not here has OpenNMT-py's default."""
    pieces = data / "pieces"
    corpora = {
        name: {"path_src": f"{pieces}/{name}.source", "path_tgt": f"{pieces}/{name}.target"}
        for name in ("train", "valid")
    }
    options = {
        "data": yaml.dump({**corpora, "train": {**corpora["train"], "weight": 1}}),
        "src_vocab": pieces / "vocabulary",
        "share_vocab": None,
        "encoder_type": "brnn",
        "decoder_type": "rnn",
        "rnn_type": "LSTM",
        "layers": 1,
        "hidden_size": 256,
        "word_vec_size": 256,
        "global_attention": "general",
        "input_feed": int(kind == "feed"),
        "share_embeddings": None,
        "share_decoder_embeddings": None,
        "dropout": 0.3,
        "label_smoothing": 0.1,
        "optim": "adam",
        "learning_rate": 0.001,
        "start_decay_steps": NEVER,
        "max_grad_norm": 1.0,
        "normalization": "tokens",
        "batch_type": "sents",
        "batch_size": BATCH,
        "valid_batch_size": BATCH,
        "bucket_size": len(read_lines(pieces / "train.source")),
        "num_workers": 0,  # more would make batches while another toolkit is measured
        "train_steps": NEVER,
        "valid_steps": NEVER,
        "save_checkpoint_steps": 0,
        "save_model": work / "model",
        "seed": SEED,
    }
    return parsed(train_opts, options)


def translation_options(model: Path | str, beam: int, batch: int) -> argparse.Namespace:
    options = {
        "model": model,
        "src": "none",
        "beam_size": beam,
        # Its greedy search is sampling from the one likeliest token.
        **({"random_sampling_topk": 1} if beam == 1 else {}),
        "length_penalty": "avg",
        "batch_type": "sents",
        "batch_size": batch,
    }
    chosen = parsed(translate_opts, options)
    ArgumentParser.validate_translate_opts(chosen)
    ArgumentParser._get_all_transform_translate(chosen)
    return chosen


def parsed(add_options: Any, options: dict[str, Any]) -> argparse.Namespace:
    """Options as OpenNMT-py would read them from its command line; None makes a bare flag."""
    parser = ArgumentParser()
    add_options(parser)
    words: list[str] = []
    for name, value in options.items():
        words += [f"-{name}"] if value is None else [f"-{name}", str(value)]
    return parser.parse_args(words)


class Worker:
    """`vocabs`, `model` and the options that it was built from, `options`."""

    def __init__(self, data: Path, vocabs: Any, model: Any, options: argparse.Namespace) -> None:
        self.data, self.vocabs, self.model, self.options = data, vocabs, model, options

    def loss(self) -> dict[str, Any]:
        pad, nll, tokens = self.vocabs["tgt"][DefaultTokens.PAD], 0.0, 0
        batches = build_dynamic_dataset_iter(self.options, {}, self.vocabs, task=CorpusTask.VALID)
        self.model.eval()
        with torch.no_grad():
            for batch, _ in batches:
                states, _ = self.model(batch["src"], batch["tgt"], batch["srclen"])
                logits = self.model.generator(states)
                labels = batch["tgt"][:, 1:, 0]
                nll += float(
                    torch.nn.functional.cross_entropy(
                        logits.flatten(0, 1), labels.flatten(), ignore_index=pad, reduction="sum"
                    )
                )
                tokens += int((labels != pad).sum())
        self.model.train()
        return {"nll": nll, "tokens": tokens}

    def translate(self, split: str, beam: int, batch: int, every: int = 1) -> dict[str, Any]:
        how = translation_options("none", beam, batch)
        self.model.eval()
        translator = Translator.from_opt(
            self.model,
            self.vocabs,
            how,
            self.options,
            global_scorer=GNMTGlobalScorer.from_opt(how),
            out_file=io.StringIO(),
        )

        def search(sentences: list[str]) -> list[str]:
            batches = build_dynamic_dataset_iter(
                how, {}, self.vocabs, task=CorpusTask.INFER, src=sentences
            )
            return [best for best, *_ in translator._translate(batches)[1]]

        sentences = read_lines(self.data / "pieces" / f"{split}.source", every)
        found, seconds = timed(search, sentences)
        self.model.train()
        return {"pieces": [sentence.split() for sentence in found], "seconds": seconds}


def train(gate: Gate, kind: str, data: Path, work: Path) -> None:
    """Its own `train`; two functions that it calls are wrapped, to reach batches and model."""
    import onmt.train_single  # its memory is not decoding's
    from onmt.bin.train import train as train_model

    build_iter, build_trainer = (
        onmt.train_single.build_dynamic_dataset_iter,
        onmt.train_single.build_trainer,
    )

    def gated(*given: Any, task: str, **how: Any) -> Any:
        batches = build_iter(*given, task=task, **how)
        if task != CorpusTask.TRAIN:
            return batches
        return gate.batches(
            batches, lambda item: int(item[0]["tgtlen"].sum()) - len(item[0]["tgtlen"])
        )

    def watched(options: Any, device: int, model: Any, vocabs: Any, *given: Any, **how: Any) -> Any:
        trainer = build_trainer(options, device, model, vocabs, *given, **how)
        worker = Worker(data, vocabs, model, options)

        def save(model: str) -> dict[str, Any]:
            path, _ = trainer.model_saver._save(trainer.optim.training_step, trainer.model)
            Path(path).replace(model)
            return {}

        gate.actions |= {"loss": worker.loss, "translate": worker.translate, "save": save}
        return trainer

    onmt.train_single.build_dynamic_dataset_iter = gated
    onmt.train_single.build_trainer = watched
    train_model(training_options(kind, data, work))


def main() -> None:
    chosen = arguments()
    gate = Gate("OpenNMT-py")
    torch.set_num_threads(chosen.threads)
    if chosen.model is None:
        train(gate, chosen.kind, chosen.data, chosen.work)
        return
    from onmt.model_builder import load_test_model

    vocabs, model, options = load_test_model(translation_options(chosen.model, 5, BATCH))
    gate.actions["translate"] = Worker(chosen.data, vocabs, model, options).translate
    gate.serve()


if __name__ == "__main__":
    main()
