"""params.yaml -> typed, frozen settings.

Every section's settings class stands next to what it configures; this module only reads the
file and turns what pydantic finds wrong into messages with file, line and key. It imports none
of those classes, so that a stage depends on its own settings and on no other's.
"""

from __future__ import annotations

import copy
import difflib
import functools
import os
import re
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError

from rnnmt.errors import UserError

SECTIONS = (
    "seeds", "threads", "corpus", "cleaning", "tokenizer", "model", "train", "decode",
    "evaluate", "analyze", "memory", "promote", "variants",
)  # fmt: skip


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Settings)
LONGEST = 80  # characters of a wrong value that are shown
# Of what is a part of paths, and of a command's arguments, where '-' comes before an option.
NAME = "[a-z0-9][a-z0-9-]{0,99}"
NAMED = "at most 100 of a-z, 0-9 and '-', which is not the first"


def path() -> Path:
    """The settings file: `params.yaml`, or the recipe that RNNMT_PARAMS names."""
    return Path(os.environ.get("RNNMT_PARAMS") or "params.yaml")


def read() -> dict[str, Any]:
    """The whole settings file as plain values, with its top-level keys checked.

    Raises UserError where the file is missing, is not YAML (a duplicate key included), or has
    an unknown or a missing section.
    """
    values = _parse("safe")
    if not isinstance(values, dict):
        raise UserError(f"{path()}: expected sections such as 'corpus:' and 'model:' at the top")
    check_keys(values, SECTIONS, ())
    for key in SECTIONS:
        if key not in values:
            raise UserError(f"{path()}: section '{key}' is missing; params.yaml's default has it")
    return copy.deepcopy(values)  # nobody's changes are to be seen by the next who asks


def load(section: str, schema: type[S]) -> S:
    """One section as its settings class. Raises UserError naming file, line and key."""
    return validate(read()[section], schema, (section,))


def validate(values: object, schema: type[S], at: tuple[str | int, ...]) -> S:
    """`values`, which stand at the key path `at` of the file, as a settings object."""
    check_keys(values, schema.model_fields, at)
    try:
        return schema.model_validate(dict(cast(Mapping[str, Any], values)))
    except ValidationError as error:
        raise UserError("\n".join(_explain(e, schema, at) for e in error.errors())) from None


def check_keys(values: object, known: Collection[str], at: tuple[str | int, ...]) -> None:
    """Raise UserError for the first key of `values`, which stand at `at`, that is not `known`."""
    if not isinstance(values, Mapping):
        raise UserError(f"{_where(at)}: expected keys and values, found {_shown(values)}")
    for key in values:
        if key not in known:
            raise UserError(f"{_where((*at, key))}: unknown key{_suggest(str(key), known)}")


def corpus_name() -> str:
    """`corpus.name`, the folder of this experiment under data/, models/ and reports/."""
    corpus = read()["corpus"]
    name = corpus.get("name") if isinstance(corpus, dict) else None
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise UserError(
            f"{_where(('corpus', 'name'))}: expected the name of a folder ({NAMED}), "
            f"found {_shown(name)}"
        )
    return name


LARGEST_SEED = 2**31 - 1


def seeds() -> list[int]:
    """The training seeds: distinct whole numbers from 0 to LARGEST_SEED."""
    values = read()["seeds"]
    good = isinstance(values, list) and all(
        type(s) is int and 0 <= s <= LARGEST_SEED for s in values
    )
    if not good or not values or len(set(values)) < len(values):
        raise UserError(f"{_where(('seeds',))}: expected a list of distinct whole numbers >= 0")
    return list(values)


def threads() -> int:
    """The number of processor threads that training and decoding use."""
    value = read()["threads"]
    if type(value) is not int or not 1 <= value <= 1024:
        raise UserError(
            f"{_where(('threads',))}: expected a whole number from 1, found {_shown(value)}"
        )
    return value


def remake(stage: str) -> str:
    """What makes a stage's output of the experiment at hand, to be typed in the root."""
    recipe = path()
    whole = recipe.parent.name == "recipes"
    return f"make repro RECIPE={recipe.stem}" if whole else f"dvc repro {stage}".rstrip()


# Of products, for which oneDNN keeps its kernels: in training each takes some MB, in a search 0.1.
TRAINING_SHAPES, SEARCH_SHAPES = 48, 1024


def use_threads(count: int | None = None, shapes: int = 128) -> None:
    """Let torch use `count` threads, all cores if 0, those of params.yaml if None.

    oneDNN keeps its kernels for so many `shapes`. To be called before torch is imported, which
    reads what else is set here.
    """
    # Spinning for long makes two threads many times slower where another program runs too.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(shapes))
    import torch

    if count := threads() if count is None else count:
        torch.set_num_threads(count)


def use_determinism() -> None:
    """Let torch refuse operations whose results differ from one time to the next."""
    import torch

    torch.use_deterministic_algorithms(True)
    # To find reads of what was never written, it would also write NaN into all new memory, for up
    # to a tenth of a training's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def variants() -> list[str]:
    """The names of the variants, which are parts of paths and of commands."""
    values = read()["variants"]
    if not isinstance(values, dict) or not values:
        raise UserError(f"{_where(('variants',))}: expected one entry for each variant")
    for name in values:
        if not (isinstance(name, str) and re.fullmatch(NAME, name)):
            raise UserError(f"{_where(('variants', name))}: a variant's name has {NAMED}")
    return list(values)


def _parse(kind: str) -> Any:
    file = path()
    try:
        return _parsed(kind, file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        named = ", which RNNMT_PARAMS names" if os.environ.get("RNNMT_PARAMS") else ""
        raise UserError(f"{file}: no such file{named}; run in the repository's root") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8: {error}") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{file}:{line}: not valid YAML: {error.problem}") from None
    except Exception as error:  # of any kind: a wrong tag, or brackets a thousand deep
        raise UserError(f"{file}: not valid YAML: {error}") from None


@functools.lru_cache(maxsize=2)
def _parsed(kind: str, text: str) -> Any:
    # pure=True: the C loader would read YAML 1.1, where `no` is false and 1e-3 a string.
    yaml = YAML(typ=kind, pure=True)
    if kind == "safe":
        yaml.Constructor = _Printable
    return yaml.load(text)


class _Printable(SafeConstructor):
    """Raises ValueError for numbers too long for Python to print them, hexadecimal ones too."""

    def construct_yaml_int(self, node: Any) -> int:
        value = int(super().construct_yaml_int(node))
        str(value)
        return value


_Printable.add_constructor("tag:yaml.org,2002:int", _Printable.construct_yaml_int)


def _where(at: tuple[Any, ...]) -> str:
    """`params.yaml:12: model.hidden` for a key path, as far as the file has it."""
    node: Any = _parse("rt")
    line = None
    for key in at:
        try:
            place = node.lc.key if hasattr(node, "keys") else node.lc.item
            line = place(key)[0] + 1
            node = node[key]
        except (KeyError, AttributeError, TypeError, IndexError):
            break
    return f"{path()}{f':{line}' if line else ''}: {'.'.join(map(str, at))}"


def _explain(error: Any, schema: type[BaseModel], at: tuple[str | int, ...]) -> str:
    where = _where((*at, *error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{_suggest(str(error['loc'][-1]), schema.model_fields)}"
    if error["type"] == "missing":
        return f"{where}: this key is missing"
    return f"{where}: {error['msg']}, found {_shown(error['input'])}"


def _shown(value: object) -> str:
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = LONGEST
    return short.repr(value)


def _suggest(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f"; did you mean '{close[0]}'?" if close else f"; known are: {', '.join(sorted(known))}"
