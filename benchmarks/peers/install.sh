#!/bin/sh
# Makes benchmarks/.venv-peers with the two toolkits that the benchmarks compare rnnmt with.
# torch comes first and alone: the toolkits' pins ask for older versions, and so they and what
# they import are installed without their dependencies. With a plain package index, set
# PIP_EXTRA_INDEX_URL to PyTorch's CPU wheels, or torch brings several GB of CUDA.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=$here/../.venv-peers
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
"$venv/bin/python" "$here/opennmt.py" --help > /dev/null
"$venv/bin/python" "$here/joey.py" --help > /dev/null
echo "$venv is ready"
