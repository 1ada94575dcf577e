"""The playground: the tree and the gates against plain references, the server through HTTP, and
the page in a real Chromium.

Models are fresh ones with random weights, surer of each token than an untrained one.
"""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import browsers
from closure import ROOT
from rnnmt import cli
from rnnmt.dataset.batch import pad
from rnnmt.dataset.tokenizer import BOS, EOS, Tokenizer, TokenizerSettings, train
from rnnmt.errors import UserError
from rnnmt.model.cells import Recurrent
from rnnmt.model.folder import load_model, save_model
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import ModelSettings
from rnnmt.playground import server as playground
from rnnmt.playground.gates import GATES, KEEPS, gates
from rnnmt.playground.server import serve
from rnnmt.playground.tree import Node, Watch, grow, path
from rnnmt.playground.variant import MAX_PIECES, Question, Variant, load_variants
from rnnmt.search.beam import Step, beam_search
from rnnmt.search.translator import Translator

torch.set_num_threads(1)

FUZZ = settings(max_examples=60, deadline=None, derandomize=True)
close = torch.testing.assert_close

# --- the tree ---------------------------------------------------------------------------------

START, END = 0, 1


class Prefixes(tuple[tuple[int, ...], ...]):
    """The state of a search: what each live hypothesis has read."""

    def select(self, rows: Tensor) -> Prefixes:
        return Prefixes(self[row] for row in rows.tolist())


def table(size: int, seed: int, kind: str) -> Any:
    """A step function whose log-probabilities are random, full of ties, or partly impossible."""

    def log_probs(prefix: tuple[int, ...]) -> Tensor:
        random = np.random.default_rng([seed, *prefix])
        if kind == "ties":
            return torch.from_numpy(-random.integers(0, 5, size) / 4.0).float()
        logits = torch.from_numpy(random.normal(size=size) * 2.0).float()
        if kind == "impossible":
            logits[torch.from_numpy(random.random(size) < 0.3)] = -math.inf
        return logits - logits.logsumexp(0) if logits.isfinite().any() else logits

    def step(tokens: Tensor, state: Prefixes, count: int) -> Step[Prefixes]:
        after = Prefixes((*p, t) for p, t in zip(state, tokens.tolist(), strict=True))
        ordered, words = torch.stack([log_probs(p) for p in after]).sort(
            dim=1, descending=True, stable=True
        )
        return Step(ordered[:, :count], words[:, :count], after, None)

    return step


CASES = {
    "kind": st.sampled_from(["random", "ties", "impossible"]),
    "seed": st.integers(0, 10_000),
    "size": st.integers(2, 7),
    "beam": st.integers(1, 6),
    "limit": st.integers(1, 7),
}


def searched(kind: str, seed: int, size: int, beam: int, limit: int, **options: Any) -> Any:
    """The watch, the tree, the beam's hypotheses and greedy search's only one."""
    watch = Watch(options.pop("prefix", []), size, END)
    step = watch(table(size, seed, kind))
    twice = Prefixes([(), ()])
    found, (greedy, *more) = beam_search(
        step, twice, [limit, limit], bos=START, eos=END, beam=beam, nbest=beam, **options
    )
    assert not more
    return watch, grow(watch.offers, beam, START, END), found, greedy


def spell(nodes: list[Node], index: int) -> tuple[int, ...]:
    tokens: list[int] = []
    while index > 0:
        tokens.insert(0, nodes[index].token)
        index = nodes[index].parent
    return tuple(tokens)


@FUZZ
@given(**CASES)
def test_the_tree_is_what_the_search_did(**case: Any) -> None:
    watch, nodes, found, _ = searched(**case)
    # Every hypothesis that the search extended, in its order, and no other one.
    live: dict[int, list[int]] = {}
    for node in nodes:
        if node.fate in ("extended", "dropped"):
            live.setdefault(node.time, []).append(node.token)
    assert [live[time] for time in sorted(live)] == [offer.read for offer in watch.offers]
    # Every one that ended, with its log-probability.
    ended = {spell(nodes, i): n.log_prob for i, n in enumerate(nodes) if n.fate == "ended"}
    if found[0].ended:
        assert ended == {(*h.ids, END): pytest.approx(h.log_prob, abs=1e-6) for h in found}
    else:
        assert not ended


