#!/usr/bin/env bash
# Trains on GPUs of a Slurm cluster, a process for each: sbatch --nodes 4 scripts/pods/slurm.sh RECIPE [--flags]
#SBATCH --job-name=diffusion
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
#SBATCH --output=diffusion_%j.log
# SIGTERM, two minutes before the time is over or when the job is preempted, saves a checkpoint; a
# requeued job goes on from it. Submit it from the repository, on a file system that all nodes share.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: sbatch scripts/pods/slurm.sh RECIPE [--flags]" >&2; exit 2; }

export DIFFUSION_JAX_DATA=${DIFFUSION_JAX_DATA:-$PWD/data}
srun --kill-on-bad-exit=1 .venv/bin/python train.py "$@" --restarts 20
