"""The corpora that are known by name: where they are, what they are, and how they are split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rnnmt.corpora.fetch import Remote, fetch
from rnnmt.corpora.files import Corpus, Text, columns, in_splits
from rnnmt.corpora.split import split

_MULTI30K = (
    "https://raw.githubusercontent.com/multi30k/dataset/"
    "a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/"
)
# SHA-256 and size of the files at that commit.
_PINS = """
9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8  22890 test_2016_flickr.de.gz
611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9  21077 test_2016_flickr.en.gz
6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90  22310 test_2016_flickr.fr.gz
a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee  21471 test_2017_flickr.de.gz
76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074  19138 test_2017_flickr.en.gz
3ba671ceb2299f3304ffafefea7a833d08632fbaf0ba18546f8a2ec2391af496  20434 test_2017_flickr.fr.gz
726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6 637044 train.de.gz
d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f 568929 train.en.gz
622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c 604242 train.fr.gz
f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a  24681 val.de.gz
14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28  21650 val.en.gz
ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9  23001 val.fr.gz
"""
_ELLIOTT_2016 = (
    "Desmond Elliott, Stella Frank, Khalil Sima'an, Lucia Specia. 2016. Multi30K: Multilingual "
    "English-German Image Descriptions. Proceedings of the 5th Workshop on Vision and Language, "
    "70-74. doi:10.18653/v1/W16-3210"
)
_ELLIOTT_2017 = (
    "Desmond Elliott, Stella Frank, Loïc Barrault, Fethi Bougares, Lucia Specia. 2017. Findings "
    "of the Second Shared Task on Multimodal Machine Translation and Multilingual Image "
    "Description. Proceedings of the Second Conference on Machine Translation, Volume 2, "
    "215-233. doi:10.18653/v1/W17-4718"
)


@dataclass(frozen=True)
class Aligned:
    """A corpus of two aligned files for each split."""

    source_language: str
    target_language: str
    licence: str
    citation: str
    splits: Mapping[str, tuple[Remote, Remote]]


@dataclass(frozen=True)
class Tsv:
    """A corpus of two columns in one member of an archive, to be split."""

    source_language: str
    target_language: str
    licence: str
    citation: str
    archive: Remote
    member: str
    held_out: Mapping[str, int]


def _multi30k(target_language: str) -> Aligned:
    pins = {
        name: (int(size), digest)
        for digest, size, name in map(str.split, _PINS.strip().splitlines())
    }

    def remote(split: str, language: str) -> Remote:
        name = f"{split}.{language}.gz"
        return Remote("multi30k", _MULTI30K + name, *pins[name])

    splits = {
        "train": "train",
        "valid": "val",
        "test_2016_flickr": "test_2016_flickr",
        "test_2017_flickr": "test_2017_flickr",
    }
    return Aligned(
        source_language="en",
        target_language=target_language,
        licence=(
            "The repository multi30k/dataset has no licence file at this commit; its maintainers "
            "say (https://github.com/multi30k/dataset/issues/8) that the terms of Flickr30K hold, "
            "https://hockenmaier.cs.illinois.edu/DenotationGraph/data/. "
            "Read them before any use other than research."
        ),
        citation=f"{_ELLIOTT_2016}\n{_ELLIOTT_2017}",
        splits={
            name: (remote(split, "en"), remote(split, target_language))
            for name, split in splits.items()
        },
    )


CATALOGUE: dict[str, Aligned | Tsv] = {
    "multi30k-en-fr": _multi30k("fr"),
    "multi30k-en-de": _multi30k("de"),
    "tatoeba-en-fr": Tsv(
        source_language="en",
        target_language="fr",
        licence=(
            "CC BY 2.0 (http://creativecommons.org/licenses/by/2.0), as its _about.txt says. "
            "Attribution: www.manythings.org/anki and tatoeba.org"
        ),
        citation=(
            "Tab-delimited Bilingual Sentence Pairs, English-French, 2019-04-07. "
            "http://www.manythings.org/anki/, from sentences of https://tatoeba.org"
        ),
        archive=Remote(
            "tatoeba",
            "http://www.manythings.org/anki/fra-eng.zip",
            3_424_571,
            "161c93f18da3a7e6df611ed961426613260de8af06ccf8c79c977afe5135ac44",
            advice=(
                "The publisher replaces this file in place now and then; this corpus is the one "
                "of 2019-04-07.\n  To use a newer one, unpack it and set 'source: files' with "
                "'tsv: .../fra.txt' and 'columns: [1, 2]': its results are of another corpus.\n"
                "  To have this one, set RNNMT_MIRROR to a folder or URL that"
            ),
        ),
        member="fra-eng/fra.txt",
        held_out={"valid": 2000, "test": 2000},
    ),
}


def corpus(name: str) -> Corpus:
    """A corpus of the catalogue, fetched. Raises UserError where that fails."""
    entry = CATALOGUE[name]
    dropped: Counter[str] = Counter()
    if isinstance(entry, Aligned):
        remotes = [remote for both in entry.splits.values() for remote in both]
        texts = {
            name: (Text(fetch(source)), Text(fetch(target)))
            for name, (source, target) in entry.splits.items()
        }
        rows = in_splits(texts)
    else:
        remotes = [entry.archive]
        text = Text(fetch(entry.archive), entry.member)
        rows = split(lambda: columns(text, 1, 2), entry.held_out, 1, dropped)
    return Corpus(
        source_language=entry.source_language,
        target_language=entry.target_language,
        licence=entry.licence,
        citation=entry.citation,
        origin={remote.url: remote.sha256 for remote in remotes},
        rows=rows,
        dropped=dropped,
    )
