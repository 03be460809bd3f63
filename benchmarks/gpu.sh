#!/usr/bin/env bash
# Every figure of the docs that needs a GPU, in parts of under ten minutes each: `benchmarks/gpu.sh PART [CIFAR-10 folder]`.
#   forward    the forward pass of nasnet-a-large against timm's
#   children   child training against the plain loop, and the paper's child
#   search     a whole short-proxy search, PPO and random side by side on one GPU, and the re-ranking of their best
# Results land in benchmarks/results/*.json, and also under $OUT if that is set.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${1:?forward, children or search}
data=${2:-data}
case $part in
    forward) python benchmarks/forward.py --rounds 20 ;;
    children) python benchmarks/search_speed.py --data "$data" --paper ;;
    search) python benchmarks/search_gpu.py --data "$data" ;;
    *) echo "unknown part $part: forward, children or search" >&2; exit 2 ;;
esac
if [ -n "${OUT:-}" ]; then cp benchmarks/results/*.json "$OUT/"; fi
