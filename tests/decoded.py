"""An experiment after decode, made up: translations with more wrong words and with fewer."""

from __future__ import annotations

import json
import random
from pathlib import Path

from ruamel.yaml import YAML

from closure import ROOT

SPLITS = {"valid": 40, "test": 40, "test_long": 30}
ERRORS = {"lstm": 0.5, "lstm-dot": 0.1, "lstm-additive": 0.12}  # share of wrong words
WORDS = [
    "le",
    "la",
    "chat",
    "noir",
    "petit",
    "boit",
    "lait",
    "été",
    "où",
    "l'eau",
    "n'a",
    "pas",
    ",",
]


def write(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")


def lab(folder: Path, seeds: tuple[int, ...] = (1,)) -> Path:
    """An experiment after decode, made up."""
    params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["seeds"] = list(seeds)
    params["evaluate"] = {"bootstrap_samples": 300, "confidence": 0.95, "seed": 1}
    params["variants"] = {name: {} for name in ERRORS}
    write(folder / "params.yaml", params)  # JSON is YAML
    tokens, dice = folder / "data/bundled/tokens", random.Random(0)
    manifest = {"source_language": "en", "target_language": "fr", "splits": {"train": {}}}
    references: dict[str, list[str]] = {}
    for split, size in SPLITS.items():
        manifest["splits"][split] = {}  # type: ignore[index]
        references[split] = [" ".join(dice.choices(WORDS, k=8)) + " ." for _ in range(size)]
        write(tokens / f"{split}.target.txt", "\n".join(references[split]) + "\n")
    write(tokens / "manifest.json", manifest)
    for seed in seeds:
        for variant in ERRORS:
            make_run(folder, variant, seed, references)
    return folder


def make_run(folder: Path, variant: str, seed: int, references: dict[str, list[str]]) -> None:
    dice = random.Random(f"{variant}{seed}")
    model = folder / "models/bundled" / f"{variant}-{seed}"
    out = folder / "reports/bundled/translations" / f"{variant}-{seed}"
    attention = variant.partition("-")[2] or "none"
    write(model / "settings.json", {"model": {"cell": "lstm", "attention": attention}})
    training = {"parameters": 812345, "seconds": 71.4, "target_tokens_per_second": 25310.2}
    training["memory_mb"] = 700.0
    write(model / "summary.json", training | {"epochs": 12, "best_epoch": 11, "threads": 2})
    speeds = {
        split: {
            search: {"seconds": seconds, "sentences": len(lines), "tokens": 9 * len(lines)}
            for search, seconds in (("greedy", 0.1), ("beam", 0.4))
        }
        for split, lines in references.items()
    }
    decoding = {"beam": 5, "length_penalty": 1.0, "threads": 2, "splits": speeds}
    write(out / "summary.json", decoding)
    for split, lines in references.items():
        for search in ("greedy", "beam"):
            wrong = [
                " ".join(
                    dice.choice(WORDS) if dice.random() < ERRORS[variant] else word
                    for word in line.split()
                )
                for line in lines
            ]
            write(out / f"{split}.{search}.txt", "\n".join(wrong) + "\n")
