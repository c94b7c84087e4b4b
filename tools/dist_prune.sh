#!/usr/bin/env bash
# Runs a config in several processes of one or several machines:
# tools/dist_prune.sh CONFIG GPUS [OPTIONS OF tools/prune.py]
# NNODES, NODE_RANK, MASTER_ADDR and PORT are read from the environment.
set -euo pipefail

config=${1:?expected a config, as in tools/dist_prune.sh CONFIG GPUS}
gpus=${2:?expected the number of processes, as in tools/dist_prune.sh CONFIG GPUS}

exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$(dirname "$0")/prune.py" "$config" --launcher pytorch "${@:3}"
