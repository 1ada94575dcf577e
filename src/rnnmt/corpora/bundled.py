"""The bundled corpus: English-French sentence pairs realised from one meaning per pair.

A meaning is a small tree of records (nominals, clauses, sentences) that belongs to no language.
It is drawn at random from the word tables of :mod:`rnnmt.corpora.bundled_lexicon`, whose classes
say what fits together, and then realised twice with pyRealB: by :class:`_English` and by
:class:`_French`.  pyRealB inflects, agrees, elides and contracts; the two classes decide order and
choice of words.

The French is a function of the English: "you" is always "tu", "I", "we", "they" and the names of
professions have one fixed gender, every tense has one translation for a given verb sense, and the
word tables give one translation of a word in a given context.  French questions end in "?" with
no space before it, as pyRealB writes them.
"""

from __future__ import annotations

import contextlib
import io
import math
import random
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import pyrealb

from rnnmt.corpora import bundled_lexicon as lexicon
from rnnmt.corpora.bundled_lexicon import Adjective, Adverbial, Modal, Noun, Preposition, Verb
from rnnmt.corpora.words import Link, Links, spans, words

MIN_WORDS, MAX_WORDS = 3, 25
LONG_SPLIT = "test_long"
LONGEST_ORDINARY = 15  # the long split begins with one word more

PHENOMENA = (
    "adjective-order",
    "agreement",
    "clitic",
    "comparative",
    "compound-tense",
    "coordination",
    "modality",
    "negation",
    "number",
    "passive",
    "possessive",
    "question",
    "reflexive",
    "relative",
    "subordinate",
)

_Tree = Any  # a pyRealB constituent: the package has no types
_T = TypeVar("_T")


class Realised(NamedTuple):
    """A sentence, and for each of its marked words what it says and where it stands."""

    text: str
    notes: list[tuple[object, tuple[int, int]]]


class Sentence(NamedTuple):
    """One pair of the corpus, with the sorted labels of the phenomena in it."""

    english: Realised
    french: Realised
    phenomena: tuple[str, ...]

    @property
    def source(self) -> str:
        return self.english.text

    @property
    def target(self) -> str:
        return self.french.text

    @property
    def links(self) -> Links:
        """Which word translates which."""
        return link(self.english, self.french)


# --- meanings -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pronoun:
    """A personal pronoun; ``gender`` is "m" or "f", and ``thing`` makes it "it" in English."""

    person: int
    plural: bool = False
    gender: str = "m"
    thing: bool = False


@dataclass(frozen=True, slots=True)
class Entity:
    """A noun with all that belongs to it.

    ``determiner`` is "the", "a", "this", "some", "every", "bare" (English only: "likes chess"),
    or "own", with its owner (a pronoun or one person) in ``owner``.
    """

    noun: Noun
    determiner: str = "the"
    plural: bool = False
    adjectives: tuple[Adjective, ...] = ()
    owner: Pronoun | Entity | None = None
    number: tuple[str, str] | None = None
    place: Place | None = None
    relative: Relative | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nominals joined by "and"."""

    first: Entity
    second: Entity | Pronoun


Nominal = Pronoun | Entity | Pair


@dataclass(frozen=True, slots=True)
class Place:
    """A preposition and its noun."""

    preposition: Preposition
    entity: Entity


@dataclass(frozen=True, slots=True)
class Relative:
    """A clause about a noun, which is its missing "subject", "object" or "place"."""

    role: str
    clause: Clause


@dataclass(frozen=True, slots=True)
class Tense:
    """A tense: how English builds it, and the French tense of an event and of a state."""

    finite: str
    auxiliaries: tuple[tuple[str, str], ...]  # each with the form of the word that follows it
    fr_event: str
    fr_state: str
    time: str
    fr_auxiliary: str = ""


@dataclass(frozen=True, slots=True)
class Predicate:
    """An adjective said of the subject; ``degree`` compares it with ``standard``."""

    adjective: Adjective
    adverb: Adverbial | None = None
    degree: str = ""  # "more", "less" or "as"
    standard: Nominal | None = None


@dataclass(frozen=True, slots=True)
class Clause:
    """Who does what to whom.  In the passive the subject is the patient, ``object`` the agent."""

    subject: Nominal
    verb: Verb
    tense: Tense
    object: Nominal | None = None
    recipient: Nominal | None = None
    predicate: Predicate | None = None
    content: Clause | None = None  # the clause of "says that ..."
    polarity: str = ""  # "not", "never", "no longer" or "not yet"
    frequency: Adverbial | None = None
    modal: Modal | None = None
    passive: bool = False
    manner: Adverbial | None = None
    place: Place | None = None
    time: Adverbial | None = None
    purpose: Purpose | None = None


@dataclass(frozen=True, slots=True)
class Purpose:
    """An infinitive with the subject of its clause: "to" or "without"."""

    link: str
    clause: Clause


@dataclass(frozen=True, slots=True)
class Conjunction:
    """A conjunction with the tenses (first clause, second clause) that it joins."""

    en: str
    fr: str
    tenses: tuple[tuple[str, str], ...]
    fronted: bool = False  # may also come first: "when ..., ..."
    comma: bool = False


@dataclass(frozen=True, slots=True)
class Statement:
    """One clause."""

    clause: Clause


@dataclass(frozen=True, slots=True)
class Existential:
    """ "There is ..." with a place."""

    entity: Entity
    tense: Tense
    place: Place
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A question: "yes-no", "why", "when", "where", "who", "whom" or "what"."""

    kind: str
    clause: Clause


@dataclass(frozen=True, slots=True)
class Compound:
    """Two clauses; ``shared`` leaves the subject of the second unsaid."""

    first: Clause
    conjunction: Conjunction
    second: Clause
    fronted: bool = False
    shared: bool = False


Meaning = Statement | Existential | Question | Compound

TENSES: dict[str, Tense] = {
    "present": Tense("p", (), "p", "p", "present"),
    "progressive": Tense("p", (("be", "pr"),), "p", "p", "present"),
    "past": Tense("ps", (), "pc", "i", "past"),
    "habit": Tense("ps", (), "i", "i", "habit"),
    "past-progressive": Tense("ps", (("be", "pr"),), "i", "i", "past"),
    "perfect": Tense("p", (("have", "pp"),), "pc", "pc", "now"),
    "pluperfect": Tense("ps", (("have", "pp"),), "pq", "pq", "before"),
    "future": Tense("p", (("will", "b"),), "f", "f", "future"),
    "going": Tense("p", (("be", "pr"), ("go", "b-to")), "p", "p", "future", "aller"),
    "conditional": Tense("p", (("would", "b"),), "c", "c", "never"),
    "when-future": Tense("p", (), "f", "f", "never"),  # "when she comes": "quand elle viendra"
    "if-past": Tense("ps", (), "i", "i", "never"),  # "if she came": "si elle venait"
    "though": Tense("p", (), "s", "s", "present"),
    "though-perfect": Tense("p", (("have", "pp"),), "spa", "spa", "now"),
    "infinitive": Tense("b", (), "b", "b", "never"),
}

COPULAS = {
    "be": Verb("be", "", "", "être", "", "", frozenset(), frozenset(), frozenset({"state"})),
    "seem": Verb("seem", "", "", "sembler", "", "", frozenset(), frozenset(), frozenset({"state"})),
    "become": Verb("become", "", "", "devenir", "", "", frozenset(), frozenset(), frozenset()),
}

# Events in a row: what the two clauses of a conjunction may say about time.
_SAME = (("present", "present"), ("past", "past"), ("future", "future"))
_REASON = (
    ("present", "present"),
    ("past", "past"),
    ("future", "present"),
    ("past", "pluperfect"),
    ("present", "perfect"),
    ("perfect", "present"),
)
CONJUNCTIONS = [
    Conjunction("because", "parce que", _REASON),
    Conjunction(
        "when",
        "quand",
        (
            ("past-progressive", "past"),
            ("future", "when-future"),
            ("past", "past"),
        ),
        fronted=True,
    ),
    Conjunction("but", "mais", (*_SAME, ("past", "present"), ("perfect", "future")), comma=True),
    Conjunction("and", "et", (*_SAME, ("past", "past"), ("future", "future"))),
    Conjunction(
        "if",
        "si",
        (("future", "present"), ("conditional", "if-past"), ("going", "present")),
        fronted=True,
    ),
    Conjunction(
        "while",
        "pendant que",
        (("past-progressive", "past-progressive"), ("past", "past-progressive")),
        fronted=True,
    ),
    Conjunction(
        "although",
        "bien que",
        (("present", "though"), ("future", "though-perfect"), ("present", "though-perfect")),
        fronted=True,
    ),
    Conjunction("as soon as", "dès que", (("future", "when-future"), ("past", "past")), True),
    Conjunction("so", "donc", _SAME, comma=True),
]
_FR_NEGATIONS = {"not": "pas", "never": "jamais", "no longer": "plus", "not yet": "pas encore"}
_EN_AUXILIARIES = frozenset({"be", "will", "would", "can", "could", "must"})
_QUESTION_WORDS = {"why": "why", "when": "when", "where": "where", "whom": "who", "what": "what"}
_FR_QUESTIONS = {"yes-no": "yon", "why": "why", "when": "whn", "where": "whe"}
_FR_DEGREES = {"more": "plus", "less": "moins", "as": "aussi"}


