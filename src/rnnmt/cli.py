"""The `rnnmt` command. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rnnmt.errors import UserError, run_main

if TYPE_CHECKING:
    from rnnmt.search.translator import Translation, Translator


def main() -> None:
    arguments = _parser().parse_args()
    run_main(lambda: arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rnnmt",
        description="A reproducible laboratory for recurrent machine translation.",
        epilog="The experiments themselves are run by `make repro` or `dvc repro`.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    translate = commands.add_parser(
        "translate",
        help="translate standard input, one sentence a line",
        description="Translate standard input to standard output, one line for each line.",
    )
    translate.set_defaults(run=_translate)
    add = translate.add_argument
    add("--model", required=True, type=Path, nargs="+", metavar="FOLDER",
        help="models/CORPUS/VARIANT-SEED; several translate together, as an ensemble")  # fmt: skip
    add("--beam", type=_positive, default=5, help="hypotheses kept; 1 is greedy (default: 5)")
    add("--nbest", type=_positive, default=1, help="translations of each sentence (default: 1)")
    add("--length-penalty", type=float, default=1.0, help="as in params.yaml (default: 1.0)")
    add("--max-length-ratio", type=float, default=3.0, help="as in params.yaml (default: 3.0)")
    add("--batch", type=_positive, default=64, help="sentences read and searched together")
    add("--threads", type=_positive, help="processor threads (default: all)")
    add("--scores", action="store_true", help="put score and log-probability before, with tabs")
    add("--alignments", action="store_true", help="put source-target pairs of pieces behind")
    sync = commands.add_parser(
        "sync",
        help="make MLflow hold one complete run for each trained model",
        description="Make or complete MLflow's runs from the pipeline's outputs; idempotent.",
    )
    sync.set_defaults(run=_sync)
    check = commands.add_parser(
        "check",
        help="check params.yaml",
        description="Check params.yaml, or the file that RNNMT_PARAMS names.",
    )
    check.set_defaults(run=_check)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text}")
    return value


def _sync(arguments: argparse.Namespace) -> None:  # noqa: ARG001
    from rnnmt.tracking.sync import sync

    sync()


def _check(arguments: argparse.Namespace) -> None:  # noqa: ARG001
    from rnnmt import params
    from rnnmt.check import check_settings

    check_settings()
    print(f"{params.path()}: no mistake found")


def _translate(arguments: argparse.Namespace) -> None:
    if arguments.nbest > arguments.beam:
        raise UserError(f"--nbest {arguments.nbest} cannot exceed --beam {arguments.beam}")
    # Read when torch is first imported; see params.use_threads.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    import torch

    from rnnmt.model.folder import load_model
    from rnnmt.search.translator import Translator

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    first, *others = map(load_model, arguments.model)
    translator = Translator(first, arguments.max_length_ratio, others)
    lines = _sentences(sys.stdin.buffer)
    try:
        while batch := list(islice(lines, 1 if sys.stdin.isatty() else arguments.batch)):
            for printed in _translations(translator, batch, arguments):
                sys.stdout.buffer.write(f"{printed}\n".encode())
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The reader has seen enough, as `head` does. Nothing may be written any more.
        sys.stdout = None


def _sentences(stream: BinaryIO) -> Iterator[str]:
    from rnnmt.corpora.clean import normalise

    for number, line in enumerate(stream, 1):
        try:
            yield normalise(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"standard input:{number}: not UTF-8: {error.reason}") from None


def _translations(
    translator: Translator, sentences: Sequence[str], arguments: argparse.Namespace
) -> Iterator[str]:
    """What to print for each sentence: its n best, one a line; an empty line for an empty one."""
    filled = [sentence for sentence in sentences if sentence]
    found = iter(translator.beam(filled, arguments.beam, arguments.nbest, arguments.length_penalty))
    for sentence in sentences:
        if not sentence:
            yield ""
            continue
        for translation in next(found):
            yield _line(translation, arguments)


def _line(translation: Translation, arguments: argparse.Namespace) -> str:
    fields = [translation.text]
    if arguments.scores:
        hypothesis = translation.hypothesis
        fields = [f"{hypothesis.score:.4f}", f"{hypothesis.log_prob:.4f}", *fields]
    if arguments.alignments:
        fields.append(_alignment(translation))
    return "\t".join(fields)


def _alignment(translation: Translation) -> str:
    """`source=target` for each target piece and the source piece that it attends to most."""
    weights = translation.alignment
    if weights is None:
        return ""
    return " ".join(
        f"{translation.source_pieces[row.argmax()]}={piece}"
        for row, piece in zip(weights, translation.target_pieces, strict=True)
    )


if __name__ == "__main__":
    main()
