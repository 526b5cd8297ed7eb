#!/usr/bin/env bash
# Make the environment in the folder $1: Python 3.12, pinned packages, this project editable, and the
# Debian packages that are missing. Nothing is done twice.
set -euo pipefail
venv=$1

missing=()
command -v g++ >/dev/null || missing+=(g++)
ldconfig -p | grep -q libnuma.so.1 || missing+=(libnuma1)
command -v sbatch >/dev/null || missing+=(slurm-wlm)
command -v munged >/dev/null || missing+=(munge)
if [ ${#missing[@]} -gt 0 ] && command -v apt-get >/dev/null; then
  if [ "$(id -u)" = 0 ]; then apt=apt-get; else apt="sudo apt-get"; fi
  echo "igrpo setup: installing Debian packages ${missing[*]}"
  { $apt update -qq && DEBIAN_FRONTEND=noninteractive $apt install -qq -y "${missing[@]}" >/dev/null; } ||
    echo "igrpo setup: could not install ${missing[*]}; install them by hand (Slurm is only for the Slurm tests)" >&2
fi

python=
for candidate in "${PYTHON:-}" python3.12 python3 python; do
  [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
  if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then python=$candidate; break; fi
done
if [ -z "$python" ] && ! command -v uv >/dev/null; then
  echo "igrpo setup: Python 3.12 is needed; install it (or uv, which can) and run make again" >&2
  exit 1
fi

echo "igrpo setup: making $venv (about 6.5 GB, 1 to 3 minutes)"
if [ -n "$python" ]; then "$python" -m venv "$venv"; else uv venv --seed --python 3.12 "$venv"; fi
"$venv/bin/python" -m pip install -q --disable-pip-version-check "uv>=0.9"
"$venv/bin/uv" pip install -q --compile-bytecode --python "$venv/bin/python" --no-deps -r requirements-cpu.txt
"$venv/bin/uv" pip install -q --python "$venv/bin/python" --no-deps -e .
