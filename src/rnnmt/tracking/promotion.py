"""`rnnmt promote`: the best model of the pipeline against the champion of MLflow's registry.

All scores come from files, those of the champion from the registry's version or, where the
tracking database was lost, from `reports/CORPUS/champion/`, which is in git. Speeds in files are of
whatever machine decoded, so both models are timed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rnnmt import params
from rnnmt.errors import UserError
from rnnmt.scoring.comparison import markdown
from rnnmt.scoring.gate import (
    Evidence,
    Finding,
    figures,
    judge,
    missing,
    test_set_sum,
)
from rnnmt.scoring.settings import (
    EvaluateSettings,
    PromoteSettings,
    References,
    Run,
    references,
    reports,
)
from rnnmt.search.settings import DecodeSettings
from rnnmt.tracking import registry, runs
from rnnmt.tracking.registry import Registry

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

REFUSED = 3  # exit code of a challenger that did not pass
SEARCH = ("beam", "length_penalty", "max_length_ratio")  # what of `decode` changes translations
PASSES, TIMED = 4, 200  # how often how many sentences are translated to measure speed


@dataclass(frozen=True)
class Sources:
    """The validation and test sets: sources and references."""

    wanted: References
    lines: dict[str, list[str]]

    @classmethod
    def read(cls, corpus: str) -> Sources:
        wanted, tokens = references(corpus), Path("data", corpus, "tokens")
        texts = {split: tokens / f"{split}.source.txt" for split in wanted.splits}
        try:
            found = {k: f.read_text(encoding="utf-8").split("\n")[:-1] for k, f in texts.items()}
        except OSError as error:
            raise UserError(
                f"{error.filename}: no such file; run: {params.remake('tokenize')}"
            ) from None
        return cls(wanted, found)

    def sums(self) -> dict[str, str]:
        return {s: test_set_sum(lines, self.wanted.splits[s]) for s, lines in self.lines.items()}


def promote(
    to: str = registry.CHAMPION, dry_run: bool = False, variants: list[str] | None = None
) -> int:
    """Let the best model of the settings file through the gate, and make it what `to` says.

    With `variants`, the best of these. Prints every rule's finding and what follows. Returns 0,
    or REFUSED where a rule has failed.

    Raises UserError where files are missing or damaged, or MLflow cannot be used.
    """
    settings = params.load("promote", PromoteSettings)
    evaluate = params.load("evaluate", EvaluateSettings)
    sources = Sources.read(params.corpus_name())
    best = best_run(sources.wanted.corpus, variants or params.variants())
    challenger = evidence_of(best, sources)
    with registry.opened(registry.model_name(challenger.about), dry_run) as models:
        version, champion = _champion(models, sources.wanted.corpus)
        if version is None and champion is not None:
            version = _restore(models, champion, dry_run)
        if champion and champion.about["corpus"] != challenger.about["corpus"]:
            raise UserError(
                f"{models.name}: its champion is of the corpus {champion.about['corpus']!r}; give "
                f"{challenger.about['corpus']!r} another corpus.name in {params.path()}"
            )
        print(f"challenger: {challenger.label}, BLEU {_valid(challenger)} on validation data")
        print(f"champion:   {_shown(models, version, champion)}\n")
        if champion and _same(champion, challenger):
            print(f"{challenger.label} is the champion already: nothing to do")
            return 0
        if champion:
            with _model_of(models, version, champion) as folder:
                its = _readable(folder)
                champion, challenger = _alike(champion, its, challenger, _folder(best), sources)
        findings = judge(challenger, champion, sources.wanted, settings, evaluate)
        known = models.find(challenger.fingerprint)
        if known and known.tags.get(registry.ROLLED_BACK):
            what = f"version {known.version}; without its tag {registry.ROLLED_BACK} it may be"
            findings.append(Finding("never rolled back", what, False))
        print(_table(findings), end="\n\n")
        if not all(finding.passed for finding in findings):
            print(f"refused: {challenger.label} does not become {to}; nothing is changed")
            return REFUSED
        if dry_run:
            print(f"dry run: {challenger.label} would become the {to} of {models.name}")
            return 0
        known = _registered(models, challenger) or models.register(challenger, _folder(best))
        models.alias(registry.CHALLENGER, known)
        if to == registry.CHAMPION:
            _check_unchanged(models, version)
            keep(challenger)  # first: killed in between, the same command does it all again
            models.crown(known)
        print(f"{challenger.label} is the {to} of {models.name}, as version {known.version}")
    return 0


def _same(one: Evidence, other: Evidence) -> bool:
    """Whether both are of one model and one search."""
    return one.fingerprint == other.fingerprint and all(
        one.decode.get(key) == other.decode.get(key) for key in SEARCH
    )


def _registered(models: Registry, evidence: Evidence) -> ModelVersion | None:
    """The version of a model, where what it was judged by is still so."""
    known = models.find(evidence.fingerprint)
    return known if known and _same(models.evidence(known), evidence) else None


def _check_unchanged(models: Registry, version: ModelVersion | None) -> None:
    """Raise UserError where the champion is no longer `version`, by which was judged."""
    now = models.champion()
    if (now and now.version) != (version and version.version):
        raise UserError(f"{models.name}: its champion has changed meanwhile; run it again")


def roll_back(dry_run: bool = False) -> int:
    """Make the version that the champion has replaced the champion again.

    Raises UserError where there is none.
    """
    with registry.opened(registry.model_name(about(params.corpus_name())), dry_run) as models:
        now = models.champion()
        if now is None or not (before := now.tags.get(registry.REPLACED)):
            raise UserError(f"{models.name}: no champion that has replaced another one")
        version = models.version(before)
        evidence = models.evidence(version)
        if dry_run:
            print(f"dry run: version {before}, {evidence.label}, would be the champion again")
            return 0
        _check_unchanged(models, now)
        keep(evidence)
        models.tag(now, registry.ROLLED_BACK, "true")
        models.alias(registry.CHAMPION, version)  # last: killed before, it begins anew from here
        print(f"{models.name}: version {before}, {evidence.label}, is the champion again")
    return 0


def best_run(corpus: str, variants: list[str]) -> Run:
    """The run with the highest validation BLEU of beam search; of equal ones, the first.

    A run without a finite one comes last, which is said. Raises UserError where a variant is
    unknown or has not been evaluated.
    """
    if unknown := set(variants) - set(params.variants()):
        raise UserError(f"{params.path()}: no variant {', '.join(sorted(unknown))}")
    found = [Run(corpus, variant, seed) for variant in variants for seed in params.seeds()]
    return max(found, key=_validation_bleu)


def _validation_bleu(run: Run) -> float:
    try:
        value = float(run.detail()["scores"]["valid"]["beam"]["bleu"]["score"])
    except (KeyError, TypeError, ValueError):
        value = math.nan
    if math.isfinite(value):
        return value
    where = f"{run.detail_path}: scores.valid.beam.bleu.score"
    print(f"{where} is missing or not finite; run: {params.remake(f'evaluate@{run}')}")
    return -math.inf


def about(corpus: str) -> dict[str, Any]:
    """What all models of a corpus share: its name and languages, as the champion or a model has it.

    Raises UserError where there is neither.
    """
    if _kept(corpus).exists():
        return Evidence.read(_kept(corpus)).about
    return Run(corpus, params.variants()[0], params.seeds()[0]).settings()


def evidence_of(run: Run, sources: Sources) -> Evidence:
    """What the files of train, decode and evaluate say of a run.

    Raises UserError where they are missing or damaged, or are not of this model and these test
    sets.
    """
    _check_current(run, sources)
    try:
        return _evidence(run, sources)
    except (AttributeError, KeyError, TypeError) as error:
        told = f"{run}: its settings, translations' summary or scores are damaged ({error!r})"
        raise UserError(f"{told}; run: {params.remake(f'-f evaluate@{run}')}") from None


def _evidence(run: Run, sources: Sources) -> Evidence:
    detail, decoding = run.detail(), run.decoding()
    splits = decoding["splits"]
    # The penalty is that of the grid which validation has chosen.
    decode = params.load("decode", DecodeSettings).model_dump()
    decode |= {"length_penalty": decoding["length_penalty"]}
    times = [splits[split]["beam"] for split in sources.wanted.tests]
    seconds = sum(one["seconds"] for one in times)
    description = run.settings()
    kept = ("corpus", "source_language", "target_language", "variant", "seed", "data")
    return Evidence(
        label=str(run),
        about={name: description[name] for name in (*kept, registry.FINGERPRINT)},
        commit=_commit(),
        scores={
            split: {name: found["score"] for name, found in of_split["beam"].items()}
            for split, of_split in detail["scores"].items()
        },
        signatures=detail["signatures"],
        sums=sources.sums(),
        translations={split: run.hypotheses(split, "beam") for split in sources.wanted.tests},
        sentences_per_second=round(sum(one["sentences"] for one in times) / max(seconds, 1e-3), 1),
        decode=decode,
    )


def _commit() -> str:
    tags = runs.git_tags()
    return tags.get("git.commit", "") + "-dirty" * (tags.get("git.dirty") == "true")


def _check_current(run: Run, sources: Sources) -> None:
    """Raise UserError where a run's translations are of another model or of other sentences."""
    remedy = f"run: {params.remake(f'evaluate@{run}')}"
    for split, wanted in sources.lines.items():
        file = reports(run.corpus) / "translations" / str(run) / f"{split}.jsonl"
        try:
            records = file.read_text(encoding="utf-8").split("\n")[:-1]
            translated = [json.loads(record)["source"] for record in records]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{file}: missing or damaged ({error}); {remedy}") from None
        if translated != wanted:
            raise UserError(f"{file}: not the sentences of data/{run.corpus}/tokens; {remedy}")
    decoded = _decoded_weights(run)
    weights = _folder(run) / "weights.pt"
    if decoded and hashlib.md5(weights.read_bytes()).hexdigest() != decoded:
        raise UserError(f"{weights}: newer than its translations; {remedy}")