@FUZZ
@given(**CASES)
def test_a_hypothesis_dies_when_it_is_too_weak(**case: Any) -> None:
    _, nodes, _, _ = searched(**case)
    parents = {node.parent for node in nodes}
    for i, node in enumerate(nodes):
        assert (i in parents) == (node.fate == "extended")
        if i:
            parent = nodes[node.parent]
            assert node.log_prob == pytest.approx(parent.log_prob + node.step)
            assert node.time == parent.time + 1
        if node.fate == "dropped":
            assert node.best_loser is not None
            assert node.bar is not None
            assert node.best_loser[1] <= node.bar or node.bar == -math.inf
            stayed = [n.log_prob for n in nodes if n.time == node.time + 1]
            assert node.bar == (min(stayed) if stayed else -math.inf)
    for time in {node.time for node in nodes}:
        column = [node for node in nodes if node.time == time]
        assert [node.place for node in column] == list(range(len(column)))
        totals = [node.log_prob for node in column]
        assert totals == sorted(totals, reverse=True)


@FUZZ
@given(data=st.data(), **CASES)
def test_a_forced_start_is_kept_and_paid_for(data: Any, **case: Any) -> None:
    case |= {"kind": "random", "size": max(case["size"], 3), "limit": max(case["limit"], 3)}
    tokens = st.integers(2, case["size"] - 1)
    prefix = data.draw(st.lists(tokens, max_size=case["limit"] - 1))
    _, nodes, found, greedy = searched(**case, prefix=prefix)
    for hypothesis in (*found, greedy):
        assert list(hypothesis.ids[: len(prefix)]) == prefix
    step = table(case["size"], case["seed"], "random")
    read: tuple[int, ...] = ()
    for node, token in zip(nodes[1:], prefix, strict=False):
        said = step(torch.tensor([(START, *prefix)[len(read)]]), Prefixes([read]), case["size"])
        place = said.tokens[0].tolist().index(token)
        assert node.token == token
        assert node.step == pytest.approx(float(said.log_probs[0, place]))
        read = said.state[0]


@FUZZ
@given(**CASES)
def test_forcing_what_the_search_chose_changes_nothing(**case: Any) -> None:
    _, _, _, first = searched(**(case | {"kind": "random"}))
    if first.ids and first.ended:
        _, _, _, again = searched(**(case | {"kind": "random"}), prefix=list(first.ids))
        assert again.ids == first.ids
        assert again.log_prob == pytest.approx(first.log_prob)


@FUZZ
@given(**CASES)
def test_the_second_sentence_is_searched_greedily(**case: Any) -> None:
    _, _, found, greedy = searched(**case)
    step = table(case["size"], case["seed"], case["kind"])
    options = {"bos": START, "eos": END}
    alone = beam_search(step, Prefixes([()]), [case["limit"]], beam=1, **options)[0][0]
    assert (greedy.ids, greedy.ended) == (alone.ids, alone.ended)
    assert greedy.log_prob == pytest.approx(alone.log_prob)
    beam, limit = case["beam"], case["limit"]
    without = beam_search(step, Prefixes([()]), [limit], beam=beam, nbest=beam, **options)[0]
    assert [(h.ids, h.log_prob) for h in found] == [(h.ids, h.log_prob) for h in without]


def test_path_ends_where_the_tree_does() -> None:
    nodes = [Node(0, 0, -1, BOS, 0, 0), Node(1, 0, 0, 7, -1, -1), Node(2, 0, 1, 8, -1, -2)]
    assert path(nodes, [7, 8, EOS]) == [0, 1, 2]
    assert path(nodes, [9]) == [0]


