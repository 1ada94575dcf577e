"""The whole pipeline, shrunk, through the commands that a user types."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import sentencepiece
from sacrebleu import corpus_bleu

import browsers
from clones import MAKE_REPRO, Clone, at_work, fails, run
from servers import BIN


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which `dvc repro` has run once, undisturbed."""
    made = Clone(tmp_path_factory.mktemp("clone"))
    made.repro()
    return made


def test_it_leaves_models_translations_scores_and_a_comparison(clone: Clone) -> None:
    for label in ("gru-1", "lstm-general-1"):
        model = clone.folder / "models/small" / label
        assert {f.name for f in model.iterdir()} == {
            "weights.pt", "settings.json", "source.model", "target.model", "history.csv",
            "summary.json",
        }  # fmt: skip
        assert len((model / "history.csv").read_text().splitlines()) == 1 + 3
        translations = clone.folder / "reports/small/translations" / label
        for split, sentences in (("valid", 30), ("test", 30), ("test_long", 20)):
            for search in ("greedy", "beam"):
                lines = (translations / f"{split}.{search}.txt").read_text().count("\n")
                assert lines == sentences
        scores = json.loads((clone.folder / f"reports/small/scores/{label}.json").read_text())
        assert set(scores) == {"valid", "test", "test_long"}
    report = (clone.folder / "reports/small/comparison.md").read_text()
    assert "| gru" in report
    assert "lstm-general" in report


