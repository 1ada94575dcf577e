"""All settings at once, so that a mistake in any section shows before any work is done."""

from __future__ import annotations

from pathlib import Path

from rnnmt import params
from rnnmt.corpora import settings as corpora
from rnnmt.corpora.clean import CleaningSettings
from rnnmt.dataset.tokenizer import TokenizerSettings
from rnnmt.errors import UserError, run_main
from rnnmt.insight.settings import AnalyzeSettings, MemorySettings
from rnnmt.model.settings import variant
from rnnmt.scoring.settings import EvaluateSettings, PromoteSettings
from rnnmt.search.settings import DecodeSettings


def check_files() -> None:
    """Raise UserError where one of the user's own files that the corpus is read from lacks."""
    for file in corpora.own_files(corpora.load()):
        if not Path(file).exists():
            raise UserError(f"{params.path()}: corpus: {file}: no such file")


def check_settings() -> None:
    """Raise UserError for the first mistake in the settings file; import nothing heavy."""
    params.seeds()
    params.threads()
    corpora.load()
    params.load("cleaning", CleaningSettings)
    tokenizer = params.load("tokenizer", TokenizerSettings)
    for name in params.variants():
        if variant(name)[1].bpe_dropout and tokenizer.algorithm != "bpe":
            raise UserError(
                f"{params.path()}: train.bpe_dropout of the variant '{name}': set it to 0.0, or "
                "tokenizer.algorithm to bpe"
            )
    params.load("decode", DecodeSettings)
    params.load("evaluate", EvaluateSettings)
    params.load("promote", PromoteSettings)
    params.load("analyze", AnalyzeSettings)
    params.load("memory", MemorySettings)


if __name__ == "__main__":
    run_main(check_settings)
