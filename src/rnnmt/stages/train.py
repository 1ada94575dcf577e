"""Stage `train`: one variant with one seed, from token ids to a model's folder.

    python -m rnnmt.stages.train VARIANT SEED

Interrupted, it goes on where it was when it is started again, to the same bytes.

With `train.processes` above 1 it starts the others itself; with `train.nodes` above 1, torchrun or
srun starts it on every node, and the nodes share the folder `work`. The first process alone writes.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnmt import params
from rnnmt.errors import UserError, peak_memory_mb, run_stage
from rnnmt.model.settings import ModelSettings, TrainSettings, variant

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from lightning_fabric.plugins import ClusterEnvironment
    from pytorch_lightning.loggers import Logger

    from rnnmt.dataset.batch import Share
    from rnnmt.model.training import History, ParallelData, TranslationModule

# Whose versions may change a result; what is installed counts, whatever requirements.lock says.
LIBRARIES = ("numpy", "pytorch-lightning", "sentencepiece", "torch")


def main() -> None:
    arguments = _parse()
    name = params.corpus_name()
    model_settings, train_settings = variant(arguments.variant)
    tokens = Path("data", name, "tokens")
    description = _describe(arguments, model_settings, train_settings, tokens)
    # <variant>-<seed>-<fingerprint>: other settings, data, code or libraries never resume this.
    work = Path("work", f"{arguments.variant}-{arguments.seed}-{description['fingerprint'][:12]}")
    share = _share(train_settings)
    with _lock(work) if share.rank == 0 else contextlib.redirect_stdout(None):
        _train(description, model_settings, train_settings, tokens, work, share)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rnnmt.stages.train", description=__doc__)
    parser.add_argument("variant", help="an entry of `variants` in params.yaml")
    parser.add_argument("seed", type=int, help="of weights, batches and dropout")
    arguments = parser.parse_args()
    if not 0 <= arguments.seed <= params.LARGEST_SEED:
        parser.error(f"SEED: expected a whole number from 0 to {params.LARGEST_SEED}")
    return arguments


def _share(settings: TrainSettings) -> Share:
    """Which of the processes this is, as torchrun, SLURM or Lightning has numbered them."""
    from rnnmt.dataset.batch import Share

    processes = settings.processes * settings.nodes
    started, rank = os.environ.get("WORLD_SIZE"), os.environ.get("LOCAL_RANK", "0")
    if "RANK" in os.environ:  # of torchrun, also within a SLURM job
        rank = os.environ["RANK"]
    elif _by_srun():
        started, rank = os.environ["SLURM_NTASKS"], os.environ["SLURM_PROCID"]
    elif settings.nodes > 1:
        raise UserError(
            f"train.nodes is {settings.nodes}: start this stage on each node, with `torchrun "
            f"--nnodes {settings.nodes} --nproc-per-node {settings.processes} ...` or with srun"
        )
    if started not in (None, str(processes)):
        raise UserError(
            f"{started} processes were started, but train.processes x train.nodes is {processes}: "
            "the two have to agree"
        )
    if "RANK" not in os.environ and _by_srun():
        _check_srun(settings)
    return Share(int(rank), processes)


def _check_srun(settings: TrainSettings) -> None:
    """Lightning counts nodes and tasks on each, and knows neither from --ntasks."""
    nodes, tasks = os.environ.get("SLURM_NNODES", "1"), os.environ.get("SLURM_NTASKS_PER_NODE")
    if (nodes, tasks) != (str(settings.nodes), str(settings.processes)):
        raise UserError(
            f"srun has started {tasks or 'an unsaid number of'} tasks on each of {nodes} nodes: "
            f"give it --nodes {settings.nodes} --ntasks-per-node {settings.processes}, as "
            "train.nodes and train.processes say"
        )


def _environment() -> ClusterEnvironment:
    """What has numbered the processes. Lightning's own choice differs for SLURM jobs of one task,
    in which it is to start the others itself.
    """
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if "RANK" in os.environ:
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if _by_srun() else LightningEnvironment()


def _by_srun() -> bool:
    """In one of several tasks, and not in the one shell of an allocation for several."""
    return os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"


def _describe(
    arguments: argparse.Namespace, model: ModelSettings, train: TrainSettings, tokens: Path
) -> dict[str, Any]:
    """What the training depends on, as settings.json keeps it; `fingerprint` sums it up."""
    params.use_threads(shapes=params.TRAINING_SHAPES)
    from rnnmt.model.training import usable_precision  # all code that training runs is loaded now

    file = tokens / "manifest.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; run: {params.remake('tokenize')}") from None
    except ValueError as error:
        raise UserError(f"{file}: damaged ({error}); run: {params.remake('-f tokenize')}") from None
    sizes = manifest["vocabulary"]
    description: dict[str, Any] = {
        "corpus": tokens.parent.name,
        "variant": arguments.variant,
        "seed": arguments.seed,
        "threads": params.threads(),
        "precision": usable_precision(train.precision),  # which depends on the processor
        "model": model.model_dump(),
        "train": train.model_dump(exclude={"checkpoint_seconds"}),
        "vocabularies": {**sizes, "joint": manifest["joint"]},
        "source_language": manifest["source_language"],
        "target_language": manifest["target_language"],
        "data": manifest["sha256"],
        "code": _code_digest(),
        "libraries": {library: version(library) for library in LIBRARIES},
    }
    text = json.dumps(description, sort_keys=True)
    return description | {"fingerprint": hashlib.sha256(text.encode()).hexdigest()}


def _code_digest() -> str:
    """Of the project's modules that are loaded, but for the tracking, which changes no result."""
    digest = hashlib.sha256(Path(__file__).read_bytes())  # this one runs as __main__
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith("rnnmt.") and not name.startswith("rnnmt.tracking") and file:
            digest.update(Path(file).read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _lock(work: Path) -> Iterator[None]:
    """Only one process trains in a folder; the system frees the lock however that one ends."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{work}: another process trains this model; wait for it") from None
        yield


def _train(
    description: dict[str, Any],
    model_settings: ModelSettings,
    settings: TrainSettings,
    tokens: Path,
    work: Path,
    share: Share,
) -> None:
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    from rnnmt.model.training import History, ResumePoint, averaging
    from rnnmt.tracking.training import LogEpochs, training_logger

    params.use_determinism()
    pl.seed_everything(description["seed"], workers=True, verbose=False)
    data, module = _data_and_module(description, model_settings, settings, tokens, share)
    last = work / "last.ckpt"
    resume = last if last.exists() else None
    history, logger = History(), None
    callbacks: list[pl.Callback] = [history]
    if share.rank == 0:
        logger = training_logger(description, resume is not None)
        callbacks.append(LogEpochs(history, logger))
    if settings.weight_average:
        callbacks.append(averaging(settings.weight_average))
    # Last, when the others have done what belongs to an update.
    callbacks.append(ResumePoint(last, settings.checkpoint_seconds))
    trainer = _trainer(settings, work, callbacks, logger)
    try:
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    except SIGTERMException:  # whose exit code is 0
        raise SystemExit(128 + signal.SIGTERM) from None
    if trainer.interrupted:
        raise SystemExit(1)
    if share.rank:
        return
    module.load_state_dict(torch.load(work / "best.ckpt", weights_only=True)["state_dict"])
    _write(description, module, history, tokens)
    last.unlink()  # first: without the best model there is nothing to be resumed
    shutil.rmtree(work)


def _data_and_module(
    description: dict[str, Any],
    model: ModelSettings,
    settings: TrainSettings,
    tokens: Path,
    share: Share,
) -> tuple[ParallelData, TranslationModule]:
    from rnnmt.dataset.batch import Sampling
    from rnnmt.dataset.store import open_split
    from rnnmt.dataset.tokenizer import BpeDropout, Tokenizer
    from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
    from rnnmt.model.training import ParallelData, TranslationModule

    source, target = (Tokenizer(tokens / f"{side}.model") for side in ("source", "target"))
    rate = settings.bpe_dropout
    data = ParallelData(
        open_split(tokens, "train").first(settings.fraction),
        open_split(tokens, "valid"),
        settings.batch_tokens,
        description["seed"],
        Sampling(BpeDropout(source, rate), BpeDropout(target, rate)) if rate else None,
        share,
    )
    module = TranslationModule(
        Seq2Seq(model, Vocabularies(**description["vocabularies"])),
        settings,
        description["precision"],
        total_steps=settings.max_epochs * len(data.train),
        seed=description["seed"],
        tokenizer=target,
        references=(tokens / "valid.target.txt").read_text(encoding="utf-8").split("\n")[:-1],
        share=share,
    )
    return data, module


def _trainer(
    settings: TrainSettings, work: Path, callbacks: list[pl.Callback], logger: Logger | None
) -> pl.Trainer:
    import logging
    import warnings

    import pytorch_lightning as pl

    from rnnmt.model.training import LOG_STEPS, Best, Stop, WholeFiles

    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The loader is a plain iterable without workers, on purpose: a batch is made in a millisecond.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # What is logged of a validation is already that of all processes.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    mode = {"val/bleu": "max", "val/loss": "min"}[settings.monitor]
    best = Best(
        dirpath=work,
        filename="best",
        monitor=settings.monitor,
        mode=mode,
        # Lightning asks the callbacks, and so the one that averages, for whole checkpoints only.
        save_weights_only=not settings.weight_average,
        auto_insert_metric_name=False,
        enable_version_counter=False,
        # At its end an epoch is saved to be resumed from: its model must have been judged before.
        save_on_train_epoch_end=False,
    )
    stop = Stop(settings.monitor, mode=mode, patience=settings.patience)
    return pl.Trainer(
        accelerator="cpu",
        devices=settings.processes,
        num_nodes=settings.nodes,
        strategy="ddp" if settings.processes * settings.nodes > 1 else "auto",
        max_epochs=settings.max_epochs,
        gradient_clip_val=settings.gradient_clip,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=[best, stop, *callbacks],
        plugins=[WholeFiles(), _environment()],
        logger=logger or False,
        log_every_n_steps=LOG_STEPS,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        default_root_dir=work,
    )


def _write(
    description: dict[str, Any], module: TranslationModule, history: History, tokens: Path
) -> None:
    from rnnmt.model.folder import save_model

    folder = Path(
        "models", description["corpus"], f"{description['variant']}-{description['seed']}"
    )
    save_model(folder, module.model, description, tokens)
    with open(folder / "history.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, history.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history.rows)
    monitor = description["train"]["monitor"]
    best = (max if monitor == "val/bleu" else min)(history.rows, key=lambda row: row[monitor])
    epochs = list(zip(history.seconds, history.validation_seconds, strict=True))
    training_seconds = [whole - validation for whole, validation in epochs]
    summary = {
        "parameters": sum(p.numel() for p in module.model.parameters()),
        "seconds": round(sum(history.seconds), 2),
        "epoch_seconds": [round(s, 2) for s in history.seconds],
        "training_seconds": [round(s, 2) for s in training_seconds],  # of epochs, but validation
        "target_tokens_per_second": round(history.rows[-1]["tokens"] / sum(training_seconds), 1),
        "epochs": len(history.rows),
        "best_epoch": best["epoch"],
        "best": {name: best[name] for name in ("val/loss", "val/perplexity", "val/bleu")},
        "threads": description["threads"],
        "precision": module.precision,
        "memory_mb": peak_memory_mb(),
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    run_stage(main, check=True)
