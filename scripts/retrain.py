"""What .github/workflows/retrain.yml does: retrain what has changed, judge it, and propose it.

    refresh    find out whether the corpus's own files have changed, and note that in the settings
    train      `dvc repro` within a time limit, push, summary, gate; writes work/retrain/
    propose    a pull request with what `train` has made, and a comment where one is open

A job that runs out of time keeps work/ and DVC's cache: the next one goes on where it was. Nothing
is read from the event that started it but the options below.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).parent))
import repro

from rnnmt import params
from rnnmt.errors import UserError, end_with_parent, run_main

OUT = Path("work/retrain")
SUMMARY, PATCH = OUT / "summary.md", OUT / "changes.patch"
OUTPUTS = ("dvc.lock", "params.yaml", "recipes", "reports")  # what a pull request may change
OUT_OF_TIME = 75  # exit code: try again, it goes on
REFUSED = 3  # that of `rnnmt promote`
LONGEST = 60_000  # characters of a pull request's text; GitHub takes 65,536


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run in (("refresh", refresh), ("train", train), ("propose", propose)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--recipe", default="", help="a file of recipes/, without .yaml")
        if name == "train":
            command.add_argument("--variants", default="", help="only these, with spaces between")
            command.add_argument("--minutes", type=float, default=330, help="time limit")
            command.add_argument("--promote", action="store_true", help="else: to challenger")
        if name == "propose":
            command.add_argument("--base", required=True, help="branch to be changed")
    arguments = parser.parse_args()
    os.chdir(repro.ROOT)
    if arguments.recipe:
        repro.check_recipe(arguments.recipe)
    raise SystemExit(arguments.run(arguments))


def refresh(_: argparse.Namespace) -> int:
    """Pin the present content of the corpus's own files; what a catalogue pins stays pinned."""
    file, yaml = params.path(), YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    settings = yaml.load(file.read_text(encoding="utf-8"))
    corpus = settings["corpus"]
    found = _version(corpus) if corpus["source"] == "files" else None
    changed = found is not None and found != corpus.get("version")
    if changed:
        corpus["version"] = found
        with open(file, "w", encoding="utf-8") as stream:
            yaml.dump(settings, stream)
    print(f"{file}: the data are {'new' if changed else 'the same'}")
    _output("changed", str(changed).lower())
    return 0


def _version(corpus: dict[str, object]) -> str:
    digest = hashlib.sha256()
    splits = corpus.get("splits") or {"": [corpus.get("tsv")]}
    assert isinstance(splits, dict)
    for path in (path for pair in splits.values() for path in pair):
        try:
            with open(str(path), "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{params.path()}: corpus: {path}: {error.strerror}") from None
    return digest.hexdigest()


def train(arguments: argparse.Namespace) -> int:
    """Reproduce, push, judge. Returns 0, OUT_OF_TIME, REFUSED or the code of what failed."""
    OUT.mkdir(parents=True, exist_ok=True)
    _use_remote()
    pipeline = repro.write_pipeline(arguments.recipe) if arguments.recipe else Path("dvc.yaml")
    try:
        code = _reproduce(str(pipeline), arguments.variants.split(), arguments.minutes)
        _push()
        summary = [f"# Retraining: {arguments.recipe or 'params.yaml'}", _OUTCOMES.get(code, "")]
        # A recipe's dvc.yaml is there for the time of this command only.
        changed = bool(_git("status", "--porcelain", "--", *OUTPUTS, ":!recipes/*/dvc.yaml"))
        if code:
            summary[1] = summary[1] or f"**Failed**, with exit code {code}: the log says why."
        elif not changed:
            summary[1] = "Nothing has changed: all results are up to date."
        else:
            summary += _differences()
            code = _gate(str(pipeline), arguments, summary)
    finally:
        if arguments.recipe:
            pipeline.unlink(missing_ok=True)
    there = [name for name in OUTPUTS if Path(name).exists()]
    _git("add", "--intent-to-add", "--", *there)
    PATCH.write_text(_git("diff", "--binary", "HEAD", "--", *there), encoding="utf-8")
    SUMMARY.write_text("\n\n".join(part for part in summary if part) + "\n", encoding="utf-8")
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(page, "a", encoding="utf-8") as file:
            file.write(SUMMARY.read_text(encoding="utf-8"))
    _output("changed", str(changed and code in (0, REFUSED)).lower())
    return code


_OUTCOMES = {
    0: "All stages have run.",
    OUT_OF_TIME: "**Out of time.** What is done is pushed; the next run goes on from here.",
}


def _use_remote() -> None:
    """DVC's remote for this machine alone: its address is no part of the repository."""
    if url := os.environ.get("DVC_REMOTE_URL"):
        _run("dvc", "remote", "add", "--quiet", "--force", "--local", "--default", "ci", url)


def _has_remote() -> bool:
    return bool(subprocess.run(["dvc", "remote", "list"], capture_output=True).stdout.strip())


def _reproduce(pipeline: str, variants: Sequence[str], minutes: float) -> int:
    """`dvc repro` of the pipeline, or up to the scores of these variants."""
    repro.drop_dead_locks()
    repro.drop_broken_lock(Path(pipeline).with_suffix(".lock"))
    pull = ["--pull", "--allow-missing"] if _has_remote() else []
    if pull:
        # Comparison and report read folders that no single stage's output holds together.
        stages = ("align", "memory", "train", "decode", "analyze")
        outputs = [repro.address(pipeline, stage) for stage in stages]
        subprocess.run(["dvc", "pull", "--quiet", "--allow-missing", *outputs])
    targets = [pipeline]
    if variants:
        targets = _addresses(pipeline, ("evaluate",), variants)
    # A group of its own: DVC, told to end, would leave its stage running.
    process = subprocess.Popen(
        ["dvc", "repro", *pull, *targets], process_group=0, preexec_fn=end_with_parent
    )
    try:
        return process.wait(60 * minutes)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        return OUT_OF_TIME