def _features(nominal: Nominal) -> tuple[int, str, str]:
    """Person, number ("s" or "p") and French gender."""
    match nominal:
        case Pronoun(person, plural, gender):
            return person, "p" if plural else "s", gender
        case Entity(noun):
            return 3, "p" if _is_plural(nominal) else "s", noun.gender
        case Pair(first, second):
            parts = [_features(first), _features(second)]
            gender = "f" if all(part[2] == "f" for part in parts) else "m"
            return min(part[0] for part in parts), "p", gender


def _is_plural(entity: Entity) -> bool:
    return entity.plural or entity.noun.form == "plural"


def _swapped(clause: Clause) -> Clause:
    """The clause in the French view: what X misses "manque à X"."""
    if "swap" not in clause.verb.traits or clause.object is None:
        return clause
    return replace(clause, subject=clause.object, object=clause.subject)


def _agree(tree: _Tree, nominal: Nominal) -> _Tree:
    person, number, gender = _features(nominal)
    return tree.pe(person).n(number).g(gender)


def _words(text: str) -> list[_Tree]:
    return [pyrealb.Q(text)] if text else []


def _mark(meaning: object, *trees: _Tree) -> list[_Tree]:
    """Note on the words of `trees` what they say, unless something within has its own note.

    Words of both languages with the same note translate each other. What grammar adds by itself,
    an auxiliary or "est-ce que", has none.
    """
    for word in (word for tree in trees for word in _leaves(tree)):
        if not hasattr(word, "meaning"):
            word.meaning = meaning
    return list(trees)


def _leaves(tree: _Tree) -> Iterator[_Tree]:
    """The words of a tree."""
    if hasattr(tree, "elements"):
        for part in tree.elements:
            yield from _leaves(part)
    else:
        yield tree


def _say(meaning: object, text: str) -> list[_Tree]:
    """Fixed words with a note of what they say."""
    return _mark(meaning, *_words(text))


def _adverbial(adverbial: Adverbial | None, language: str) -> list[_Tree]:
    return _say(adverbial, getattr(adverbial, language)) if adverbial else []


# --- English --------------------------------------------------------------------------------


class _English:
    """Builds the pyRealB trees of a meaning in English."""

    def sentence(self, meaning: Meaning) -> _Tree:
        match meaning:
            case Statement(clause):
                return pyrealb.S(*self.clause(clause))
            case Existential():
                return self.existential(meaning)
            case Question():
                return self.question(meaning)
            case Compound():
                return self.compound(meaning)

    def compound(self, meaning: Compound) -> _Tree:
        first = pyrealb.SP(*self.clause(meaning.first))
        words = [] if meaning.shared else [self.nominal(meaning.second.subject, "nom")]
        second = pyrealb.SP(
            *_say(meaning.conjunction, meaning.conjunction.en),
            *words,
            self.verb_phrase(meaning.second),
        )
        if meaning.fronted:
            return pyrealb.S(second.a(","), first)
        return pyrealb.S(first.a(",") if meaning.conjunction.comma else first, second)

    def existential(self, meaning: Existential) -> _Tree:
        verb = self.word("be", meaning.tense.finite, meaning.entity)
        words = _mark("there is", pyrealb.Q("there"), verb)
        words += _say("negation", "not" if meaning.negative else "")
        nominal = self.nominal(meaning.entity, "acc", meaning.negative)
        return pyrealb.S(*words, nominal, self.place(meaning.place))

    def question(self, meaning: Question) -> _Tree:
        clause = meaning.clause
        if meaning.kind == "who":
            return pyrealb.S(*_say("question", "who"), self.verb_phrase(clause)).a("?")
        front, *rest = self.verb_group(clause, inverted=True)
        head = _say("question", _QUESTION_WORDS.get(meaning.kind, ""))
        subject = self.nominal(clause.subject, "nom")
        return pyrealb.S(*head, front, subject, *rest, *self.complements(clause)).a("?")

    def clause(self, clause: Clause) -> list[_Tree]:
        return [self.nominal(clause.subject, "nom"), self.verb_phrase(clause)]

    def verb_phrase(self, clause: Clause) -> _Tree:
        # A VP would look for its head among the fixed words: a bare list of words is enough,
        # because every verb has its person and number already.
        return pyrealb.SP(*self.verb_group(clause), *self.complements(clause))

    def verb_group(self, clause: Clause, inverted: bool = False) -> list[_Tree]:
        """All the verbs in order, with the negation and the adverb of frequency among them."""
        chain = [*clause.tense.auxiliaries, *self.modal(clause)]
        if clause.passive:
            chain.append(("be", "pp"))
        lemmas, forms = [], [clause.tense.finite]
        for lemma, following in chain:
            lemmas.append(lemma)
            forms.append(following)
        lemmas.append(clause.verb.en)
        auxiliary = lemmas[0] in _EN_AUXILIARIES or (bool(chain) and chain[0] == ("have", "pp"))
        adverb = clause.polarity or (clause.frequency.en if clause.frequency else "")
        if (inverted or adverb.startswith("not")) and not auxiliary:
            lemmas.insert(0, "do")
            forms.insert(1, "b")
            auxiliary = True
        words = [self.word(*pair, clause.subject) for pair in zip(lemmas, forms, strict=True)]
        _mark(clause.verb, words[-1])
        if clause.modal is not None:
            _mark(clause.modal, words[lemmas.index(self.modal(clause)[0][0])])
        polarity = "negation" if clause.polarity else clause.frequency
        words[auxiliary:auxiliary] = _say(polarity, adverb)
        if lemmas[0] == "can" and adverb == "not" and not inverted:
            words[:2] = _say(clause.modal, "cannot")
        return words + _say(clause.verb, clause.verb.en_fixed)

    def modal(self, clause: Clause) -> list[tuple[str, str]]:
        if clause.modal is None:
            return []
        if not clause.modal.bare:
            return [(clause.modal.en, "b-to")]
        return [("could" if clause.tense.finite == "ps" else clause.modal.en, "b")]

    def word(self, lemma: str, form: str, subject: Nominal) -> _Tree:
        if lemma in _EN_AUXILIARIES - {"be"}:
            return pyrealb.Q(lemma)
        person, number, _ = _features(subject)
        return pyrealb.V(lemma).t(form).pe(person).n(number)

    def complements(self, clause: Clause) -> list[_Tree]:
        """All that follows the verbs."""
        negative = bool(clause.polarity)
        trees: list[_Tree] = []
        if clause.predicate is not None:
            trees += self.predicate(clause.predicate)
        link = ("link", clause.verb)
        trees += _say(link, clause.verb.en_link)
        if clause.passive:
            if clause.object is not None:
                trees += [*_say("agent", "by"), self.nominal(clause.object, "acc")]
        else:
            if clause.object is not None:
                trees.append(self.nominal(clause.object, "acc", negative))
        if clause.recipient is not None:
            trees += [*_say("recipient", "to"), self.nominal(clause.recipient, "acc")]
        trees += _adverbial(clause.manner, "en")
        if clause.place is not None:
            trees.append(self.place(clause.place))
        trees += _adverbial(clause.time, "en")
        if clause.content is not None:
            trees.append(pyrealb.SP(*_say("content", "that"), *self.clause(clause.content)))
        if clause.purpose is not None:
            trees.append(self.purpose(clause.purpose))
        return trees

    def purpose(self, purpose: Purpose) -> _Tree:
        form = "b-to" if purpose.link == "to" else "pr"
        clause = replace(purpose.clause, tense=replace(purpose.clause.tense, finite=form))
        words = _say("purpose", "" if purpose.link == "to" else purpose.link)
        return pyrealb.SP(*words, self.verb_phrase(clause))

    def predicate(self, predicate: Predicate) -> list[_Tree]:
        (adjective,) = _mark(predicate.adjective, pyrealb.A(predicate.adjective.en))
        words = _adverbial(predicate.adverb, "en")
        if predicate.standard is None:
            return [*words, adjective]
        if predicate.degree == "more":
            words, adjective, than = [], adjective.f("co"), "than"
        else:
            words, than = (
                _say("degree", predicate.degree),
                "as" if predicate.degree == "as" else "than",
            )
        standard = self.nominal(predicate.standard, "acc")
        return [*words, adjective, *_say("standard", than), standard]

    def place(self, place: Place) -> _Tree:
        preposition = _say(place.preposition, place.preposition.en)
        return pyrealb.PP(*preposition, self.nominal(place.entity, "acc"))

    def nominal(self, nominal: Nominal, case: str, negative: bool = False) -> _Tree:
        match nominal:
            case Pronoun():
                return self.pronoun(nominal, case)
            case Pair(first, second):
                parts = (self.nominal(first, case), self.nominal(second, case))
                return pyrealb.CP(*_mark("and", pyrealb.C("and")), *parts)
            case Entity():
                return self.entity(nominal, negative)

    def pronoun(self, pronoun: Pronoun, case: str) -> _Tree:
        gender = "n" if pronoun.thing else pronoun.gender
        number = "p" if pronoun.plural else "s"
        word = pyrealb.Pro("me").c(case).pe(pronoun.person).g(gender).n(number)
        return _mark(pronoun, word)[0]

    def entity(self, entity: Entity, negative: bool = False, genitive: bool = False) -> _Tree:
        # pyRealB's own genitive joins the next word to "princess'".
        noun = pyrealb.Q(f"{entity.noun.en}'s") if genitive else pyrealb.N(entity.noun.en)
        number = "p" if _is_plural(entity) else "s"
        trees = _mark(("determiner", entity.noun), *self.determiner(entity, negative))
        trees += _say(("number", entity.noun), entity.number[0] if entity.number else "")
        for adjective in entity.adjectives:
            trees += _mark(adjective, pyrealb.A(adjective.en))
        trees += _mark(entity.noun, noun)
        phrase = pyrealb.NP(*trees).n(number)
        if entity.place is not None:
            phrase.add(self.place(entity.place))
        if entity.relative is not None:
            phrase.add(self.relative(entity, entity.relative))
        return phrase

    def determiner(self, entity: Entity, negative: bool) -> list[_Tree]:
        match entity.determiner, entity.owner:
            case "own", Pronoun(person, plural, gender):
                number = "p" if plural else "s"
                return [pyrealb.D("my").pe(person).ow(number).g(gender)]
            case "own", Entity() as owner:
                # In a PP, so that pyRealB does not take the owner for the head of the phrase.
                return [pyrealb.PP(self.entity(owner, genitive=True))]
            case "some", _:
                return [pyrealb.Q("any" if negative else "some")]
            case "every", _:
                return [pyrealb.Q("every")]
            case ("bare", _) | ("number", _):
                return []
            case name, _:
                return [pyrealb.D(name)]

    def relative(self, entity: Entity, relative: Relative) -> _Tree:
        human = entity.noun.kind in lexicon.HUMAN
        if relative.role == "subject":
            clause = replace(relative.clause, subject=replace(entity, relative=None))
            link = "who" if human else "that"
            return pyrealb.SP(*_say("relative", link), self.verb_phrase(clause))
        link = "where" if relative.role == "place" else "that"
        return pyrealb.SP(*_say("relative", link), *self.clause(relative.clause))


