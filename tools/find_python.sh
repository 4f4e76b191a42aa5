#!/bin/sh
# Prints the interpreter to build .venv from: $PYTHON if it is set, else the one that .venv was built from, else one that
# megatron-core ships wheels for, else any newer one. Fit is a Python 3.11 or newer that can make virtual environments.
can_make_environments='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
is_new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

without_venv=
for name in ${PYTHON:-.venv/bin/python python3.11 python3.12 python3 python3.13 python3.14 python}; do
    if "$name" -c "$can_make_environments" >/dev/null 2>&1; then
        "$name" -c 'import os, sys; print(os.path.realpath(sys.executable))'
        exit 0
    fi
    if [ -z "$without_venv" ] && "$name" -c "$is_new_enough" >/dev/null 2>&1; then
        without_venv=$name
    fi
done

if [ -n "$without_venv" ]; then
    echo "error: $without_venv cannot make virtual environments; install its venv module" \
        "(Debian and Ubuntu: apt install $("$without_venv" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'))." >&2
elif [ -n "$PYTHON" ]; then
    echo "error: PYTHON=$PYTHON is not a Python 3.11 or newer; name another one, or leave PYTHON out." >&2
else
    echo "error: no Python 3.11 or newer was found; install one, or name it: make setup PYTHON=/path/to/python3." >&2
fi
exit 2
