"""Cleaning: what normalising may change, and which training pairs are dropped."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from rnnmt.corpora import clean
from rnnmt.corpora.clean import KEPT, CleaningSettings, judge, normalise
from rnnmt.errors import UserError

SETTINGS = CleaningSettings(
    max_words=5, max_length_ratio=2.0, drop_identical=True, drop_duplicates=True
)
# Text with more of what is troublesome than chance would give.
TEXT = st.text(
    st.one_of(
        st.sampled_from(
            " \t\r\x00\x1c\x85\x9f\u00a0\u1680\u2000\u2028\u202f\u200d\u2581\ufeffe\u0301"
        ),
        st.characters(exclude_categories=["Cs"]),
    )
)


def test_normalise_examples() -> None:
    assert normalise("\ufeff e\u0301te\u0301\u00a0 :\tici\r\n") == "\u00e9t\u00e9 : ici"
    assert normalise("a\x00b\x1fc\x7fd\x9fe\u2581f") == "a b c d e f"
    assert normalise("\r\n") == ""
    assert normalise("ISTANBUL İ ß ﬁ ½ “x”…") == "ISTANBUL İ ß ﬁ ½ “x”…"
    # A joiner inside an emoji, and the non-joiner that Persian spells with.
    assert normalise("👩\u200d🚀 می\u200cخواهم") == "👩\u200d🚀 می\u200cخواهم"


@given(TEXT)
def test_normalise_is_idempotent_and_gives_one_line_of_nfc(text: str) -> None:
    result = normalise(text)
    assert normalise(result) == result
    assert unicodedata.is_normalized("NFC", result)
    assert result.split() == (result.split(" ") if result else [])
    assert not any(unicodedata.category(c) == "Cc" or c in "\ufeff\u2581" for c in result)


@given(TEXT)
def test_normalise_keeps_every_other_character(text: str) -> None:
    def visible(text: str) -> list[str]:
        gone = "\ufeff\u2581"
        text = "".join(c for c in text if c not in gone and unicodedata.category(c) != "Cc")
        return unicodedata.normalize("NFC", "".join(text.split())).split()

    # Without any space on either side; combining marks may then compose, on both sides alike.
    assert visible(normalise(text)) == visible(unicodedata.normalize("NFC", text))


WORDS = st.lists(
    st.tuples(
        st.sampled_from(["le", "chat", "noir", "1,5", "«", "»", "?", "l'eau", "a-b", "&"]),
        st.sampled_from([" ", "  ", "\t", "\u00a0", "\u202f", "\u2009", "\u3000", "\u2028"]),
    ),
    min_size=1,
    max_size=9,
)


@given(WORDS, WORDS)
def test_normalising_references_leaves_every_score_as_it_is(
    reference: list[tuple[str, str]], hypothesis: list[tuple[str, str]]
) -> None:
    raw = "".join(word + space for word, space in reference)
    text = "".join(word + " " for word, _ in hypothesis)
    assert raw.split() == normalise(raw).split(" ")
    for metric in (
        sacrebleu.BLEU(effective_order=True),
        sacrebleu.CHRF(word_order=2),
        sacrebleu.TER(),
    ):
        before = metric.sentence_score(text, [raw]).score
        assert metric.sentence_score(text, [normalise(raw)]).score == before


@given(st.lists(TEXT.map(lambda text: text.replace("\n", ""))), st.integers(1, 40), st.booleans())
def test_a_file_is_normalised_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], block: int, ended: bool
) -> None:
    if not ended and lines and not lines[-1]:
        lines.append("x")  # an empty last line without its "\n" is no line
    path = tmp_path_factory.mktemp("lines") / "text"
    path.write_bytes(("\n".join(lines) + ("\n" if ended and lines else "")).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clean, "BLOCK", block)
        assert clean.count_lines(path) == len(lines)
        assert list(clean.read_lines(path)) == lines
        counts: Counter[str] = Counter()
        assert list(clean.read_normalised(path, counts)) == [normalise(line) for line in lines]
    blanks = sum(not c.isspace() and unicodedata.category(c) == "Cc" for c in "".join(lines))
    assert counts["control_characters"] == blanks + "".join(lines).count("\u2581")


def test_invalid_utf8_names_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "BLOCK", 8)
    path = tmp_path / "text"
    path.write_bytes(b"one\ntwo\nthree\nfour\nf\xefve\nsix\n")
    with pytest.raises(UserError, match=r"text:5: not UTF-8"):
        list(clean.read_lines(path))


@pytest.mark.parametrize(
    ("source", "target", "verdict"),
    [
        ("a b c d e", "v w x y z", KEPT),
        ("", "x", "empty"),
        ("x", "", "empty"),
        ("a b c d e f", "v w x y z", "too_long"),
        ("v w x y z", "a b c d e f", "too_long"),
        ("x" * 101, "y" * 100, "too_long"),
        ("x" * 100, "y" * 100, KEPT),
        ("abcd", "xy", KEPT),
        ("abcde", "xy", "length_ratio"),
        ("xy", "abcde", "length_ratio"),
        ("same", "same", "identical"),
        ("Same", "same", KEPT),
        ("held out", "new one", "source_in_held_out_set"),
        ("new one", "held out", KEPT),
    ],
)
def test_each_reason(source: str, target: str, verdict: str) -> None:
    assert list(judge([(source, target)], SETTINGS, {"held out"})) == [(verdict, (source, target))]


def test_settings_turn_rules_off() -> None:
    settings = SETTINGS.model_copy(update={"drop_identical": False, "drop_duplicates": False})
    pairs = [("a", "a"), ("a", "b"), ("a", "b")]
    assert [verdict for verdict, _ in judge(pairs, settings, set())] == [KEPT] * 3


@given(
    # Among them two pairs that are the same when written without a gap.
    st.lists(
        st.tuples(st.sampled_from(["a", "ab", "c"]), st.sampled_from(["bd", "d", "abcd", ""]))
    ),
    st.integers(1, 7),
)
def test_duplicates_are_those_of_a_plain_set(pairs: list[tuple[str, str]], chunk: int) -> None:
    seen: set[tuple[str, str]] = set()
    expected = []
    for pair in pairs:
        ((verdict, _),) = judge([pair], SETTINGS, {"c"})
        expected.append(("duplicate" if verdict == KEPT and pair in seen else verdict, pair))
        seen.add(pair)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clean, "CHUNK", chunk)
        assert list(judge(pairs, SETTINGS, {"c"})) == expected


def test_duplicates_far_apart() -> None:
    pairs = [(str(i % 300_000), str(i % 3)) for i in range(400_000)]
    verdicts = Counter(verdict for verdict, _ in judge(pairs, SETTINGS.model_copy(
        update={"max_length_ratio": 9.0, "drop_identical": False}), set()))  # fmt: skip
    assert verdicts == {KEPT: 300_000, "duplicate": 100_000}