def _addresses(pipeline: str, stages: Sequence[str], variants: Sequence[str]) -> list[str]:
    """What DVC calls these stages, of all variants or, if there are some, of these."""
    labels = [f"@{variant}-{seed}" for variant in variants for seed in params.seeds()]
    return [repro.address(pipeline, stage + label) for stage in stages for label in labels or [""]]


def _push() -> None:
    """Push what there is: a run that has failed or ended early keeps what it has made."""
    if not _has_remote():
        print("no DVC remote: nothing is pushed; set DVC_REMOTE_URL, or `dvc remote add -d`")
    elif subprocess.run(["dvc", "push", "--run-cache"]).returncode:
        raise UserError("dvc push has failed; its lines above say why")


def _differences() -> Iterator[str]:
    """What has changed in the settings since results were last committed, and in the metrics."""
    last = _git("log", "-1", "--format=%H", "--", "dvc.lock", "recipes/*/dvc.lock").strip()
    for title, command in (
        ("Parameters", ("params", "diff", "--md", last or "HEAD")),
        ("Metrics", ("metrics", "diff", "--md", "HEAD")),
    ):
        done = subprocess.run(["dvc", *command], capture_output=True, text=True)
        if done.stdout.strip():
            yield f"## {title}\n\n{done.stdout.strip()}"
    report = Path("reports", params.corpus_name())
    if (comparison := report / "comparison.md").exists():
        text = comparison.read_text(encoding="utf-8").replace("\n#", "\n##").lstrip("#")
        yield f"##{text.strip()}"
    if pictures := sorted([*report.rglob("*.svg"), *report.rglob("*.png")]):
        yield "## Pictures\n\n" + "\n\n".join(f"![{file.stem}]({_link(file)})" for file in pictures)


def _link(file: Path) -> str:
    server, repository = (os.environ.get(f"GITHUB_{n}", "") for n in ("SERVER_URL", "REPOSITORY"))
    return f"{server}/{repository}/blob/{_branch()}/{file}?raw=true" if repository else str(file)


def _gate(pipeline: str, arguments: argparse.Namespace, summary: list[str]) -> int:
    variants = arguments.variants.split()
    if _has_remote():  # what did not change was not needed yet
        models = _addresses(pipeline, ("train", "decode"), variants)
        _run("dvc", "pull", "--quiet", repro.address(pipeline, "tokenize"), *models)
    only = [part for name in variants for part in ("--variant", name)]
    to = "champion" if arguments.promote else "challenger"
    done = subprocess.run(
        ["rnnmt", "promote", "--to", to, *only], stdout=subprocess.PIPE, text=True
    )
    print(done.stdout)
    summary.append(f"## Gate\n\n{done.stdout.strip()}")
    return done.returncode


def propose(arguments: argparse.Namespace) -> int:
    """Open or renew the pull request; comment on the one that `base` itself is proposed by."""
    touched = _git("apply", "--numstat", str(PATCH)).splitlines()
    names = [line.split("\t", 2)[2] for line in touched]
    if foreign := [n for n in names if n.split("/")[0] not in OUTPUTS or ".." in n]:
        raise UserError(f"{PATCH}: changes more than results: {', '.join(foreign)}")
    body = SUMMARY.read_text(encoding="utf-8")
    if len(body) > LONGEST:
        body = body[:LONGEST] + "\n\n... the rest is in the job's summary\n"
    text = OUT / "body.md"
    text.write_text(body, encoding="utf-8")
    branch = _branch(arguments.recipe, arguments.base)
    _git("switch", "--quiet", "--force-create", branch)
    _git("apply", "--index", str(PATCH))
    _git("commit", "--quiet", "--message", f"Results of {arguments.recipe or 'params.yaml'}")
    if os.environ.get("GITHUB_ACTIONS"):
        _run("gh", "auth", "setup-git")
    _git("push", "--quiet", "--force", "origin", branch)
    title = f"Retrained: {arguments.recipe or 'params.yaml'}"
    if number := _pull_request("--head", branch, "--base", arguments.base):
        _run("gh", "pr", "edit", number, "--title", title, "--body-file", str(text))
    else:
        _run(
            "gh", "pr", "create", "--base", arguments.base, "--head", branch,
            "--title", title, "--body-file", str(text),
        )  # fmt: skip
    if number := _pull_request("--head", arguments.base):
        _run("gh", "pr", "comment", number, "--body-file", str(text))
    return 0


def _branch(recipe: str = "", base: str = "") -> str:
    base = base or os.environ.get("GITHUB_REF_NAME", "main")
    return f"retrain/{recipe or 'default'}/{base}"


def _pull_request(*filters: str) -> str:
    found = subprocess.run(
        ["gh", "pr", "list", *filters, "--json", "number", "--jq", ".[0].number // empty"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return found.stdout.strip()


def _output(name: str, value: str) -> None:
    """For the steps and jobs after this one."""
    if file := os.environ.get("GITHUB_OUTPUT"):
        with open(file, "a", encoding="utf-8") as stream:
            print(f"{name}={value}", file=stream)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        raise UserError(f"git {arguments[0]} has failed; its lines above say why")
    return done.stdout


def _run(*command: str) -> None:
    if subprocess.run(command).returncode:
        raise UserError(f"{' '.join(command[:3])} has failed; its lines above say why")


if __name__ == "__main__":
    run_main(main)