# --- French ---------------------------------------------------------------------------------


class _French:
    """Builds the pyRealB trees of a meaning in French."""

    def sentence(self, meaning: Meaning) -> _Tree:
        match meaning:
            case Statement(clause):
                return pyrealb.S(self.clause(clause))
            case Existential():
                return self.existential(meaning)
            case Question():
                return self.question(meaning)
            case Compound():
                return self.compound(meaning)

    def compound(self, meaning: Compound) -> _Tree:
        first = self.clause(meaning.first)
        second = self.clause(
            meaning.second,
            _mark(meaning.conjunction, *self.conjunction(meaning.conjunction.fr)),
            with_subject=not meaning.shared,
        )
        if meaning.fronted:
            return pyrealb.S(second.a(","), first)
        return pyrealb.S(first.a(",") if meaning.conjunction.comma else first, second)

    def conjunction(self, words: str) -> list[_Tree]:
        """Only the last word elides: "parce qu'elle"."""
        *fixed, last = words.split()
        return [*_words(" ".join(fixed)), pyrealb.C(last)]

    def existential(self, meaning: Existential) -> _Tree:
        verb = pyrealb.V("avoir").t(meaning.tense.fr_state).pe(3).n("s")
        nominal = self.nominal(meaning.entity, meaning.negative)
        there = pyrealb.Q("il n'y" if meaning.negative else "il y")
        head = _mark("there is", there, verb)
        head += _say("negation", "pas" if meaning.negative else "")
        return pyrealb.S(*head, nominal, self.place(meaning.place))

    def question(self, meaning: Question) -> _Tree:
        clause = meaning.clause
        match meaning.kind:
            case "who":
                who = _mark("question", pyrealb.Pro("qui"))
                return pyrealb.S(self.clause(clause, who, False)).a("?")
            case "whom" | "what":
                head = "qui est-ce" if meaning.kind == "whom" else "qu'est-ce"
                words = _mark("question", pyrealb.Q(head), pyrealb.C("que"))
                return pyrealb.S(self.clause(clause, words)).a("?")
            case kind:
                phrase = pyrealb.S(self.nominal(clause.subject), self.verb_phrase(clause))
                return phrase.typ({**self.types(clause), "int": _FR_QUESTIONS[kind]})

    def clause(
        self, clause: Clause, head: Sequence[_Tree] = (), with_subject: bool = True
    ) -> _Tree:
        clause = _swapped(clause)
        words = [self.nominal(clause.subject)] if with_subject else []
        return pyrealb.SP(*head, *words, self.verb_phrase(clause)).typ(self.types(clause))

    def types(self, clause: Clause) -> dict[str, str | bool]:
        types: dict[str, str | bool] = {}
        if clause.polarity:
            types["neg"] = _FR_NEGATIONS[clause.polarity]
        if "reflexive" in clause.verb.traits and not self.governors(clause):
            types["refl"] = True
        return types

    def governors(self, clause: Clause) -> list[tuple[str, str]]:
        """The verbs that govern an infinitive, each with the preposition before it."""
        governors = []
        if clause.tense.fr_auxiliary:
            governors.append((clause.tense.fr_auxiliary, ""))
        if clause.modal is not None:
            governors.append((clause.modal.fr, clause.modal.fr_link))
        return governors

    def verb_phrase(self, clause: Clause) -> _Tree:
        governors = self.governors(clause)
        form = _fr_form(clause)
        inner = self.core(clause, "b" if governors else form, bool(governors))
        for index, (lemma, link) in reversed(list(enumerate(governors))):
            preposition = [pyrealb.P(link)] if link else []
            verb = _agree(pyrealb.V(lemma).t("b" if index else form), clause.subject)
            if clause.modal is not None and lemma == clause.modal.fr:
                _mark(clause.modal, verb)
            # pyRealB's own mark of a modal: the pronouns of the infinitive stay before it.
            if not link:
                verb.isMod = True
            inner = pyrealb.VP(verb, pyrealb.PP(*preposition, pyrealb.SP(inner)))
        return inner

    def core(self, clause: Clause, form: str, infinitive: bool) -> _Tree:
        """The VP of the main verb."""
        subject = clause.subject
        verb = _agree(pyrealb.V("être" if clause.passive else clause.verb.fr).t(form), subject)
        if not clause.passive:
            _mark(clause.verb, verb)
        trees = [verb]
        if infinitive and "reflexive" in clause.verb.traits:
            trees.insert(0, _agree(pyrealb.Pro("moi").c("refl"), subject))
        trees += _adverbial(clause.frequency, "fr")
        if clause.passive:
            trees += _mark(clause.verb, _agree(pyrealb.V(clause.verb.fr).t("pp"), subject))
            if clause.object is not None:
                by = _mark("agent", pyrealb.P("par"))
                trees.append(pyrealb.PP(*by, self.nominal(clause.object)))
        else:
            trees += _mark(clause.verb, *self.fixed(clause))
            trees += self.objects(clause, verb)
        if clause.predicate is not None:
            trees += self.predicate(clause.predicate, subject)
        trees += _adverbial(clause.manner, "fr")
        if clause.place is not None:
            trees.append(self.place(clause.place))
        trees += _adverbial(clause.time, "fr")
        if clause.content is not None:
            that = _mark("content", pyrealb.C("que"))
            trees.append(self.clause(clause.content, that))
        if clause.purpose is not None:
            trees.append(self.purpose(clause.purpose))
        return pyrealb.VP(*trees)

    def fixed(self, clause: Clause) -> list[_Tree]:
        if clause.verb.fr_fixed and clause.verb.fr == "être":
            return [_agree_adjective(pyrealb.A(clause.verb.fr_fixed), clause.subject)]
        return _words(clause.verb.fr_fixed)

    def objects(self, clause: Clause, verb: _Tree) -> list[_Tree]:
        """Object and recipient, in the order of the clitics: "me la", "la lui"."""
        first = self.object(clause, clause.object, verb) if clause.object is not None else []
        if clause.recipient is None:
            return first
        second = [self.dative(clause.recipient)]
        before = isinstance(clause.recipient, Pronoun) and (
            clause.recipient.person < 3 or not isinstance(clause.object, Pronoun)
        )
        return second + first if before else first + second

    def object(self, clause: Clause, nominal: Nominal, verb: _Tree) -> list[_Tree]:
        link = clause.verb.fr_link
        if not link:
            if isinstance(nominal, Pronoun):
                (pronoun,) = _mark(nominal, _agree(pyrealb.Pro("moi").c("acc"), nominal))
                verb.cod = pronoun  # the participle agrees with it: "elle les a vues"
                return [pronoun]
            return [self.nominal(nominal, bool(clause.polarity))]
        if isinstance(nominal, Pronoun) and clause.verb.traits & {"dative", "swap"}:
            return [self.dative(nominal)]
        preposition = _mark(("link", clause.verb), pyrealb.P(link))
        return [pyrealb.PP(*preposition, self.nominal(nominal, tonic=True))]

    def dative(self, nominal: Nominal) -> _Tree:
        if isinstance(nominal, Pronoun):
            return _mark(nominal, _agree(pyrealb.Pro("moi").c("dat"), nominal))[0]
        return pyrealb.PP(*_mark("recipient", pyrealb.P("à")), self.nominal(nominal))

    def purpose(self, purpose: Purpose) -> _Tree:
        preposition = _mark("purpose", pyrealb.P("pour" if purpose.link == "to" else "sans"))
        return pyrealb.PP(*preposition, pyrealb.SP(self.core(purpose.clause, "b", True)))

    def predicate(self, predicate: Predicate, subject: Nominal) -> list[_Tree]:
        adjective = _agree_adjective(pyrealb.A(predicate.adjective.fr), subject)
        _mark(predicate.adjective, adjective)
        if predicate.standard is None:
            return [*_adverbial(predicate.adverb, "fr"), adjective]
        if predicate.degree == "more":
            adjective, words = adjective.f("co"), []
        else:
            words = _say("degree", _FR_DEGREES[predicate.degree])
        standard = self.nominal(predicate.standard, tonic=True)
        than = _mark("standard", pyrealb.C("que"))
        return [*words, adjective, pyrealb.SP(*than, standard)]

    def place(self, place: Place) -> _Tree:
        *fixed, last = place.preposition.fr.split()
        words = _mark(place.preposition, *_words(" ".join(fixed)), pyrealb.P(last))
        return pyrealb.PP(*words, self.nominal(place.entity))

    def nominal(self, nominal: Nominal, negative: bool = False, tonic: bool = False) -> _Tree:
        match nominal:
            case Pronoun():
                pronoun = pyrealb.Pro("moi").tn("") if tonic else pyrealb.Pro("je")
                return _mark(nominal, _agree(pronoun, nominal))[0]
            case Pair(first, second):
                parts = (self.nominal(first), self.nominal(second, tonic=True))
                return pyrealb.CP(*_mark("and", pyrealb.C("et")), *parts)
            case Entity():
                return self.entity(nominal, negative)

    def entity(self, entity: Entity, negative: bool = False) -> _Tree:
        noun = entity.noun
        before = [a for a in entity.adjectives if a.position == "pre"]
        after = [a for a in entity.adjectives if a.position == "post"]
        trees = _mark(("determiner", noun), *self.determiner(entity, negative, bool(before)))
        trees += _say(("number", noun), entity.number[1] if entity.number else "")
        for adjective in before:
            trees += _mark(adjective, pyrealb.A(adjective.fr).pos("pre"))
        trees += _mark(noun, pyrealb.N(noun.fr).g(noun.gender))
        for adjective in after:
            trees += _mark(adjective, pyrealb.A(adjective.fr).pos("post"))
        plural = _is_plural(entity) or noun.form == "mass_plural"
        phrase = pyrealb.NP(*trees).n("p" if plural else "s")
        if entity.determiner == "own" and isinstance(entity.owner, Entity):
            of = _mark(("owner", noun), pyrealb.P("de"))
            phrase.add(pyrealb.PP(*of, self.entity(entity.owner)))
        if entity.place is not None:
            phrase.add(self.place(entity.place))
        if entity.relative is not None:
            phrase.add(self.relative(entity, entity.relative))
        return phrase

    def determiner(self, entity: Entity, negative: bool, before: bool) -> list[_Tree]:
        indefinite = entity.determiner in {"a", "some"} and entity.number is None
        match entity.determiner, entity.owner:
            case "own", Pronoun(person, plural):
                return [pyrealb.D("notre" if plural else "mon").pe(person)]
            case "number", _:
                return []
            case _ if indefinite and negative:
                return [pyrealb.D("de")]
            case "some", _ if entity.noun.form == "mass":
                return [pyrealb.P("de"), pyrealb.D("le")]
            case "some", _ if before:
                return [pyrealb.D("de")]  # "de petites maisons"
            case ("a", _) | ("some", _):
                return [pyrealb.D("un")]
            case "this", _:
                return [pyrealb.D("ce")]
            case "every", _:
                return [pyrealb.D("chaque")]
            case _:
                return [pyrealb.D("le")]

    def relative(self, entity: Entity, relative: Relative) -> _Tree:
        clause = relative.clause
        if relative.role == "subject":
            clause = replace(clause, subject=replace(entity, relative=None))
            return self.clause(clause, _mark("relative", pyrealb.Pro("qui")), with_subject=False)
        if relative.role == "place":
            return self.clause(clause, _mark("relative", pyrealb.Pro("où")))
        link = "dont" if clause.verb.fr_link else "que"
        return self.clause(clause, _mark("relative", pyrealb.Pro(link)))


