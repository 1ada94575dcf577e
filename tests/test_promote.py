"""`rnnmt promote`: what is let through the gate, what the registry then holds, and the way back."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

import servers
from decoded import SPLITS, WORDS, lab, make_run, write
from rnnmt import params
from rnnmt.dataset.tokenizer import Tokenizer
from rnnmt.errors import UserError
from rnnmt.model.folder import save_model
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import ModelSettings
from rnnmt.scoring.gate import Evidence
from rnnmt.scoring.settings import Run, references
from rnnmt.serving.sources import source
from rnnmt.stages import evaluate
from rnnmt.tracking import promotion, registry
from rnnmt.tracking.promotion import REFUSED, best_run, keep, promote, roll_back
from test_serve import Process, asked_all_the_time, texts

NAME = "bundled-en-fr"
TINY = {
    "cell": "gru", "attention": "none", "embedding": 4, "hidden": 4, "encoder_layers": 1,
    "decoder_layers": 1, "dropout": 0.0, "tie_embeddings": False, "word_dropout": 0.0, "heads": 1,
    "layer_norm": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three evaluated runs with real, untrained models, and a database with its tables."""
    folder = lab(tmp_path_factory.mktemp("lab"))
    tokens = folder / "data/bundled/tokens"
    dice = torch.Generator().manual_seed(0)
    for split, size in SPLITS.items():
        rows = torch.randint(len(WORDS), (size, 6), generator=dice).tolist()
        write(tokens / f"{split}.source.txt", "".join(_sentence(row) for row in rows))
    _train_tokenizers(tokens)
    for label in ("lstm-1", "lstm-dot-1", "lstm-additive-1"):
        save(folder, label)
    old = Path.cwd()
    os.chdir(folder)
    try:
        for variant in params.variants():
            score(variant)
        with registry.opened(NAME):
            pass
    finally:
        os.chdir(old)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder; only `lstm`, the worst, is in params.yaml yet."""
    copy = tmp_path / "lab"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(copy))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy / 'mlflow.db'}")
    only("lstm")
    rule(max_slowdown=1000)  # for untrained models, of which some never end a sentence
    return copy


def _sentence(row: list[int]) -> str:
    return " ".join(WORDS[i] for i in row) + "\n"


def _train_tokenizers(tokens: Path) -> None:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        input=str(tokens / "test.source.txt"), model_prefix=str(tokens / "source"),
        vocab_size=40, model_type="bpe", pad_id=0, unk_id=1, bos_id=2, eos_id=3,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    shutil.copy(tokens / "source.model", tokens / "target.model")


def save(folder: Path, label: str, **changes: Any) -> None:
    """A model whose weights depend on its name, with a whole settings.json."""
    sizes = TINY | changes
    tokens = folder / "data/bundled/tokens"
    size = Tokenizer(tokens / "source.model").vocabulary_size
    torch.manual_seed(len(label))
    model = Seq2Seq(ModelSettings(**sizes), Vocabularies(size, size, False))  # type: ignore[arg-type]
    variant, _, seed = label.rpartition("-")
    settings = {
        "corpus": "bundled", "variant": variant, "seed": int(seed), "model": sizes, "train": {},
        "vocabularies": {"source": size, "target": size, "joint": False}, "threads": 1,
        "source_language": "en", "target_language": "fr", "data": "d" * 64, "code": "c" * 64,
        "fingerprint": f"of-{label}",
    }  # fmt: skip
    save_model(folder / "models/bundled" / label, model, settings, tokens)


def score(variant: str) -> None:
    """What decode and evaluate leave of the made-up translations."""
    run, wanted = Run("bundled", variant, 1), references("bundled")
    settings = params.load("evaluate", evaluate.EvaluateSettings)
    for split in wanted.splits:
        sources = (
            Path(f"data/bundled/tokens/{split}.source.txt").read_text(encoding="utf-8").splitlines()
        )
        records = "".join(json.dumps({"source": source}) + "\n" for source in sources)
        write(Path("reports/bundled/translations", str(run), f"{split}.jsonl"), records)
    scores = {split: evaluate.evaluate(run, wanted, split, settings) for split in wanted.splits}
    write(run.detail_path, evaluate.detail(run, wanted, scores, settings))


def only(*variants: str) -> None:
    """Make these the variants of params.yaml."""
    settings = params.read() | {"variants": {name: {} for name in variants}}
    Path("params.yaml").write_text(json.dumps(settings), encoding="utf-8")


def rule(**settings: float) -> None:
    """Change the section `promote`."""
    values = params.read()
    values["promote"] |= settings
    Path("params.yaml").write_text(json.dumps(values), encoding="utf-8")


def champion() -> ModelVersion:
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).get_model_version_by_alias(
        NAME, "champion"
    )


def number() -> int:
    return int(champion().version)


def failed(text: str) -> list[str]:
    """The rules that have failed, as printed."""
    return [line.split("|")[1].strip() for line in text.splitlines() if "FAILED" in line]


def test_a_better_model_takes_the_place_of_the_first_and_one_command_brings_that_back(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote() == 0
    assert champion().tags["variant"] == "lstm"
    only("lstm", "lstm-dot")
    assert promote(to="challenger") == 0
    assert champion().tags["variant"] == "lstm"
    assert promote() == 0
    assert (champion().tags["variant"], number()) == ("lstm-dot", 2)
    assert Evidence.read(folder / "reports/bundled/champion").label == "lstm-dot-1"
    assert promote() == 0
    assert "nothing to do" in capsys.readouterr().out
    assert roll_back(dry_run=True) == 0
    assert number() == 2
    assert roll_back() == 0
    assert number() == 1
    assert Evidence.read(folder / "reports/bundled/champion").label == "lstm-1"
    assert promote() == REFUSED  # or the next run of CI would undo the rollback
    assert failed(capsys.readouterr().out) == ["never rolled back"]
    with pytest.raises(UserError, match="no champion that has replaced"):
        roll_back()


def test_a_champion_that_this_code_cannot_read_is_replaced_untimed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promote()
    [file] = (folder / "mlruns").rglob("artifacts/model/settings.json")
    settings = json.loads(file.read_text())
    settings["model"]["hidden"] += 2
    file.write_text(json.dumps(settings))
    only("lstm-dot")
    assert promote() == 0
    said = capsys.readouterr().out
    assert "cannot be timed or scored again: not a model that this version can read" in said
    assert champion().tags["variant"] == "lstm-dot"


@pytest.mark.usefixtures("folder")
def test_a_model_that_is_decoded_otherwise_is_another_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    promote(to="challenger")
    values = params.read()
    values["decode"]["beam"] += 1
    Path("params.yaml").write_text(json.dumps(values), encoding="utf-8")
    assert promote() == 0
    assert (champion().tags["variant"], number()) == ("lstm", 2)
    with registry.opened(NAME) as models:
        assert models.evidence(champion()).decode["beam"] == values["decode"]["beam"]
    capsys.readouterr()
    assert promote() == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_who_was_crowned_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    promote()
    only("lstm-dot")
    promote(to="challenger")
    judged = promotion.judge

    def slowly(*arguments: Any) -> Any:
        with registry.opened(NAME, read_only=True) as models:
            models.crown(models.version("2"))
        return judged(*arguments)

    monkeypatch.setattr(promotion, "judge", slowly)
    only("lstm-additive")
    with pytest.raises(UserError, match=f"{NAME}: its champion has changed meanwhile"):
        promote()
    assert champion().tags["variant"] == "lstm-dot"


@pytest.mark.usefixtures("folder")
def test_no_model_of_another_corpus_is_replaced() -> None:
    """Whose name and direction give the same name in the registry."""
    promote()
    for top in ("data", "models", "reports"):
        shutil.copytree(f"{top}/bundled", f"{top}/{NAME}")
    for file in Path("models", NAME).glob("*/settings.json"):
        file.write_text(file.read_text().replace('"corpus": "bundled"', f'"corpus": "{NAME}"'))
    shutil.rmtree(f"reports/{NAME}/champion")
    values = params.read()
    values["corpus"]["name"] = NAME
    Path("params.yaml").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=f"of the corpus 'bundled'; give '{NAME}' another"):
        promote()


def test_a_version_says_what_it_is(folder: Path) -> None:
    promote()
    tags, scores = champion().tags, Run("bundled", "lstm", 1).detail()["scores"]
    assert tags["score.test.bleu"] == str(scores["test"]["beam"]["bleu"]["score"])
    assert tags["signature.bleu"].startswith("nrefs:1|case:mixed")
    assert (tags["fingerprint"], tags["data"]) == ("of-lstm-1", "d" * 64)
    assert len(tags["data.test_long"]) == 64
    assert "git.commit" in tags
    files = {f.name for f in (folder / "mlruns").rglob("artifacts/*/*") if f.is_file()}
    assert files == {
        "weights.pt", "settings.json", "source.model", "target.model",
        "evidence.json", "test.beam.txt", "test_long.beam.txt",
    }  # fmt: skip
    assert not [f for f in (folder / "mlruns").rglob("*") if f.suffix in (".pkl", ".pickle")]


def test_a_worse_model_is_refused_and_nothing_changes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only("lstm-dot")
    promote()
    before = (folder / "reports/bundled/champion/evidence.json").read_bytes()
    only("lstm")
    assert promote(dry_run=True) == REFUSED
    assert promote() == REFUSED
    rules = failed(capsys.readouterr().out)
    assert "valid: BLEU not below" in rules
    assert "test: not worse (p < 0.05)" in rules
    assert "test_long: no drop beyond 0.5" in rules
    assert champion().tags["variant"] == "lstm-dot"
    assert (folder / "reports/bundled/champion/evidence.json").read_bytes() == before


def test_a_dry_run_writes_nothing_not_even_a_database(folder: Path) -> None:
    (folder / "mlflow.db").unlink()
    before = sorted(folder.rglob("*"))
    assert promote(dry_run=True) == 0
    assert sorted(folder.rglob("*")) == before


def _slow(folder: Path) -> None:
    """The same figures, by a model of a hundred times as many weights."""
    save(folder, "lstm-dot-1", hidden=300)
    rule(max_slowdown=1)


def _not_a_number(folder: Path) -> None:
    file = folder / "reports/bundled/scores/lstm-dot-1.detail.json"
    detail = json.loads(file.read_text())
    detail["scores"]["test"]["beam"]["chrf"]["score"] = math.nan
    file.write_text(json.dumps(detail))


def _missing(folder: Path) -> None:
    file = folder / "reports/bundled/scores/lstm-dot-1.detail.json"
    detail = json.loads(file.read_text())
    del detail["scores"]["test_long"]
    file.write_text(json.dumps(detail))


def _other_figures(folder: Path) -> None:
    file = folder / "reports/bundled/scores/lstm-dot-1.detail.json"
    detail = json.loads(file.read_text())
    detail["scores"]["test"]["beam"]["bleu"]["score"] += 5
    file.write_text(json.dumps(detail))


def _one_test_set_spoilt(folder: Path) -> None:
    """As good as before but for the first translations of one test set."""
    wanted = {"lstm-dot": references("bundled").splits}
    make_run(folder, "lstm-dot", 1, wanted["lstm-dot"])
    save(folder, "lstm-dot-1")
    file = folder / "reports/bundled/translations/lstm-dot-1/test_long.beam.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(["."] * 28 + lines[28:]) + "\n")
    score("lstm-dot")


@pytest.mark.parametrize(
    ("spoil", "rules"),
    [
        (_slow, ["at most 1 times slower"]),
        (_not_a_number, ["figures complete and finite"]),
        (_missing, ["figures complete and finite"]),
        (_other_figures, ["figures complete and finite"]),
        (
            _one_test_set_spoilt,
            ["test_long: not worse (p < 0.05)", "test_long: no drop beyond 0.5"],
        ),
    ],
)
def test_every_rule_alone_refuses_a_model_that_is_better_otherwise(
    folder: Path,
    spoil: Callable[[Path], None],
    rules: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    promote()
    only("lstm-dot")
    spoil(folder)
    assert promote() == REFUSED
    assert failed(capsys.readouterr().out) == rules
    assert champion().tags["variant"] == "lstm"


@pytest.mark.usefixtures("folder")
def test_the_rules_are_those_of_params_yaml() -> None:
    """The two best differ by less than a test can show, but not by nothing."""
    only("lstm-dot")
    promote()
    detail = {v: Run("bundled", v, 1).detail()["scores"] for v in ("lstm-dot", "lstm-additive")}
    file = Run("bundled", "lstm-additive", 1).detail_path
    values = json.loads(file.read_text())
    best = detail["lstm-dot"]["valid"]["beam"]["bleu"]["score"]
    values["scores"]["valid"]["beam"]["bleu"]["score"] = best + 1
    file.write_text(json.dumps(values))
    only("lstm-additive")
    rule(margin=0.0)
    assert promote(dry_run=True) == REFUSED
    rule(margin=20.0, level=0.0001)
    assert promote(dry_run=True) == 0


def lose_the_database(folder: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another, empty one takes its place. Its name is new, since MLflow keeps files open."""
    shutil.rmtree(folder / "mlruns")
    shutil.copy(made / "mlflow.db", folder / "new.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'new.db'}")


