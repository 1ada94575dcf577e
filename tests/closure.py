"""Which files of the project a stage's module imports, directly or not: its `deps` in dvc.yaml."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"


def closure(module: str) -> set[str]:
    """All `src/rnnmt/**.py` that importing and running `module` can load, but for tracking/.

    Imports within functions count, those under `if TYPE_CHECKING:` do not: they never run.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if file is None or str(file) in found or name.startswith("rnnmt.tracking"):
            continue
        found.add(str(file))
        waiting += [name.rpartition(".")[0], *_imports(file)]
    # Empty __init__.py files hold nothing that could change a result.
    return {str(Path(f).relative_to(ROOT)) for f in found if Path(f).stat().st_size}


def _file(module: str) -> Path | None:
    base = SOURCE.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((file for file in candidates if file.exists()), None)


def _imports(file: Path) -> list[str]:
    names: list[str] = []
    for node in _running(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == "rnnmt"]


def _running(node: ast.AST) -> list[ast.AST]:
    """The nodes of a tree without what is under `if TYPE_CHECKING:`."""
    nodes = [node]
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            nodes += _running(child)
    return nodes


if __name__ == "__main__":
    for stage in sys.argv[1:]:
        print(stage, *sorted(closure(f"rnnmt.stages.{stage}")), sep="\n  - ")
