"""The `rnnmt` command. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

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
        description="Translate standard input to standard output, one line for each line; with "
        "--nbest N, N lines for each, of which the last are empty where there are fewer.",
    )
    translate.set_defaults(run=_translate)
    _translate_options(translate.add_argument)
    sync = commands.add_parser(
        "sync",
        help="make MLflow hold one complete run for each trained model",
        description="Make or complete MLflow's runs from the pipeline's outputs; idempotent.",
    )
    sync.set_defaults(run=_sync)
    playground = commands.add_parser(
        "playground",
        help="look inside the trained models, on a web page",
        description="Serve a page on which every variant translates what you type.",
    )
    playground.set_defaults(run=_playground)
    _playground_options(playground.add_argument)
    promote = commands.add_parser(
        "promote",
        help="let the best model through the gate to MLflow's registry",
        description="The best model by validation score against the registry's champion: promoted "
        "if the rules of `promote` in params.yaml hold. Exit code 3 where it is refused.",
    )
    promote.set_defaults(run=_promote)
    _promote_options(promote.add_argument)
    serve = commands.add_parser(
        "serve",
        help="translate over HTTP",
        description="Translate over HTTP until SIGTERM; SIGHUP looks for another model. POST "
        "/translate, GET /health, /ready, /metrics, /openapi.json.",
    )
    serve.set_defaults(run=_serve)
    _serve_options(serve.add_argument)
    sweep = commands.add_parser(
        "sweep",
        help="many variants on many machines",
        description="Print the commands that train every variant and seed, each of which may run "
        "on another machine with the same DVC remote, or run them.",
    )
    sweep.set_defaults(run=_sweep)
    _sweep_options(sweep.add_argument, sweep.add_mutually_exclusive_group().add_argument)
    check = commands.add_parser(
        "check",
        help="check params.yaml",
        description="Check params.yaml, or the file that RNNMT_PARAMS names.",
    )
    check.set_defaults(run=_check)
    return parser


def _translate_options(add: Callable[..., Any]) -> None:
    add("--model", required=True, type=Path, nargs="+", action="extend", metavar="FOLDER",
        help="models/CORPUS/VARIANT-SEED; several translate together, as an ensemble")  # fmt: skip
    add("--beam", type=_positive, default=5, help="hypotheses kept; 1 is greedy (default: 5)")
    add("--nbest", type=_positive, default=1, help="translations of each sentence (default: 1)")
    add("--length-penalty", type=_penalty, default=1.0, help="as in params.yaml (default: 1.0)")
    add("--max-length-ratio", type=_ratio, default=3.0, help="as in params.yaml (default: 3.0)")
    add("--batch", type=_positive, default=64,
        help="lines searched together (default: 64; of a terminal 1)")  # fmt: skip
    add("--threads", type=_positive, help="processor threads (default: all)")
    add("--scores", action="store_true", help="put score and log-probability before, with tabs")
    add("--alignments", action="store_true", help="put source-target pairs of pieces behind")


def _playground_options(add: Callable[..., Any]) -> None:
    add("--models", type=Path, help="folder of models (default: that of params.yaml's corpus)")
    add("--seed", type=int, help="of the models (default: each variant's lowest)")
    add("--max-length-ratio", type=_ratio, default=3.0, help="as in params.yaml (default: 3.0)")
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=_port, default=7860, help="0 takes any free one (default: 7860)")
    add(
        "--allow-host", type=_host, action="append", default=[], metavar="NAME",
        help="a name by which others may reach the page; refused are all but local ones",
    )  # fmt: skip


def _promote_options(add: Callable[..., Any]) -> None:
    add("--to", choices=("champion", "challenger"), default="champion", help="alias to be given")
    add("--variant", action="append", help="consider only this one; may be repeated")
    add("--dry-run", action="store_true", help="say what would happen and why, and change nothing")
    add("--rollback", action="store_true", help="make the champion before this one it again")


def _serve_options(add: Callable[..., Any]) -> None:
    add("--model", required=True, help="a folder, models:/NAME@champion or models:/NAME/VERSION")
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=_port, default=8000, help="(default: 8000)")
    add(
        "--allow-host", type=_host, action="append", default=[], metavar="NAME",
        help="a name in the Host header that is answered; on a loopback address only local ones "
        "are, on others all unless this names some",
    )  # fmt: skip
    add("--threads", type=_positive, help="processor threads of a translation (default: all)")
    add("--poll", type=_period, default=30, help="seconds between looks at an alias (default: 30)")
    for name, value, text in (
        ("batch", 64, "sentences searched together"),
        ("sentences", 100, "sentences of one request, else status 422"),
        ("characters", 500, "of one sentence, else 422"),
        ("bytes", 1 << 20, "of one request, else 413"),
        ("beam", 10, "largest beam of a request, else 422"),
        ("waiting", 1000, "sentences that wait, else 429"),
    ):
        add(f"--max-{name}", type=_positive, default=value, help=f"{text} (default: {value})")
    add(
        "--timeout",
        type=_seconds,
        default=30,
        help="seconds from a request to its answer, else 408 or 504 (default: 30)",
    )


def _sweep_options(add: Callable[..., Any], where: Callable[..., Any]) -> None:
    where("--here", action="store_true", help="run them here, several at once")
    where(
        "--host", action="append", help="run them over SSH: [USER@]NAME[:PORT]:FOLDER; repeatable"
    )
    where("--slurm", metavar="FOLDER", help="submit them as a SLURM array; its logs go to FOLDER")
    add(
        "--jobs", type=_positive, help="with --here: at once (default: cores / those of a training)"
    )
    add("--setup", default=". .venv/bin/activate", metavar="COMMAND",
        help="of the shell, on a host, in its folder (default: %(default)s)")  # fmt: skip
    add("--minutes", type=_positive, default=1440, help="with --slurm: for each (default: 1440)")
    add("--option", action="append", default=[], help="of SLURM, such as partition=cpu; repeatable")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, found {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def _host(text: str) -> str:
    if "*" in text.removeprefix("*.") and text != "*":
        raise argparse.ArgumentTypeError(f"expected a name, or *.NAME for all below it: {text}")
    return text


def _between(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # NaN is not
            raise argparse.ArgumentTypeError(
                f"expected a number from {low:g} to {high:g}, found {text}"
            )
        return value

    return number


_penalty, _ratio = _between(-10, 10), _between(0.01, 100)
_seconds, _period = _between(0.001, 1e6), _between(0, 1e6)


def _sync(arguments: argparse.Namespace) -> None:  # noqa: ARG001
    from rnnmt.tracking.sync import sync

    sync()


def _playground(arguments: argparse.Namespace) -> None:
    from rnnmt import params
    from rnnmt.playground.server import examples, serve
    from rnnmt.playground.variant import load_variants

    models = arguments.models or Path("models", params.corpus_name())
    variants = load_variants(models, arguments.seed, arguments.max_length_ratio)
    corpus = variants[0].trained.settings.get("corpus", "")
    sentences = examples(Path("data", corpus, "tokens"))
    serve(variants, sentences, arguments.host, arguments.port, arguments.allow_host)


def _promote(arguments: argparse.Namespace) -> None:
    from rnnmt.tracking import promotion

    if arguments.rollback:
        raise SystemExit(promotion.roll_back(arguments.dry_run))
    raise SystemExit(promotion.promote(arguments.to, arguments.dry_run, arguments.variant))


def _serve(arguments: argparse.Namespace) -> None:
    from rnnmt import params

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the service has its own handler
    params.use_threads(arguments.threads or 0, params.SEARCH_SHAPES)
    from rnnmt.serving.service import Limits, serve
    from rnnmt.serving.sources import source

    limits = Limits(
        batch=arguments.max_batch,
        # A request waits as a whole.
        sentences=min(arguments.max_sentences, arguments.max_waiting),
        characters=arguments.max_characters,
        bytes=arguments.max_bytes,
        beam=arguments.max_beam,
        waiting=arguments.max_waiting,
        seconds=arguments.timeout,
    )
    models = source(arguments.model, arguments.poll)
    serve(models, limits, arguments.host, arguments.port, arguments.allow_host)


def _sweep(arguments: argparse.Namespace) -> None:
    from rnnmt import sweep

    if arguments.host:
        sweep.run_on_hosts(arguments.host, arguments.setup)
    elif arguments.slurm:
        if wrong := [option for option in arguments.option if "=" not in option]:
            raise UserError(f"--option {wrong[0]}: expected NAME=VALUE")
        options = dict(option.split("=", 1) for option in arguments.option)
        sweep.submit(arguments.slurm, options, arguments.minutes)
    elif arguments.here:
        sweep.run_here(arguments.jobs)
    else:
        sweep.show()


def _check(arguments: argparse.Namespace) -> None:  # noqa: ARG001
    from rnnmt import params
    from rnnmt.check import check_files, check_settings

    check_settings()
    check_files()
    print(f"{params.path()}: no mistake found")


def _translate(arguments: argparse.Namespace) -> None:
    if sys.stdin is None or sys.stdout is None:
        raise UserError("standard input or output is closed")
    if arguments.nbest > arguments.beam:
        raise UserError(f"--nbest {arguments.nbest} cannot exceed --beam {arguments.beam}")
    from rnnmt import params

    params.use_threads(arguments.threads or 0, params.SEARCH_SHAPES)
    from rnnmt.model.folder import load_model
    from rnnmt.search.translator import Translator

    first, *others = map(load_model, arguments.model)
    translator = Translator(first, arguments.max_length_ratio, others)
    size = 1 if sys.stdin.isatty() else arguments.batch
    try:
        for batch in _batches(sys.stdin.buffer, size):
            for printed in _translations(translator, batch, arguments):
                sys.stdout.buffer.write(f"{printed}\n".encode())
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The reader has seen enough, as `head` does. Nothing may be written any more.
        sys.stdout = None


def _batches(stream: BinaryIO, size: int) -> Iterator[list[str]]:
    """Up to `size` lines at a time. One that is not UTF-8 raises UserError, after those before."""
    from rnnmt.corpora.clean import normalise

    batch = []
    for number, line in enumerate(stream, 1):
        try:
            batch.append(normalise(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            if batch:
                yield batch
            raise UserError(f"standard input:{number}: not UTF-8: {error.reason}") from None
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _translations(
    translator: Translator, sentences: list[str], arguments: argparse.Namespace
) -> Iterator[str]:
    """What to print for each sentence: its n best, one a line, and empty ones where it has less."""
    from rnnmt.search.answers import Search, translate

    search = Search.model_construct(  # of options that are checked, with other limits
        beam=arguments.beam, nbest=arguments.nbest, length_penalty=arguments.length_penalty
    )
    for found in translate(translator, sentences, search, arguments.batch):
        lines = [_line(translation, arguments) for translation in found]
        yield from lines + [""] * (arguments.nbest - len(lines))


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
