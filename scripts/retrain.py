"""What .github/workflows/retrain.yml does: retrain what has changed, judge it, and propose it.

    refresh    look for new content of the corpora's own files, and note it in the settings
    train      `dvc repro` within a time limit, push, summary, gate; writes work/retrain/
    propose    pull requests with what `train` has made, and a comment where one is open

On demand, `train` takes what it is told. At a push it takes params.yaml, of which DVC knows what is
out of date, and each recipe whose file has changed since its results were committed; every week and
at `new-data`, the same after a `refresh`. A change of code retrains no recipe: many take hours.

A job that runs out of time keeps work/ and DVC's cache: the next one goes on where it was. Nothing
is read from the event that started it but the options below.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).parent))
import repro

from rnnmt import params
from rnnmt.corpora import files
from rnnmt.corpora import settings as corpora
from rnnmt.errors import UserError, end_with_parent, run_main

OUT = Path("work/retrain")
UNFINISHED = Path("work/unfinished")  # one file for each recipe that is to be retrained
OUT_OF_TIME = 75  # exit code: try again, it goes on
REFUSED = 3  # that of `rnnmt promote`
LONGEST = 60_000  # characters of a pull request's text; GitHub takes 65,536
SECONDS_TO_END = 60  # that a stage has, told to end
DEMANDED = "workflow_dispatch"
NEW_DATA = ("schedule", "repository_dispatch")  # events at which files may have changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run in (("refresh", refresh), ("train", train), ("propose", propose)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        if name == "train":
            command.add_argument("--event", default=DEMANDED, help="GitHub's name of the trigger")
            command.add_argument("--recipe", default="", help="a file of recipes/, without .yaml")
            command.add_argument("--variants", default="", help="only these, with spaces between")
            command.add_argument("--minutes", type=float, default=330, help="time limit")
            command.add_argument(
                "--promote", nargs="?", const="true", default="", choices=("true", "false", ""),
                help="to champion, else to challenger",
            )  # fmt: skip
        if name == "propose":
            command.add_argument("--base", required=True, help="branch to be changed")
    arguments = parser.parse_args()
    os.chdir(repro.ROOT)
    _forget_empty_variables()
    raise SystemExit(arguments.run(arguments))


def _forget_empty_variables() -> None:
    """What a repository of GitHub does not set is empty, and an empty region is an error."""
    for name, value in tuple(os.environ.items()):
        if not value and name.startswith(("AWS_", "MLFLOW_")):
            del os.environ[name]


@dataclass(frozen=True)
class Experiment:
    """params.yaml or a recipe, and which files are its own."""

    recipe: str = ""

    @classmethod
    def all(cls) -> list[Experiment]:
        return [cls(), *(cls(file.stem) for file in sorted(Path("recipes").glob("*.yaml")))]

    @property
    def name(self) -> str:
        return self.recipe or "default"

    @property
    def settings(self) -> str:
        return f"recipes/{self.recipe}.yaml" if self.recipe else "params.yaml"

    @property
    def pipeline(self) -> str:
        return f"recipes/{self.recipe}/dvc.yaml" if self.recipe else "dvc.yaml"

    @property
    def lock(self) -> str:
        return str(Path(self.pipeline).with_suffix(".lock"))

    @property
    def summary(self) -> Path:
        return OUT / self.name / "summary.md"

    @property
    def patch(self) -> Path:
        return OUT / self.name / "changes.patch"

    @property
    def unfinished(self) -> Path:
        return UNFINISHED / self.name

    @contextlib.contextmanager
    def chosen(self) -> Iterator[None]:
        """Within it, the program's settings are this experiment's. Raises UserError as `params`."""
        os.environ.pop("RNNMT_PARAMS", None)
        try:
            if self.recipe:
                repro.check_recipe(self.recipe)
            yield
        finally:
            os.environ.pop("RNNMT_PARAMS", None)

    @contextlib.contextmanager
    def at_hand(self) -> Iterator[None]:
        """`chosen`, with a recipe's dvc.yaml, which is there for the time of this command only."""
        with self.chosen():
            try:
                if self.recipe:
                    repro.write_pipeline(self.recipe)
                yield
            finally:
                if self.recipe:
                    repro.remove_pipeline(Path(self.pipeline))

    def outputs(self) -> list[str]:
        """What its pull request may change, when `chosen`."""
        return [self.settings, self.lock, f"reports/{params.corpus_name()}"]

    def last_results(self) -> str:
        """The commit of its last results, empty where it has none."""
        return _git("log", "-1", "--format=%H", "--", self.lock).strip()

    def branch(self, base: str) -> str:
        return f"retrain/{self.name}/{base}"