def _agree_adjective(tree: _Tree, nominal: Nominal) -> _Tree:
    _, number, gender = _features(nominal)
    return tree.n(number).g(gender)


# --- realisation ----------------------------------------------------------------------------


class RealisationError(Exception):
    """pyRealB complained about a tree, or could not build it."""


def realise_english(meaning: Meaning) -> Realised:
    """The English sentence of a meaning."""
    return _realise("en", _English().sentence, meaning)


def realise_french(meaning: Meaning) -> Realised:
    """The French sentence of a meaning."""
    return _realise("fr", _French().sentence, meaning)


@cache
def _correct_participles() -> None:
    """Mend three conjugation tables of pyRealB: "ils sont partie", "dépêchée" for the plural."""
    for table in pyrealb.getRules("fr")["conjugation"].values():
        forms = table["t"].get("pp")
        if isinstance(forms, list) and forms[1] and forms[2] == forms[1]:
            forms[2] = f"{forms[0]}s"
            forms[3] = f"{forms[1]}s"


def _realise(language: str, build: Callable[[Meaning], _Tree], meaning: Meaning) -> Realised:
    _correct_participles()
    before = pyrealb.getLanguage()
    warnings = io.StringIO()
    try:
        pyrealb.load(language)
        with contextlib.redirect_stderr(warnings), contextlib.redirect_stdout(warnings):
            tree = build(meaning)
            terminals = tree.real()
            text = _spelled(tree.detokenize(terminals))
    finally:
        pyrealb.load(before)
    if warnings.getvalue() or "[[" in text:
        raise RealisationError(f"{text!r}: {warnings.getvalue().strip()}")
    return Realised(text, _notes(terminals, text))


def _spelled(text: str) -> str:
    # pyRealB's lexicon spells French words without the ligature; no English word has these letters.
    return " ".join(text.split()).replace("oeu", "œu")


# --- word links -----------------------------------------------------------------------------

_NEGATIVE = frozenset({"ne", *_FR_NEGATIONS.values()})


def _notes(terminals: Sequence[_Tree], text: str) -> list[tuple[object, tuple[int, int]]]:
    """What each marked word of a realised sentence says, and its begin and end in the text."""
    notes: list[tuple[object, tuple[int, int]]] = []
    begin = end = 0
    for word in terminals:
        written = _spelled(word.realization)
        if written:  # of two words that contract, "de le", the second is left empty
            begin = text.lower().find(written.lower(), end)
            if begin < 0:
                raise RealisationError(f"{written!r} is not in {text!r} after {end} letters")
            end = begin + len(written)
        negative = "negation" if str(word.lemma) in _NEGATIVE else None
        meaning = getattr(word, "meaning", negative)  # pyRealB itself adds "ne" and "pas"
        if meaning is not None:
            notes.append((meaning, (begin, end)))
    return notes


def link(english: Realised, french: Realised) -> Links:
    """Which words translate each other: those that say the same, in their order.

    One word for one is a sure link; of several words that say one thing together, as those of a
    negation do, each pair is a possible one.
    """
    sides = [(words(side.text), _by_note(side)) for side in (english, french)]
    (source, sources), (target, targets) = sides
    sure: set[Link] = set()
    possible: set[Link] = set()
    for note in sources.keys() & targets.keys():
        left, right = sources[note], targets[note]
        if len(left) == len(right) and note != "negation":
            sure.update(zip(left, right, strict=True))
        else:
            possible.update((i, j) for i in left for j in right)
    return Links(source, target, sure, sure | possible)


def _by_note(side: Realised) -> dict[object, list[int]]:
    """The places of the words of each note, and of each punctuation mark, in their order."""
    places: dict[object, list[int]] = {}
    for place, ((begin, end), word) in enumerate(
        zip(spans(side.text), words(side.text), strict=True)
    ):
        if not word[-1].isalnum() and len(word) == 1:
            places.setdefault(word, []).append(place)
            continue
        for note, (first, last) in side.notes:
            if first < end and begin < last:
                places.setdefault(note, []).append(place)
    return places


# --- labels ---------------------------------------------------------------------------------


def phenomena(meaning: Meaning) -> tuple[str, ...]:
    """The sorted labels of what a meaning shows."""
    labels = {label for node in _nodes(meaning) for label in _labels(node)}
    return tuple(sorted(labels))


