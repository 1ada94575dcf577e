"""The bundled corpus: right French, no leaks between splits, the same for the same seed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pyrealb
import pytest

from rnnmt.corpora import bundled
from rnnmt.corpora import bundled_lexicon as lexicon
from rnnmt.corpora.bundled import (
    CONJUNCTIONS,
    COPULAS,
    MAX_WORDS,
    MIN_WORDS,
    PHENOMENA,
    TENSES,
    Clause,
    Compound,
    Entity,
    Existential,
    Meaning,
    Place,
    Predicate,
    Pronoun,
    Question,
    Relative,
    Sentence,
    Statement,
    generate,
    phenomena,
    realise_english,
    realise_french,
)


def realise(meaning: Meaning) -> Sentence:
    """The pair of a meaning with its labels."""
    return Sentence(realise_english(meaning), realise_french(meaning), phenomena(meaning))


SIZES = {"train": 500, "valid": 60, "test": 60, "test_long": 80}

NOUNS = {noun.en: noun for noun in lexicon.NOUNS}
ME, YOU, HE, SHE = Pronoun(1), Pronoun(2), Pronoun(3), Pronoun(3, gender="f")
WE, THEY = Pronoun(1, plural=True), Pronoun(3, plural=True)
IT_F = Pronoun(3, gender="f", thing=True)


def the(name: str, determiner: str = "the", plural: bool = False, **more: object) -> Entity:
    return replace(Entity(NOUNS[name], determiner, plural), **more)  # type: ignore[arg-type]


def adjective(en: str, fr: str) -> lexicon.Adjective:
    return next(a for a in lexicon.ADJECTIVES if (a.en, a.fr) == (en, fr))


def verb(en: str, fr: str) -> lexicon.Verb:
    return next(v for v in lexicon.VERBS if (v.en, v.fr) == (en, fr))


def because(first: Clause, second: Clause) -> Compound:
    return Compound(first, next(c for c in CONJUNCTIONS if c.en == "because"), second)


PAST, PRESENT, PERFECT = TENSES["past"], TENSES["present"], TENSES["perfect"]
BLACK, SMALL = adjective("black", "noir"), adjective("small", "petit")
EAT, SEE, GIVE = verb("eat", "manger"), verb("see", "voir"), verb("give", "donner")

KNOWN: list[tuple[Meaning, str, str]] = [
    (
        Statement(
            Clause(the("cat", adjectives=(BLACK,)), verb("drink", "boire"), PAST, the("milk"))
        ),
        "The black cat drank the milk.",
        "Le chat noir a bu le lait.",
    ),
    (Statement(Clause(ME, SEE, PRESENT, HE)), "I see him.", "Je le vois."),
    (
        Statement(Clause(SHE, SEE, PAST, Pronoun(3, True, "f"), polarity="never")),
        "She never saw them.",
        "Elle ne les a jamais vues.",
    ),
    (
        Statement(Clause(SHE, GIVE, PAST, IT_F, recipient=THEY)),
        "She gave it to them.",
        "Elle la leur a donnée.",
    ),
    (
        Statement(Clause(SHE, GIVE, TENSES["going"], IT_F, recipient=ME, polarity="not")),
        "She is not going to give it to me.",
        "Elle ne va pas me la donner.",
    ),
    (
        Statement(Clause(HE, EAT, PAST, the("bread", "some"), polarity="not")),
        "He did not eat any bread.",
        "Il n'a pas mangé de pain.",
    ),
    (
        Statement(Clause(HE, EAT, PAST, the("apple", "some", True, adjectives=(SMALL,)))),
        "He ate some small apples.",
        "Il a mangé de petites pommes.",
    ),
    (
        Statement(
            Clause(the("letter", plural=True), verb("write", "écrire"), PERFECT,
                   the("teacher"), passive=True)
        ),
        "The letters have been written by the teacher.",
        "Les lettres ont été écrites par le professeur.",
    ),
    (
        Question("yes-no", Clause(the("girl", plural=True), verb("leave", "partir"), PAST)),
        "Did the girls leave?",
        "Les filles sont-elles parties?",
    ),
    (
        Question("what", Clause(the("girl"), EAT, PAST)),
        "What did the girl eat?",
        "Qu'est-ce que la fille a mangé?",
    ),
    (
        because(
            Clause(the("cat"), EAT, PAST, the("apple")),
            Clause(IT_F, COPULAS["be"], PAST,
                   predicate=Predicate(adjective("sweet", "sucré"))),
        ),
        "The cat ate the apple because it was sweet.",
        "Le chat a mangé la pomme parce qu'elle était sucrée.",
    ),
    (
        Statement(
            Clause(SHE, EAT, PAST, the("apple", "this", True, relative=Relative(
                "object", Clause(THEY, verb("find", "trouver"), PAST))))
        ),
        "She ate these apples that they found.",
        "Elle a mangé ces pommes qu'ils ont trouvées.",
    ),
    (
        Statement(Clause(the("singer", plural=True), verb("miss", "manquer"), PRESENT, WE)),
        "The singers miss us.",
        "Nous manquons aux chanteuses.",
    ),
    (
        Statement(Clause(YOU, verb("hurry", "dépêcher"), PRESENT, modal=lexicon.MODALS[1])),
        "You must hurry.",
        "Tu dois te dépêcher.",
    ),
    (
        Statement(
            Clause(the("school", "own", owner=THEY), COPULAS["be"], PRESENT,
                   predicate=Predicate(adjective("old", "ancien"), degree="more",
                                       standard=the("church", "own", owner=SHE)))
        ),
        "Their school is older than her church.",
        "Leur école est plus ancienne que son église.",
    ),
    (
        Existential(the("dog", "some", True), PRESENT,
                    Place(lexicon.PLACES[1], the("river")), negative=True),
        "There are not any dogs near the river.",
        "Il n'y a pas de chiens près de la rivière.",
    ),
    (
        Statement(
            Clause(the("dog", "own", owner=the("teacher")), verb("sleep", "dormir"), PRESENT)
        ),
        "The teacher's dog sleeps.",
        "Le chien du professeur dort.",
    ),
    (
        Statement(
            Clause(the("friend", "own", plural=True, owner=the("actress", "own", owner=WE)),
                   verb("sleep", "dormir"), PRESENT, polarity="no longer")
        ),
        "Our actress's friends no longer sleep.",
        "Les amis de notre actrice ne dorment plus.",
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Sentence]]:
    return generate(7, SIZES)


@pytest.mark.parametrize(("meaning", "source", "target"), KNOWN, ids=[k[1] for k in KNOWN])
def test_known_meanings_have_known_sentences(meaning: Meaning, source: str, target: str) -> None:
    sentence = realise(meaning)
    assert (sentence.source, sentence.target) == (source, target)


def linked(sentence: Sentence) -> tuple[set[str], set[str]]:
    source, target, sure, possible = sentence.links
    said = [{f"{source[i]}={target[j]}" for i, j in some} for some in (sure, possible - sure)]
    return said[0], said[1]


def test_links_cross_where_the_order_of_the_words_does() -> None:
    cat = the("cat", adjectives=(adjective("black", "noir"),))
    seen = Clause(SHE, verb("see", "voir"), TENSES["present"], cat)
    sure, possible = linked(realise(Statement(seen)))
    assert sure == {"She=Elle", "sees=voit", "the=le", "black=noir", "cat=chat", ".=."}
    assert not possible


def test_links_of_clitics_and_negation() -> None:
    sentence = realise(
        Statement(Clause(SHE, verb("see", "voir"), TENSES["present"], HE, polarity="not"))
    )
    assert (sentence.source, sentence.target) == ("She does not see him.", "Elle ne le voit pas.")
    sure, possible = linked(sentence)
    assert sure == {"She=Elle", "see=voit", "him=le", ".=."}  # "does" has no counterpart
    assert possible == {"not=ne", "not=pas"}


def test_one_english_verb_has_several_senses() -> None:
    senses = {(v.fr, v.fr_link) for v in lexicon.VERBS if v.en == "play"}
    assert senses == {("jouer", ""), ("jouer", "à"), ("jouer", "de")}


def test_sizes_are_met(splits: dict[str, list[Sentence]]) -> None:
    assert {name: len(split) for name, split in splits.items()} == SIZES


def test_no_source_occurs_twice(splits: dict[str, list[Sentence]]) -> None:
    sources = [sentence.source for split in splits.values() for sentence in split]
    assert len(sources) == len(set(sources))


def test_nearly_every_word_is_linked_and_every_link_has_its_words(
    splits: dict[str, list[Sentence]],
) -> None:
    words = linked_words = 0
    for sentence in splits["test"] + splits["test_long"]:
        source, target, sure, possible = sentence.links
        assert sure <= possible
        assert all(i < len(source) and j < len(target) for i, j in possible)
        words += len(target)
        linked_words += len({j for _, j in possible})
        mark = (len(source) - 1, len(target) - 1)
        assert mark in sure, "the sentence's last mark"
    assert linked_words / words > 0.85


def test_lengths(splits: dict[str, list[Sentence]]) -> None:
    lengths = {
        name: [len(sentence.source.split()) for sentence in split] for name, split in splits.items()
    }
    ordinary = [n for name, split in lengths.items() if name != "test_long" for n in split]
    assert min(ordinary) >= MIN_WORDS
    assert max(ordinary) < min(lengths["test_long"])
    assert max(lengths["test_long"]) <= MAX_WORDS


def test_the_writing_is_clean(splits: dict[str, list[Sentence]]) -> None:
    for sentence in (sentence for split in splits.values() for sentence in split):
        for text in (sentence.source, sentence.target):
            assert "[[" not in text
            assert "  " not in text
            assert text == text.strip()
            assert text[0].isupper()
            assert text[-1] in ".?"
        assert not re.search(r"'(?!s )\w|\w' ", sentence.source)
        for wrong in (" à le chat", " de le chat", " que il", " si il", " oeu", " de eau"):
            assert wrong not in sentence.target.lower()


def test_every_phenomenon_occurs(splits: dict[str, list[Sentence]]) -> None:
    labels = [sentence.phenomena for split in splits.values() for sentence in split]
    assert {label for some in labels for label in some} == set(PHENOMENA)
    assert all(list(some) == sorted(set(some)) for some in labels)


def test_the_seed_decides() -> None:
    sizes = {"train": 40, "test_long": 5}
    assert generate(1, sizes) == generate(1, sizes)
    assert generate(1, sizes) != generate(2, sizes)


def test_a_part_of_the_words_is_the_frequent_part_and_keeps_every_phenomenon() -> None:
    sizes = {"train": 600, "test_long": 60}
    whole, small = generate(1, sizes), generate(1, sizes, 0.25)
    words = [
        {word for some in made.values() for s in some for word in s.source.lower().split()}
        for made in (whole, small)
    ]
    assert len(words[1]) < 0.7 * len(words[0])
    assert {"man", "big", "often"} <= words[1]
    assert "witness" not in words[1]
    labels = {label for some in small.values() for s in some for label in s.phenomena}
    assert labels == set(PHENOMENA)


def test_the_hash_seed_does_not_matter() -> None:
    program = (
        "from rnnmt.corpora.bundled import generate\n"
        "from rnnmt.corpora.words import to_json\n"
        "import hashlib\n"
        "made = generate(3, {'train': 60, 'test_long': 6})\n"
        "rows = [(*s[2], to_json(s.links)) for some in made.values() for s in some]\n"
        "digest = hashlib.sha256(repr(rows).encode()).hexdigest()\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program + "print(digest)"],
            env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here: dict[str, str] = {}
    exec(program, here)
    assert digests == {here["digest"] + "\n"}


def test_nothing_is_printed_and_the_language_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    pyrealb.loadFr()
    generate(5, {"train": 20})
    assert pyrealb.getLanguage() == "fr"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sizes", [{"train": -1}, {"train": 10**9}, {"test_long": 10**9}])
def test_impossible_sizes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"size|sentences"):
        generate(1, sizes)


def test_the_genders_are_those_of_the_french_lexicon() -> None:
    for noun in lexicon.NOUNS:
        gender = pyrealb.getLemma(noun.fr, "fr")["N"]["g"]
        assert gender in {noun.gender, "x"}, noun.fr


def test_every_class_in_the_tables_exists() -> None:
    names = {noun.kind for noun in lexicon.NOUNS}
    names |= {mark + noun.en for noun in lexicon.NOUNS for mark in "=!"}
    for verb_ in (*lexicon.VERBS, *lexicon.SAYING):
        assert verb_.subjects | verb_.objects <= names, verb_.en
    for adjective_ in lexicon.ADJECTIVES:
        assert adjective_.kinds <= names, adjective_.en
    for place in (*lexicon.PLACES, *lexicon.SURFACES, *lexicon.HOMES, *lexicon.DIRECTIONS):
        assert place.kinds <= names, place.en


def test_the_object_decides_the_sense_of_a_verb() -> None:
    senses: dict[tuple[str, ...], list[lexicon.Verb]] = {}
    for verb_ in lexicon.VERBS:
        senses.setdefault((verb_.en, verb_.en_fixed, verb_.en_link), []).append(verb_)
    for noun in lexicon.NOUNS:
        for verbs in senses.values():
            fitting = [v for v in verbs if lexicon.fits(noun, v.objects)]
            assert len(fitting) <= 1, (noun.en, fitting)


def test_no_noun_has_two_translations() -> None:
    names = [noun.en for noun in lexicon.NOUNS]
    assert len(names) == len(set(names))


def test_what_pyrealb_complains_about_does_not_enter_the_corpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, refused = 0, set[str]()

    def complains(meaning: bundled.Meaning) -> bundled.Realised:
        nonlocal asked
        asked += 1
        realised = real(meaning)
        if asked % 3 == 0:
            refused.add(realised.text)
            raise bundled.RealisationError(f"{realised.text!r}: a complaint")
        return realised

    real = bundled.realise_french
    monkeypatch.setattr(bundled, "realise_french", complains)
    splits = generate(1, {"train": 20, "valid": 5, "test": 5, "test_long": 2})
    texts = [sentence.french.text for split in splits.values() for sentence in split]
    assert asked > len(texts) == 32
    assert refused
    assert not refused & set(texts)
