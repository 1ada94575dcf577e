"""Stage `memory`: what the cells themselves can remember, on two tasks made for it.

    python -m rnnmt.stages.memory

Trains rnn, gru and lstm of equally many parameters on the adding problem and on copy memory, with
the lags and seeds of the section `memory`, and writes `reports/NAME/analysis/memory.json`. No
corpus has a say in it.
"""

from __future__ import annotations

from rnnmt import params
from rnnmt.errors import run_stage
from rnnmt.insight.settings import MemorySettings
from rnnmt.scoring.settings import reports, write_json


def main() -> None:
    settings = params.load("memory", MemorySettings)
    params.use_threads()
    from rnnmt.insight.memory import run_all

    results = []
    for one in run_all(settings):
        results.append(one)
        solved = one["solved_after"]
        said = f"solved after {solved} updates" if solved else "not solved"
        print(
            f"{one['task']}, lag {one['lag']}, {one['cell']}, seed {one['seed']}: {said}, "
            f"error {one['error']:.2f}",
            flush=True,
        )
    path = reports(params.corpus_name()) / "analysis" / "memory.json"
    write_json(path, {"settings": settings.model_dump(), "results": results})


if __name__ == "__main__":
    run_stage(main)