def _decoded_weights(run: Run) -> str | None:
    """The MD5 sum of the weights that the stage decode has read, where dvc.lock knows it."""
    recipe = params.path()
    lock = Path("dvc.lock") if recipe.parent == Path() else recipe.with_suffix("") / "dvc.lock"
    try:
        stages = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))["stages"]
        deps = stages[f"decode@{run}"]["deps"]
    except (OSError, KeyError, TypeError, YAMLError):
        return None
    sums = {Path(dep["path"]).name: dep.get("md5") for dep in deps}
    return sums.get("weights.pt")


def _alike(
    champion: Evidence, its: Path | None, challenger: Evidence, own: Path, sources: Sources
) -> tuple[Evidence, Evidence]:
    """Both, scored on the same test sets and timed on this machine, as far as `its` is here.

    Raises UserError where the champion cannot be scored on the present test sets.
    """
    if champion.sums != challenger.sums or missing(champion, sources.wanted):
        if its is None:
            raise UserError(
                f"the champion {champion.label} has other test sets, or lacks figures, and its "
                f"model is not here or of other code, so it cannot be scored again; `dvc checkout` "
                f"or `dvc pull` at {_commit_of(champion)} brings it back"
            )
        print("The champion has other test sets, or lacks figures: both are scored again.\n")
        champion = scored_again(champion, its, sources, challenger.decode)
        challenger = scored_again(challenger, own, sources, challenger.decode)
    if its is None:
        return replace(champion, sentences_per_second=None), challenger
    lines = [line for split in sources.wanted.tests for line in sources.lines[split]]
    old, new = speeds([(its, champion.decode), (own, challenger.decode)], lines)
    return (
        replace(champion, sentences_per_second=old),
        replace(challenger, sentences_per_second=new),
    )


