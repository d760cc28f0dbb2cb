#!/usr/bin/env bash
# Makes .venv from the hash-locked requirements and installs our packages into it, editable. Called by `make setup`.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
packages=(shared/event-contracts shared/country-data shared/servicekit shared/lanes services/account services/order services/logistics-gateway services/privacy)

fail() {
    echo "setup: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "there is no $python. Install it (Debian: apt-get install python3 python3-venv) or name one: make setup PYTHON=…"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" -V) is too old, 3.11 or newer is needed. Name another one: make setup PYTHON=python3.12"

[ ! -L .venv ] || fail ".venv is a link to another environment, which would be emptied. Remove the link first"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        fail "Python's venv module is missing. Install it (Debian: apt-get install python3-venv), then run this again"
    echo "setup: Python's venv module is missing, installing python3-venv"
    apt-get install -qq -y python3-venv >/dev/null 2>&1 || { apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null; }
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# One that works is brought up to date in place, under the feet of nobody; `make clean` begins anew.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "setup: making .venv with $("$python" -V)"
    "$python" -m venv --clear .venv
fi
echo "setup: installing $(grep -c '^[a-z].*==' requirements.lock) locked requirements (200 MB the first time)"
.venv/bin/pip install --progress-bar off --require-hashes --only-binary :all: -r requirements.lock |
    awk '/^Collecting/ && ++n % 15 == 0 {print "setup:   " n " fetched"; fflush()} /^Installing/ {print "setup:   unpacking"; fflush()}'
echo "setup: installing our ${#packages[@]} packages"
.venv/bin/pip install --quiet --no-deps --no-build-isolation "${packages[@]/#/--editable=}"
touch .venv/ready
echo "setup: done"
