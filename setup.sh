#!/bin/sh
# Makes what every target of the Makefile needs: the system libraries behind OpenCV and off-screen rendering, and the
# environment in .venv. Safe to run again, and after an interruption.
set -eu
cd "$(dirname "$0")"
VENV=${VENV:-.venv}

if [ -z "${PYTHON:-}" ] && [ ! -x "$VENV/bin/python" ]; then
    echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or run make PYTHON=/path/to/python" >&2
    exit 1
fi

# PyPI has decord 0.6.0 for hardly any other, and what renders off-screen here wants EGL.
system="$(uname -s) on $(uname -m)"
if [ "$system" != "Linux on x86_64" ]; then
    echo "error: this needs Linux on x86-64, and here is $system; docker run --platform linux/amd64 makes one" >&2
    exit 1
fi

install_system_libraries() {
    missing=$("${PYTHON:-$VENV/bin/python}" - <<'PY'
import ctypes
# library to load -> Debian package that has it
wanted = {"libEGL.so.1": "libegl1", "libGL.so.1": "libgl1", "libglib-2.0.so.0": "libglib2.0-0"}
for library, package in wanted.items():
    try:
        ctypes.CDLL(library)
    except OSError:
        print(package)
PY
    )
    # The software renderer is a plug-in: it is looked for by name, not linked.
    if ! ls /usr/lib/*/dri/*_dri.so /usr/lib64/dri/*_dri.so /usr/lib/*/libgallium-*.so /usr/lib64/libgallium-*.so 2>/dev/null | grep -q .; then
        missing="$missing libgl1-mesa-dri"
    fi
    missing=$(echo $missing)
    [ -n "$missing" ] || return 0

    command="apt-get install -y --no-install-recommends $missing"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "error: system libraries are missing; install your system's packages for: $missing" >&2
        exit 1
    elif [ "$(id -u)" = 0 ]; then
        sudo=
    elif sudo -n true 2>/dev/null; then
        sudo="sudo -n"
    else
        echo "error: system libraries are missing; run this once: sudo $command" >&2
        exit 1
    fi
    echo "Installing system libraries: $missing ..."
    $sudo env DEBIAN_FRONTEND=noninteractive sh -c "$command -qq || { apt-get update -qq && $command -qq; }" >/dev/null
}

install_environment() {
    # The stamp holds the hash of the lock it was made from and is written last.
    wanted=$(cksum < requirements.txt)
    stamp=$VENV/.installed
    [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
    # A virtual environment that was cut off while being made has no pip.
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m venv --clear "$VENV"
    echo "Installing requirements.txt into $VENV (about 3.4 GB to fetch and 7 GB there; only when it changes) ..."
    # pip says so after minutes, and not how much it wants. What it fetches may lie on another disk, or be here already.
    lacking=$((7150000 - $(du -sk "$VENV" | cut -f1) - $(df -Pk "$VENV" | awk 'NR == 2 { print $4 }')))
    if [ "$lacking" -gt 0 ]; then
        echo "error: too little disk for $VENV: its packages take 7.3 GB, $((lacking / 1000)) MB more than is free;" \
            "14 GB in all where pip's temporary files and its cache are on the same disk" >&2
        exit 1
    fi
    # Minutes: somebody who watches sees how far it is, a log is spared it.
    if [ -t 1 ]; then quiet=; else quiet=--quiet; fi
    # What Python brings may be years old, and then thinks twice as long as a new one; it does as well, though.
    "$VENV/bin/python" -m pip install $quiet --disable-pip-version-check "pip==26.3" || echo "going on with pip as it is"
    "$VENV/bin/python" -m pip install $quiet --no-compile --disable-pip-version-check -r requirements.txt
    # pip would compile four times the modules that are ever loaded, in two and a half times the time. Asked for
    # here, whatever the variable says: a process that has to compile torch for itself starts ten seconds later.
    echo "Compiling what is used of it ..."
    compile_used() {
        env -u PYTHONDONTWRITEBYTECODE "$VENV/bin/python" - "$@" <<'PY'
import importlib
import pkgutil
import sys

for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + ".") if name in ("flows", "pipeline", "models") else ():
        importlib.import_module(module.name)
PY
    }
    # About as long as each other, on two cores.
    # `flows` first: without it Prefect reports home and makes a folder there.
    compile_used flows prefect.server.api.server dvc.repo &
    beside=$!
    compile_used models pipeline
    wait "$beside"
    printf '%s\n' "$wanted" > "$stamp.tmp" && mv "$stamp.tmp" "$stamp"
}

install_system_libraries
# Two at once, `make serve` and `make repro` say, would install into one folder: the second waits for the first.
if command -v flock >/dev/null 2>&1; then
    exec 9>.setup.lock
    flock 9
fi
install_environment

# `dvc` itself, but killed while it writes its lock file it leaves the old one whole. -P: flows/ shadows no package.
case $VENV in /*) environment=$VENV ;; *) environment=$PWD/$VENV ;; esac
printf '#!/bin/sh\nexec "%s/bin/python" -P "%s/flows/dvc_command.py" "$@"\n' "$environment" "$PWD" > "$VENV/bin/dvc.$$"
chmod +x "$VENV/bin/dvc.$$" && mv "$VENV/bin/dvc.$$" "$VENV/bin/dvc"
