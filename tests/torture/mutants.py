"""Mutation testing: would the tests notice if the code were wrong?

    python tests/torture/mutants.py [--sample N] [--seed S] [MODULE...]

A mutant is a module with one small mistake put into it. It is killed if a test that runs the
changed line fails, survives if all of them pass. Mutants run in forks of a process that has
imported torch already; so do the commands that the tests start, which therefore run the mutant
too. Survivors that cannot be told from the original are listed in `equivalent.txt` with the reason.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import importlib
import json
import os
import random
import resource
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import IO, Any, NamedTuple, NoReturn

os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/rnnmt"
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
PRELOADED = (
    "torch", "pytest", "hypothesis", "numpy", "pydantic", "ruamel.yaml", "sacrebleu",
    "sentencepiece", "requests", "dvc.utils.serialize", "pytest_timeout",
    "_hypothesis_pytestplugin", "pydantic.fields", "pydantic.types", "pydantic.main",
)  # fmt: skip
# Longer tests are for others; a survivor has to pass all shorter ones that run its line.
LONGEST = 12.0  # seconds of a processor, of which slow ones take thrice as many

# Module -> test files whose tests, of those that run the changed line, are to kill its mutants.
MODULES = {
    "search.answers": ("search",),
    "search.beam": ("search",),
    "search.sets": ("search",),
    "search.settings": ("params",),
    "search.translator": ("search",),
    "scoring.comparison": ("scoring", "evaluate"),
    "scoring.gate": ("scoring",),
    "scoring.metrics": ("scoring",),
    "scoring.settings": ("scoring", "evaluate", "params"),
    "scoring.significance": ("scoring",),
    "corpora.clean": ("clean", "tokenize"),
    "corpora.files": ("download",),
    "corpora.settings": ("params", "download"),
    "corpora.split": ("download",),
    "dataset.batch": ("batch",),
    "dataset.store": ("batch", "tokenize"),
    "insight.settings": ("params",),
    "model.settings": ("params",),
    "params": ("params",),
}


def path_of(module: str) -> Path:
    return SOURCE / f"{module.replace('.', '/')}.py"


# --- mutants ---------------------------------------------------------------------------------

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
DROPPED = (ast.AugAssign, ast.Raise, ast.Continue, ast.Break)
# What only says something to people and type checkers, or verifies what is true anyway.
IGNORED_FIELDS = {"annotation", "returns", "format_spec", "ctx", "type_comment"}
IGNORED_KEYWORDS = {"strict", "flush", "description", "frozen"}


class Mutant(NamedTuple):
    line: int
    statement: int | None  # the line where it begins; None where importing the module runs it
    told: str
    code: CodeType


class Slot(NamedTuple):
    """Where a node stands: in a field of its parent, with others or alone."""

    parent: ast.AST
    field: str
    place: int | None
    node: ast.AST
    statement: int | None

    def put(self, new: ast.AST | None) -> None:
        value: Any = new
        if self.place is not None:
            value = list(getattr(self.parent, self.field))
            value[self.place : self.place + 1] = [] if new is None else [new]
        setattr(self.parent, self.field, value)


def mutants(file: Path) -> Iterator[Mutant]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for slot in _slots(tree, None):
        parent, node = slot.parent, slot.node
        whole: Any = node if hasattr(node, "lineno") else parent  # of operators, the operation
        owned, old = getattr(parent, slot.field), ast.unparse(whole)
        for new in _changes(node, parent):
            slot.put(new)
            with contextlib.suppress(SyntaxError, ValueError):
                code = compile(ast.fix_missing_locations(tree), str(file), "exec")
                shown = whole if whole is parent else new
                now = ast.unparse(shown) if shown else "nothing"
                if now != old:
                    yield Mutant(whole.lineno, slot.statement, f"{old} -> {now}", code)
            setattr(parent, slot.field, owned)


def _slots(parent: ast.AST, statement: int | None) -> Iterator[Slot]:
    """Every node that may change."""
    for field, value in ast.iter_fields(parent):
        if field in IGNORED_FIELDS:
            continue
        runs_later = isinstance(parent, ast.FunctionDef) and field == "body"
        for place, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or _ignored(node):
                continue
            within = statement
            if isinstance(node, ast.stmt) and (runs_later or statement is not None):
                within = node.lineno
            yield Slot(parent, field, place, node, within)
            yield from _slots(node, within)


def traced(file: Path, module: str) -> CodeType:
    """The module, noting in RAN each statement of its functions that is run."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
        for node in list(ast.walk(function)):
            for field, body in ast.iter_fields(node):
                if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
                    notes = [ast.parse(f"RAN.add(({module!r}, {s.lineno}))").body[0] for s in body]
                    both = [one for pair in zip(notes, body, strict=True) for one in pair]
                    setattr(node, field, both)
    return compile(ast.fix_missing_locations(tree), str(file), "exec")


