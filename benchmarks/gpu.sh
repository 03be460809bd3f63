#!/usr/bin/env bash
# Every figure of the docs that needs a GPU, in parts meant to take less than ten minutes each, which no GPU has shown yet:
#   benchmarks/gpu.sh PART [CIFAR-10 folder]
#   forward    the forward pass of nasnet-a-large against timm's
#   children   child training against the plain loop, and the paper's child
#   search     a whole short-proxy search, PPO and random side by side on one GPU, and the re-ranking of their best
#   graphs     exported graphs on onnxruntime's CUDA provider: float32 of every model, float16 and int8 on CIFAR-10
#   large, mobile   the speed of that network's graph against timm's, torch.compile's and the unfused one
#   fusions    what each rewrite of the graphs is worth
# graphs, large, mobile and fusions need onnxruntime-gpu.
# Results land in benchmarks/results/*.json, and also under $OUT if that is set.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${1:?forward, children, search, graphs, large, mobile or fusions}
data=${2:-data}
case $part in
    forward) python benchmarks/forward.py --rounds 20 ;;
    children) python benchmarks/search_speed.py --data "$data" --paper ;;
    graphs)
        python benchmarks/inference.py fidelity --provider cuda
        python benchmarks/inference.py precision --provider cuda --data "$data"
        ;;
    large | mobile) python benchmarks/inference.py speed --provider cuda --rounds 30 --models "nasnet-a-$part" ;;
    fusions) python benchmarks/inference.py fusions --provider cuda --rounds 12 ;;
    search) python benchmarks/search_gpu.py --data "$data" ;;
    *) echo "unknown part $part: forward, children, search, graphs, large, mobile or fusions" >&2; exit 2 ;;
esac
if [ -n "${OUT:-}" ]; then cp benchmarks/results/*.json "$OUT/"; fi
