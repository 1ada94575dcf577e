#!/bin/sh
# Makes benchmarks/.venv-peers with the toolkits that the benchmarks compare rnnmt with.
# torch comes first and alone: the toolkits' pins ask for older versions, and so they and what
# they import are installed without their dependencies. With a plain package index, set
# PIP_EXTRA_INDEX_URL to PyTorch's CPU wheels, or torch brings several GB of CUDA.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=$here/../.venv-peers
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
# LitServe runs rnnmt's own translator, in rnnmt's environment, and so gets a folder of its own, with
# what uvicorn[standard], which it asks for, adds to what rnnmt has.
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --upgrade \
  --target "$venv/litserve" litserve==0.2.19 pyzmq==27.3.0 httptools==0.9.0 uvloop==0.23.0
"$venv/bin/python" "$here/opennmt.py" --help > /dev/null
"$venv/bin/python" "$here/joey.py" --help > /dev/null
echo "$venv is ready"
