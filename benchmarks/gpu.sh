#!/usr/bin/env bash
# Every figure of the docs that needs a GPU, in under ten minutes. Results land in benchmarks/results/*.json, or under
# $OUT if that is set.
set -euo pipefail
cd "$(dirname "$0")/.."
python benchmarks/forward.py --rounds 20
if [ -n "${OUT:-}" ]; then cp benchmarks/results/*.json "$OUT/"; fi