# --- the gates --------------------------------------------------------------------------------


@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize("cell", GATES)
def test_the_gates_give_the_layers_own_states(cell: str, given_state: bool) -> None:
    """Textbook equations with these gates give what the layer gives."""
    torch.manual_seed(1)
    layer = Recurrent(cell, 5, 4).requires_grad_(False)
    for weight in layer.parameters():
        weight.normal_()
    inputs = torch.randn(7, 5)
    state = torch.randn(layer.states, 1, 4) if given_state else None
    found = gates(layer, inputs, state)
    expected = layer(inputs.unsqueeze(0), state)[0][0]
    assert list(found) == [name for name in GATES[cell] if name]
    if cell == "rnn":
        return
    w = dict(layer.layer.named_parameters())
    candidate = {"gru": slice(8, 12), "lstm": slice(8, 12)}[cell]
    h, c = torch.zeros(4), torch.zeros(4)
    if state is not None:
        h, c = state[0, 0], state[-1, 0]
    for t in range(7):
        one = (w["weight_ih_l0"] @ inputs[t] + w["bias_ih_l0"])[candidate]
        two = (w["weight_hh_l0"] @ h + w["bias_hh_l0"])[candidate]
        gate = {name: values[t] for name, values in found.items()}
        if cell == "gru":
            h = (1 - gate["update"]) * torch.tanh(one + gate["reset"] * two) + gate["update"] * h
        else:
            c = gate["forget"] * c + gate["input"] * torch.tanh(one + two)
            h = gate["output"] * torch.tanh(c)
        close(h, expected[t])


# --- models -----------------------------------------------------------------------------------

