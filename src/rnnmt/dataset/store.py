"""Token ids on disk: flat arrays with offsets, mapped into memory and never read as a whole.

A store is two files, `NAME.ids.npy` (all ids one after the other, uint16 or uint32) and
`NAME.offsets.npy` (int64, sentence i being ids[offsets[i]:offsets[i + 1]]).
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from rnnmt.errors import UserError

Ids = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def ids_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """The little-endian type of the ids of a vocabulary of so many pieces."""
    return np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<u4")


class TokenStore:
    """The sentences of one side of a split, as token ids without begin and end marks.

    `prefix` is the path of its files up to `.ids.npy`, such as `tokens/train.source`.
    Opening reads two headers; `ids` (tokens,) and `offsets` (sentences + 1,) stay on disk.
    Raises UserError where a file is missing or damaged.
    """

    def __init__(self, prefix: Path) -> None:
        self.ids: Ids = _map(_beside(prefix, "ids"))
        self.offsets: npt.NDArray[np.int64] = _map(_beside(prefix, "offsets"))
        if not len(self.offsets) or self.offsets[-1] != len(self.ids):
            raise UserError(f"{prefix}: ids and offsets do not fit; repeat the stage 'tokenize'")

    @classmethod
    def of(cls, ids: Ids, lengths: npt.NDArray[np.int64]) -> TokenStore:
        """A store in memory: all ids (tokens,), and the sentences' lengths (sentences,)."""
        store = cls.__new__(cls)
        store.ids = ids
        store.offsets = np.concatenate([[0], np.cumsum(lengths)])
        return store

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Ids:
        """The ids (length,) of one sentence, read-only."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sentence {index} of {len(self)}")
        at = index % len(self)
        return self.ids[self.offsets[at] : self.offsets[at + 1]]

    def first(self, count: int) -> TokenStore:
        """The first `count` sentences, still on disk."""
        store = TokenStore.__new__(TokenStore)
        store.offsets = self.offsets[: count + 1]
        store.ids = self.ids[: store.offsets[-1]]
        return store

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of tokens of each sentence (sentences,); the ids are not read."""
        return np.diff(self.offsets)


class ParallelStore(NamedTuple):
    """The two sides of one split: sentence i of one translates sentence i of the other."""

    source: TokenStore
    target: TokenStore

    def first(self, fraction: float) -> ParallelStore:
        """The first pairs: this part of all, and one at least."""
        count = max(1, round(fraction * len(self.source)))
        return ParallelStore(self.source.first(count), self.target.first(count))


def open_split(folder: Path, split: str) -> ParallelStore:
    """Both sides of a split of a tokens folder.

    Raises UserError where a file is missing or damaged, or where the sides differ in length.
    """
    source, target = (TokenStore(folder / f"{split}.{side}") for side in ("source", "target"))
    if len(source) != len(target):
        raise UserError(
            f"{folder}: split '{split}' has {len(source)} source and {len(target)} target "
            "sentences; repeat the stage 'tokenize'"
        )
    return ParallelStore(source, target)


class TokenStoreWriter:
    """Writes a store in pieces, in little memory; leaving the `with` block completes it."""

    def __init__(self, prefix: Path, dtype: np.dtype[Any]) -> None:
        self._ids = _GrowingArray(_beside(prefix, "ids"), dtype)
        self._offsets = _GrowingArray(_beside(prefix, "offsets"), np.dtype("<i8"))
        self._offsets.append(np.zeros(1, dtype="<i8"))

    def append(self, ids: npt.NDArray[Any], lengths: npt.NDArray[np.int64]) -> None:
        """Add sentences: all their ids in one array (tokens,), their lengths (sentences,)."""
        ends = self._ids.length + np.cumsum(lengths, dtype="<i8")
        self._ids.append(ids)
        self._offsets.append(ends)

    @property
    def tokens(self) -> int:
        """The number of ids so far."""
        return self._ids.length

    def __enter__(self) -> TokenStoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ids.close()
        self._offsets.close()


class _GrowingArray:
    """A one-dimensional .npy file whose length is known only at the end."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.length = 0
        self._dtype = dtype
        self._file: BinaryIO = path.open("wb")
        self._write_header()

    def append(self, values: npt.NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self.length += len(values)

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        # NumPy pads its headers so that a length may grow in place.
        np.lib.format.write_array_header_1_0(
            self._file,
            {"descr": self._dtype.str, "fortran_order": False, "shape": (self.length,)},
        )


def _beside(prefix: Path, kind: str) -> Path:
    return prefix.with_name(f"{prefix.name}.{kind}.npy")


def _map(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage 'tokenize' first") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged ({error}); repeat the stage 'tokenize'") from None
    # A plain view, since every slice of a memmap object costs microseconds more.
    return np.asarray(array)
