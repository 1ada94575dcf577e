"""The stages evaluate and compare, run as commands on the files that others leave for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from closure import ROOT
from decoded import ERRORS, SPLITS, lab


def run(
    folder: Path, stage: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "RNNMT_PARAMS"} | variables
    command = [sys.executable, "-m", f"rnnmt.stages.{stage}", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def run_all(folder: Path, seeds: tuple[int, ...] = (1,)) -> None:
    for variant in ERRORS:
        for seed in seeds:
            done = run(folder, "evaluate", variant, str(seed))
            assert done.returncode == 0, done.stderr
    done = run(folder, "compare")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = lab(tmp_path_factory.mktemp("lab"))
    run_all(folder)
    return folder / "reports/bundled"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def keys(values: Any) -> Any:
    return {k: keys(v) for k, v in values.items()} if isinstance(values, dict) else None


def test_scores_have_the_same_few_keys_for_every_variant(done: Path) -> None:
    scores = [read(done / f"scores/{variant}-1.json") for variant in ERRORS]
    columns = dict.fromkeys(("bleu", "bleu_greedy", "chrf", "ter"))
    assert [keys(score) for score in scores] == 3 * [
        {"valid": {"bleu": None}, "test": columns, "test_long": columns}
    ]
    assert scores[0]["test"]["bleu"] < scores[1]["test"]["bleu"] < 100


def test_the_detail_has_intervals_and_signatures(done: Path) -> None:
    detail = read(done / "scores/lstm-1.detail.json")
    assert detail["direction"] == "en-fr"
    assert detail["sentences"] == SPLITS
    assert sorted(detail["signatures"]) == ["bleu", "chrf", "ter"]
    for search in ("greedy", "beam"):
        for found in detail["scores"]["test"][search].values():
            assert found["low"] < found["score"] < found["high"]
    few = read(done / "scores/lstm-1.json")
    assert few["test"]["bleu"] == round(detail["scores"]["test"]["beam"]["bleu"]["score"], 2)
    assert keys(detail) == keys(read(done / "scores/lstm-dot-1.detail.json"))


def test_the_comparison_finds_what_is_there(done: Path) -> None:
    found = read(done / "comparison.json")
    valid = {v: read(done / f"scores/{v}-1.json")["valid"]["bleu"] for v in ERRORS}
    assert found["best"] == max(valid, key=lambda name: valid[name])
    attention = found["tests"]["attention"]
    assert [(p["variant"], p["baseline"], p["split"]) for p in attention] == [
        (variant, "lstm", split)
        for variant in ("lstm-dot", "lstm-additive")
        for split in ("test", "test_long")
    ]
    assert all(p["difference"] > 20 and p["p"] <= p["p_holm"] < 0.05 for p in attention)
    assert len(found["tests"]["beam"]) == 6
    assert {p["split"] for table in found["tests"].values() for p in table} == {"test", "test_long"}


def test_the_report_can_be_read(done: Path) -> None:
    text = (done / "comparison.md").read_text(encoding="utf-8")
    for wanted in ("dvc repro", "`bundled`", "1:11", "11 of 12", "812,345", "25,310", "Holm"):
        assert wanted in text
    assert "Rank no system by less than its interval" in text
    assert "**test_long**, at 5 % after Holm: better: lstm-dot, lstm-additive." in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert sum("812,345" in row for row in rows) == len(ERRORS)


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table's lines, its head and rule left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_one_setting_at_a_time(done: Path) -> None:
    found = rows((done / "ablation.md").read_text(encoding="utf-8"))
    assert [row[:3] for row in found] == [
        ["attention: dot → additive", "lstm-additive", "lstm-dot"],
        ["attention: none → additive", "lstm-additive", "lstm"],
        ["attention: none → dot", "lstm-dot", "lstm"],
    ]
    comparison = read(done / "comparison.json")
    tested = {(t["variant"], t["split"]): t for t in comparison["tests"]["best"]}
    best = comparison["best"]
    for _, variant, baseline, time, penalty, valid, *points in found:
        assert (time, penalty) == ("1.00 ×", "1")
        gain = [read(done / f"scores/{v}-1.json")["valid"]["bleu"] for v in (variant, baseline)]
        assert float(valid) == pytest.approx(gain[0] - gain[1], abs=0.06)
        if variant == best:
            split = tested[baseline, "test"]
            assert float(points[0].strip("*")) == pytest.approx(-split["difference"], abs=0.06)


def test_a_precision_that_the_processor_lacked_is_no_part_of_a_setting(tmp_path: Path) -> None:
    folder = lab(tmp_path)
    for variant in ERRORS:
        file = folder / f"models/bundled/{variant}-1/summary.json"
        used = "bfloat16" if variant == "lstm-dot" else "float32"
        file.write_text(json.dumps(read(file) | {"precision": used}))
    run_all(folder)
    found = rows((folder / "reports/bundled/ablation.md").read_text(encoding="utf-8"))
    assert [row[0] for row in found] == ["attention: none → additive"]
    attention = read(folder / "reports/bundled/comparison.json")["tests"]["attention"]
    assert [test["variant"] for test in attention] == 2 * ["lstm-dot"] + 2 * ["lstm-additive"]


def test_two_runs_write_the_same_bytes(done: Path, tmp_path: Path) -> None:
    run_all(lab(tmp_path))
    again = tmp_path / "reports/bundled"
    files = sorted(p.relative_to(done) for p in done.rglob("*") if p.is_file())
    assert Path("comparison.md") in files
    assert all((done / file).read_bytes() == (again / file).read_bytes() for file in files)


def test_several_seeds(tmp_path: Path) -> None:
    run_all(lab(tmp_path, seeds=(1, 2)), seeds=(1, 2))
    reports = tmp_path / "reports/bundled"
    text = (reports / "comparison.md").read_text(encoding="utf-8")
    assert "seeds 1, 2" in text
    assert "(sd " in text
    of_seeds = [read(reports / f"scores/lstm-{seed}.json")["test"] for seed in (1, 2)]
    gains = [scores["bleu"] - scores["bleu_greedy"] for scores in of_seeds]
    pairs = read(reports / "comparison.json")["tests"]["beam"]
    assert pairs[0]["difference"] == pytest.approx(sum(gains) / 2, abs=0.02)
    ablation = (reports / "ablation.md").read_text(encoding="utf-8")
    assert "with seeds 1, 2. All pairs" in ablation
    rule = next(line for line in ablation.splitlines() if line.startswith("| --"))
    assert [cell.strip()[-1] == ":" for cell in rule.split("|")[1:5]] == [False] * 3 + [True]
    assert all("(sd " in row[n] for row in rows(ablation) for n in (5, 6, 8))
    assert pairs[0]["deviation"] == pytest.approx(abs(gains[0] - gains[1]) / 2**0.5, abs=0.02)


def test_errors_name_the_stage_to_run(tmp_path: Path) -> None:
    folder = lab(tmp_path)
    done = run(folder, "compare")
    assert done.returncode == 1
    assert "dvc repro evaluate@lstm-1" in done.stderr
    hypotheses = folder / "reports/bundled/translations/lstm-1/test.beam.txt"
    hypotheses.write_text(hypotheses.read_text(encoding="utf-8") + "de trop\n", encoding="utf-8")
    done = run(folder, "evaluate", "lstm", "1")
    assert done.returncode == 1
    assert "test.beam.txt has 41 lines, its references have 40" in done.stderr
    hypotheses.unlink()
    done = run(folder, "evaluate", "lstm", "1")
    assert "dvc repro decode@lstm-1" in done.stderr
    (folder / "data/bundled/tokens/manifest.json").unlink()
    done = run(folder, "evaluate", "lstm", "1")
    assert done.returncode == 1
    assert "dvc repro tokenize" in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_of_a_recipe_name_the_recipe(tmp_path: Path) -> None:
    folder = lab(tmp_path)
    (folder / "recipes").mkdir()
    (folder / "params.yaml").rename(folder / "recipes/other.yaml")
    done = run(folder, "compare", RNNMT_PARAMS="recipes/other.yaml")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("run: make repro RECIPE=other")


def test_a_line_separator_inside_a_sentence_ends_no_line(tmp_path: Path) -> None:
    folder = lab(tmp_path)
    hypotheses = folder / "reports/bundled/translations/lstm-1/test.beam.txt"
    text = hypotheses.read_text(encoding="utf-8").replace(" ", "\u2028", 1)
    hypotheses.write_text(text, encoding="utf-8")
    assert run(folder, "evaluate", "lstm", "1").returncode == 0


def test_evaluate_starts_fast() -> None:
    code = "import rnnmt.stages.evaluate, rnnmt.stages.compare, sys; print(sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    for heavy in ("torch", "lightning", "pytorch_lightning", "mlflow", "dvc"):
        assert f"'{heavy}'" not in loaded.stdout


def test_moses_scores_are_those_of_lowercased_words_with_french_apostrophes_cut(
    done: Path,
) -> None:
    script = subprocess.run(
        [sys.executable, ROOT / "scripts/moses_score.py", "bundled"],
        cwd=done.parents[1],
        capture_output=True,
        text=True,
    )
    assert script.returncode == 0, script.stderr
    for variant in ERRORS:
        for test in ("test", "test_long"):
            texts = [
                (done.parents[1] / file).read_text().replace("'", "' ").splitlines()
                for file in (
                    f"reports/bundled/translations/{variant}-1/{test}.beam.txt",
                    f"data/bundled/tokens/{test}.target.txt",
                )
            ]
            wanted = sacrebleu.corpus_bleu(texts[0], texts[1:], tokenize="none", force=True).score
            assert f"{variant} {test}: {wanted:.2f}\n" in script.stdout