WORDS = ["the cat eats", "a small black cat", "milk and houses", "today Anna eats the milk"] * 3
SENTENCE = "today the small cat eats milk"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of five variants, one of them with two seeds."""
    folder = tmp_path_factory.mktemp("models")
    tokens = tmp_path_factory.mktemp("tokens")
    settings = TokenizerSettings(algorithm="bpe", joint=False, vocabulary=340, byte_fallback=True)
    for side in ("source", "target"):
        (tokens / f"{side}.model").write_bytes(train(WORDS, settings, side))
    save(folder / "lstm-two-1", tokens, cell="lstm", attention="general", encoder_layers=2)
    save(folder / "gru-1", tokens, cell="gru", attention="none")
    save(folder / "gru-0", tokens, cell="gru", attention="none", hidden=6)
    save(folder / "rnn-1", tokens, cell="rnn", attention="none")
    save(folder / "rnn-dot-1", tokens, cell="rnn", attention="dot")
    save(folder / "lstm-additive-1", tokens, cell="lstm", attention="additive", decoder_layers=2)
    return folder


OFF: dict[str, Any] = {
    "tie_embeddings": False, "word_dropout": 0.0, "heads": 1, "layer_norm": False,
}  # fmt: skip


def save(folder: Path, tokens: Path, **changes: Any) -> None:
    base = {"embedding": 12, "hidden": 10, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.1}
    settings = ModelSettings(**{**base, **OFF, **changes})
    size = Tokenizer(tokens / "source.model").vocabulary_size
    torch.manual_seed(sum(map(ord, folder.name)))
    model = Seq2Seq(settings, Vocabularies(size, size, False)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.7)
        model.decoder.output.bias[EOS] += 3.0
    described = {
        "model": settings.model_dump(),
        "vocabularies": {"source": size, "target": size, "joint": False},
        "corpus": "tiny",
        "source_language": "en",
        "target_language": "fr",
    }
    save_model(folder, model, described, tokens)


NAMES = ["rnn-1", "gru-0", "rnn-dot-1", "lstm-additive-1", "lstm-two-1"]


def ask(variant: Variant, **changes: Any) -> dict[str, Any]:
    return variant.answer(Question(**{"variant": variant.name, "sentence": SENTENCE, **changes}))


def test_variants_stand_in_the_order_to_learn_them_each_with_one_seed(models: Path) -> None:
    assert [v.name for v in load_variants(models, None, 3.0)] == NAMES
    assert [v.name for v in load_variants(models, 0, 3.0)] == ["gru-0"]
    assert "gru-1" in [v.name for v in load_variants(models, 1, 3.0)]
    with pytest.raises(UserError, match="no trained model with seed 5"):
        load_variants(models, 5, 3.0)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_the_translators(models: Path, name: str) -> None:
    variant = Variant(models / name, 3.0)
    translator = Translator(load_model(models / name), 3.0)
    for sentence in (SENTENCE, "the cat", "milk and Anna", "a"):
        answer = ask(variant, sentence=sentence, beam=4, length_penalty=0.7)
        assert answer["greedy"]["text"] == translator.greedy([sentence])[0]
        for search, beam in (("greedy", 1), ("beam", 4)):
            best = translator.beam([sentence], beam, 1, 0.7)[0][0]
            found = answer[search]
            assert found["text"] == best.text
            assert found["pieces"] == best.target_pieces
            assert found["ended"] == best.hypothesis.ended
            assert found["log_prob"] == pytest.approx(best.hypothesis.log_prob, abs=1e-3)
            assert found["score"] == pytest.approx(best.hypothesis.score, abs=1e-3)
            assert (found["alignment"] is None) == (best.alignment is None)
            if best.alignment is not None:
                np.testing.assert_allclose(found["alignment"], best.alignment, atol=1e-3)
        assert answer["source"] == best.source_pieces
        nodes = answer["tree"]["nodes"]
        assert [nodes[i]["piece"] for i in answer["tree"]["best"][1:]] == best.target_pieces


@pytest.mark.parametrize("name", NAMES)
def test_the_layers_are_read_in_the_order_of_the_words(models: Path, name: str) -> None:
    variant = Variant(models / name, 3.0)
    answer = ask(variant)
    model, cell = variant.trained.model, variant.trained.settings["model"]["cell"]
    if cell == "rnn":
        assert answer["layers"] == []
        return
    ids = variant.trained.source.encode([SENTENCE])[0]
    source = model.encoder.embedding(pad([ids])[0])[0].detach()
    right = gates(model.encoder.forwards[0], source)[KEEPS[cell]].mean(1)
    left = gates(model.encoder.backwards[0], source.flip(0))[KEEPS[cell]].mean(1).flip(0)
    by_name = {layer["name"].partition(", layer")[0]: layer for layer in answer["layers"][::-1]}
    for title, expected in (("Encoder, left to right", right), ("Encoder, right to left", left)):
        found = by_name[title]["gates"][KEEPS[cell]]["mean"]
        np.testing.assert_allclose(found, expected, atol=1e-3)
    settings = variant.trained.settings["model"]
    assert len(answer["layers"]) == 2 * settings["encoder_layers"] + settings["decoder_layers"]
    for layer in answer["layers"]:
        for gate in layer["gates"].values():
            cells = np.frombuffer(base64.b64decode(gate["cells"]), np.uint8) / 255
            cells = cells.reshape(layer["cells"], len(layer["pieces"]))
            np.testing.assert_allclose(cells.mean(0), gate["mean"], atol=0.005)
        assert layer["half_lives"] == sorted(layer["half_lives"], reverse=True)


def test_a_gate_that_is_half_open_halves_at_every_word(models: Path) -> None:
    variant = Variant(models / "lstm-two-1", 3.0)
    layer = variant.trained.model.encoder.forwards[0]
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
    assert set(ask(variant)["layers"][0]["half_lives"]) == {1.0}


def test_watching_leaves_nothing_behind(models: Path) -> None:
    variant = Variant(models / "lstm-two-1", 3.0)
    ask(variant)
    assert not any(m._forward_pre_hooks for m in variant.trained.model.modules())


def test_a_model_that_says_nothing_but_nan_is_shown_as_it_is(models: Path) -> None:
    variant = Variant(models / "lstm-two-1", 3.0)
    with torch.no_grad():
        variant.trained.model.decoder.output.bias.fill_(math.nan)
    json.dumps(ask(variant), allow_nan=False)
    with torch.no_grad():
        for weight in variant.trained.model.parameters():
            weight.fill_(math.nan)
    json.dumps(ask(variant), allow_nan=False)


# --- the server -------------------------------------------------------------------------------

HALF = (
    b"POST /api/answer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 99\r\n\r\n{"
)


def start(*arguments: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rnnmt.cli", "playground", *arguments]
    return subprocess.Popen(
        command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a playground that runs as the command starts it."""
    home = tmp_path_factory.mktemp("home")
    tokens = home / "data/tiny/tokens"
    tokens.mkdir(parents=True)
    sentences = [SENTENCE, "the cat eats", "Anna eats", "milk"]
    (tokens / "test.source.txt").write_text("".join(f"{s}\n" for s in sentences))
    (tokens / "test.target.txt").write_text("".join(f"<b>{s}</b>\n" for s in sentences))
    process = start("--models", str(models), "--port", "0", "--max-length-ratio", "1", cwd=home)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:"), process.stderr and process.stderr.read()
    yield line.split()[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) in (0, 130)
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