def _nodes(node: object) -> Iterator[object]:
    """All the records of a meaning."""
    if isinstance(node, tuple):
        for part in node:
            yield from _nodes(part)
    elif hasattr(node, "__dataclass_fields__"):
        yield node
        for field in node.__dataclass_fields__:
            yield from _nodes(getattr(node, field))


def _labels(node: object) -> Iterator[str]:
    match node:
        case Entity():
            yield from _entity_labels(node)
        case Clause():
            yield from _clause_labels(_swapped(node))
        case Predicate(standard=standard) if standard is not None:
            yield "comparative"
        case Pair():
            yield "coordination"
        case Question():
            yield "question"
        case Relative():
            yield "relative"
        case Existential(negative=True):
            yield "negation"
        case Compound(conjunction=conjunction):
            yield "coordination" if conjunction.en in {"and", "but", "so"} else "subordinate"


def _entity_labels(entity: Entity) -> Iterator[str]:
    if entity.adjectives:
        yield "adjective-order"
        if _is_marked(entity):
            yield "agreement"
    if entity.determiner == "own":
        yield "possessive"
    if entity.number is not None:
        yield "number"


def _clause_labels(clause: Clause) -> Iterator[str]:
    if clause.polarity:
        yield "negation"
    if clause.passive:
        yield "passive"
    if clause.modal is not None:
        yield "modality"
    if "reflexive" in clause.verb.traits:
        yield "reflexive"
    if clause.content is not None:
        yield "subordinate"
    clitic = (
        isinstance(clause.object, Pronoun)
        and not clause.passive
        and (not clause.verb.fr_link or bool(clause.verb.traits & {"dative", "swap"}))
    )
    if clitic or isinstance(clause.recipient, Pronoun):
        yield "clitic"
    compound = _fr_form(clause) in {"pc", "pq", "spa"}
    if compound:
        yield "compound-tense"
    subject_agrees = (
        clause.predicate is not None
        or clause.passive
        or (compound and clause.modal is None and _takes_etre(clause.verb))
    )
    object_agrees = compound and clitic and not clause.verb.fr_link and clause.modal is None
    if (subject_agrees and _is_marked(clause.subject)) or (
        object_agrees and clause.object is not None and _is_marked(clause.object)
    ):
        yield "agreement"


def _takes_etre(verb: Verb) -> bool:
    entry = pyrealb.getLemma(verb.fr, "fr")["V"]
    return bool(entry["aux"] == "êt") or "reflexive" in verb.traits


def _is_marked(nominal: Nominal) -> bool:
    """Whether what agrees with it has a feminine or a plural ending."""
    _, number, gender = _features(nominal)
    return number == "p" or gender == "f"


def _fr_form(clause: Clause) -> str:
    """The French tense of the finite verb of a clause."""
    if clause.modal is not None:
        state = clause.modal.stative
    else:
        state = "state" in clause.verb.traits and not clause.passive
    habit = clause.frequency is not None
    return clause.tense.fr_state if state or habit else clause.tense.fr_event


# --- drawing meanings -----------------------------------------------------------------------


class _NoFitError(Exception):
    """What was drawn so far cannot be completed: draw again."""


_PERSONS = (
    Pronoun(1),
    Pronoun(2),
    Pronoun(3),
    Pronoun(3, gender="f"),
    Pronoun(1, plural=True),
    Pronoun(3, plural=True),
)
_SOMEONE = Noun("someone", "quelqu'un", "m", "person")  # what a personal pronoun stands for
_INDEFINITE = frozenset({"a", "some", "number", "every"})
_HUMAN = lexicon.HUMAN
# States have no perfect and no progressive: what they take in their place.
_STATE_TENSES = {
    "pluperfect": "past",
    "perfect": "present",
    "past-progressive": "past",
    "progressive": "present",
    "going": "future",
    "though-perfect": "though",
}
_PLAIN_TENSES = {
    "event": {
        "present": 4, "past": 8, "progressive": 3, "past-progressive": 2, "perfect": 2,
        "pluperfect": 1, "future": 3, "going": 2,
    },
    "point": {"present": 3, "past": 8, "perfect": 2, "pluperfect": 1, "future": 3, "going": 2},
    "state": {"present": 5, "past": 4, "future": 1},
}  # fmt: skip


def _zipf(count: int, offset: float) -> list[float]:
    """Cumulative weights that fall with the rank."""
    return list(accumulate(1 / (rank + offset) for rank in range(1, count + 1)))


@cache
def _nouns(kinds: frozenset[str], part: float) -> tuple[list[Noun], list[float]]:
    """The nouns of these classes, of each class the first part of those that fit, and cumulative
    weights: each weighs by its rank within its class.
    """
    ranks: Counter[str] = Counter()
    fitting: dict[str, list[tuple[Noun, float]]] = {}
    for noun in lexicon.NOUNS:
        ranks[noun.kind] += 1
        if lexicon.fits(noun, kinds):
            fitting.setdefault(noun.kind, []).append((noun, 1 / (ranks[noun.kind] + 4)))
    known = [row for rows in fitting.values() for row in rows[: math.ceil(len(rows) * part)]]
    return [noun for noun, _ in known], list(accumulate(weight for _, weight in known))


@cache
def _adjectives(noun: Noun) -> list[Adjective]:
    """The adjectives of a noun: of the senses of an English word, the first that fits."""
    senses: dict[str, Adjective] = {}
    for adjective in lexicon.ADJECTIVES:
        if lexicon.fits(noun, adjective.kinds):
            senses.setdefault(adjective.en, adjective)
    return list(senses.values())


@cache
def _verbs(subject: Noun | None, patient: Noun | None) -> list[Verb]:
    """The verbs that take this subject and this object, in the order of the table."""
    return [
        verb
        for verb in lexicon.VERBS
        if (subject is None or lexicon.fits(subject, verb.subjects))
        and (patient is None or lexicon.fits(patient, verb.objects))
    ]


def _pronoun_for(entity: Entity) -> Pronoun:
    thing = entity.noun.kind not in _HUMAN
    return Pronoun(3, _is_plural(entity), entity.noun.gender, thing)


def _is_human(nominal: Nominal) -> bool:
    match nominal:
        case Pronoun(thing=thing):
            return not thing
        case Entity(noun):
            return noun.kind in _HUMAN
        case Pair():
            return True


def _is_progressive(tense: Tense) -> bool:
    return tense.auxiliaries[-1:] == (("be", "pr"),)


def _looks_like(pronoun: Pronoun, other: Nominal | None) -> bool:
    """Whether English could mean ``other`` by the pronoun, and French could not."""
    if other is None:
        return False
    if isinstance(other, Pair):
        return pronoun.plural and pronoun.gender != _features(other)[2]
    if isinstance(other, Entity):
        other = _pronoun_for(other)
    same = pronoun.person == other.person and pronoun.plural == other.plural
    if not same or pronoun.gender == other.gender:
        return False
    return pronoun.plural or (pronoun.thing and other.thing)