def refresh(_: argparse.Namespace | None = None) -> int:
    """Pin the present content of the corpora's own files; what a catalogue pins stays pinned."""
    code = 0
    for experiment in Experiment.all():
        try:
            with experiment.chosen():
                found = _refresh()
        except UserError as error:  # its own trouble, not that of those that come after it
            found, code = f"not looked at: {error}", 1
        _say(f"{experiment.settings}: {found}")
    return code


def _refresh() -> str:
    file, corpus = params.path(), corpora.load()
    if not (own := corpora.own_files(corpus)):
        return f"{corpus.source} has no files here to look at"
    try:
        found = files.version(own)
    except UserError as error:
        return f"not looked at: {error}"
    if found == corpus.version:
        return "the data are the same"
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    settings = yaml.load(file.read_text(encoding="utf-8"))
    settings["corpus"]["version"] = found
    part = file.with_name(f".{file.name}.part")  # only a whole one gets its name
    with open(part, "w", encoding="utf-8") as stream:
        yaml.dump(settings, stream)
    shutil.copymode(file, part)
    part.replace(file)
    return "the data are new"


def train(arguments: argparse.Namespace) -> int:
    """Retrain one experiment after another, until time is out or one fails.

    Returns 0, OUT_OF_TIME, REFUSED or the code of what failed.
    """
    deadline = time.monotonic() + 60 * arguments.minutes
    shutil.rmtree(OUT, ignore_errors=True)  # of an earlier job
    _output("changed", "false")
    _use_remote()
    codes = []
    for experiment in _wanted(arguments):
        with experiment.at_hand():
            codes.append(_retrain(experiment, arguments, deadline))
        if codes[-1] not in (0, REFUSED):
            break
        if not arguments.variants:
            experiment.unfinished.unlink(missing_ok=True)
    return codes[-1] or max(codes)


def _wanted(arguments: argparse.Namespace) -> list[Experiment]:
    if arguments.recipe or arguments.event == DEMANDED:
        return [Experiment(arguments.recipe)]
    if arguments.event in NEW_DATA:
        refresh()
    default, *recipes = Experiment.all()
    recipes = [recipe for recipe in recipes if recipe.unfinished.exists() or _has_changed(recipe)]
    UNFINISHED.mkdir(parents=True, exist_ok=True)
    for recipe in recipes:  # results of another one would hide from the next job that it is new
        recipe.unfinished.touch()
    return [default, *recipes]


def _has_changed(recipe: Experiment) -> bool:
    """Whether its file is not that of its last results or, where it has none, of any last ones."""
    last = recipe.last_results()
    last = last or _git("log", "-1", "--format=%H", "--", "dvc.lock", "recipes/*/dvc.lock").strip()
    return bool(last and _git("diff", "--name-only", last, "--", recipe.settings))


def _retrain(experiment: Experiment, arguments: argparse.Namespace, deadline: float) -> int:
    """Reproduce, push, judge. Returns an exit code as `train` does."""
    variants = arguments.variants.split()
    code = reproduced = _reproduce(experiment.pipeline, variants, deadline)
    _push()
    changed, promote = _changed(experiment), arguments.promote == "true"
    failed = f"**Failed**, with exit code {code}: the log says why."
    outcome = _OUTCOMES.get(code, failed) if code or changed else _UNCHANGED
    summary = [f"# Retraining: {experiment.recipe or 'params.yaml'}", outcome]
    if code == 0 and changed:
        # The stage `report` does so too, but single variants have none. Where MLflow is away it
        # says so, and nothing has failed.
        subprocess.run(["rnnmt", "sync"])
        summary += _differences(experiment, variants)
    if code == 0 and (changed or promote):
        code = _gate(variants, promote, summary)
        changed = _changed(experiment)  # a champion has files
    text = "\n\n".join(summary)
    _say(text)
    if changed and reproduced == 0:  # whatever the gate says, or where it cannot say anything
        _write(experiment, text)
    return code


_UNCHANGED = "Nothing has changed: all results are up to date."
_OUTCOMES = {
    0: "All stages have run.",
    OUT_OF_TIME: "**Out of time.** What is done is pushed; the next run goes on from here.",
}


def _changed(experiment: Experiment) -> bool:
    return bool(_git("status", "--porcelain", "--", *experiment.outputs()))


def _write(experiment: Experiment, summary: str) -> None:
    """Summary and patch, of which `propose` makes a pull request."""
    there = [name for name in experiment.outputs() if Path(name).exists()]
    _git("add", "--intent-to-add", "--", *there)
    experiment.patch.parent.mkdir(parents=True, exist_ok=True)
    prefixes = ("--src-prefix=a/", "--dst-prefix=b/")  # whatever the user's settings are
    patch = _git("diff", "--binary", *prefixes, "HEAD", "--", *there)
    experiment.patch.write_text(patch, encoding="utf-8", newline="")
    experiment.summary.write_text(summary + "\n", encoding="utf-8")
    _output("changed", "true")