def test_it_works_again_after_the_tracking_database_was_lost(
    folder: Path,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    only("lstm-dot")
    promote()
    lose_the_database(folder, made, monkeypatch)
    only("lstm", "lstm-additive")
    assert promote(dry_run=True) == REFUSED
    assert "would be registered again" in capsys.readouterr().out
    assert promote() == REFUSED  # judged against what the files know
    assert champion().tags["variant"] == "lstm-dot"  # and registered again from its folder
    with registry.opened(NAME) as models:
        assert models.evidence(champion()) == Evidence.read(folder / "reports/bundled/champion")


def test_a_lost_champion_whose_model_is_gone_too_is_still_compared_with(
    folder: Path,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    only("lstm-additive")
    promote()
    lose_the_database(folder, made, monkeypatch)
    shutil.rmtree(folder / "models/bundled/lstm-additive-1")
    only("lstm")
    assert promote() == REFUSED
    assert "its model is not here" in capsys.readouterr().out
    only("lstm-dot")
    rule(margin=100, level=0.0001)
    capsys.readouterr()
    assert promote() == 0
    assert "| not measured: the champion's model is not here |" in capsys.readouterr().out
    assert champion().tags["variant"] == "lstm-dot"


def test_the_speed_of_another_machine_counts_for_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first champion was decoded by the fastest machine, its challenger by the slowest."""
    summary = "reports/bundled/translations/{}/summary.json"
    for label, seconds in (("lstm-1", 1e-3), ("lstm-dot-1", 1e6)):
        file = folder / summary.format(label)
        file.write_text(file.read_text().replace('"seconds": 0.4', f'"seconds": {seconds}'))
    promote()
    assert Evidence.read(folder / "reports/bundled/champion").sentences_per_second == 35000
    only("lstm-dot")
    capsys.readouterr()
    assert promote() == 0
    [row] = [line for line in capsys.readouterr().out.splitlines() if "times slower" in line]
    assert "35,000" not in row
    new, old = re.findall(r"[\d,]+\.\d", row)
    assert 0.01 < float(new.replace(",", "")) / float(old.replace(",", "")) < 100


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_it_names_the_commit_that_has_a_lost_champions_model(
    folder: Path,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its evidence was written before its commit, is replaced later, and comes back by rollback."""

    def committed(lock: str) -> None:
        write(folder / "dvc.lock", {"lock": lock})
        git("add", "-f", "dvc.lock", "reports/bundled/champion")
        git("commit", "-m", lock)

    write(folder / "dvc.lock", {"lock": "before"})
    git("init")
    git("add", "-f", "dvc.lock")
    git("commit", "-m", "before")
    promote()
    committed("of lstm")
    only("lstm-dot")
    promote()
    committed("of lstm-dot")
    roll_back()
    committed("of lstm-dot, which was rolled back")
    lose_the_database(folder, made, monkeypatch)
    shutil.rmtree(folder / "models/bundled/lstm-1")
    capsys.readouterr()
    promote(dry_run=True)
    told = re.search(r"the first that `git (log [^`]*)` shows, has it", capsys.readouterr().out)
    assert told
    first = git(*told[1].split()).splitlines()[0].split()[0]
    assert json.loads(git("show", f"{first}:dvc.lock")) == {"lock": "of lstm"}


def spoil_scores(variant: str, change: Callable[[dict[str, Any]], object]) -> None:
    file = Run("bundled", variant, 1).detail_path
    detail = json.loads(file.read_text())
    change(detail["scores"])
    file.write_text(json.dumps(detail))


def test_a_registry_cannot_have_files_of_others_changed(folder: Path) -> None:
    assert promote() == 0
    champion = Evidence.read(folder / "reports/bundled/champion")
    (folder / "other/champion").mkdir(parents=True)
    with pytest.raises(UserError, match=r"params\.yaml: the registry's model is of '\.\./other'"):
        keep(replace(champion, about=champion.about | {"corpus": "../other"}))
    assert (folder / "other/champion").exists()
    assert Evidence.read(folder / "reports/bundled/champion") == champion


def test_a_champion_whose_translations_are_cut_off_is_scored_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line would otherwise count for all of the challenger's."""
    assert promote() == 0
    file = folder / "reports/bundled/champion/test.beam.txt"
    file.write_text(file.read_text(encoding="utf-8").partition("\n")[0] + "\n", "utf-8")
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    client.delete_registered_model(NAME)  # only the files know it now
    only("lstm", "lstm-dot")
    promote()
    assert "The champion has other test sets, or lacks figures" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        lambda scores: scores.pop("valid"),
        lambda scores: scores["valid"].update(beam=None),
        lambda scores: scores["valid"]["beam"]["bleu"].update(score=math.nan),
        lambda scores: scores["valid"]["beam"]["bleu"].update(score="a lot"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_run_without_a_finite_validation_score_is_never_the_best(
    change: Callable[[dict[str, Any]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    only("lstm-dot", "lstm")
    spoil_scores("lstm-dot", change)
    assert str(best_run("bundled", ["lstm-dot", "lstm"])) == "lstm-1"
    assert capsys.readouterr().out == (
        "reports/bundled/scores/lstm-dot-1.detail.json: scores.valid.beam.bleu.score is missing or "
        "not finite; run: dvc repro evaluate@lstm-dot-1\n"
    )


@pytest.mark.usefixtures("folder")
def test_where_no_run_has_a_validation_score_none_is_promoted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil_scores("lstm", lambda scores: scores.pop("valid"))
    assert promote() == REFUSED
    assert "not there, not finite or not its own: valid/bleu, valid/chrf" in capsys.readouterr().out
    spoil_scores("lstm", lambda scores: scores["test"].pop("beam"))
    with pytest.raises(UserError, match=r"lstm-1: .* damaged .*; run: dvc repro -f evaluate@lstm"):
        promote()


def test_on_other_test_sets_both_are_scored_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Untrained models have no BLEU: what decides is that each rule sees the new translations."""
    promote()
    sources = folder / "data/bundled/tokens/test.source.txt"
    sources.write_text("".join(reversed(sources.read_text().splitlines(keepends=True))))
    only("lstm-dot")
    with pytest.raises(UserError, match=r"not the sentences of .*; run: dvc repro evaluate@"):
        promote()
    score("lstm-dot")
    assert promote() == 0
    printed = capsys.readouterr().out
    assert "both are scored again" in printed
    assert champion().tags["variant"] == "lstm-dot"
    kept = Evidence.read(folder / "reports/bundled/champion")
    made_up = Run("bundled", "lstm-dot", 1).hypotheses("test", "beam")
    assert kept.translations["test"] != made_up
    assert len(kept.translations["test"]) == SPLITS["test"]


def test_a_model_that_is_newer_than_its_translations_is_not_judged(folder: Path) -> None:
    weights = [{"path": "models/bundled/lstm-1/weights.pt", "md5": "0" * 32}]
    write(folder / "dvc.lock", {"stages": {"decode@lstm-1": {"deps": weights}}})
    with pytest.raises(UserError, match="newer than its translations; run: dvc repro"):
        promote()


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rnnmt.cli", "promote", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_says_what_is_missing(folder: Path) -> None:
    (folder / "reports/bundled/scores/lstm-1.detail.json").unlink()
    done = command(folder)
    assert done.returncode == 1
    assert done.stderr == (
        "rnnmt: error: reports/bundled/scores/lstm-1.detail.json: no such file; "
        "run: dvc repro evaluate@lstm-1\n"
    )


def test_a_registry_that_is_away_is_no_registry_without_champion(folder: Path) -> None:
    done = command(
        folder, MLFLOW_TRACKING_URI="http://me:secret@127.0.0.1:9", MLFLOW_HTTP_REQUEST_TIMEOUT="1"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("rnnmt: error: cannot use MLflow at http://127.0.0.1:9: ")
    assert "secret" not in done.stderr + done.stdout


def test_loaded_from_mlflow_it_translates_as_the_translator(folder: Path) -> None:
    """Through the signature: strings in, strings or n-best lists out, a wrong parameter told."""
    import mlflow

    from rnnmt.model.folder import load_model
    from rnnmt.search.translator import Translator

    promote()
    model: Any = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    sentences = (folder / "data/bundled/tokens/test.source.txt").read_text().splitlines()[:9]
    ours = Translator(load_model(folder / "models/bundled/lstm-1")).beam(sentences, 3, 2, 0.5)
    asked = {"beam": 3, "nbest": 2, "length_penalty": 0.5}
    found = model.predict(["", *sentences], params=asked)
    assert found[0][0]["text"] == ""
    assert [[t["text"] for t in one] for one in found[1:]] == [[t.text for t in o] for o in ours]
    greedy = model.predict(sentences, params={"beam": 1})
    assert greedy == [t[0].text for t in Translator(load_model(
        folder / "models/bundled/lstm-1")).beam(sentences, 1, 1, 1.0)]  # fmt: skip
    with pytest.raises(mlflow.MlflowException, match=r"nbest \(9\) cannot exceed beam \(5\)"):
        model.predict(sentences, params={"nbest": 9})


@pytest.mark.usefixtures("folder")
def test_the_service_follows_the_alias() -> None:
    follows = source(f"models:/{NAME}@champion", 30)
    with pytest.raises(UserError, match="no such model"):
        follows.load(None)
    promote()
    first = follows.load(None)
    assert first is not None
    assert first.name == f"{NAME} 1 of-lstm-1"
    assert first.search.beam == params.read()["decode"]["beam"]
    assert follows.load(first.name) is None
    only("lstm-dot")
    promote()
    second = follows.load(first.name)
    assert second is not None
    assert second.name == f"{NAME} 2 of-lstm-dot-"
    stays = source(f"models:/{NAME}/1", 30).load(None)
    assert stays is not None
    assert stays.name == first.name


@pytest.mark.usefixtures("folder")
def test_the_service_takes_a_wider_beam_than_requests_may_ask_for() -> None:
    values = params.read()
    values["decode"]["beam"] = 101
    Path("params.yaml").write_text(json.dumps(values), encoding="utf-8")
    promote()
    model = source(f"models:/{NAME}@champion", 30).load(None)
    assert model is not None
    assert model.search.beam == 101  # the service itself has its limit


def test_a_new_champion_is_served_without_dropping_a_request(folder: Path) -> None:
    """Over HTTP, while clients ask: each answer is of the model that it names."""
    from rnnmt.model.folder import load_model
    from rnnmt.search.translator import Translator

    sentences = (folder / "data/bundled/tokens/test.source.txt").read_text().splitlines()[:20]
    decode, expected = params.read()["decode"], {}
    for number, label in (("1", "lstm-1"), ("2", "lstm-dot-1")):
        save(folder, label, hidden=16)
        translator = Translator(load_model(folder / "models/bundled" / label), 3.0)
        fingerprint = f"of-{label}"[:12]
        expected[f"{NAME} {number} {fingerprint}"] = {
            s: translator.beam([s], decode["beam"], 1, 1.0)[0][0].text for s in sentences
        }
    first, second = expected.values()
    sentences = [s for s in sentences if first[s] != second[s]]
    assert len(sentences) > 5
    promote()
    only("lstm-dot")
    client = Process(f"models:/{NAME}@champion", "--poll", "0.1")
    with asked_all_the_time(client, sentences) as answers:
        client.until(lambda: len(answers) > 20)
        assert promote() == 0
        client.until(lambda: client.call("/ready")[1] == {"model": f"{NAME} 2 of-lstm-dot-"})
        seen = len(answers)
        client.until(lambda: len(answers) > seen + 40)
    assert client.end() == ""
    assert {status for _, status, _ in answers} == {200}
    assert {answer["model"] for _, _, answer in answers} == set(expected)
    for sentence, _, answer in answers:
        assert texts(answer) == [expected[answer["model"]][sentence]]


def test_mlflow_gives_alignments(folder: Path) -> None:
    import mlflow

    from rnnmt.model.folder import load_model
    from rnnmt.search.translator import Translator

    save(folder, "lstm-1", attention="general")
    promote()
    model: Any = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    sentences = (folder / "data/bundled/tokens/test.source.txt").read_text().splitlines()[:5]
    asked = {"beam": 3, "length_penalty": 1.0, "alignments": True}
    found = model.predict(["", *sentences], params=asked)
    assert found[0] == [{"text": "", "score": 0.0, "log_prob": 0.0}]
    translator = Translator(load_model(folder / "models/bundled/lstm-1"), 3.0)
    for [one], [ours] in zip(found[1:], translator.beam(sentences, 3, 1, 1.0), strict=True):
        assert (one["text"], one["target_pieces"]) == (ours.text, ours.target_pieces)
        assert one["source_pieces"] == ours.source_pieces
        assert ours.alignment is not None
        for row, weights in zip(one["alignment"], ours.alignment, strict=True):
            assert row == pytest.approx(weights, abs=2e-3)


def test_mlflow_translates_a_batch_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    from rnnmt.search.translator import Translator

    promote()
    model: Any = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    lines = [
        (folder / f"data/bundled/tokens/{split}.source.txt").read_text().splitlines()
        for split in ("test", "test_long")
    ]
    searched, beam = list[int](), Translator.beam

    def noted(self: Translator, sentences: list[str], *asked: Any) -> Any:
        searched.append(len(sentences))
        return beam(self, sentences, *asked)

    monkeypatch.setattr(Translator, "beam", noted)
    assert len(model.predict(lines[0] + lines[1], params={"beam": 2})) == 70
    assert searched == [64, 6]


@pytest.mark.long
def test_mlflows_own_server_serves_it(folder: Path) -> None:
    promote()
    port = servers.free_port()
    command = ["mlflow", "models", "serve", "-m", f"models:/{NAME}@champion", "-p", str(port)]
    environment = servers.KEYS | {"MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}
    with (
        open(folder / "log", "w", encoding="utf-8") as log,
        servers.running([*command, "--env-manager", "local"], port, log, environment),
    ):
        body = {"inputs": ["le chat noir", ""], "params": {"beam": 2, "nbest": 2}}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)["predictions"]
    assert [one["text"] for one in found[1]] == [""]
    assert "score" in found[0][0]
