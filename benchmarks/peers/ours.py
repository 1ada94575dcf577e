"""The worker of rnnmt. Its kinds are the variants of multi30k.yaml: float32 and bfloat16."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gate import Gate, arguments, read_lines

from rnnmt import params

# Before torch is imported; as in the stages train and decode.
params.use_threads(
    count=int(sys.argv[sys.argv.index("--threads") + 1]) if "--threads" in sys.argv else None,
    shapes=params.SEARCH_SHAPES if "--model" in sys.argv else params.TRAINING_SHAPES,
)

from rnnmt.model.folder import load_model  # noqa: E402
from rnnmt.search.sets import in_batches, timed  # noqa: E402
from rnnmt.search.translator import Translator  # noqa: E402


def translate(
    translator: Translator, data: Path, split: str, beam: int, batch: int, every: int = 1
) -> dict[str, Any]:
    def search(sentences: list[str]) -> list[str]:
        if beam == 1:
            return translator.greedy(sentences)
        found = translator.beam(sentences, beam=beam, nbest=1, length_penalty=1.0)
        return [best.text for best, *_ in found]

    sentences = read_lines(data / "tokens" / f"{split}.source.txt", every)
    texts, seconds = timed(lambda: in_batches(translator, search, sentences, batch))
    return {"texts": texts, "seconds": seconds}


def main() -> None:
    chosen = arguments()
    gate = Gate("pytorch-lightning")  # of ours the commit is known
    if chosen.model is None:
        from ours_training import train  # what only training loads is not in decoding's memory

        train(gate, chosen.kind, chosen.data, chosen.work)
        return
    translator = Translator(load_model(chosen.model))
    gate.actions["translate"] = lambda **how: translate(translator, chosen.data, **how)
    gate.serve()


if __name__ == "__main__":
    main()
