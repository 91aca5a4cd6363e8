#!/bin/sh
# Makes or repairs .venv in the current folder: the locked dependencies, checked by hash, then brokerd
# itself as an editable install. Safe to interrupt and to run again.
# Usage: make-venv.sh PYTHON
set -eu

usable() {  # an environment that was copied or whose Python is gone must be made anew
    [ -x .venv/bin/python ] || return 1
    [ "$(.venv/bin/python -c 'import sys; print(sys.prefix)' 2>/dev/null)" = "$(pwd -P)/.venv" ] || return 1
    head -n 1 .venv/bin/pip 2>/dev/null | grep -qF "$(pwd -P)/.venv/"
}

if ! usable; then
    python=$(sh deploy/find-python.sh "$1")
    echo "Making .venv with $python"
    "$python" -m venv --clear .venv
fi
packages=$(grep -cE '^[a-zA-Z0-9._-]+==' requirements.lock)
echo "Installing $packages locked packages into .venv (about 135 MB to fetch, 510 MB on disk; a minute or two the first time)"
pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input --quiet "$@"; }
pip install --require-hashes -r requirements.lock
pip install --no-deps --no-build-isolation --editable .