def _use_remote() -> None:
    """DVC's remote for this machine alone: its address is no part of the repository."""
    if url := os.environ.get("DVC_REMOTE_URL"):
        _run("dvc", "remote", "add", "--quiet", "--force", "--local", "--default", "ci", url)
        if key := os.environ.get("DVC_SSH_KEY"):
            file = Path(".dvc/tmp/ssh-key").absolute()  # not among what a job keeps for the next
            file.parent.mkdir(exist_ok=True)
            file.touch(0o600)
            file.write_text(key.strip() + "\n", encoding="utf-8")
            _run("dvc", "remote", "modify", "--quiet", "--local", "ci", "keyfile", str(file))


def _has_remote() -> bool:
    return bool(subprocess.run(["dvc", "remote", "list"], capture_output=True).stdout.strip())


def _reproduce(pipeline: str, variants: Sequence[str], deadline: float) -> int:
    """`dvc repro` of the pipeline, or up to the scores of these variants."""
    repro.drop_dead_locks()
    repro.drop_broken_locks(pipeline)
    # Not --allow-missing, which skips a stage whose output the remote lacks, though a later one,
    # which has changed, reads it: all is pulled, and what cannot be is made again.
    pull = ["--pull"] if _has_remote() else []
    labels = [f"{variant}-{seed}" for variant in variants for seed in params.seeds()]
    targets = [repro.address(pipeline, f"evaluate@{label}") for label in labels] or [pipeline]
    # A group of its own: DVC, told to end, would leave its stage running.
    process = subprocess.Popen(
        ["dvc", "repro", *pull, *targets], process_group=0, preexec_fn=end_with_parent
    )
    try:
        return process.wait(deadline - time.monotonic())
    except subprocess.TimeoutExpired:
        _end(process)
        return OUT_OF_TIME


def _end(process: subprocess.Popen[bytes]) -> None:
    """End DVC and its stage, which outlives it until it has stopped what it is at."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            process.wait()
            for _ in range(10 * SECONDS_TO_END):
                os.killpg(process.pid, 0)
                time.sleep(0.1)


def _push() -> None:
    """Push what there is: a run that has failed or ended early keeps what it has made."""
    if not _has_remote():
        print("no DVC remote: nothing is pushed; set DVC_REMOTE_URL, or `dvc remote add -d`")
    elif subprocess.run(["dvc", "push", "--run-cache"]).returncode:
        raise UserError("dvc push has failed; its lines above say why")


def _differences(experiment: Experiment, variants: Sequence[str]) -> Iterator[str]:
    """What has changed in the settings since its last results, and in the metrics.

    Files are named: of a recipe DVC knows no earlier pipeline, and would call everything new.
    """
    last, report = experiment.last_results() or "HEAD", Path("reports", params.corpus_name())
    yield from _table("Parameters", "params", last, [experiment.settings])
    scores = sorted(map(str, report.glob("scores/*.json")))
    scores = [file for file in scores if not file.endswith(".detail.json")]
    if scores:
        yield from _table("Metrics", "metrics", "HEAD", scores)
    if variants:
        yield "Single variants: nothing has been compared or reported anew."
        return
    if (comparison := report / "comparison.md").exists():
        text = comparison.read_text(encoding="utf-8").replace("\n#", "\n##").lstrip("#")
        yield f"## {text.strip()}"
    if files := sorted([*report.rglob("*.svg"), *report.rglob("*.png")]):
        pictures = (f"![{file.stem}]({_link(experiment, file)})" for file in files)
        yield "## Pictures\n\n" + "\n\n".join(pictures)


def _table(title: str, kind: str, revision: str, files: Sequence[str]) -> Iterator[str]:
    """`dvc params diff` or `dvc metrics diff`, where there is any; or why it has failed."""
    command = ["dvc", kind, "diff", "--md", revision, "--targets", *files]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        yield f"## {title}\n\n`dvc {kind} diff` has failed:\n\n```\n{done.stderr.strip()}\n```"
    elif len(rows := done.stdout.strip().splitlines()) > 2:  # more than a table's head
        yield f"## {title}\n\n" + "\n".join(rows)


def _link(experiment: Experiment, file: Path) -> str:
    """Where the pull request's branch has a picture."""
    server, repository, base = (
        os.environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "REF_NAME")
    )
    path = quote(f"{experiment.branch(base)}/{file}")
    return f"{server}/{repository}/blob/{path}?raw=true" if repository else str(file)


def _gate(variants: Sequence[str], promote: bool, summary: list[str]) -> int:
    """`rnnmt promote`, whose exit code it returns; what it says becomes a part of the summary."""
    only = [part for name in variants for part in ("--variant", name)]
    to = "champion" if promote else "challenger"
    done = subprocess.run(["rnnmt", "promote", "--to", to, *only], capture_output=True, text=True)
    print(done.stderr, file=sys.stderr, end="", flush=True)
    said = done.stdout.strip()
    if done.returncode not in (0, REFUSED):
        said += f"\n\n**It has failed**, with exit code {done.returncode}:\n\n"
        said += f"```\n{done.stderr.strip()}\n```"
    summary.append(f"## Gate\n\n{said.strip()}")
    return done.returncode


