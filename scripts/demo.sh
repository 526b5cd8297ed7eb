#!/usr/bin/env bash
# The main job on the tiny checkpoint, which is made once and kept in .cache. $1 is the folder of `igrpo`.
set -euo pipefail
bin=$1
checkpoint=.cache/tiny/qwen3
if [ ! -f "$checkpoint/config.json" ]; then
  echo "igrpo demo: making the tiny checkpoint $checkpoint by supervised warm-up (once)"
  OMP_NUM_THREADS=$(nproc) "$bin/igrpo" tiny --family qwen3 --out "$checkpoint"
fi
"$bin/igrpo" train recipes/tiny_qwen3.yaml
