#!/bin/sh
# Prints the first Python >= 3.11 of this machine that can make a virtual environment.
# Each candidate is run, not only looked up: a version manager's shim may exist and refuse to start.
# Usage: find-python.sh [CANDIDATE ...]
set -u

[ $# -gt 0 ] || set -- python3 python3.14 python3.13 python3.12 python3.11 python
for candidate in "$@"; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        command -v "$candidate"
        exit 0
    fi
done
cat >&2 <<MESSAGE
brokerd needs Python 3.11 or newer with the venv module; none of these fits: $*
Install one (on Debian and Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3
MESSAGE
exit 1
