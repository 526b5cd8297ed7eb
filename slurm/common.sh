#!/usr/bin/env bash
# What every job here does, on the first node: check the nodes, start a rank in every task, and see to
# the end. Called by the scripts beside it as: common.sh DEFAULT_RECIPE [RECIPE] [key=value ...]
set -euo pipefail
# shellcheck source=slurm/rendezvous.sh
source slurm/rendezvous.sh
# shellcheck source=slurm/faults.sh
source slurm/faults.sh

say() { echo "igrpo: $*" >&2; }

# One srun into the environment of the job: the container where CONTAINER_IMAGE is set, else VENV. By its
# name a container that the job's first srun has imported is used again.
in_job() {
  local flags=(--kill-on-bad-exit=1 --cpu-bind=none)
  if [ -n "${CONTAINER_IMAGE:-}" ]; then
    flags+=(--container-image="$CONTAINER_IMAGE" --container-name="igrpo-$SLURM_JOB_ID" --container-workdir="$PWD"
      --container-mounts="$PWD:$PWD,$HF_HOME:$HF_HOME${CONTAINER_MOUNTS:+,$CONTAINER_MOUNTS}")
  fi
  srun "${flags[@]}" "$@"
}

on_each_node() { in_job --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 "$@"; }
on_first_node() { in_job --nodes=1 --ntasks=1 --ntasks-per-node=1 "$@"; }

check_nodes() {
  local answers=$logs/health-$restart.jsonl status=0
  rm -f "$answers" # srun appends, as the header says
  # shellcheck disable=SC2086 # HEALTH_OPTIONS are several words
  on_each_node --time=5 --output="$answers" --error="$logs/health.log" \
    bash -c 'master=; [ "$SLURM_PROCID" != 0 ] || master=--is-master; exec "$@" $master' node \
    "$python" -m igrpo_mcore.health node --gpus "$gpus" --nodes "$SLURM_JOB_NUM_NODES" \
    --master "$MASTER_ADDR:$MASTER_PORT" --min-free-gib "${MIN_FREE_GIB:-20}" ${HEALTH_OPTIONS:-} "$@" || status=$?
  on_first_node --time=5 "$python" -m igrpo_mcore.health compare "$answers" "${hosts[@]}" && [ "$status" = 0 ]
}

# The first rank that does not end well leaves "RANK STATUS" in a file: srun would report the highest
# status, which is that of the ranks it killed. 75 asks for a requeue and becomes 0 here, so that srun lets
# the other ranks say the same. Slurm signals this shell as well; the traps leave the answer to the rank,
# which is to live through a warning that comes before it listens.
train() {
  in_job --output="$logs/rank-%t.log" --open-mode=append \
    bash -c 'trap "" USR1; trap : TERM; first=$1; shift; "$@"; status=$?
      [ "$status" = 0 ] || (set -o noclobber; echo "$SLURM_PROCID $status" >"$first") 2>/dev/null
      [ "$status" != 75 ] || status=0; exit "$status"' rank \
    "$first" "$python" -m igrpo_mcore train "$@"
}

# Ends this script where Slurm does requeue.
requeue() { # WHY, said before
  if [ "$restart" -ge "${MAX_RESTARTS:-50}" ]; then
    say "$1, but this was start $((restart + 1)), the last by MAX_RESTARTS; $again"
  else
    say "$1: the job is requeued and goes on from the newest checkpoint"
    scontrol requeue "$SLURM_JOB_ID" && sleep 60
    say "Slurm did not requeue the job; $again"
  fi
}

main() {
  : "${SLURM_JOB_ID:?this script needs Slurm: start it with sbatch}"
  local default_recipe=$1 recipe=$1 restart=${SLURM_RESTART_COUNT:-0} python gpus logs first again name status=0
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
  # ~/.local would shadow the environment's packages; the hub's cache is one for all nodes
  export PYTHONNOUSERSITE=1 HF_HOME=${HF_HOME:-$HOME/.cache/huggingface}
  mkdir -p "$HF_HOME"
  gpus=${GPUS_PER_NODE:-${SLURM_GPUS_PER_NODE:-${SLURM_GPUS_ON_NODE:-0}}}
  gpus=${gpus##*:} # "h100:8"
  name=$SLURM_JOB_NAME-$SLURM_JOB_ID
  again="submit it again with the same run.name (run.name=$name unless you set one)"
  logs=slurm/logs/$name
  mkdir -p "$logs"
  first=$logs/first-$restart

  # igrpo_mcore/launch.py takes the rest of the rendezvous from srun
  mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  MASTER_ADDR=$(master_address "${hosts[@]:0:2}") MASTER_PORT=$(free_port "$SLURM_JOB_ID")
  export MASTER_ADDR MASTER_PORT
  # the name stays the same over restarts, so that the run resumes; the user's own, if any, comes last
  set -- "$recipe" "run.name=$name" "$@"

  say "job $SLURM_JOB_ID, start $((restart + 1)): $recipe ${*:3} on ${hosts[*]}; logs by rank in $logs"
  if [ -n "${CONTAINER_IMAGE:-}" ] && ! on_each_node true; then
    say "the container $CONTAINER_IMAGE could not be started on every node, see above; the job ends"; exit 1
  fi
  if ! check_nodes "$@"; then say "a node is not fit, see above and $logs/health.log; the job ends"; exit 1; fi
  # one process asks the hub, the ranks read its cache
  on_first_node "$python" -m igrpo_mcore.fetch "$@" || exit 2
  export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}

  touch "$logs/rank-0.log"
  tail -n 0 -F "$logs/rank-0.log" 2>/dev/null &
  local follow=$! rank='' fault=''
  train "$@" || status=$?
  sleep 1; kill "$follow"
  if [ -s "$first" ]; then read -r rank status <"$first"; fi

  if [ "$status" = 75 ]; then
    requeue "the run wrote a checkpoint and asks to go on"
  elif [ "$status" != 0 ]; then
    if [ -n "$rank" ]; then
      fault=$(fault_of "$status" "$logs/rank-$rank.log")
      say "rank $rank ended first, with status $status${fault:+ ($fault)}; see $logs/rank-$rank.log"
    else
      say "srun ended with status $status and no rank said why; see above and $logs/rank-*.log"
    fi
    if [ -n "$fault" ]; then
      echo "start $((restart + 1)): rank $rank: $fault" >>"$logs/faults"
      if [ "$(wc -l <"$logs/faults")" -le "${MAX_FAULTS:-3}" ]; then
        requeue "a machine's fault, $(wc -l <"$logs/faults") of at most ${MAX_FAULTS:-3}"
      fi
      say "faults of this job: $(cat "$logs/faults"); it ends here"
    fi
  fi
  return "$status"
}

main "$@"; exit # on one line: bash reads no further, so the file may change under a running job