def post(server: str, **changes: Any) -> requests.Response:
    question = {"variant": "lstm-two-1", "sentence": SENTENCE, **changes}
    return requests.post(f"{server}/api/answer", json=question, timeout=60)


def test_it_lists_variants_and_examples_with_their_references(server: str) -> None:
    overview = requests.get(f"{server}/api/variants", timeout=60).json()
    assert [v["name"] for v in overview["variants"]] == NAMES
    assert overview["examples"][0] == {"sentence": "milk", "reference": "<b>milk</b>"}
    assert {v["attention"] for v in overview["variants"]} == {"none", "dot", "additive", "general"}


@pytest.mark.parametrize("name", NAMES)
def test_it_answers(server: str, models: Path, name: str) -> None:
    answer = post(server, variant=name).json()
    assert answer["beam"]["text"] == ask(Variant(models / name, 1.0))["beam"]["text"]
    assert set(answer["milliseconds"]) == {"search", "gates"}


def test_a_forced_start_begins_every_translation(server: str) -> None:
    for name in NAMES:
        answer = post(server, variant=name, prefix="a black").json()
        assert answer["greedy"]["text"].startswith("a black")
        assert answer["beam"]["text"].startswith("a black")
        forced = answer["tree"]["nodes"][: answer["forced"] + 1]
        assert [node["time"] for node in forced] == list(range(len(forced)))


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"sentence": ""}, 422, "nothing to translate"),
        ({"sentence": " \t\n\x00 "}, 422, "nothing to translate"),
        ({"sentence": "x" * 1001}, 422, "at most 1000 characters"),
        ({"sentence": "é" * 200}, 422, f"takes {MAX_PIECES}"),
        ({"sentence": "a", "prefix": "x" * 900}, 422, "Force a shorter start"),
        ({"sentence": "x" * 20_000}, 413, "at most 16384 bytes"),
        ({"beam": 0}, 422, "beam"),
        ({"beam": 11}, 422, "beam"),
        ({"beam": "5"}, 422, "beam"),
        ({"length_penalty": -1}, 422, "length_penalty"),
        ({"length_penalty": 1e400}, 422, "length_penalty"),
        ({"variant": "../rnn-1"}, 404, "no variant"),
        ({"more": 1}, 422, "more"),
    ],
)
def test_what_it_refuses(server: str, changes: dict[str, Any], status: int, message: str) -> None:
    body = json.dumps({"variant": "lstm-two-1", "sentence": SENTENCE, **changes})
    headers = {"content-type": "application/json"}
    found = requests.post(f"{server}/api/answer", data=body, headers=headers, timeout=60)
    assert found.status_code == status
    assert message in found.json()["error"]


