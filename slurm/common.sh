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

# A rank that ends with 75 asks to be queued again. That becomes status 0 and a file, because for any
# other status srun kills the ranks that are about to say the same, and reports the kill instead. Slurm
# signals this shell as well: the trap leaves the answer to the rank.
train() {
  in_job --output="$logs/rank-%t.log" --open-mode=append \
    bash -c 'trap : USR1 TERM; asks=$1; shift; "$@"; status=$?
      if [ "$status" = 75 ]; then touch "$asks"; exit 0; fi; exit "$status"' rank \
    "$logs/requeue-$restart" "$python" -m igrpo_mcore train "$@"
}

main() {
  : "${SLURM_JOB_ID:?this script needs Slurm: start it with sbatch}"
  local default_recipe=$1 recipe=$1 restart=${SLURM_RESTART_COUNT:-0} python gpus logs status=0
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

  # rendezvous of all ranks (igrpo_mcore/launch.py takes the rest from srun)
  mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  export MASTER_ADDR=${hosts[0]} MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))

  say "job $SLURM_JOB_ID, start $((restart + 1)): $recipe $* on ${hosts[*]}; logs by rank in $logs"
  if ! check_nodes "$recipe" "$@"; then say "a node is not fit, see above and $logs/health.log; the job ends"; exit 1; fi

  # the name stays the same over restarts, so that the run resumes; the user's own, if any, comes last
  touch "$logs/rank-0.log"
  tail -n 0 -F "$logs/rank-0.log" 2>/dev/null &
  local follow=$!
  train "$recipe" "run.name=$SLURM_JOB_NAME-$SLURM_JOB_ID" "$@" || status=$?
  sleep 1; kill "$follow"

  if [ "$status" != 0 ]; then
    say "the ranks ended with status $status; the first error is in $logs/rank-*.log"
    exit "$status"
  fi
  if [ -e "$logs/requeue-$restart" ]; then
    if [ "$restart" -ge "${MAX_RESTARTS:-50}" ]; then
      say "the run asks to go on, but it was started $((restart + 1)) times already (MAX_RESTARTS)"
      exit 75
    fi
    say "the run has written a checkpoint and goes on after requeueing"
    scontrol requeue "$SLURM_JOB_ID" || { say "Slurm refuses to requeue; submit again with the same run.name"; exit 75; }
    sleep 60 # Slurm ends this script here
  fi
}

main "$@" # read as a whole before it runs: the file may change under a job that waits
exit