def _ignored(node: ast.AST) -> bool:
    match node:
        case ast.keyword(arg=name) if name in IGNORED_KEYWORDS:
            return True
        case ast.Expr(value=ast.Constant()) | ast.Assert():
            return True
        case ast.Call(func=ast.Name(id="TypeVar")) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
    return False


def _changes(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST | None]:
    """What may stand instead of a node: None for nothing."""
    match node:
        case _ if type(node) in SWAPS:
            yield SWAPS[type(node)]()
        case ast.BoolOp(op=op, values=values):
            for i in range(len(values)):
                rest = values[:i] + values[i + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield ast.Name(NAMES[name], ast.Load())
        case ast.Constant(value=value) if not isinstance(parent, ast.JoinedStr | ast.Raise):
            yield from map(ast.Constant, _other_values(value))
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None))
        case ast.Expr() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Slice(lower=lower, upper=upper, step=step):
            yield from (
                ast.Slice(*(None if other is one else other for other in (lower, upper, step)))
                for one in (lower, upper, step) if one is not None
            )  # fmt: skip
    if isinstance(node, DROPPED):
        yield ast.Pass()
    if isinstance(parent, ast.comprehension) and node in parent.ifs:
        yield None
    if (
        isinstance(parent, ast.If | ast.IfExp | ast.While)
        and node is parent.test
        and isinstance(node, ast.Name | ast.Call | ast.Attribute | ast.NamedExpr)
    ):
        yield ast.UnaryOp(ast.Not(), node)


def _other_values(value: object) -> tuple[Any, ...]:
    match value:
        case bool():
            return (not value,)
        case int() | float():
            return value + 1, value - 1
        case str() | bytes():
            return (type(value)() if value else "?",)
    return ()


# --- tests -----------------------------------------------------------------------------------

Lines = dict[str, list[int]]  # of each module
Tests = dict[str, tuple[float, Lines]]  # seconds, and what it runs
RAN: set[tuple[str, int]] = set()


class Noted:
    """Notes how long each test takes, and which lines of the modules it runs."""

    def __init__(self) -> None:
        self.tests: Tests = {}

    def pytest_runtest_logstart(self) -> None:
        RAN.clear()
        self.started = sum(os.times()[:4])
        self.passed = True

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed &= report.passed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if self.passed:
            lines: Lines = {}
            for module, line in RAN:
                lines.setdefault(module, []).append(line)
            self.tests[nodeid] = sum(os.times()[:4]) - self.started, lines


