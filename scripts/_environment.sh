# Sourced by the scripts beside it. Makes the project's own virtual environment and keeps it up to date.
#
# environment NAME REQUIREMENT...   installs the requirements once, and again whenever pyproject.toml changes.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python 3.10 or newer found. Install one, or name it: PYTHON=/path/to/python $0" >&2
    return 1
}

environment() {
    local name=$1 python stamp
    shift
    if [ ! -x "$venv/bin/python" ]; then
        python=$(find_python)
        echo "Making $venv with $("$python" --version) ..." >&2
        if ! "$python" -m venv "$venv"; then
            rm -rf "$venv"
            echo "That Python cannot make virtual environments (Debian and Ubuntu: apt install python3-venv)." >&2
            return 1
        fi
    fi
    stamp="$venv/.installed-$name-$(cksum <"$root/pyproject.toml" | tr ' ' '-')"
    if [ ! -e "$stamp" ]; then
        echo "Installing: $* ..." >&2
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
        (cd "$root" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade-strategy only-if-needed "$@")
        rm -f "$venv/.installed-$name-"*
        touch "$stamp"
    fi
}
