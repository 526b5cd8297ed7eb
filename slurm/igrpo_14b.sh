#!/usr/bin/env bash
# iGRPO on OpenMath-Nemotron-14B. From the root of the checkout, on a file system that all nodes share:
#   sbatch slurm/igrpo_14b.sh [RECIPE] [key=value ...]
# Options of sbatch come before the script and win over the header. Variables: docs/launch.md.
# --signal=USR1@SECONDS warns that long before the time limit: more than a step and a save take (the plan
# says both), or the work since the last checkpoint is lost.
#SBATCH --job-name=igrpo_14b
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@900
#SBATCH --open-mode=append
#SBATCH --output=slurm/logs/%x-%j.log

export MIN_FREE_GIB=${MIN_FREE_GIB:-650} # three checkpoints of model and optimizer state

# Slurm runs a copy of this file in the folder that the job was submitted from, or --chdir's
[ -f slurm/common.sh ] || {
  echo "igrpo: there is no slurm/common.sh in $PWD; submit from the root of the checkout, or with --chdir=ROOT" >&2
  exit 2
}
exec bash slurm/common.sh recipes/igrpo_14b.yaml "$@"
