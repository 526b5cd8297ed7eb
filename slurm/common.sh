#!/usr/bin/env bash
# What every job here does, on the first node: check the nodes, start a rank in every task, and see to
# the end. Called by the scripts beside it as: common.sh DEFAULT_RECIPE [RECIPE] [key=value ...]
set -euo pipefail

say() { echo "igrpo: $*" >&2; }

# One srun into the environment of the job: the container where CONTAINER_IMAGE is set, else VENV.
in_job() {
  local flags=(--kill-on-bad-exit=1 --cpu-bind=none)
  if [ -n "${CONTAINER_IMAGE:-}" ]; then
    flags+=(--container-image="$CONTAINER_IMAGE" --container-workdir="$PWD"
      --container-mounts="$PWD:$PWD${CONTAINER_MOUNTS:+,$CONTAINER_MOUNTS}")
  fi
  srun "${flags[@]}" "$@"
}

check_nodes() {
  local answers=$logs/health-$restart.jsonl status=0
  rm -f "$answers" # srun appends, as the header says
  # shellcheck disable=SC2086 # HEALTH_OPTIONS are several words
  in_job --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --time=5 --output="$answers" --error="$logs/health.log" \
    bash -c 'master=; [ "$SLURM_PROCID" != 0 ] || master=--is-master; exec "$@" $master' node \
    "$python" -m igrpo_mcore.health node --gpus "$gpus" --nodes "$SLURM_JOB_NUM_NODES" \
    --master "$MASTER_ADDR:$MASTER_PORT" --min-free-gib "${MIN_FREE_GIB:-20}" ${HEALTH_OPTIONS:-} "$@" || status=$?
  in_job --nodes=1 --ntasks=1 --ntasks-per-node=1 --time=5 \
    "$python" -m igrpo_mcore.health compare "$answers" "${hosts[@]}" && [ "$status" = 0 ]
}

# The first rank that does not end well leaves "RANK STATUS" in a file: srun would report the highest
# status, which is that of the ranks it killed. 75 asks for a requeue and becomes 0 here, so that srun lets
# the other ranks say the same. Slurm signals this shell as well; the trap leaves the answer to the rank.
train() {
  in_job --output="$logs/rank-%t.log" --open-mode=append \
    bash -c 'trap : USR1 TERM; first=$1; shift; "$@"; status=$?
      [ "$status" = 0 ] || (set -o noclobber; echo "$SLURM_PROCID $status" >"$first") 2>/dev/null
      [ "$status" != 75 ] || status=0; exit "$status"' rank \
    "$first" "$python" -m igrpo_mcore train "$@"
}

main() {
  : "${SLURM_JOB_ID:?this script needs Slurm: start it with sbatch}"
  local default_recipe=$1 recipe=$1 restart=${SLURM_RESTART_COUNT:-0} python gpus logs first status=0
  shift
  if [ $# -gt 0 ] && [[ $1 != *=* ]]; then recipe=$1; shift; fi
  if [ ! -f "$recipe" ]; then say "there is no recipe $recipe in $PWD; give one, or none for $default_recipe"; exit 2; fi

  python=python # the container's, with this checkout
  if [ -z "${CONTAINER_IMAGE:-}" ]; then
    python=${VENV:-$PWD/.venv}/bin/python
    if [ ! -x "$python" ]; then say "there is no $python; set VENV to an environment, or CONTAINER_IMAGE"; exit 2; fi
  else
    export PYTHONPATH=$PWD:$PWD/kernels${PYTHONPATH:+:$PYTHONPATH}
  fi
  gpus=${SLURM_GPUS_PER_NODE:-0}
  gpus=${gpus##*:} # "h100:8"
  logs=slurm/logs/$SLURM_JOB_NAME-$SLURM_JOB_ID
  mkdir -p "$logs"
  first=$logs/first-$restart

  # rendezvous of all ranks (igrpo_mcore/launch.py takes the rest from srun)
  mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  export MASTER_ADDR=${hosts[0]} MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))

  say "job $SLURM_JOB_ID, start $((restart + 1)): $recipe $* on ${hosts[*]}; logs by rank in $logs"
  if ! check_nodes "$recipe" "$@"; then say "a node is not fit, see above and $logs/health.log; the job ends"; exit 1; fi

  # the name stays the same over restarts, so that the run resumes; the user's own, if any, comes last
  touch "$logs/rank-0.log"
  tail -n 0 -F "$logs/rank-0.log" 2>/dev/null &
  local follow=$! rank=
  train "$recipe" "run.name=$SLURM_JOB_NAME-$SLURM_JOB_ID" "$@" || status=$?
  sleep 1; kill "$follow"
  if [ -s "$first" ]; then read -r rank status <"$first"; fi

  if [ "$status" = 75 ]; then
    local again="submit it again with the same run.name (run.name=$SLURM_JOB_NAME-$SLURM_JOB_ID unless you set one)"
    if [ "$restart" -ge "${MAX_RESTARTS:-50}" ]; then
      say "the run asks to go on, but this was start $((restart + 1)), the last by MAX_RESTARTS; $again"
    else
      say "the run wrote a checkpoint and goes on after requeueing"
      scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this script here
      say "Slurm did not requeue the job; $again"
    fi
  elif [ "$status" != 0 ]; then
    if [ -n "$rank" ]; then
      say "rank $rank ended first, with status $status; see $logs/rank-$rank.log"
    else
      say "srun ended with status $status and no rank said why; see above and $logs/rank-*.log"
    fi
  fi
  return "$status"
}

main "$@"; exit # on one line: bash reads no further, so the file may change under a running job