@pytest.mark.parametrize("body", ["", "[]", "null", "{", '"x"', "\xff", "{" * 10_000])
def test_what_is_no_question_is_refused(server: str, body: str) -> None:
    headers = {"content-type": "application/json"}
    data = body.encode("latin-1")
    found = requests.post(f"{server}/api/answer", data=data, headers=headers, timeout=60)
    assert found.status_code == 422
    assert found.json()["error"]


@pytest.mark.parametrize(
    "sentence",
    [
        "<script>alert(1)</script>",
        "the \x00\x1b[31m cat \x7f\x85\u2028 eats",
        "猫が牛乳を飲む 🐈",
        "\u202e\u200f right to left \ufeff",
        "▁▁▁ <s> </s> <unk> <0xE2>",
        "\u0301" * 30,
        "{{7*7}} ${7*7} ' OR 1=1 --",
    ],
)
def test_strange_sentences_are_answered(server: str, sentence: str) -> None:
    found = post(server, sentence=sentence, prefix=sentence)
    assert found.status_code == 200
    assert found.headers["content-type"] == "application/json"
    assert found.json()["beam"]["pieces"]


def test_half_a_character_is_no_failure(server: str) -> None:
    body = '{"variant": "rnn-1", "sentence": "a \\ud800 b"}'
    headers = {"content-type": "application/json"}
    found = requests.post(f"{server}/api/answer", data=body, headers=headers, timeout=60)
    assert found.status_code in (200, 422)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n", HALF])
def test_slow_clients_are_not_waited_for(
    models: Path, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playground, "MAX_SECONDS", 0.5)
    made = playground.application([Variant(models / "lstm-two-1", 1)], [], ("127.0.0.1",))
    config = playground.configuration(made)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=[[listening]])
    thread.start()
    try:
        with socket.create_connection(listening.getsockname(), 10) as connection:
            connection.sendall(sent)
            answer = b""
            while part := connection.recv(1000):
                answer += part
    finally:
        server.should_exit = True
        thread.join(20)
    assert answer.startswith(b"HTTP/1.1 408 ") if sent == HALF else not answer