class _Author:
    """Draws meanings; ``rich`` scales how much is said about each thing.

    It knows a ``part`` of the words: of those that fit in a place the most frequent ones, at
    least one.
    """

    def __init__(self, rng: random.Random, rich: float, part: float) -> None:
        self.rng = rng
        self.rich = rich
        self.part = part

    # choices

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def one(self, words: Sequence[_T], offset: float = 4) -> _T:
        """One of the words that are known, the first ones more often."""
        return self.item(words[: math.ceil(len(words) * self.part)], offset)

    def item(self, items: Sequence[_T], offset: float) -> _T:
        """One item, the first ones more often."""
        if not items:
            raise _NoFitError
        weights = _zipf(len(items), offset)
        return items[bisect(weights, self.rng.random() * weights[-1])]

    def weighted(self, weights: Mapping[str, float]) -> str:
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def noun(self, kinds: frozenset[str]) -> Noun:
        nouns, weights = _nouns(kinds, self.part)
        if not nouns:
            raise _NoFitError
        return nouns[bisect(weights, self.rng.random() * weights[-1])]

    # nominals

    def person(self) -> Pronoun:
        return self.rng.choice(_PERSONS)

    def entity(
        self, noun: Noun, speaker: Nominal | None = None, plain: bool = False, some: bool = True
    ) -> Entity:
        """The noun with a determiner and perhaps more; ``speaker`` may own it."""
        determiner = self.determiner(noun, some)
        if noun.form == "single" and determiner == "some":
            determiner = "the"
        plural = noun.form == "count" and (determiner == "some" or self.chance(0.25))
        plural = plural and determiner not in {"a", "every"}
        number = self.rng.choice(lexicon.NUMBERS) if determiner == "number" else None
        entity = Entity(noun, determiner, plural or number is not None, number=number)
        if determiner != "bare":
            entity = replace(entity, adjectives=self.adjectives(noun))
        if determiner == "own":
            entity = replace(entity, owner=self.owner(noun, speaker, plain))
        if not plain and determiner not in {"bare", "own"} and self.chance(0.08 * self.rich):
            return replace(entity, relative=self.relative(entity))
        return entity

    def determiner(self, noun: Noun, some: bool) -> str:
        match noun.kind:
            case "kin":
                return self.weighted({"own": 12, "the": 1})
            case "game" | "science":
                return "bare"
            case "instrument" | "landmark":
                return self.weighted({"the": 7, "a": 2, "this": 1})
            case "dish" | "drink":
                return self.weighted({"the": 5, "some": 4 * some, "own": 1, "this": 1})
            case "person" | "job" | "animal":
                owned = 2 if noun.kind == "animal" else 4 * (noun.en in lexicon.OWNED)
                weights = {"the": 9, "a": 3, "this": 2, "own": owned, "some": some, "number": 1}
                return self.weighted({**weights, "every": 0.3})
            case "building" | "place" | "event" | "idea":
                return self.weighted({"the": 8, "a": 3, "this": 2, "own": 1})
        if noun.form == "plural":
            return self.weighted({"the": 3, "own": 4, "this": 1})
        return self.weighted({"the": 7, "a": 5, "this": 2, "own": 5, "some": some, "number": 1})

    def owner(self, noun: Noun, speaker: Nominal | None, plain: bool) -> Pronoun | Entity:
        owner = self.any_owner(noun, speaker, plain)
        _, number, gender = _features(owner)
        if noun.en in lexicon.SPOUSES and (number, gender) != ("s", lexicon.SPOUSES[noun.en]):
            raise _NoFitError
        if noun.kind == "kin" and isinstance(owner, Entity) and owner.noun.en in lexicon.YOUNG:
            raise _NoFitError
        return owner

    def any_owner(self, noun: Noun, speaker: Nominal | None, plain: bool) -> Pronoun | Entity:
        if not plain and noun.kind != "person" and self.chance(0.3):
            owner = Entity(self.noun(_HUMAN))
            if owner.noun.kind == "kin":
                return replace(owner, determiner="own", owner=self.owner(owner.noun, None, True))
            return replace(owner, adjectives=self.adjectives(owner.noun, 0.15))
        if isinstance(speaker, Pronoun) and not speaker.thing and self.chance(0.7):
            return speaker
        if isinstance(speaker, Entity) and speaker.noun.kind in _HUMAN and self.chance(0.7):
            return _pronoun_for(speaker)
        return self.person()

    def adjectives(self, noun: Noun, probability: float = 0.25) -> tuple[Adjective, ...]:
        candidates = _adjectives(noun)
        if not candidates or not self.chance(probability * self.rich):
            return ()
        first = self.one(candidates)
        if first.position == "pre" and self.chance(0.15):
            others = [
                a
                for a in candidates
                if a.position == "post" and a.en not in lexicon.SIZES | lexicon.ABSTRACT
            ]
            if first.en in lexicon.ABSTRACT or not others:
                return (first,)
            return (first, self.one(others))
        return (first,)

    def place(self, prepositions: Sequence[Preposition], definite: bool = False) -> Place:
        preposition = self.one(prepositions, 2)
        noun = self.noun(preposition.kinds)
        determiner = "the" if definite else self.weighted({"the": 8, "a": 1, "this": 1})
        return Place(preposition, Entity(noun, determiner, adjectives=self.adjectives(noun, 0.15)))

    def relative(self, entity: Entity) -> Relative:
        """A clause about the entity, as its subject or its object."""
        noun = entity.noun
        places = noun.kind in {"building", "place"} and self.chance(0.4)
        if places:
            name = self.rng.choice(["live", "work"])
            verb = next(verb for verb in lexicon.VERBS if verb.en == name)
            clause = Clause(self.subject(verb, plain=True)[0], verb, self.tense(verb))
            return Relative("place", clause)
        if noun.kind in _HUMAN | {"animal"} and self.chance(0.6):
            clause = self.clause(actor=noun, subject=entity, plain=True)
            if clause.passive or "swap" in clause.verb.traits:
                raise _NoFitError
            return Relative("subject", clause)
        verbs = [
            verb
            for verb in _verbs(None, noun)
            if not verb.traits & {"place", "swap", "dative", "to_place", "motion"}
            and (not verb.fr_link or (verb.fr_link == "de" and "full" in verb.traits))
            and verb.en != "have"
        ]
        verb = self.one(verbs)
        subject, _ = self.subject(verb, plain=True)
        return Relative("object", Clause(subject, verb, self.tense(verb)))

    def subject(self, verb: Verb, plain: bool = False) -> tuple[Nominal, Noun]:
        """A subject for the verb, and the noun that it is or stands for."""
        if lexicon.fits(_SOMEONE, verb.subjects) and self.chance(0.35):
            return self.person(), _SOMEONE
        noun = self.noun(verb.subjects)
        entity = self.entity(noun, plain=plain)
        if not plain and noun.kind in _HUMAN and not entity.relative and self.chance(0.06):
            return self.pair(entity), noun
        return entity, noun

    def pair(self, first: Entity) -> Pair:
        first = replace(first, number=None, determiner="the", owner=None, plural=False)
        if self.chance(0.3):
            return Pair(first, Pronoun(1))
        second = self.entity(self.noun(_HUMAN), first, plain=True)
        if second.noun == first.noun:
            raise _NoFitError
        return Pair(first, second)

    # clauses

    def tense(self, verb: Verb) -> Tense:
        kind = next((name for name in ("state", "point") if name in verb.traits), "event")
        return TENSES[self.weighted(_PLAIN_TENSES[kind])]

    def clause(
        self,
        actor: Noun | None = None,
        subject: Nominal | None = None,
        tense: str | None = None,
        mention: Entity | None = None,
        plain: bool = False,
    ) -> Clause:
        """A clause; ``mention`` is something said before, which may be its object again."""
        if plain is False and tense != "infinitive" and self.chance(0.22):
            return self.description(actor, subject, tense)
        again = mention is not None and self.chance(0.4)
        verbs = _verbs(actor, mention.noun if again and mention else None)
        if again:
            verbs = [verb for verb in verbs if not verb.fr_link and not verb.traits & {"place"}]
        verb = self.one(verbs, 25)
        if subject is None:
            subject, actor = self.subject(verb, plain)
        if tense is not None and "state" in verb.traits:
            tense = _STATE_TENSES.get(tense, tense)
        clause = Clause(subject, verb, TENSES[tense] if tense else self.tense(verb))
        if _is_progressive(clause.tense) and verb.traits & {"state", "point"}:
            raise _NoFitError
        if verb.objects:
            pronoun = _pronoun_for(mention) if again and mention else None
            if pronoun and _looks_like(pronoun, subject):
                raise _NoFitError
            clause = replace(clause, object=pronoun or self.object(clause, plain))
        return self.finished(clause, plain, fixed=tense is not None)

    def finished(self, clause: Clause, plain: bool, fixed: bool) -> Clause:
        """The clause with its negation, modal, voice, recipient, place, time and purpose."""
        traits = clause.verb.traits
        clause = self.located(clause)
        if (
            "give" in traits
            and not _is_heavy(clause)
            and (self.chance(0.75) or isinstance(clause.object, Pronoun))
        ):
            clause = replace(clause, recipient=self.recipient(clause))
        kind = self.weighted(
            {"": 10, "not": 3, "never": 0.6, "no longer": 0.6, "frequency": 0.9, "modal": 3}
        )
        if kind == "frequency":
            clause = self.habitual(clause, fixed)
        elif kind == "modal":
            clause = self.modal(clause)
        elif kind:
            clause = self.negated(clause, kind)
        if "passive" in traits and not plain and self.chance(0.4):
            clause = self.passive(clause)
        free = not (clause.polarity or clause.passive or clause.frequency or _is_heavy(clause))
        if "way" in traits and free and self.chance(0.3):
            clause = replace(clause, manner=self.manner(clause))
        if not plain and not _is_heavy(clause) and self.chance(0.22 * self.rich):
            clause = self.timed(clause)
        if not plain and self.chance(0.06 * self.rich):
            clause = self.with_purpose(clause)
        _check(clause)
        return clause

    def object(self, clause: Clause, plain: bool) -> Nominal:
        verb = clause.verb
        if "generic" in verb.traits:
            noun = self.noun(verb.objects)
            if noun.kind in {"animal", "food"}:
                return Entity(noun, "bare", plural=True)
            if noun.kind in {"dish", "drink", "game", "science"}:
                return Entity(noun, "bare")
            return self.entity(noun, clause.subject, plain, some=False)
        if verb.objects >= _HUMAN and self.chance(0.45):
            return self.person_but(clause.subject)
        noun = self.noun(verb.objects)
        if verb.fr == "jouer" and noun.kind == "instrument":
            return Entity(noun)
        entity = self.entity(noun, clause.subject, plain, some=not verb.fr_link)
        if verb.en == "have" and entity.determiner not in {"a", "some", "number"}:
            return replace(entity, determiner="a", owner=None, plural=False)
        return entity

    def person_but(self, subject: Nominal) -> Pronoun:
        """A person who is not the subject, nor one of them."""
        person, number, _ = _features(subject)
        choices = [p for p in _PERSONS if p.person != person or person == 3]
        if person == 2 and number == "s":
            choices = [p for p in choices if p.person != 2]
        return self.rng.choice(choices)

    def recipient(self, clause: Clause) -> Nominal:
        if self.chance(0.4):
            return self.person_but(clause.subject)
        return self.entity(self.noun(_HUMAN), clause.subject, plain=True, some=False)

    def located(self, clause: Clause) -> Clause:
        traits = clause.verb.traits
        if "to_place" in traits:
            return replace(clause, place=self.place(lexicon.DIRECTIONS, definite=True))
        if "place" in traits:
            table = lexicon.SURFACES if clause.object is not None else lexicon.HOMES
            return replace(clause, place=self.place(table))
        if (
            "at" in traits
            and not _is_heavy(clause)
            and self.chance((0.15 if clause.object else 0.35) * self.rich)
        ):
            return replace(clause, place=self.place(lexicon.PLACES))
        return clause

    def negated(self, clause: Clause, polarity: str) -> Clause:
        if polarity == "never" and _is_progressive(clause.tense):
            raise _NoFitError
        if polarity == "no longer":
            if "point" in clause.verb.traits or clause.tense.auxiliaries:
                raise _NoFitError
            if clause.tense.finite == "ps":
                # What one no longer did was a habit: "ne mangeait plus".
                clause = replace(clause, tense=TENSES["habit"])
        if polarity == "not" and clause.tense is TENSES["perfect"] and self.chance(0.5):
            polarity = "not yet"
        return replace(clause, polarity=polarity)

    def habitual(self, clause: Clause, fixed: bool) -> Clause:
        if fixed or "state" in clause.verb.traits or clause.tense.time not in {"present", "past"}:
            raise _NoFitError
        tense = "present" if clause.tense.time == "present" else "habit"
        return replace(clause, tense=TENSES[tense], frequency=self.one(lexicon.FREQUENCIES))

    def modal(self, clause: Clause) -> Clause:
        if clause.verb.traits & {"state", "chance"} or clause.tense.auxiliaries:
            raise _NoFitError
        modal = self.one(lexicon.MODALS)
        if clause.tense.fr_event == "spa" or (modal.en == "must" and clause.tense.finite == "ps"):
            raise _NoFitError
        if not (_is_human(clause.subject) or modal.bare):
            raise _NoFitError
        polarity = "not" if self.chance(0.2) else ""
        return replace(clause, modal=modal, polarity=polarity)

    def passive(self, clause: Clause) -> Clause:
        """The object becomes the subject; the subject, unless a pronoun, the agent."""
        patient, agent = clause.object, clause.subject
        said = clause.frequency or clause.recipient or _is_progressive(clause.tense)
        if said or not isinstance(patient, Entity) or patient == agent:
            raise _NoFitError
        if clause.modal is not None and not clause.modal.bare:
            raise _NoFitError
        if patient.determiner in {"some", "own"}:
            patient = replace(patient, determiner="the", owner=None)
        silent = isinstance(agent, Pronoun) or self.chance(0.3)
        return replace(clause, subject=patient, object=None if silent else agent, passive=True)

    def manner(self, clause: Clause) -> Adverbial:
        number = _features(clause.subject)[1]
        kinds = {"any", "human" if _is_human(clause.subject) else "", "plural" * (number == "p")}
        return self.one([manner for manner in lexicon.MANNERS if manner.times & kinds], 3)

    def timed(self, clause: Clause) -> Clause:
        simple = clause.tense is TENSES["present"]
        if clause.frequency or clause.modal or clause.polarity == "never":
            return clause
        if simple and "state" in clause.verb.traits:
            return clause
        # "She sings now" is not English; "she sings every day" is.
        name = "habit" if simple else clause.tense.time
        times = [time for time in lexicon.TIMES if name in time.times]
        return replace(clause, time=self.one(times)) if times else clause

    def with_purpose(self, clause: Clause) -> Clause:
        """ "... to buy some bread", "... without saying a word"."""
        said = clause.passive or clause.time or clause.manner or clause.modal or clause.polarity
        fits = _is_human(clause.subject) and not isinstance(clause.subject, Pair)
        if said or not fits or clause.verb.traits & {"state", "swap"}:
            return clause
        link = "to" if "motion" in clause.verb.traits else "without"
        actor = clause.subject.noun if isinstance(clause.subject, Entity) else _SOMEONE
        action = self.clause(actor, clause.subject, "infinitive", plain=True)
        if action.polarity or action.modal or action.manner or "state" in action.verb.traits:
            raise _NoFitError
        thing = action.object if isinstance(action.object, Entity) else None
        if link == "without" and thing is not None and thing.determiner in {"a", "some"}:
            raise _NoFitError
        return replace(clause, purpose=Purpose(link, action))

    def description(
        self, actor: Noun | None = None, subject: Nominal | None = None, tense: str | None = None
    ) -> Clause:
        """The subject is, seems or becomes something."""
        kinds = frozenset(noun.kind for noun in lexicon.NOUNS) - {"game", "science", "landmark"}
        if subject is None:
            if self.chance(0.25):
                subject, actor = self.person(), _SOMEONE
            else:
                actor = self.noun(kinds)
                subject = self.entity(actor, plain=self.chance(0.5))
        assert actor is not None
        if tense is not None:
            tense = _STATE_TENSES.get(tense, tense)
        adjective = self.one([a for a in _adjectives(actor) if a.en != "new"], 8)
        if isinstance(subject, Entity) and adjective in subject.adjectives:
            raise _NoFitError
        name = self.weighted({"be": 8, "seem": 1, "become": 0.7 if actor.kind in _HUMAN else 0})
        if adjective.en in {"good", "bad", "big"}:
            name = "be"
        choices = {"present": 5, "past": 5, "future": 0.7 if name != "seem" else 0}
        chosen = TENSES[tense or self.weighted(choices)]
        if _is_progressive(chosen):
            raise _NoFitError
        predicate = Predicate(adjective)
        if name == "be" and self.chance(0.4):
            predicate = self.comparison(predicate, subject, actor)
        elif adjective.en not in lexicon.ABSOLUTE and self.chance(0.25):
            predicate = Predicate(adjective, self.one(lexicon.DEGREES))
        polarity = "not" if self.chance(0.15) else ""
        clause = Clause(subject, COPULAS[name], chosen, predicate=predicate, polarity=polarity)
        _check(clause)
        return clause

    def comparison(self, predicate: Predicate, subject: Nominal, actor: Noun) -> Predicate:
        if predicate.adjective.en in lexicon.ABSOLUTE:
            return predicate
        degree = self.weighted({"more": 6, "less": 1.5, "as": 2})
        if actor.kind in _HUMAN and self.chance(0.4):
            return replace(predicate, degree=degree, standard=self.person_but(subject))
        noun = self.noun(frozenset({actor.kind}))
        if predicate.adjective not in _adjectives(noun) or noun == actor:
            raise _NoFitError
        standard = self.entity(noun, subject, plain=True, some=False)
        return replace(predicate, degree=degree, standard=replace(standard, adjectives=()))

    # sentences

    def sentence(self) -> Meaning:
        kinds = {"statement": 9, "compound": 5, "question": 2.5, "existential": 0.7, "report": 1.5}
        if self.rich > 1:
            kinds = {"compound": 6, "report": 2, "statement": 1}
        match self.weighted(kinds):
            case "statement":
                return Statement(self.clause())
            case "compound":
                return self.compound()
            case "question":
                return self.question()
            case "existential":
                return self.existential()
            case _:
                return self.report()

    def existential(self) -> Existential:
        kinds = frozenset({"animal", "person", "tool", "container", "furniture", "job", "food"})
        noun = self.noun(kinds)
        determiner = self.weighted({"a": 4, "some": 3, "number": 2})
        number = self.rng.choice(lexicon.NUMBERS) if determiner == "number" else None
        entity = Entity(noun, determiner, determiner != "a", self.adjectives(noun), number=number)
        table = lexicon.SURFACES if noun.kind in {"tool", "container", "food"} else lexicon.PLACES
        tense = TENSES[self.weighted({"present": 3, "past": 2})]
        negative = determiner == "some" and self.chance(0.4)
        return Existential(entity, tense, self.place(table), negative)

    def question(self) -> Question:
        kind = self.weighted(
            {"yes-no": 5, "why": 2, "when": 1.5, "where": 1.5, "who": 2, "whom": 1, "what": 1.5}
        )
        clause = self.clause(plain=True)
        verb = clause.verb
        if "swap" in verb.traits or isinstance(clause.subject, Pair):
            raise _NoFitError
        clause = replace(clause, manner=None, time=None)
        if kind in {"yes-no", "why"}:
            return Question(kind, clause)
        if clause.passive or clause.polarity or clause.frequency:
            raise _NoFitError
        match kind:
            case "when":
                fits = "state" not in verb.traits
            case "where":
                fits = "at" in verb.traits or verb.fr == "habiter"
                clause = replace(clause, place=None)
            case "who":
                fits = lexicon.fits(_SOMEONE, verb.subjects)
                clause = replace(clause, subject=Pronoun(3))
            case _:
                wanted = verb.objects & _HUMAN == (_HUMAN if kind == "whom" else frozenset())
                fits = bool(verb.objects) and wanted and not verb.fr_link
                fits = fits and "place" not in verb.traits
                clause = replace(clause, object=None)
        if not fits:
            raise _NoFitError
        return Question(kind, clause)

    def report(self) -> Statement:
        """ "She thinks that ..."."""
        verb = self.one(lexicon.SAYING, 2)
        subject, actor = self.subject(verb, plain=True)
        tense = self.weighted({"present": 4, "past": 4})
        inner = {
            "present": {"present": 3, "perfect": 2, "future": 3, "past": 2},
            "past": {"past-progressive": 2, "pluperfect": 3, "conditional": 3},
        }[tense]
        polarity = "not" if verb.en in {"know", "say", "forget"} and self.chance(0.2) else ""
        if self.chance(0.4) and isinstance(subject, Entity):
            content = self.clause(actor, _pronoun_for(subject), self.weighted(inner))
        else:
            content = self.clause(tense=self.weighted(inner))
        return Statement(Clause(subject, verb, TENSES[tense], content=content, polarity=polarity))

    def compound(self) -> Compound:
        conjunction = self.item(CONJUNCTIONS, 6)
        tenses = self.rng.choice(conjunction.tenses)
        if conjunction.fronted and self.chance(0.4):
            # The clause that is said first is drawn first: the other may refer back to it.
            second = self.clause(tense=tenses[1], plain=True)
            first = self.continuation(second, tenses[0], conjunction)
            return self.joined(first, conjunction, second, fronted=True)
        first = self.clause(tense=tenses[0], plain=self.rich <= 1)
        if conjunction.en in {"and", "but"} and self.chance(0.5):
            return self.shared(first, conjunction, tenses[1])
        second = self.continuation(first, tenses[1], conjunction)
        return self.joined(first, conjunction, second)

    def shared(self, first: Clause, conjunction: Conjunction, tense: str) -> Compound:
        """The subject does two things: "took the knife and cut the bread"."""
        if first.passive or "swap" in first.verb.traits or first.polarity or first.purpose:
            raise _NoFitError
        actor = first.subject.noun if isinstance(first.subject, Entity) else _SOMEONE
        mention = first.object if isinstance(first.object, Entity) else None
        second = self.clause(actor, first.subject, tense, mention, plain=True)
        if second.passive or "swap" in second.verb.traits:
            raise _NoFitError
        return self.joined(first, replace(conjunction, comma=False), second, shared=True)

    def joined(
        self,
        first: Clause,
        conjunction: Conjunction,
        second: Clause,
        fronted: bool = False,
        shared: bool = False,
    ) -> Compound:
        """Refuses "she sings because she sings", and a time at which nothing happens."""
        if first.verb == second.verb and first.predicate is None:
            raise _NoFitError
        if conjunction.en in {"when", "as soon as", "while"}:
            state = "state" in second.verb.traits or second.predicate is not None
            if second.polarity or second.modal or state:
                raise _NoFitError
        return Compound(first, conjunction, second, fronted, shared)

    def continuation(self, said: Clause, tense: str, conjunction: Conjunction) -> Clause:
        """A clause about something in the one that was said, or about someone else."""
        subject, patient = said.subject, said.object
        described = {"because": 0.45, "although": 0.45, "but": 0.2, "so": 0.1}.get(
            conjunction.en, 0
        )
        described *= isinstance(patient, Entity) and patient.determiner != "bare"
        if isinstance(patient, Entity) and self.chance(described):
            return self.about_object(patient, subject, tense)
        reason = conjunction.en in {"because", "although"}
        if reason and isinstance(subject, Entity) and self.chance(0.5):
            pronoun = _pronoun_for(subject)
            if not _looks_like(pronoun, patient):
                return self.description(subject.noun, pronoun, tense)
        mention = patient if isinstance(patient, Entity) and not said.passive else None
        if isinstance(subject, Pronoun) and self.chance(0.75):
            actor = self.actor(said)
            if reason and self.chance(0.5):
                return self.description(actor, subject, tense)
            return self.clause(actor, subject, tense, mention, plain=True)
        if isinstance(subject, Entity) and self.chance(0.75):
            pronoun = _pronoun_for(subject)
            if not _looks_like(pronoun, patient):
                return self.clause(subject.noun, pronoun, tense, mention, plain=True)
        return self.clause(tense=tense, mention=mention, plain=True)

    def actor(self, said: Clause) -> Noun:
        """What the pronoun that is the subject of a clause stands for."""
        if isinstance(said.subject, Pronoun) and said.subject.thing:
            raise _NoFitError
        return _SOMEONE

    def about_object(self, patient: Entity, subject: Nominal, tense: str) -> Clause:
        """ "... because it was sweet"."""
        pronoun = _pronoun_for(patient)
        clause = self.description(patient.noun, pronoun, tense)
        assert clause.predicate is not None
        if clause.predicate.standard is not None:
            raise _NoFitError
        if _looks_like(pronoun, subject):
            # Only the meaning of the adjective says which of the two it is about.
            if not isinstance(subject, Entity):
                raise _NoFitError
            words = {adjective.en for adjective in _adjectives(subject.noun)}
            if clause.predicate.adjective.en in words:
                raise _NoFitError
        return clause


