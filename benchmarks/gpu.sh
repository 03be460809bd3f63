#!/usr/bin/env bash
# Every figure of the docs that needs a GPU, in parts of under ten minutes each: `benchmarks/gpu.sh PART [CIFAR-10 folder]`.
# The last two need onnxruntime-gpu.
#   forward    the forward pass of nasnet-a-large against timm's
#   children   child training against the plain loop, and the paper's child
#   graphs     exported graphs on onnxruntime's CUDA provider: float32 of every model, float16 and int8 on CIFAR-10
#   inference  the speed of nasnet-a-large and mobile against timm, torch.compile and the unfused graph; each fusion's worth
#   search     a whole short-proxy search, PPO and random side by side on one GPU, and the re-ranking of their best
# Results land in benchmarks/results/*.json, and also under $OUT if that is set.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${1:?forward, children, search, graphs or inference}
data=${2:-data}
case $part in
    forward) python benchmarks/forward.py --rounds 20 ;;
    children) python benchmarks/search_speed.py --data "$data" --paper ;;
    graphs)
        python benchmarks/inference.py fidelity --provider cuda
        python benchmarks/inference.py precision --provider cuda --data "$data"
        ;;
    inference)
        python benchmarks/inference.py speed --provider cuda --rounds 50
        python benchmarks/inference.py fusions --provider cuda --rounds 50
        ;;
    search) python benchmarks/search_gpu.py --data "$data" ;;
    *) echo "unknown part $part: forward, children, search, graphs or inference" >&2; exit 2 ;;
esac
if [ -n "${OUT:-}" ]; then cp benchmarks/results/*.json "$OUT/"; fi