def test_another_sites_page_can_send_nothing(server: str) -> None:
    """What a form or a script may send without asking first is refused, and asking is in vain."""
    body = json.dumps({"variant": "rnn-1", "sentence": SENTENCE})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = {"content-type": kind}
        found = requests.post(f"{server}/api/answer", data=body, headers=headers, timeout=60)
        assert found.status_code == 415
    asked = requests.options(f"{server}/api/answer", headers={"origin": "http://x"}, timeout=60)
    assert asked.status_code == 405
    assert not [name for name in asked.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/api/variants"])
def test_a_name_that_came_to_mean_this_machine_is_refused(server: str, path: str) -> None:
    port = server.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.x"):
        found = requests.get(server + path, headers={"host": host}, timeout=60)
        assert found.status_code == 400
    for host in (f"localhost:{port}", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert requests.get(server + path, headers={"host": host}, timeout=60).ok


def test_it_serves_its_page_and_no_other_file(server: str) -> None:
    found = requests.get(server, timeout=60)
    assert found.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in found.headers["content-security-policy"]
    parts = set(re.findall(r'(?:src|href)="(page/[^"]+)"', found.text))
    assert parts
    assert all(requests.get(f"{server}/{part}", timeout=60).ok for part in parts)
    address, _, port = server.removeprefix("http://").partition(":")
    for target in (
        "/page/../server.py",
        "/page/%2e%2e/server.py",
        "/page/..%2fserver.py",
        "/page/",
    ):
        with socket.create_connection((address, int(port)), timeout=60) as raw:
            raw.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            assert raw.recv(100).split()[1] == b"404"


def test_the_page_needs_nothing_from_elsewhere() -> None:
    for file in (ROOT / "src/rnnmt/playground/page").iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|innerHTML|eval\(", text), file


def test_questions_at_once_do_not_disturb_each_other(server: str) -> None:
    questions = [
        {"variant": name, "sentence": sentence, "prefix": prefix}
        for name in NAMES
        for sentence, prefix in (("the cat", ""), ("the cat", "the"), ("Anna eats", ""))
    ]

    def result(question: dict[str, str]) -> dict[str, Any]:
        answer: dict[str, Any] = post(server, **question).json()
        del answer["milliseconds"]
        return answer

    alone = [result(question) for question in questions]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(result, questions * 2)) == alone * 2


def test_what_stops_it_from_starting(models: Path, server: str, tmp_path: Path) -> None:
    process = start("--models", str(models), "--port", server.rpartition(":")[2])
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "another --port" in stderr
    assert "Traceback" not in stderr
    with pytest.raises(UserError, match="no trained model there"):
        load_variants(tmp_path, None, 3.0)
    with pytest.raises(UserError, match="--allow-host"):
        serve([], [], "0.0.0.0", 0, [])
    shutil.copytree(models / "rnn-1", tmp_path / "rnn-1")
    (tmp_path / "rnn-1/weights.pt").write_bytes(b"none")
    with pytest.raises(UserError, match=r"not the file that settings\.json belongs to"):
        load_variants(tmp_path, None, 3.0)


@pytest.mark.parametrize("command", ["playground", "serve --model x"])
def test_a_pattern_that_no_name_fits_is_an_error_of_the_command_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a*b", "*x", "x.*"):
        monkeypatch.setattr(sys, "argv", ["rnnmt", *command.split(), "--allow-host", name])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2
        assert "--allow-host: expected a name, or *.NAME" in capsys.readouterr().err


# --- the page, in a real browser --------------------------------------------------------------


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    """The page with all answers; at the end nothing may have failed or gone elsewhere."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(60_000)
    page = context.new_page()
    problems = browsers.problems(page, server, "data:")
    page.goto(server)
    answered(page)
    yield page
    assert not [p for p in problems if "status of 422" not in p]
    context.close()


def answered(page: Any) -> None:
    page.get_by_text("Answered in").wait_for()


def type_in(page: Any, sentence: str) -> None:
    page.fill("#sentence", "")
    page.get_by_text("Type a sentence").wait_for()
    page.fill("#sentence", sentence)


def texts(page: Any, label: str) -> list[str]:
    found: list[str] = page.locator(f"td[data-label='{label}'] span[dir]").all_inner_texts()
    return found


def test_every_variant_translates_what_is_typed(page: Any, server: str) -> None:
    type_in(page, "Anna eats the milk")
    answered(page)
    for label, search in (("greedy", "greedy"), ("beam search", "beam")):
        expected = [
            post(server, variant=name, sentence="Anna eats the milk").json()[search]["text"]
            for name in NAMES
        ]
        assert texts(page, label) == expected


def test_the_alignment_answers_to_the_mouse(page: Any, server: str) -> None:
    page.click("#chosen button:has-text('lstm-two-1')")
    answer = post(server, sentence=page.input_value("#sentence")).json()
    weights = np.array(answer["beam"]["alignment"])
    assert page.locator("#alignment .map td[style]").count() == weights.size
    row, column = np.unravel_index(weights.argmax(), weights.shape)
    cell = page.locator(f"#alignment tbody tr:nth-child({row + 1}) td").nth(int(column))
    cell.hover()
    assert "on" in cell.get_attribute("class").split()
    said = page.inner_text("#alignment .live")
    share = float(re.findall(r"([\d.]+) %", said)[0])
    assert share == pytest.approx(100 * weights.max(), rel=0.02)
    page.locator("#alignment .strip span").first.hover()
    assert "was looked at while it wrote" in page.inner_text("#alignment .live")
    page.click("#chosen button:has-text('gru-0')")
    assert "has no attention" in page.inner_text("#alignment")


def test_the_tree_says_why_a_hypothesis_died_and_can_be_gone_on_from(page: Any) -> None:
    page.click("#chosen button:has-text('lstm-two-1')")
    page.locator("#tree .scroll .node.dropped").first.hover()
    said = page.inner_text("#tree .live")
    numbers = re.search(
        r"came to log p −(\d+\.\d+); the weakest that could stay had −(\d+\.\d+)", said
    )
    assert numbers, said
    assert float(numbers[1]) >= float(numbers[2])
    page.locator("#tree .scroll .node.best").nth(1).hover()
    button = page.locator("#tree .live button")
    forced = re.findall("“(.*)”", button.inner_text())[0]
    button.click()
    answered(page)
    assert page.input_value("#prefix") == forced
    for label in ("greedy", "beam search"):
        assert all(text.startswith(forced) for text in texts(page, label))
    assert page.locator("#tree .band").count() == 1


def test_the_arrow_keys_walk_through_the_tree(page: Any) -> None:
    page.focus("#tree svg[role=img]")
    page.keyboard.press("ArrowLeft")
    before = page.inner_text("#tree .live")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#tree .live") != before
    for _ in range(100):
        page.keyboard.press("ArrowLeft")
    assert "Here the search begins" in page.inner_text("#tree .live")


def test_the_gates_can_be_read_word_by_word(page: Any, server: str) -> None:
    page.click("#chosen button:has-text('gru-0')")
    sentence = page.input_value("#sentence")
    layers = post(server, variant="gru-0", sentence=sentence).json()["layers"]
    assert page.locator("#gates .layer").count() == len(layers)
    chart = page.locator("#gates .layer").first
    chart.locator("svg").hover(position={"x": 70, "y": 60})  # the first word's column
    said = chart.locator(".live").inner_text()
    assert f"update {layers[0]['gates']['update']['mean'][0]:.2f}" in said
    chart.locator("canvas").hover()
    assert "Cell " in chart.locator(".live").inner_text()
    page.click("#chosen button:has-text('rnn-1')")
    assert "it has no gates" in page.inner_text("#gates")


def test_hostile_text_stays_text(page: Any) -> None:
    hostile = "<img src=x onerror=document.title=1><script>0</script>"
    page.fill("#prefix", hostile)
    type_in(page, hostile)
    answered(page)
    assert all(text.startswith("<img src=x") for text in texts(page, "greedy"))
    assert page.locator("img, body script").count() == 0
    assert page.title() == "rnnmt playground"


def test_too_long_a_sentence_is_refused_with_a_reason(page: Any) -> None:
    type_in(page, "é" * 200)
    page.locator("#status.error").wait_for()
    page.get_by_text(f"the playground takes {MAX_PIECES}").first.wait_for()
    type_in(page, SENTENCE)
    answered(page)
    assert page.locator("#translations .error").count() == 0


def test_the_address_holds_what_was_asked(page: Any, server: str) -> None:
    type_in(page, "the cat")
    page.fill("#prefix", "milk")
    answered(page)
    page.click("#chosen button:has-text('rnn-dot-1')")
    page.wait_for_url("**start=milk**")
    address = page.url
    shown = texts(page, "greedy")
    page.goto("about:blank")
    page.goto(address)
    answered(page)
    assert page.input_value("#sentence") == "the cat"
    assert page.locator("#chosen button[aria-pressed=true]").inner_text() == "rnn-dot-1"
    assert texts(page, "greedy") == shown
    assert address.startswith(server)


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1600, "dark")])
def test_it_fits_the_screen_and_can_be_read(
    browser: Any, server: str, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{server}/#s={'the cat eats milk and ' * 3}&v=lstm-two-1&beam=8")
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in (
        "body",
        "#about",
        ".note",
        ".error, .differs",
        "#chosen button[aria-pressed=true]",
    ):
        assert browsers.contrast(page, selector) >= browsers.READABLE, selector
    context.close()