def _is_consistent(meaning: Meaning) -> bool:
    """Whether "they" and "them" can have only one French gender in the sentence."""
    plural: set[str] = set()
    said: set[str] = set()
    for node in _nodes(meaning):
        if isinstance(node, Entity) and _is_plural(node):
            plural.add(node.noun.gender)
        elif isinstance(node, Pair):
            plural.add(_features(node)[2])
        parts: tuple[object, ...] = ()
        if isinstance(node, Clause):
            parts = (node.subject, node.object, node.recipient)
        elif isinstance(node, Predicate):
            parts = (node.standard,)
        for part in parts:
            if isinstance(part, Pronoun) and part.person == 3 and part.plural:
                said.add(part.gender)
    return not said or len(said | (plural or {"m"})) == 1


def _is_heavy(clause: Clause) -> bool:
    """Whether an adverbial at the end would seem to belong to a relative clause."""
    parts = (clause.object, clause.place.entity if clause.place else None)
    return any(isinstance(part, Entity) and part.relative is not None for part in parts)


def _check(clause: Clause) -> None:
    """Refuse a negated indefinite subject, and forms that do not show their tense: "they read"."""
    subject = clause.subject
    if clause.polarity and isinstance(subject, Entity) and subject.determiner in _INDEFINITE:
        raise _NoFitError
    person, number, _ = _features(clause.subject)
    bare = not (
        clause.tense.auxiliaries or clause.modal or clause.passive or clause.polarity == "not"
    )
    if clause.verb.en in lexicon.UNCHANGED and bare and (person, number) != (3, "s"):
        raise _NoFitError


