"""DVC's remotes of the README, each with a real server on this machine.

The folder as a remote is tried in test_retrain.py.
"""

from __future__ import annotations

import getpass
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import servers
from clones import Clone, run
from servers import BIN, KEYS

pytestmark = pytest.mark.long


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    with servers.sshd(tmp_path) as found:
        yield found


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[str]:
    with servers.s3(tmp_path) as address:
        yield address


def pushed_and_pulled(folder: Path, *settings: tuple[str, ...]) -> None:
    """Two stages pushed with the run cache; a clone runs nothing and has the same bytes."""
    one, two = folder / "one", folder / "two"
    one.mkdir()
    (one / "in").write_text("some data\n")
    (one / "dvc.yaml").write_text("stages:\n  copy: {cmd: cp in out, deps: [in], outs: [out]}\n")
    run("git", "init", "-q", cwd=one)
    run("dvc", "init", "-q", cwd=one, env=KEYS)
    for command in settings:
        run("dvc", "remote", *command, cwd=one, env=KEYS)
    run("dvc", "repro", cwd=one, env=KEYS)
    run("dvc", "push", "--run-cache", cwd=one, env=KEYS)
    (one / "dvc.lock").unlink()
    run("git", "add", "-A", cwd=one)
    run("git", "-c", "user.name=me", "-c", "user.email=m@e", "commit", "-qm", "x", cwd=one)
    run("git", "clone", "-q", str(one), str(two), cwd=folder)
    printed = run("dvc", "repro", "--pull", cwd=two, env=KEYS)
    assert "is cached - skipping run" in printed
    assert (two / "out").read_bytes() == (one / "in").read_bytes()


def test_over_ssh(tmp_path: Path, sshd: tuple[int, Path]) -> None:
    port, key = sshd
    store = Path(tempfile.mkdtemp(dir=tmp_path))
    pushed_and_pulled(
        tmp_path,
        ("add", "-d", "store", f"ssh://{getpass.getuser()}@127.0.0.1:{port}{store}"),
        ("modify", "store", "keyfile", str(key)),
    )
    assert list((store / "files/md5").iterdir())


def test_over_s3(tmp_path: Path, s3: str) -> None:
    pushed_and_pulled(
        tmp_path,
        ("add", "-d", "store", "s3://rnnmt/dvc"),
        ("modify", "store", "endpointurl", s3),
    )


def test_a_sweep_over_ssh_hosts_leaves_nothing_to_train(
    tmp_path: Path, sshd: tuple[int, Path]
) -> None:
    """Two clones as two machines, one that is away, and a third clone for the last repro."""
    port, key = sshd
    (tmp_path / "main").mkdir()
    main = Clone(tmp_path / "main")
    person = ("-c", "user.name=me", "-c", "user.email=me@localhost")
    run("dvc", "remote", "add", "-d", "s", str(tmp_path / "store"), cwd=main.folder, env=KEYS)
    main.repro("tokenize")
    run("dvc", "push", "-q", cwd=main.folder, env=KEYS)
    run("git", "add", "-A", cwd=main.folder)
    run("git", *person, "commit", "-qm", "x", cwd=main.folder)
    for name in ("a", "b", "c"):
        run("git", "clone", "-q", str(main.folder), str(tmp_path / name), cwd=tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(
        f'#!/bin/sh\nexec {shutil.which("ssh")} -i {key} -o StrictHostKeyChecking=no "$@"\n'
    )
    (tmp_path / "bin/ssh").chmod(0o755)
    environment = main.environment | {"PATH": f"{tmp_path}/bin:{main.environment['PATH']}"}
    hosts = [f"127.0.0.1:{port}:{tmp_path}/{name}" for name in ("a", "b")]
    hosts.append(f"127.0.0.1:{servers.free_port()}:{tmp_path}/away")
    options = [part for host in hosts for part in ("--host", host)]
    options += ["--setup", f"export PATH={BIN}:$PATH PYTHONPATH=$PWD/src OMP_NUM_THREADS=1"]
    printed = run("rnnmt", "sweep", *options, cwd=main.folder, env=environment)
    assert "gru-1: done" in printed
    assert "lstm-general-1: done" in printed
    last = Clone.__new__(Clone)
    last.folder, last.more = tmp_path / "c", {}
    printed = last.repro("--pull")
    for stage in ("train", "decode"):
        for label in ("gru-1", "lstm-general-1"):
            assert f"Running stage '{stage}@{label}'" not in printed
    assert "Running stage 'compare'" in printed


def test_the_plan_is_printed(tmp_path: Path) -> None:
    main = Clone(tmp_path)
    printed = run("rnnmt", "sweep", cwd=tmp_path, env=main.environment).splitlines()
    assert [line.split("train@")[1].split()[0] for line in printed[:2]] == [
        "gru-1",
        "lstm-general-1",
    ]
    assert printed[-1] == "dvc repro --pull"
