#!/usr/bin/env bash
# Runs a config as a job of Slurm:
# tools/slurm_prune.sh PARTITION JOB_NAME CONFIG WORK_DIR [OPTIONS OF tools/prune.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS are read from the environment.
set -euo pipefail

usage='tools/slurm_prune.sh PARTITION JOB_NAME CONFIG WORK_DIR'
partition=${1:?expected $usage}
job_name=${2:?expected $usage}
config=${3:?expected $usage}
work_dir=${4:?expected $usage}
# Words of SRUN_ARGS are separate arguments.
read -r -a more <<< "${SRUN_ARGS:-}"

exec srun \
    --partition="$partition" \
    --job-name="$job_name" \
    --gres="gpu:${GPUS_PER_NODE:-8}" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    "${more[@]}" \
    python -u "$(dirname "$0")/prune.py" "$config" \
    --work-dir "$work_dir" --launcher slurm "${@:5}"