class Chosen:
    """Runs these tests, in this order, and writes down the one that fails."""

    def __init__(self, tests: list[str], killer: IO[str]) -> None:
        self.places = {test: place for place, test in enumerate(tests)}
        self.killer = killer

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid in self.places]
        items.sort(key=lambda item: self.places[item.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.killer.write(report.nodeid)
            self.killer.flush()


def run_pytest(files: tuple[str, ...], plugin: object, *options: str) -> int:
    import pytest
    from hypothesis import Phase, settings

    # The first failure will do, and chance must not decide.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", derandomize=True, phases=phases, deadline=None)
    settings.load_profile("mutants")
    names = [f"tests/test_{name}.py" for name in files]
    quiet = ["-q", "--timeout", "1800", "-p", "no:cacheprovider", "-p", "no:warnings"]
    quiet += ["-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin"]
    return int(pytest.main([*names, *quiet, *options], plugins=[plugin]))


def forked(work: Callable[[], int], seconds: float) -> int:
    """The exit code of `work` in a child; negative where it took more processor time."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        limit = int(seconds + time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if "MUTANTS_DEBUG" not in os.environ:
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def run_command(command: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` with a fork for rnnmt's programs: it has the mutant, and is ran."""
    command = list(map(str, command))
    if command[:2] != [sys.executable, "-m"] or not command[2].startswith("rnnmt."):
        return REAL_RUN(command, **options)
    with contextlib.ExitStack() as stack:
        out, err, ran = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        sys.stdout.flush()
        child = os.fork()
        if not child:
            _become(command[2:], out.fileno(), err.fileno(), ran, options)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = [_content(stream) for stream in (out, err)]
        RAN.update(map(tuple, json.loads(_content(ran) or "[]")))
    return subprocess.CompletedProcess(command, code, *said)


def _content(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode()


def _become(
    arguments: list[str], out: int, err: int, ran: IO[bytes], options: dict[str, Any]
) -> NoReturn:
    """Be a program that was started anew."""
    code: Any = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        os.chdir(options.get("cwd") or ".")
        for name in set(os.environ) - set(environment := options.get("env") or os.environ):
            del os.environ[name]
        os.environ.update(environment)
        sys.argv = arguments
        RAN.clear()
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        ran.write(json.dumps(sorted(RAN)).encode())
        ran.flush()
        os._exit(code if isinstance(code, int) else 1)


REAL_RUN = subprocess.run
REAL_GET_CODE = SourceFileLoader.get_code
CODES: dict[str, CodeType] = {}  # module -> what to run instead of its file


# --- both -----------------------------------------------------------------------------------


class Result(NamedTuple):
    killed: int
    equivalent: int
    survived: list[str]


def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
    return CODES.get(name) or REAL_GET_CODE(loader, name)


def measure(name: str) -> Tests:
    """The tests of a file that pass here: how long they take, and which lines they run."""
    with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as file:

        def work() -> int:
            for module in MODULES:
                CODES[f"rnnmt.{module}"] = traced(path_of(module), module)
            noted = Noted()
            run_pytest((name,), noted)
            file.write(json.dumps(noted.tests))
            file.flush()
            return 0

        forked(work, 3600)
        file.seek(0)
        return dict(json.loads(file.read() or "{}"))


def dies(module: str, mutant: Mutant, tests: Tests, killers: Counter[str]) -> bool:
    """Whether a test fails, or takes far too long, when the mutant stands for its module.

    The functions that have killed the most mutants, `killers`, are tried first, then quick ones.
    """
    quick = [test for test, (seconds, _) in tests.items() if seconds < LONGEST]
    chosen = [test for test in quick if mutant.statement in tests[test][1].get(module, ())]
    chosen = chosen or quick  # of what importing the module runs
    chosen.sort(key=lambda test: (-killers[test.partition("[")[0]], tests[test][0]))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as killer:

        def work() -> int:
            CODES[f"rnnmt.{module}"] = mutant.code
            return run_pytest(MODULES[module], Chosen(chosen, killer), "-x")

        seconds = 20 + 3 * sum(tests[test][0] for test in chosen)
        code = forked(work, seconds) if chosen else 0
        killer.seek(0)
        killers[killer.read().partition("[")[0]] += 1
    return code not in (0, 5)  # 5: no test was left to run


def attack(module: str, sample: int, seed: int, tests: Tests) -> Result:
    file, killed, equivalent, survived = path_of(module), 0, 0, []
    source, known = file.read_text().splitlines(), EQUIVALENT.read_text().splitlines()
    every = list(mutants(file))
    dice, killers = random.Random(f"{module} {seed}"), Counter[str]()
    for i in sorted(dice.sample(range(len(every)), min(sample or len(every), len(every)))):
        mutant = every[i]
        told = f"{source[mutant.line - 1].strip()}  |  {mutant.told}"
        if f"{module}: {told}" in known:
            equivalent += 1
        elif dies(module, mutant, tests, killers):
            killed += 1
        else:
            survived.append(f"{file.relative_to(ROOT)}:{mutant.line}: {told}")
            print(survived[-1], flush=True)
    return Result(killed, equivalent, survived)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=60, help="of each module at most; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(MODULES))
    arguments = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / "src")]
    os.environ["PYTHONPATH"] = str(ROOT / "src")
    for name in PRELOADED:
        importlib.import_module(name)
    subprocess.run = run_command  # type: ignore[assignment]
    SourceFileLoader.get_code = get_code  # type: ignore[assignment, method-assign]
    builtins.RAN = RAN  # type: ignore[attr-defined]
    measured: dict[str, Tests] = {}
    table = ["| module | mutants | equivalent | killed | survived | killed of the others |"]
    table += ["|---|--:|--:|--:|--:|--:|"]
    for module in arguments.modules or MODULES:
        tests: Tests = {}
        for name in MODULES[module]:
            if name not in measured:
                measured[name] = measure(name)
            tests |= measured[name]
        killed, equivalent, survived = attack(module, arguments.sample, arguments.seed, tests)
        others = killed + len(survived)
        share = f"{100 * killed / max(1, others):.0f} %"
        table.append(
            f"| {module} | {others + equivalent} | {equivalent} | {killed} | {len(survived)} "
            f"| {share} |"
        )
        print(table[-1], flush=True)
    print("\n".join(table))


if __name__ == "__main__":
    main()