def propose(arguments: argparse.Namespace) -> int:
    """Open or renew a pull request for each experiment that `train` has changed."""
    made = [experiment for experiment in Experiment.all() if experiment.patch.exists()]
    if not made:
        raise UserError(f"{OUT}: nothing to propose; `train` writes it where results have changed")
    if os.environ.get("GITHUB_ACTIONS"):
        _git("config", "user.name", "github-actions[bot]")
        _git("config", "user.email", "41898282+github-actions[bot]@users.noreply.github.com")
        _run("gh", "auth", "setup-git")
    start = _git("rev-parse", "HEAD").strip()
    for experiment in made:
        _commit(experiment, arguments.base, start)
        _open(experiment, arguments.base)
    return 0


def _commit(experiment: Experiment, base: str, start: str) -> None:
    """Push its results as one commit. Raises UserError where the patch changes anything else."""
    with experiment.chosen():
        own = experiment.outputs()
    branch = experiment.branch(base)
    # In an index of its own: where `train` has run, the results lie in the folder already.
    os.environ["GIT_INDEX_FILE"] = str((OUT / "index").absolute())
    try:
        _git("read-tree", start)
        _git("apply", "--cached", str(experiment.patch))
        if foreign := sorted(_foreign(own)):
            raise UserError(f"{experiment.patch}: changes more than results: {', '.join(foreign)}")
        tree = _git("write-tree").strip()
        message = f"Results of {experiment.recipe or 'params.yaml'}"
        commit = _git("commit-tree", tree, "-p", start, "-m", message).strip()
    finally:
        del os.environ["GIT_INDEX_FILE"]
    _git("push", "--quiet", "--force", "origin", f"{commit}:refs/heads/{branch}")


def _foreign(own: Sequence[str]) -> Iterator[str]:
    """What is staged, or staged to be removed, and no ordinary file of its `own`."""
    # With -z, `:MODE MODE SUM SUM STATUS` and a name take turns.
    found = _git("diff", "--cached", "--no-renames", "--raw", "-z").split("\0")
    for about, name in zip(found[::2], found[1::2], strict=False):
        ordinary = about.split()[1] in ("100644", "000000")  # no link, no program; or removed
        if not ordinary or not any(name == one or name.startswith(f"{one}/") for one in own):
            yield name


def _open(experiment: Experiment, base: str) -> None:
    """Open or renew the pull request; comment on the one that `base` itself is proposed by."""
    body = experiment.summary.read_text(encoding="utf-8")
    if len(body) > LONGEST:
        body = body[:LONGEST] + "\n\n... the rest is in the job's summary\n"
    text = experiment.summary.with_name("body.md")
    text.write_text(body, encoding="utf-8")
    title, branch = f"Retrained: {experiment.recipe or 'params.yaml'}", experiment.branch(base)
    if number := _pull_request("--head", branch, "--base", base):
        _run("gh", "pr", "edit", number, "--title", title, "--body-file", str(text))
    else:
        _run(
            "gh", "pr", "create", "--base", base, "--head", branch,
            "--title", title, "--body-file", str(text),
        )  # fmt: skip
    if number := _pull_request("--head", base):
        _run("gh", "pr", "comment", number, "--body-file", str(text))


def _pull_request(*filters: str) -> str:
    """The number of an open one of this repository's own, empty where there is none."""
    command = ["gh", "pr", "list", *filters, "--json", "number,isCrossRepository"]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    # A fork's branch may have the same name.
    own = (str(one["number"]) for one in json.loads(found.stdout) if not one["isCrossRepository"])
    return next(own, "")


def _output(name: str, value: str) -> None:
    """For the steps and jobs after this one; of several values, the last."""
    if file := os.environ.get("GITHUB_OUTPUT"):
        with open(file, "a", encoding="utf-8") as stream:
            print(f"{name}={value}", file=stream)


def _say(text: str) -> None:
    """Into the log, and onto the job's page."""
    print(text, flush=True)
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(page, "a", encoding="utf-8") as file:
            print(text + "\n", file=file)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], stdout=subprocess.PIPE)
    if done.returncode:
        raise UserError(f"git {arguments[0]} has failed; its lines above say why")
    return done.stdout.decode()  # as it is: a patch may hold \r


def _run(*command: str) -> None:
    if subprocess.run(command).returncode:
        raise UserError(f"{' '.join(command[:3])} has failed; its lines above say why")


if __name__ == "__main__":
    run_main(main)
