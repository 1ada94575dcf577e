"""The same service with LitServe, for `benchmarks/serving.py --server` (pip install litserve).

python benchmarks/serving.py --server benchmarks/peers/litserve_service.py
"""

import sys
from typing import Any

import litserve

from rnnmt.model.folder import load_model
from rnnmt.search.answers import Search, answer, translate
from rnnmt.search.translator import Translator


class Api(litserve.LitAPI):
    """One sentence a request, as the benchmark sends them."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        import torch

        torch.set_num_threads(1)
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
