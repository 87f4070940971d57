#!/usr/bin/env bash
# Starts Atelier on Linux and macOS. The first time it installs what is needed into .venv beside it.
#
#   ./launch.sh              the page        [--port N] [--listen ADDRESS] [--no-browser]
#   ./launch.sh demo         the whole way in the terminal: pictures, training, before and after
#   ./launch.sh doctor       what is installed, what will work, and how to mend the rest
#   ./launch.sh test         all checks and tests
#   ./launch.sh update       the newest Atelier
#
# ATELIER_PYTHON=/path/to/python   use this Python
# ATELIER_TORCH=cpu|cuda           use this build of PyTorch, whatever card is found

set -u

VENV_PYTHON=.venv/bin/python
INSTALL=backend/system/install.py

usage() {
    sed -n '2,11s/^# \{0,1\}//p' launch.sh
}

leave_foreign_settings() {
    for name in PYTHONPATH PYTHONHOME; do
        if [ -n "${!name:-}" ]; then
            echo "$name is set (${!name}); Atelier goes without it, so that only its own libraries are used."
        fi
    done
    unset PYTHONPATH PYTHONHOME
    export PYTHONNOUSERSITE=1 PYTHONUTF8=1
}

# Sets PYTHON to the first Python that fits, or says what is wrong with those that were found.
find_python() {
    local name said reasons=""
    PYTHON=""
    for name in ${ATELIER_PYTHON:+"$ATELIER_PYTHON"} python3.13 python3.12 python3.11 python3.10 python3 python; do
        command -v "$name" >/dev/null 2>&1 || continue
        if said=$("$name" -E -s backend/system/probe.py 2>/dev/null); then
            PYTHON=$name
            return 0
        fi
        case $reasons in *"$said"*) ;; *) reasons="$reasons$said"$'\n' ;; esac
    done
    if [ -n "$reasons" ]; then
        printf 'error: %s' "$reasons"
    else
        echo "error: no Python was found; Atelier needs 3.10, 3.11, 3.12 or 3.13 (64-bit)"
    fi
    case $(uname -s) in
        Darwin) echo "-> Install Python 3.12 with its installer or with Homebrew (brew install python@3.12), then start again." ;;
        *) echo "-> Install it (Debian, Ubuntu: sudo apt install python3 python3-venv), then start again." ;;
    esac
    return 3
}

# is_installed [--dev]
is_installed() {
    [ -x "$VENV_PYTHON" ] && "$VENV_PYTHON" -I "$INSTALL" check "$@" 2>/dev/null
}

# install VERB [--dev]
install() {
    find_python || return
    "$PYTHON" -I "$INSTALL" "$@"
}

main() {
    cd "$(dirname "${BASH_SOURCE[0]}")" || return 3
    local verb=page
    case ${1:-} in
        demo | doctor | test | update) verb=$1; shift ;;
        page) shift ;;
        -h | --help | help) usage; return 0 ;;
        -* | "") ;;
        *) echo "error: '$1' is not something launch.sh can do"; usage; return 2 ;;
    esac
    leave_foreign_settings
    case $verb in
        page)
            is_installed || install install || return
            exec "$VENV_PYTHON" app.py "$@" ;;
        demo)
            is_installed || install install || return
            exec "$VENV_PYTHON" -m backend.demo "$@" ;;
        test)
            is_installed --dev || install install --dev || return
            exec "$VENV_PYTHON" tools/run_tests.py "$@" ;;
        doctor)
            [ -x "$VENV_PYTHON" ] && "$VENV_PYTHON" -c "" 2>/dev/null && PYTHON=$VENV_PYTHON || find_python || return
            exec "$PYTHON" -m backend.system.doctor "$@" ;;
        update)
            install update ;;
    esac
}

# Read to the end before anything runs: an update may replace this file.
main "$@"; exit $?
