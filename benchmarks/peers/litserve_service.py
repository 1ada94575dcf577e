"""The same translator behind LitServe, for `benchmarks/serving.py`.

python litserve_service.py FOLDER PORT BATCH THREADS
"""

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / ".venv-peers/litserve"))

import litserve

from rnnmt.model.folder import load_model
from rnnmt.search.answers import Search, answer, translate
from rnnmt.search.translator import Translator


class Api(litserve.LitAPI):
    """One sentence a request, as the benchmark sends them."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        import torch

        torch.set_num_threads(int(sys.argv[4]))
        self.translator = Translator(load_model(sys.argv[1]))
        self.search = Search()

    def decode_request(self, request):  # LitServe reads the annotations: a body has none
        return str(request["sentences"][0])

    def batch(self, inputs: list[str]) -> list[str]:
        return inputs

    def predict(self, sentences: Any) -> Any:
        alone = isinstance(sentences, str)
        found = translate(self.translator, [sentences] if alone else sentences, self.search)
        return found[0] if alone else found

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"translations": [answer(output, self.search)]}


if __name__ == "__main__":
    batch = int(sys.argv[3])
    api = Api(max_batch_size=batch, batch_timeout=0.005 if batch > 1 else 0, api_path="/translate")
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning"
    )