def speeds(models: list[tuple[Path, dict[str, Any]]], lines: list[str]) -> list[float]:
    """Sentences/s of models, folder and section `decode` of each, on some of the sentences.

    They take turns, and each one's fastest time counts, so that what else the machine does
    counts for little.
    """
    lines = lines[:: max(1, len(lines) // TIMED)]
    translations = [_translation(folder, decode) for folder, decode in models]
    seconds = [math.inf] * len(models)
    for _ in range(PASSES):  # of which the first also prepares the decoders
        for i, translation in enumerate(translations):
            started = time.perf_counter()
            translation(lines)
            seconds[i] = min(seconds[i], time.perf_counter() - started)
    return [round(len(lines) / one, 1) for one in seconds]


def scored_again(
    evidence: Evidence, folder: Path, sources: Sources, decode: dict[str, Any]
) -> Evidence:
    """The evidence with new translations of the present sets, by the same search for all."""
    translation = _translation(folder, decode)
    found = {
        split: [text.replace("\r", " ").replace("\n", " ") for text in translation(lines)]
        for split, lines in sources.lines.items()
    }
    return replace(
        evidence,
        scores=figures(found, sources.wanted),
        sums=sources.sums(),
        translations={split: found[split] for split in sources.wanted.tests},
        decode=decode,
    )


def _translation(folder: Path, decode: dict[str, Any]) -> Callable[[list[str]], list[str]]:
    """A model's best translations, by the search of a section `decode`."""
    params.use_threads(shapes=params.SEARCH_SHAPES)
    from rnnmt.model.folder import load_model
    from rnnmt.search.answers import Search, translate
    from rnnmt.search.translator import Translator

    translator = Translator(load_model(folder), decode["max_length_ratio"])
    search = Search(beam=decode["beam"], length_penalty=decode["length_penalty"])

    def translated(lines: list[str]) -> list[str]:
        found = translate(translator, lines, search, decode["batch_sentences"])
        return [best[0].text if best else "" for best in found]

    return translated


def keep(champion: Evidence) -> None:
    """Write what is known of the champion to `reports/CORPUS/champion/`, in place of the last.

    Raises UserError where it is of another corpus than the settings file's.
    """
    if champion.about["corpus"] != params.corpus_name():
        raise UserError(f"{params.path()}: the registry's model is of {champion.about['corpus']!r}")
    folder = _kept(params.corpus_name())
    part = folder.with_name(".champion")
    shutil.rmtree(part, ignore_errors=True)
    champion.write(part)
    before = folder.with_name(".champion-before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)  # killed in between, none is there rather than half of one
    part.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def _kept(corpus: str) -> Path:
    return reports(corpus) / "champion"


def _folder(run: Run) -> Path:
    return Path("models", run.corpus, str(run))


def _champion(models: Registry, corpus: str) -> tuple[ModelVersion | None, Evidence | None]:
    version = models.champion()
    if version:
        return version, models.evidence(version)
    kept = _kept(corpus)
    return None, Evidence.read(kept) if kept.exists() else None


def _restore(models: Registry, champion: Evidence, dry_run: bool) -> ModelVersion | None:
    """Register a champion that only the files still know, where its model is at hand."""
    folder = _find_folder(champion)
    if folder is None:
        print(
            f"MLflow does not know the champion {champion.label}, and its model is not here; "
            f"`dvc checkout` or `dvc pull` at {_commit_of(champion)} has it\n"
        )
        return None
    if dry_run:
        print(f"dry run: {champion.label} would be registered again as the champion\n")
        return None
    version = _registered(models, champion) or models.register(champion, folder)
    _check_unchanged(models, None)
    models.crown(version)
    print(f"{champion.label} is registered again, as version {version.version}\n")
    return version


def _find_folder(evidence: Evidence) -> Path | None:
    """The folder of models/ with just this model."""
    for file in sorted(Path("models", evidence.about["corpus"]).glob("*/settings.json")):
        with contextlib.suppress(OSError, ValueError):
            if (
                json.loads(file.read_text(encoding="utf-8")).get(registry.FINGERPRINT)
                == evidence.fingerprint
            ):
                return file.parent
    return None


def _commit_of(champion: Evidence) -> str:
    """Where dvc.lock has its model: it was committed after the commit that the evidence names."""
    file = _kept(champion.about["corpus"]) / "evidence.json"
    log = f"git log --reverse --oneline -S{champion.fingerprint} -- {file}"
    return f"the commit that added it to {file}, the first that `{log}` shows,"


@contextlib.contextmanager
def _model_of(
    models: Registry, version: ModelVersion | None, champion: Evidence
) -> Iterator[Path | None]:
    if version:
        with models.model_folder(version) as folder:
            yield folder
    else:
        yield _find_folder(champion)


def _readable(folder: Path | None) -> Path | None:
    """The folder of the champion's model; None where this version of the code cannot read it."""
    params.use_threads(shapes=params.SEARCH_SHAPES)
    from rnnmt.model.folder import load_model

    if folder is not None:
        try:
            load_model(folder)
        except UserError as error:
            reason = str(error).removeprefix(f"{folder}: ")
            print(f"The champion cannot be timed or scored again: {reason}\n")
            return None
    return folder


def _shown(models: Registry, version: ModelVersion | None, champion: Evidence | None) -> str:
    if champion is None:
        return f"none yet in {models.name}"
    where = f"version {version.version}" if version else "known from files"
    return f"{champion.label} ({where}), BLEU {_valid(champion)} on validation data"


def _valid(evidence: Evidence) -> str:
    value = evidence.scores.get("valid", {}).get("bleu")
    return f"{value:.2f}" if isinstance(value, int | float) else "missing"


def _table(findings: list[Finding]) -> str:
    rows = [[f.rule, f.found, "passed" if f.passed else "FAILED"] for f in findings]
    return markdown(["rule", "found", "verdict"], rows, left=3)
