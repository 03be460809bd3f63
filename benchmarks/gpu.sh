#!/usr/bin/env bash
# The figures and checks that need a GPU, in parts with a time of their own: see benchmarks/gpu.py, or --help.
exec "${PYTHON:-python}" "$(dirname "$0")/gpu.py" "$@"