# --- the corpus -----------------------------------------------------------------------------

_MOST = 200_000  # beyond it the grammar starts to repeat itself
_PATIENCE = 2_000  # draws in a row that bring nothing new


def generate(seed: int, sizes: Mapping[str, int], part: float = 1.0) -> dict[str, list[Sentence]]:
    """Splits of the given sizes, the same for the same arguments.

    Of the words that fit in a place only the most frequent ``part`` is used, at least one.
    ``test_long`` gets only sentences longer than all others.  No English sentence occurs twice.
    Raises ValueError when a size is negative or the grammar has not that many sentences.
    """
    for name, size in sizes.items():
        if size < 0:
            raise ValueError(f"the size of split {name!r} is negative: {size}")
    long = sizes.get(LONG_SPLIT, 0)
    rng = random.Random(f"bundled-{seed}")
    pools = {
        True: _draw(rng, long, LONGEST_ORDINARY + 1, MAX_WORDS, 2.4, part),
        False: _draw(rng, sum(sizes.values()) - long, MIN_WORDS, LONGEST_ORDINARY, 1.0, part),
    }
    splits = {}
    for name, size in sizes.items():
        pool = pools[name == LONG_SPLIT]
        splits[name] = [pool.pop() for _ in range(size)]
    return splits


def _draw(
    rng: random.Random, count: int, shortest: int, longest: int, rich: float, part: float
) -> list[Sentence]:
    """``count`` different sentences of ``shortest`` to ``longest`` English words, shuffled."""
    if count > _MOST:
        raise ValueError(f"the grammar cannot make {count} different sentences: at most {_MOST}")
    author = _Author(rng, rich, part)
    found: dict[str, Sentence] = {}
    failures = 0
    while len(found) < count:
        if failures > _PATIENCE:
            raise ValueError(
                f"only {len(found)} of {count} sentences of {shortest} to {longest} words found "
                "with this part of the lexicon"
            )
        failures += 1
        try:
            meaning = author.sentence()
        except _NoFitError:
            continue
        if not _is_consistent(meaning):
            continue
        try:
            english = realise_english(meaning)
            source = english.text
            if source in found or not shortest <= len(source.split()) <= longest:
                continue
            found[source] = Sentence(english, realise_french(meaning), phenomena(meaning))
        except RealisationError:  # what pyRealB complains about does not enter the corpus
            continue
        failures = 0
    sentences = list(found.values())
    # Rare sentences come late in the draw: without a shuffle the splits would differ.
    rng.shuffle(sentences)
    return sentences
