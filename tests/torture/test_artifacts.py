"""Model folders that are damaged or meant to harm: they translate, or a message says why not.

Each trial makes one from a good folder. Another process loads them, one after another, with little
memory to spare, so that a crash or a flood of memory is seen and is told from this one's own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rnnmt.model.folder import sums
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import ModelSettings
from test_serve import models  # noqa: F401  (a fixture)

FILES = ("settings.json", "weights.pt", "source.model", "target.model")
BATCH = 200  # folders for one process
SPARE = 1 << 30  # bytes that it may ask for beyond what it has when torch is there
GROWN = 400  # MB that loading one folder may really take

LOADS = f"""
import json, resource, sys
from types import SimpleNamespace
from rnnmt.errors import UserError, peak_memory_mb
from rnnmt.model.folder import load_model
from rnnmt.search.answers import Search, answer, translate
from rnnmt.search.translator import Translator
import torch
torch.set_num_threads(1)
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + {SPARE}, pages + {SPARE}))
search = Search(beam=3, nbest=2, alignments=True)
for line in sys.stdin:
    folder, before = line.rstrip(), peak_memory_mb()
    try:
        translator = Translator(load_model(folder), 1.0)
        found = translate(translator, ["the cat sees", "", "\\0 <s>", "a b " * 50], search)
        texts = [answer(one, search)[0]["text"] for one in found]
        texts += translator.greedy(["the cat sees", "x"])
        said = "translates"
    except UserError as error:
        said = f"message: {{error}}"
    except BaseException as error:
        import traceback
        said = f"FAULT: {{error!r}} {{traceback.format_exc()[-1500:]}}"
    print(json.dumps([said, peak_memory_mb() - before]), flush=True)
"""


def load(folders: list[Path]) -> list[tuple[str, float]]:
    """What another process says of each folder, and the memory (MB) that it took."""
    done = subprocess.run(
        [sys.executable, "-c", LOADS],
        input="".join(f"{folder}\n" for folder in folders),
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    found = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    if len(found) < len(folders):
        last = done.stderr[-1500:]
        found.append((f"FAULT: the process ended with {done.returncode}: {last}", 0.0))
    return found


def batches(trials: range) -> Iterator[range]:
    for start in range(0, len(trials), BATCH):
        yield trials[start : start + BATCH]


def sign(folder: Path) -> None:
    """Put the sums of the files into the settings, as who has exchanged files can too."""
    file = folder / "settings.json"
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        if not file.is_symlink():
            file.write_text(json.dumps(json.loads(file.read_text()) | {"files": sums(folder)}))


def judge(
    trials: range, tally: Counter[str], folder: Path, make: Callable[[int, Path], str]
) -> None:
    """Make a folder for each trial, and hold what loading them says against the rule."""
    for batch in batches(trials):
        told = [make(trial, folder / str(trial)) for trial in batch]
        for trial in batch:
            if trial % 5:
                sign(folder / str(trial))
        found = load([folder / str(trial) for trial in batch])
        for trial, what, (said, grown) in zip(batch, told, found, strict=False):
            where = f"trial {trial}: {what}: {said}"
            assert not said.startswith("FAULT"), where
            assert said == "translates" or str(folder / str(trial)) in said, where
            assert grown < GROWN, f"{where}; {grown} MB"
            tally[said.partition(":")[0]] += 1
        for trial in batch:
            shutil.rmtree(folder / str(trial))


def spoilt(content: bytes, dice: random.Random) -> bytes:
    """With bytes changed, taken out, put in, doubled, or cut off."""
    found = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 8, 100])):
        start = dice.randrange(len(found) + 1)
        stop = start + dice.choice([0, 1, 1, 2, 4, 100])
        kind = dice.randrange(5)
        if kind == 0 and start < len(found):
            found[start] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del found[start:stop]
        elif kind == 2:
            found[start:start] = dice.choice([dice.randbytes(stop - start), found[start:stop]])
        elif kind == 3:
            found[start:stop] = dice.choice([b"\0", b"\xff", b"\x80"]) * (stop - start)
        elif dice.random() < 0.1:
            del found[start:]
    return bytes(found)


@pytest.mark.trials(60, 6_000)
def test_any_bytes_changed(
    models: Path,  # noqa: F811
    trials: range,
    tally: Counter[str],
    tmp_path: Path,
) -> None:
    def make(trial: int, folder: Path) -> str:
        dice = random.Random(trial)
        shutil.copytree(models / "one", folder)
        name = FILES[trial % 4]
        file = folder / name
        content = file.read_bytes()
        # Of a tokenizer the first part has the pieces, and the last one the settings.
        part = dice.choice([(0, len(content)), (0, 3000), (max(0, len(content) - 300), None)])
        start, stop = part[0], len(content) if part[1] is None else part[1]
        changed = spoilt(content[start:stop], dice)
        file.write_bytes(content[:start] + changed + content[stop:])
        return f"{name}, bytes {start} to {stop}"

    judge(trials, tally, tmp_path, make)


# --- meant to harm --------------------------------------------------------------------------------


class Evil:
    """Whoever unpickles this makes a folder."""

    def __init__(self, proof: Path) -> None:
        self.proof = str(proof)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.proof,)


class Huge:
    """16 GB for who unpickles this, which torch takes for harmless."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (1 << 34,)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / "weights.pt", weights_only=True)
    return found


