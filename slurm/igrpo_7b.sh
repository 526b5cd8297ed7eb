#!/usr/bin/env bash
# iGRPO on OpenMath-Nemotron-7B. From the root of the checkout, on a file system that all nodes share:
#   sbatch slurm/igrpo_7b.sh [RECIPE] [key=value ...]
# Options of sbatch come before the script and win over the header. Variables: docs/launch.md.
#SBATCH --job-name=igrpo_7b
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@600
#SBATCH --open-mode=append
#SBATCH --output=slurm/logs/%x-%j.log

export MIN_FREE_GIB=${MIN_FREE_GIB:-330} # three checkpoints of model and optimizer state

# Slurm runs a copy of this file, so the checkout is found from where the job was submitted
cd "${IGRPO_ROOT:-${SLURM_SUBMIT_DIR:-.}}" && [ -f slurm/common.sh ] || {
  echo "igrpo: there is no slurm/common.sh in $PWD; submit from the root of the checkout, or set IGRPO_ROOT" >&2
  exit 2
}
exec bash slurm/common.sh recipes/igrpo_7b.yaml "$@"
