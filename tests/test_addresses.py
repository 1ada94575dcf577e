"""What is printed of addresses that hold passwords."""

from __future__ import annotations

import pytest

from rnnmt.addresses import shown


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://me:secret@host:5000/a", "http://host:5000/a"),
        ("https://secret@host", "https://host"),
        ("postgresql+psycopg2://me:sec@ret@db:5432/x", "postgresql+psycopg2://db:5432/x"),
        ("http://me:sec/ret@host/a", "http://host/a"),
        ("http://me:secret@", "http://"),
        ("http://host/a?token=secret&x=secret", "http://host/a?token=***&x=***"),
        ("s3://bucket/a?X-Amz-Signature=secret#b", "s3://bucket/a?X-Amz-Signature=***#b"),
        ("url: /api/x?token=secret (Caused by y)", "url: /api/x?token=*** (Caused by y)"),
        ("'ssh://me:secret@a/b' and //c:secret@d/e", "'ssh://a/b' and //d/e"),
        ("http://me:sécrêt🔑@host", "http://host"),
    ],
)
def test_passwords_and_tokens_are_left_out(address: str, expected: str) -> None:
    assert shown(address) == expected


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////srv/x/mlflow.db", "http://127.0.0.1:5000/#/experiments/1", "models:/x@champion",
        "http://[::1]:80/package@1.0", "s3://bucket/a@b", "/srv/a@b", "what? is this = that",
        "http://host:80?", "connection refused: nobody@example.org",
    ],
)  # fmt: skip
def test_all_else_stays(text: str) -> None:
    assert shown(text) == text