def evil_weights(folder: Path, dice: random.Random, proof: Path) -> str:
    """Code, of all kinds of files that torch.load knows."""
    weights: dict[str, Any] = weights_of(folder)
    file = folder / "weights.pt"
    kind = dice.choice(["pickle", "torch", "old torch", "within", "torchscript", "zip"])
    if kind == "pickle":
        file.write_bytes(pickle.dumps(Evil(proof), dice.randrange(6)))
    elif kind == "torch":
        torch.save(Evil(proof), file)
    elif kind == "old torch":
        torch.save(weights | {"x": Evil(proof)}, file, _use_new_zipfile_serialization=False)
    elif kind == "within":
        torch.save({**weights, dice.choice(list(weights)): Evil(proof)}, file)
    elif kind == "torchscript":
        script = io.BytesIO()
        torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), script)  # type: ignore[no-untyped-call]
        file.write_bytes(script.getvalue())
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Evil(proof)))
            archive.writestr("archive/version", "3")
    return f"weights.pt is a {kind} with code"


def wrong_weights(folder: Path, dice: random.Random, proof: Path) -> str:  # noqa: ARG001
    """Tensors that are missing, too many, of other shapes, types and numbers."""
    weights: dict[Any, Any] = weights_of(folder)
    name = dice.choice(list(weights))
    one = weights[name]
    kind = dice.choice(
        ["missing", "extra", "shape", "type", "numbers", "layout", "no tensor", "names"]
    )
    if kind == "missing":
        del weights[name]
    elif kind == "extra":
        weights[dice.choice(["x", 1, "", name + "."])] = one
    elif kind == "shape":
        shapes = [
            one.flatten(),
            one[:1],
            one[..., :0],
            one.unsqueeze(0),
            torch.tensor(1.0),
            one.t() if one.ndim == 2 else one[::2],
        ]
        weights[name] = dice.choice(shapes)
    elif kind == "type":
        types = [
            torch.float64,
            torch.int8,
            torch.bool,
            torch.bfloat16,
            torch.complex64,
            torch.uint8,
        ]
        weights[name] = one.to(dice.choice(types))
    elif kind == "numbers":
        for other in dice.sample(list(weights), dice.randint(1, len(weights))):
            value = dice.choice([np.nan, np.inf, -np.inf, 3e38, 1e-45, 1e10, 0.0])
            weights[other].view(-1)[
                dice.randrange(weights[other].numel()) :: dice.randint(1, 9)
            ] = value
    elif kind == "layout":
        weights[name] = dice.choice(
            [one.to_sparse(), one.to("meta"), one.expand(3, *one.shape), torch.nn.Parameter(one)]
        )
    elif kind == "no tensor":
        weights[name] = dice.choice([None, 1, "x", [one], {}, one.tolist()])
    else:
        weights = dice.choice(
            [
                [],
                None,
                5,
                {},
                list(weights.values()),
                dict(enumerate(weights.values())),
                one,
            ]
        )  # type: ignore[assignment]
    torch.save(weights, folder / "weights.pt")
    return f"weights.pt: {kind} of {name}"


def bomb(folder: Path, dice: random.Random, proof: Path) -> str:  # noqa: ARG001
    """Little that says that it is much."""
    kind = dice.choice(["settings", "settings", "header", "called", "nested", "digits"])
    settings = json.loads((folder / "settings.json").read_text())
    if kind == "settings":
        huge = {
            "hidden": 8192,
            "embedding": 8192,
            "encoder_layers": 16,
            "decoder_layers": 16,
            "heads": 1,
        }
        settings["model"] |= dict(dice.sample(list(huge.items()), dice.randint(1, 5)))
        if dice.random() < 0.5:
            settings["vocabularies"]["target"] = dice.choice([10**6, 10**9, 2**40, 2**63, -1, 0])
    elif kind == "header":
        content = (folder / "weights.pt").read_bytes()
        (folder / "weights.pt").write_bytes(
            content.replace(b"\x80\x02}", b"\x80\x02\x95" + b"\xff" * 7 + b"\x7f}", 1)
        )
    elif kind == "called":
        new = dice.random() < 0.5
        weights: dict[str, Any] = weights_of(folder)
        torch.save(
            weights | {"x": Huge()}, folder / "weights.pt", _use_new_zipfile_serialization=new
        )
    elif kind == "nested":
        text = dice.choice(['{"a":', "["]) * 200_000
        (folder / "settings.json").write_text(text)
        return "settings.json is nested"
    else:
        (folder / "settings.json").write_text('{"model": 1' + "0" * 10**6 + "}")
        return "settings.json has a million digits"
    (folder / "settings.json").write_text(json.dumps(settings))
    return f"bomb: {kind} {settings['model']} {settings['vocabularies']}"