def test_the_report_stands_on_the_raw_translations(clone: Clone) -> None:
    """A sample of its numbers, computed again from text files with sacreBLEU's own functions."""
    folder = clone.folder / "reports/small"
    lines = {
        label: (folder / f"translations/{label}/test.beam.txt").read_text().splitlines()
        for label in ("gru-1", "lstm-general-1")
    }
    tokens = clone.folder / "data/small/tokens"
    wanted = (tokens / "test.target.txt").read_text().splitlines()
    sizes = [len(re.findall(r"\w+", s)) for s in (tokens / "test.source.txt").open()]
    with (folder / "tables/length.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert {row["run"] for row in rows} == set(lines)
    for row in rows:
        chosen = [i for i, n in enumerate(sizes) if int(row["low"]) <= n <= int(row["high"])]
        assert len(chosen) == int(row["sentences"])
        texts = [lines[row["run"]][i] for i in chosen], [[wanted[i] for i in chosen]]
        assert float(row["bleu"]) == pytest.approx(sacrebleu.corpus_bleu(*texts).score, abs=0.01)
        chrf = sacrebleu.corpus_chrf(*texts, word_order=2).score
        assert float(row["chrf"]) == pytest.approx(chrf, abs=0.01)
    with (folder / "tables/phenomenon.csv").open() as file:
        (row,) = (
            r for r in csv.DictReader(file)
            if (r["run"], r["split"], r["phenomenon"]) == ("lstm-general-1", "test", "negation")
        )  # fmt: skip
    labels = [json.loads(line)["phenomena"] for line in (tokens / "test.labels.jsonl").open()]
    chosen = [i for i, some in enumerate(labels) if "negation" in some]
    exact = [lines["lstm-general-1"][i] == wanted[i] for i in chosen]
    assert float(row["exact"]) == pytest.approx(100 * sum(exact) / len(exact), abs=0.01)
    with (folder / "tables/cost.csv").open() as file:
        for row in csv.DictReader(file):  # torch alone takes so much
            assert 100 < float(row["decoding_memory_mb"]) < 10_000
            assert 100 < float(row["training_memory_mb"]) < 10_000
    with (folder / "tables/significance.csv").open() as file:
        (row,) = csv.DictReader(file)
    scores = {label: sacrebleu.corpus_bleu(text, [wanted]).score for label, text in lines.items()}
    assert float(row["difference"]) == pytest.approx(
        scores["gru-1"] - scores["lstm-general-1"], abs=0.01
    )
    claims = json.loads((folder / "claims.json").read_text())
    text = (folder / "claims.md").read_text()
    for claim in claims.values():
        assert claim["says"] in text
        assert claim["rule"] in text
        assert (folder / "figures" / claim["picture"]).exists()
        for file in claim["files"]:
            if "RUN" not in file:
                assert (folder / file).exists()
    found = json.loads((folder / "analysis/gru-1.json").read_text())["search"]
    assert sum(found["first_error"].values()) == found["sentences"] == 8


def written(folder: Path, name: str) -> list[dict[str, str]]:
    """The lines of a table of a report."""
    with (folder / "tables" / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_alignment_error_rate_comes_of_the_models_attention(clone: Clone) -> None:
    """Looked at again sentence by sentence, with SentencePiece's own places of the pieces."""
    import torch

    from rnnmt.dataset.tokenizer import BOS, EOS
    from rnnmt.model.folder import load_model

    model, data = clone.folder / "models/small/lstm-general-1", clone.folder / "data/small"
    trained, hits, links = load_model(model), 0, 0
    texts = [(data / f"tokens/test.{side}.txt").open() for side in ("source", "target")]
    for *pair, line in zip(*texts, (data / "raw/test.links.jsonl").open(), strict=True):
        true = json.loads(line)
        read, wrote = (
            places(text.rstrip("\n"), true[side], model / f"{side}.model")
            for text, side in zip(pair, ("source", "target"), strict=True)
        )
        with torch.inference_mode():
            attention = trained.model(
                torch.tensor([[*(piece for piece, _ in read), EOS]]),
                torch.tensor([len(read) + 1]),
                torch.tensor([[BOS, *(piece for piece, _ in wrote)]]),
            ).attention[0]
        seen = torch.zeros(len(true["target"]), len(true["source"]))
        for row, (_, i) in enumerate(wrote):
            for column, (_, j) in enumerate(read):
                seen[i, j] += attention[row, column]
        found = {(int(row.argmax()), i) for i, row in enumerate(seen) if row.any()}
        sure = {(i, j) for i, j in true["sure"]}
        hits += len(found & sure) + len(found & (sure | {(i, j) for i, j in true["possible"]}))
        links += len(found) + len(sure)
    folder = clone.folder / "reports/small"
    line_of, _ = written(folder, "alignment")
    # One tie may fall otherwise where many sentences are computed together.
    assert float(line_of["aer"]) == pytest.approx(100 * (1 - hits / links), abs=200 / links)
    claims = json.loads((folder / "claims.json").read_text())
    rate = np.ravel(claims["alignments"]["numbers"]["aer"][line_of["run"]])[0]
    assert rate == float(line_of["aer"])


def places(text: str, words: list[str], model: Path) -> list[tuple[int, int]]:
    """The pieces of a text, as ids, and the place of the word that each one begins in."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    starts, end = [], 0
    for word in words:
        starts.append(text.index(word, end))
        end = starts[-1] + len(word)
    found, place = [], 0
    for piece in processor.encode(text, return_type="proto").pieces:
        first = place + len(piece.surface) - len(piece.surface.lstrip())
        found.append((piece.id, bisect_right(starts, first) - 1))
        place += len(piece.surface)
    return found


@pytest.fixture(scope="module")
def told(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """What the stages after decode make of better translations than three epochs give: beam search
    has each third sentence without its first word, all others right; and of eight sentences whose
    greedy translations went so: two right, one with one wrong word, two ruined, three lost."""
    other = clone.copy(tmp_path_factory.mktemp("told") / "clone")
    folder = other.folder / "reports/small"

    def again(stage: str, *run_of: str) -> None:
        command = (sys.executable, "-m", f"rnnmt.stages.{stage}", *run_of)
        run(*command, cwd=other.folder, env=other.environment)

    for split in ("valid", "test", "test_long"):
        lines = (other.folder / f"data/small/tokens/{split}.target.txt").read_text().splitlines()
        made = [text if i % 3 else text.partition(" ")[2] for i, text in enumerate(lines)]
        file = folder / f"translations/lstm-general-1/{split}.beam.txt"
        file.write_text("\n".join(made) + "\n")
    for stage in ("evaluate", "analyze"):
        again(stage, "lstm-general", "1")
    analysis = folder / "analysis/lstm-general-1.json"
    found = json.loads(analysis.read_text())
    found["search"]["first_error"] = {"right": 2, "one word": 1, "ruined": 2, "lost": 3}
    analysis.write_text(json.dumps(found))
    for stage in ("compare", "report"):
        again(stage)
    return other


def test_every_number_follows_the_translations(told: Clone) -> None:
    """Of a report on translations that are known, against sacreBLEU's functions and by hand."""
    folder, label = told.folder / "reports/small", "lstm-general-1"
    comparison = json.loads((folder / "comparison.json").read_text())
    for run_of in ("gru-1", label):
        (scores,) = comparison["variants"][run_of.removesuffix("-1")]["scores"]
        for split, search in product(("valid", "test", "test_long"), ("greedy", "beam")):
            made = (folder / f"translations/{run_of}/{split}.{search}.txt").read_text().splitlines()
            file = told.folder / f"data/small/tokens/{split}.target.txt"
            texts = made, [file.read_text().splitlines()]
            wanted = {
                "bleu": sacrebleu.corpus_bleu(*texts),
                "chrf": sacrebleu.corpus_chrf(*texts, word_order=2),
                "ter": sacrebleu.corpus_ter(*texts),
            }
            for metric, found in scores[split][search].items():
                assert found["score"] == pytest.approx(wanted[metric].score, abs=0.01)
    best = comparison["variants"]["lstm-general"]["scores"][0]["test"]["beam"]["bleu"]
    assert 80 < best["low"] < best["score"] < best["high"] < 100
    assert comparison["best"] == "lstm-general"
    labels = (told.folder / "data/small/tokens/test.labels.jsonl").open()
    some = [json.loads(line)["phenomena"] for line in labels]
    for row in written(folder, "phenomenon"):
        if (row["run"], row["split"]) == (label, "test"):
            right = [i % 3 > 0 for i, names in enumerate(some) if row["phenomenon"] in names]
            assert len(right) == int(row["sentences"])
            assert float(row["exact"]) == pytest.approx(100 * sum(right) / len(right), abs=0.01)
    claims = json.loads((folder / "claims.json").read_text())
    beam = comparison["tests"]["beam"]
    clear = {(t["variant"], t["split"]): t["difference"] > 0 for t in beam if t["p_holm"] < 0.05}
    assert clear["lstm-general", "test"]
    assert clear["lstm-general", "test_long"]
    assert claims["beam-helps"]["numbers"] == {
        "better": sum(clear.values()), "worse": len(clear) - sum(clear.values()), "tests": 4,
    }  # fmt: skip
    ruined = np.ravel(claims["one-wrong-word"]["numbers"]["ruined"][label])[0]
    assert ruined == pytest.approx(2 / 6, abs=1e-4)


def test_the_pictures_are_plots_of_dvc(clone: Clone) -> None:
    run("dvc", "plots", "show", cwd=clone.folder, env=clone.environment)
    shown = (clone.folder / "dvc_plots/index.html").read_text()
    assert "length.svg" in shown
    assert "gradient-flow.svg" in shown


def test_the_page_in_a_browser(clone: Clone, browser: Any) -> None:
    """It asks no network, sorts its table, leads to MLflow and can be printed."""
    page = browser.new_page()
    problems = browsers.problems(page, "file:", "data:")
    page.goto((clone.folder / "reports/small/index.html").as_uri())
    assert not page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')]"
        ".filter(a => !document.getElementById(a.hash.slice(1))).length"
    )
    column = "#table tbody td:nth-child(4)"
    for order in (True, False):
        page.get_by_role("button", name="parameters").click()
        numbers = [int(n.replace(",", "")) for n in page.locator(column).all_inner_texts()]
        assert numbers == sorted(numbers, reverse=order)
        assert len(numbers) == 2
    links = page.locator("a.run").evaluate_all("all => all.map(a => a.href)")
    assert all("/#/experiments/" in link and "/runs/" in link for link in links)
    page.emulate_media(media="print", color_scheme="light")
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert not problems
    page.close()


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_of_the_page_can_be_seen(clone: Clone, browser: Any, scheme: str, width: int) -> None:
    """It fits the screen; each picture shows something; all text, theirs too, can be read."""
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 2400})
    problems = browsers.problems(page, "file:", "data:")
    page.goto((clone.folder / "reports/small/index.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = browsers.channels(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (browsers.luminance(paper) < 0.1) == (scheme == "dark")
    pictures = "main svg[role=img]"
    assert page.locator(pictures).count() > 12
    texts = browsers.texts(page)
    painted = browsers.photograph(page)
    assert not browsers.faint(texts, painted)
    assert not browsers.empty(page, pictures, painted)
    assert not problems
    page.close()


def test_a_second_run_runs_nothing(clone: Clone) -> None:
    before = (clone.folder / "dvc.lock").read_bytes()
    assert "Running stage" not in clone.repro()
    assert (clone.folder / "dvc.lock").read_bytes() == before
    assert run("dvc", "status", "-q", cwd=clone.folder, env=clone.environment) == ""


def test_the_metrics_are_one_table(clone: Clone) -> None:
    table = run("dvc", "metrics", "show", "--md", cwd=clone.folder, env=clone.environment)
    rows = [line for line in table.splitlines() if line.startswith("| reports")]
    assert len(rows) == 2
    assert "| -" not in "".join(rows)


def test_test_sentences_never_occur_in_training_data(clone: Clone) -> None:
    raw = clone.folder / "data/small/raw"
    train = set((raw / "train.source").read_text().splitlines())
    for split in ("valid", "test", "test_long"):
        assert not train & set((raw / f"{split}.source").read_text().splitlines())


def test_another_beam_never_trains_again(clone: Clone, tmp_path: Path) -> None:
    other = clone.copy(tmp_path / "other")
    settings = other.settings()
    settings["decode"] |= {"beam": 2, "nbest": 1}
    other.write(settings)
    printed = other.repro("--dry")
    assert "Running stage 'decode@gru-1'" in printed
    assert "Running stage 'train" not in printed
    assert "Running stage 'tokenize" not in printed


def test_the_length_penalty_is_chosen_on_validation_data(clone: Clone, tmp_path: Path) -> None:
    """Of a grid: the one of the best score, and all files as with that one alone."""
    other = clone.copy(tmp_path / "other")
    settings = other.settings()
    folder = other.folder / "reports/small/translations/gru-1"
    references = (other.folder / "data/small/tokens/valid.target.txt").read_text().splitlines()

    def translations() -> dict[str, bytes]:
        return {f.name: f.read_bytes() for f in folder.iterdir() if f.name != "summary.json"}

    def decode(*penalties: float) -> dict[str, bytes]:
        other.write(settings | {"decode": settings["decode"] | {"length_penalty": [*penalties]}})
        command = (sys.executable, "-m", "rnnmt.stages.decode", "gru", "1")
        run(*command, cwd=other.folder, env=other.environment)
        return translations()

    penalties = (4.0, 1.0)
    assert settings["decode"]["length_penalty"] == [1.0]
    alone = {1.0: translations(), 4.0: decode(4.0)}
    bleu = {
        penalty: corpus_bleu(files["valid.beam.txt"].decode().splitlines(), [references]).score
        for penalty, files in alone.items()
    }
    files = decode(*penalties)
    chosen = json.loads((folder / "summary.json").read_text())["length_penalty"]
    assert chosen == max(penalties, key=bleu.__getitem__)
    assert files == alone[chosen]
    assert len({files["valid.beam.txt"] for files in alone.values()}) > 1


def test_the_models_of_all_seeds_translate_together(clone: Clone, tmp_path: Path) -> None:
    assert json.loads((clone.folder / "reports/small/ensembles.json").read_text()) == {
        "seeds": [1],
        "variants": {},
    }
    other = clone.copy(tmp_path / "other")
    settings = other.settings()
    one = {"lstm-general": settings["variants"]["lstm-general"]}
    other.write(settings | {"seeds": [1, 2], "variants": one})
    other.repro("report")
    page = (other.folder / "reports/small/index.html").read_text()
    assert "One variant, trained 2 times" in page
    assert "Which differences are real" not in page  # there are none
    together = page.partition("The models of all seeds together")[2].partition("</table>")[0]
    report = json.loads((other.folder / "reports/small/ensembles.json").read_text())
    scores = report["variants"]["lstm-general"]["scores"]
    assert set(scores) == {"valid", "test", "test_long"}
    models = [str(other.folder / f"models/small/lstm-general-{seed}") for seed in (1, 2)]
    tokens = other.folder / "data/small/tokens"
    for split, score in scores.items():
        beam = other.folder / f"reports/small/ensembles/lstm-general/{split}.beam.txt"
        wanted = (tokens / f"{split}.target.txt").read_text().splitlines()
        own = [
            json.loads(
                (other.folder / f"reports/small/scores/lstm-general-{seed}.json").read_text()
            )
            for seed in (1, 2)
        ]
        lines = beam.read_text().splitlines()
        assert score["bleu"] == round(corpus_bleu(lines, [wanted]).score, 2)
        members = [each[split]["bleu"] for each in own]
        assert score["members"] == pytest.approx(sum(members) / 2, abs=0.011)
        assert score["best_member"] == max(members)
        assert f"<b>{score['bleu']:.1f}</b>" in together
        assert 0 < score["p"] <= score["p_holm"] <= 1
    text = (tokens / "test.source.txt").read_text()
    command = ["rnnmt", "translate", "--threads", "1", "--model", *models]
    printed = run(*command, cwd=tmp_path, env=other.environment, text=text)
    folder = other.folder / "reports/small/ensembles/lstm-general"
    assert printed == (folder / "test.beam.txt").read_text()


def test_a_model_translates_alone_and_as_decode_did(clone: Clone, tmp_path: Path) -> None:
    """From a copy of its folder, in another place; an empty line stays empty."""
    shutil.copytree(clone.folder / "models/small/lstm-general-1", tmp_path / "model")
    source = (clone.folder / "data/small/tokens/test.source.txt").read_text().splitlines()
    command = ["rnnmt", "translate", "--model", str(tmp_path / "model"), "--threads", "2"]
    printed = run(
        *command, "--batch", "7", cwd=tmp_path, env=clone.environment, text="\n".join(["", *source])
    )
    beam = clone.folder / "reports/small/translations/lstm-general-1/test.beam.txt"
    assert printed == "\n" + beam.read_text()
    printed = run(
        *command, "--nbest", "3", "--scores", "--alignments",
        cwd=tmp_path, env=clone.environment, text="\n".join(source),
    )  # fmt: skip
    fields = [line.split("\t") for line in printed.splitlines()]
    assert len(fields) == 3 * len(source)
    found = [line for line in fields if line != [""]]
    assert len(found) > len(source)
    assert all(len(line) == 4 for line in found)
    assert [line[2] for line in fields[::3]] == beam.read_text().splitlines()
    # Of an empty translation nothing is aligned.
    assert [bool(line[3]) for line in found] == [bool(line[2]) for line in found]
    assert all("=" in pair for line in found if line[2] for pair in line[3].split(" "))
    text = f"{source[0]}\n\n{source[1]}\n"
    printed = run(*command, "--nbest", "3", cwd=tmp_path, env=clone.environment, text=text)
    lines = printed.split("\n")
    assert [lines[0], lines[6]] == beam.read_text().splitlines()[:2]
    assert lines[3:6] == ["", "", ""]
    assert len(lines) == 10


def test_the_runs_in_mlflow_are_complete_without_rnnmt_sync(clone: Clone) -> None:
    labels = ("gru-1", "lstm-general-1")
    scores = {label: clone.folder / f"reports/small/scores/{label}.json" for label in labels}
    assert clone.test_scores() == {
        label: json.loads(file.read_text())["test"]["bleu"] for label, file in scores.items()
    }


def test_an_mlflow_that_is_away_is_one_warning(clone: Clone, tmp_path: Path) -> None:
    """As the last stage, the only one but training that speaks to it, finds it."""
    other = clone.copy(tmp_path / "other")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # never listens: refused
        environment = other.environment | {
            "MLFLOW_TRACKING_URI": f"http://me:secret@127.0.0.1:{closed.getsockname()[1]}"
        }
        command = ("dvc", "repro", "--force", "--single-item", "report")
        printed = run(*command, cwd=other.folder, env=environment)
    assert "Running stage 'report'" in printed
    assert printed.count("rnnmt: warning") == printed.count("rnnmt sync") == 1
    assert "refused" in printed
    assert "secret" not in printed


def test_translate_says_what_is_wrong(clone: Clone, tmp_path: Path) -> None:
    def fails(*arguments: str, text: bytes = b"") -> str:
        done = subprocess.run(
            ["rnnmt", "translate", *arguments],
            env=clone.environment,
            cwd=tmp_path,
            input=text,
            capture_output=True,
            check=False,
        )
        assert done.returncode != 0
        assert b"Traceback" not in done.stderr
        return done.stderr.decode()

    model = str(clone.folder / "models/small/gru-1")
    assert "no such file" in fails("--model", "nowhere")
    assert "no such file" in fails("--model", "nowhere", "--model", model)
    assert "--nbest 9 cannot exceed --beam 5" in fails("--model", model, "--nbest", "9")
    assert "standard input:2: not UTF-8" in fails("--model", model, text=b"a\n\xff\n")


def test_lines_before_a_damaged_one_are_translated(clone: Clone) -> None:
    def translate(text: bytes) -> subprocess.CompletedProcess[bytes]:
        command = ("rnnmt", "translate", "--model", "models/small/gru-1")
        return subprocess.run(
            command, env=clone.environment, cwd=clone.folder, input=text, capture_output=True
        )

    text = b"\n\nthe cat\n"
    damaged = translate(text + b"\xff\nno more\n")
    assert damaged.stdout == translate(text).stdout
    assert b"standard input:4" in damaged.stderr


def test_a_training_that_fails_says_so_and_keeps_its_best_model(
    clone: Clone, tmp_path: Path
) -> None:
    other = clone.copy(tmp_path / "other")
    settings = other.settings()
    settings["train"] |= {"max_epochs": 20, "fraction": 0.3, "checkpoint_seconds": 60.0}
    settings["variants"] = {
        "wild": {
            "cell": "rnn", "attention": "general", "learning_rate": 10.0, "warmup_steps": 200,
            "schedule": "constant", "gradient_clip": 1e30, "weight_decay": 1.0,
        }
    }  # fmt: skip
    other.write(settings)
    command = (sys.executable, "-m", "rnnmt.stages.train", "wild", "1")
    said = fails(*command, cwd=other.folder, env=other.environment)
    assert re.search("the (validation )?loss became (inf|nan) at update", said)
    assert "train.learning_rate" in said
    best = re.search(r"stays in (work/wild-1-\w+/best\.ckpt)", said)
    assert best
    assert (other.folder / best[1]).exists()
    assert not (other.folder / "models/small/wild-1").exists()


def _when_exists(pattern: str) -> Callable[[Path], bool]:
    return lambda folder: any(folder.glob(pattern))


MOMENTS: list[tuple[str, Callable[[Path], bool]]] = [
    ("download", _when_exists("data/small/*raw*")),
    ("tokenize", _when_exists("data/small/*tokens*")),
    ("train, early", _when_exists("work/*/last.ckpt")),
    ("train, later", _when_exists("work/lstm*/best.ckpt")),
    ("decode", _when_exists("reports/small/translations/.*")),
    ("evaluate", _when_exists("reports/small/scores/*")),
    ("analyze", _when_exists("reports/small/analysis/gru*")),
    ("report", _when_exists("reports/small/figures/*")),
]


# Where Python by itself reads and writes ASCII.
ELSEWHERE = {
    "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Pacific/Chatham",
    "PYTHONHASHSEED": "7",
}  # fmt: skip


@pytest.mark.long
def test_killed_in_every_stage_it_ends_with_the_same_bytes(clone: Clone, tmp_path: Path) -> None:
    """SIGKILL to the whole process group, again and again, then a plain `dvc repro`.

    Among them the repository is moved; and all is in another folder, locale and time zone.
    """
    other = Clone(tmp_path / "another folder", **ELSEWHERE)
    killed = []
    for stage, arrived in MOMENTS:
        process = other.start("dvc", "repro")
        while process.poll() is None and not arrived(other.folder):
            time.sleep(0.005)
        if process.poll() is None:
            killed.append(stage)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if stage == "train, later":
            other.folder = other.folder.rename(tmp_path / "moved")
    other.repro()
    assert len(killed) >= 7, killed
    assert other.bytes() == clone.bytes()
    assert not list((other.folder / "work").glob("*/last.ckpt"))


@pytest.fixture(scope="module")
def parallel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, str]:
    """A clone in which `make repro` has gone on to its end, and what it then printed.

    Ended by SIGTERM, SIGKILL and Ctrl-C to its process alone while both variants were at work,
    each time it has ended whole.
    """
    made = Clone(tmp_path_factory.mktemp("parallel"))
    moments = [
        (signal.SIGTERM, "work/*/last.ckpt", 128 + signal.SIGTERM),
        (signal.SIGKILL, "work/lstm*/best.ckpt", -signal.SIGKILL),
        (signal.SIGINT, "reports/small/translations/.*", 128 + signal.SIGINT),
    ]
    # On Linux, all ends with its parent.
    for number, pattern, code in moments if sys.platform == "linux" else []:
        process = made.start(*MAKE_REPRO)
        while process.poll() is None and not any(made.folder.glob(pattern)):
            time.sleep(0.005)
        process.send_signal(number)
        assert process.wait() == code
        deadline = time.monotonic() + 20
        while at_work(made.folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not at_work(made.folder)
    return made, made.make_repro()


def test_make_repro_ends_whole_and_gives_what_dvc_repro_gives(
    clone: Clone, parallel: tuple[Clone, str]
) -> None:
    other, printed = parallel
    assert other.bytes() == clone.bytes()
    assert other.test_scores() == clone.test_scores()
    assert "rnnmt: warning" not in printed
    # Its decoding had not begun when the last signal came, or had not ended.
    assert "\nlstm-general-1: Running stage 'analyze@lstm-general-1':\n" in printed


def wrapped(clone: Clone, folder: Path, name: str, first: str) -> dict[str, str]:
    """An environment where `name` is a command that runs `first` before itself."""
    command = folder / "wrapped" / name
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\n{first}\nexec {BIN}/{name} "$@"\n')
    command.chmod(0o755)
    return clone.environment | {"PATH": f"{command.parent}:{clone.environment['PATH']}"}


def test_a_second_make_repro_starts_one_dvc(parallel: tuple[Clone, str], tmp_path: Path) -> None:
    other = parallel[0].copy(tmp_path / "other")
    before = (other.folder / "dvc.lock").read_bytes()
    environment = wrapped(other, tmp_path, "dvc", f'echo "$@" >> {tmp_path}/calls')
    printed = run(*MAKE_REPRO, cwd=other.folder, env=environment)
    assert "Nothing has changed" in printed
    assert "gru-1: up to date" in printed
    assert (tmp_path / "calls").read_text().count("\n") == 1
    assert (other.folder / "dvc.lock").read_bytes() == before

    (other.folder / "mlflow.db").unlink()
    assert "gru-1: created" in other.make_repro()
    assert other.test_scores() == parallel[0].test_scores()


def test_a_chain_that_fails_stops_no_other(clone: Clone, tmp_path: Path) -> None:
    other = clone.copy(tmp_path / "other")
    settings = other.settings()
    new = {name: {"cell": "rnn", "attention": "none"} for name in ("bad", "good")}
    other.write(settings | {"variants": {**new, **settings["variants"]}})
    refuse = 'case "$*" in *"decode bad"*) echo out of luck; exit 1;; esac'
    environment = wrapped(other, tmp_path, "python", refuse)
    printed = fails(*MAKE_REPRO, cwd=other.folder, env=environment)
    assert "rnnmt: error: failed: bad-1;" in printed
    assert "\nbad-1: out of luck\n" in printed
    assert "gru-1:" not in printed
    assert (other.folder / "reports/small/scores/good-1.json").exists()
    left = other.repro("--dry", "--single-item", "train@bad-1", "decode@bad-1")
    assert "Running stage 'decode@bad-1'" in left
    assert "Running stage 'train" not in left


def test_only_one_make_repro_runs_in_a_clone(tmp_path: Path) -> None:
    other = Clone(tmp_path)
    left = tmp_path / "recipes/mine/dvc.yaml"  # of a recipe that runs
    left.parent.mkdir()
    left.touch()
    lock = tmp_path / ".dvc/tmp/make-repro.lock"
    lock.parent.mkdir()
    with open(lock, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        print(123, end="", file=file, flush=True)
        assert "`kill 123`" in fails(*MAKE_REPRO, cwd=tmp_path, env=other.environment)
    assert left.exists()


def test_a_file_that_a_killed_dvc_left_is_part_of_no_output(
    parallel: tuple[Clone, str], tmp_path: Path
) -> None:
    other = parallel[0].copy(tmp_path / "copy")
    before = (other.folder / "dvc.lock").read_bytes()
    # DVC fills such a file, or a link to its cache, and renames it to what it stands for.
    for output in ("data/small/tokens", "models/small/gru-1"):
        (other.folder / output / ".0g87yIoxmyq9Y1nha-IeJQ.tmp").touch()
    assert "Data and pipelines are up to date." in other.repro()
    assert "\nNothing has changed" in "\n" + other.make_repro()
    assert other.bytes() == parallel[0].bytes()
    assert (other.folder / "dvc.lock").read_bytes() == before


def test_a_lock_file_that_a_kill_cut_off_is_made_again(
    parallel: tuple[Clone, str], tmp_path: Path
) -> None:
    other = parallel[0].copy(tmp_path / "other")
    lock = other.folder / "dvc.lock"
    lock.write_bytes(lock.read_bytes()[:4000])
    (other.folder / ".dvc/tmp").mkdir(exist_ok=True)
    (other.folder / ".dvc/tmp/rwlock").write_text("")  # which DVC writes over the old one too
    printed = other.make_repro()
    assert "cut off" in printed
    assert "Running stage 'train" not in printed
    assert other.bytes() == parallel[0].bytes()


@pytest.mark.long
def test_a_line_of_100_000_letters_in_every_set_but_the_validation(
    clone: Clone, tmp_path: Path
) -> None:
    other = Clone(tmp_path)
    settings, long = other.settings(), ("the black cat " * 7200)[:100_000]
    corpus: dict[str, Any] = {"source_language": "en", "target_language": "fr", "splits": {}}
    for split in ("train", "valid", "test"):
        corpus["splits"][split] = [f"{split}.source", f"{split}.target"]
        for file in corpus["splits"][split]:
            text = (clone.folder / "data/small/raw" / file).read_text()
            (tmp_path / file).write_text(text + f"{long}\n" * (split != "valid"))
    settings["corpus"] = {"name": "small", "source": "files"} | corpus
    settings["variants"] = {"lstm-general": settings["variants"]["lstm-general"]}
    settings["decode"] |= {"max_length_ratio": 0.02}
    other.write(settings)
    other.repro()
    reports = tmp_path / "reports/small"
    analysis = json.loads((reports / "analysis/lstm-general-1.json").read_text())
    assert analysis["alignment"]["test"]["too_long"] == 1
    records = (reports / "translations/lstm-general-1/test.jsonl").read_text().splitlines()
    assert ["alignment" in json.loads(line) for line in records] == [True] * 30 + [False]
