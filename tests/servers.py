"""Real servers on this machine for the tests: PostgreSQL, MLflow, S3 and SSH."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

import pytest

BIN = Path(sys.executable).parent
KEYS = {
    **{k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")},
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def missing(what: str) -> NoReturn:
    """Skip a test for want of a program; fail where REQUIRE_SERVERS says that all are there."""
    if os.environ.get("REQUIRE_SERVERS"):
        pytest.fail(what)
    pytest.skip(what)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, log: IO[str], environment: Mapping[str, str] = KEYS
) -> Iterator[None]:
    """A server, from when it can be reached until it has ended."""
    process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        for _ in range(1800):
            assert process.poll() is None, Path(log.name).read_text(encoding="utf-8")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.1)
        else:
            raise AssertionError(f"{command} cannot be reached")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The address of an empty database; without PostgreSQL, see `missing`."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        missing("needs PostgreSQL: apt-get install postgresql")
    port, folder = free_port(), Path(tempfile.mkdtemp())
    # It does not run as root.
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")

    def do(program: str, *arguments: str) -> None:
        command = [*user, str(programs[-1] / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    data = str(folder / "data")
    do("initdb", "--pgdata", data, "--username", "mlflow", "--auth", "trust")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    do("pg_ctl", "--pgdata", data, "--wait", "--log", f"{folder}/log", "-o", options, "start")
    try:
        do("createdb", "--host", "127.0.0.1", "--port", str(port), "-U", "mlflow", "mlflow")
        # +psycopg2: without it, SQLAlchemy looks for another client.
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        do("pg_ctl", "--pgdata", data, "--mode", "immediate", "stop")
        shutil.rmtree(folder)


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[str]:
    """The address of an S3 server with a bucket `rnnmt`."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    client = "import boto3, sys; boto3.client('s3', endpoint_url=sys.argv[1])"
    make = f"{client}.create_bucket(Bucket='rnnmt')"
    command = [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with open(folder / "s3.log", "w", encoding="utf-8") as log, running(command, port, log):
        subprocess.run([sys.executable, "-c", make, address], env=KEYS, check=True)
        yield address


@contextlib.contextmanager
def mlflow(folder: Path) -> Iterator[str]:
    """The address of an MLflow server, which keeps runs in PostgreSQL and artifacts in S3."""
    port = free_port()
    with (
        postgresql() as database,
        s3(folder) as store,
        open(folder / "mlflow.log", "w", encoding="utf-8") as log,
    ):
        environment = KEYS | {
            "MLFLOW_S3_ENDPOINT_URL": store,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        command = [str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", database]
        command += ["--artifacts-destination", "s3://rnnmt/mlflow"]
        with running(command, port, log, environment):
            yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[tuple[int, Path]]:
    """The port of an SSH server, and the key by which it lets this user in."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        missing("needs sshd: apt-get install openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it gives up its rights
    for name in ("host", "key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    port = free_port()
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/key.pub\nStrictModes no\nPidFile none\n"
        "PermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    command = [program, "-D", "-e", "-f", str(folder / "config")]
    with open(folder / "sshd.log", "w", encoding="utf-8") as log, running(command, port, log):
        yield port, folder / "key"


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """A SLURM cluster of this machine alone: the environment in which its commands find it."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    programs = {name: shutil.which(name, path=path) for name in ("munged", "slurmctld", "slurmd")}
    if None in programs.values() or os.geteuid():
        missing("needs SLURM and root: apt-get install slurmctld slurmd slurm-client munge")
    munged, controller, node = map(str, programs.values())
    key, socket_ = folder / "munge.key", folder / "munge.socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    folder.chmod(0o711)
    ports, host = (free_port(), free_port()), socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(
        f"ClusterName=rnnmt\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\n"
        f"SlurmctldPort={ports[0]}\nSlurmdPort={ports[1]}\n"
        f"AuthType=auth/munge\nCredType=cred/munge\nAuthInfo=socket={socket_}\n"
        f"StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool\n"
        f"SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.pid\n"
        "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nMpiDefault=none\n"
        "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nReturnToService=2\n"
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()}\n"
        f"PartitionName=here Nodes={host} Default=YES\n",
        encoding="utf-8",
    )
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    authentication = [munged, "--force", f"--socket={socket_}", f"--key-file={key}"]
    files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("pid", "log", "seed")]
    subprocess.run([*authentication, *files], check=True)
    try:
        with (
            open(folder / "log", "w", encoding="utf-8") as log,
            running([controller, "-D"], ports[0], log, KEYS | environment),
            running([node, "-D"], ports[1], log, KEYS | environment),
        ):
            yield environment
    finally:
        subprocess.run([*authentication, "--stop"], check=True)