def wrong_settings(folder: Path, dice: random.Random, proof: Path) -> str:  # noqa: ARG001
    settings = json.loads((folder / "settings.json").read_text())
    values = [
        None,
        True,
        "x",
        -1,
        0,
        1,
        1.5,
        10**30,
        float("nan"),
        [],
        {},
        "__import__('os')",
        [[]],
        "\ud800",
    ]
    part = dice.choice([settings, settings["model"], settings["vocabularies"]])
    name = dice.choice(list(part))
    kind = dice.randrange(3)
    if kind == 0:
        del part[name]
    elif kind == 1:
        part[dice.choice(["x", "__class__", ""])] = dice.choice(values)
    else:
        part[name] = dice.choice(values)
    (folder / "settings.json").write_text(json.dumps(settings))
    return f"settings.json: {name} of {settings}"


def wrong_tokenizer(folder: Path, dice: random.Random, proof: Path) -> str:  # noqa: ARG001
    file = folder / dice.choice(["source.model", "target.model"])
    kind = dice.choice(["empty", "text", "weights", "doubled", "half"])
    content = file.read_bytes()
    file.write_bytes({
        "empty": b"", "text": b"the cat", "weights": (folder / "weights.pt").read_bytes(),
        "doubled": content * 2, "half": content[: len(content) // 2],
    }[kind])  # fmt: skip
    return f"{file.name}: {kind}"


def elsewhere(folder: Path, dice: random.Random, proof: Path) -> str:
    """Links, folders, and files that nobody may read."""
    file = folder / dice.choice(FILES)
    file.unlink()
    kind = dice.choice(["/etc/passwd", "/nowhere", str(file), "/dev/null", "..", "folder", "away"])
    if kind == "folder":
        file.mkdir()
    elif kind == "away":
        shutil.copy(proof.parent / "good" / file.name, proof.parent / file.name)
        file.symlink_to(proof.parent / file.name)  # as DVC links its cache
    else:
        file.symlink_to(kind)
    return f"{file.name} -> {kind}"


HARMS = (evil_weights, wrong_weights, bomb, wrong_settings, wrong_tokenizer, elsewhere)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript
@pytest.mark.trials(60, 3_000)
def test_meant_to_harm(
    models: Path,  # noqa: F811
    trials: range,
    tally: Counter[str],
    tmp_path: Path,
) -> None:
    """No code runs, and nobody's memory is taken."""
    shutil.copytree(models / "one", tmp_path / "good")
    proof = tmp_path / "proof"

    def make(trial: int, folder: Path) -> str:
        shutil.copytree(models / "one", folder)
        return HARMS[trial % len(HARMS)](folder, random.Random(trial), proof)

    judge(trials, tally, tmp_path, make)
    assert not proof.exists()


def deflated(folder: Path) -> None:
    """Half a gigabyte of zeros behind a tensor, compressed."""
    file = folder / "weights.pt"
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content + b"\0" * (500 << 20 if name.endswith("/0") else 0))


def expanded(folder: Path) -> None:
    """Tensors of one number each that have the shapes of a large model."""
    settings = json.loads((folder / "settings.json").read_text())
    settings["model"]["hidden"] = 3072
    (folder / "settings.json").write_text(json.dumps(settings))
    with torch.device("meta"):
        parts = ModelSettings(**settings["model"]), Vocabularies(**settings["vocabularies"])
        wanted = Seq2Seq(*parts).state_dict()
    weights = {name: torch.zeros(1).expand(weight.shape) for name, weight in wanted.items()}
    torch.save(weights, folder / "weights.pt")


@pytest.mark.parametrize("make", [deflated, expanded])
def test_weights_are_no_larger_than_their_file(
    models: Path,  # noqa: F811
    tmp_path: Path,
    make: Callable[[Path], None],
) -> None:
    shutil.copytree(models / "one", tmp_path / "model")
    make(tmp_path / "model")
    sign(tmp_path / "model")
    [(said, grown)] = load([tmp_path / "model"])
    assert said.startswith("message: ")
    assert str(tmp_path / "model") in said
    assert grown < GROWN
