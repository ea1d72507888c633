#!/usr/bin/env bash
# Networks trained on this machine's GPU in 8 minutes: bench/train_gpu.sh MANIFEST ... --photos DIR --weights WEIGHTS --out DIR [FLAGS OF bench/embedder/train_gpu.py]
#
# Sets up vmmr with its extra train in .venv-export, and runs bench/embedder/train_gpu.py on it; figures go to bench/results/train_gpu.json,
# networks to OUT. PYTHON=... takes an environment that is ready instead: torch, safetensors, grpcio, protobuf, numpy, pillow and tqdm are enough.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

if [ -z "${PYTHON:-}" ]; then
    PYTHON=$root/.venv-export/bin/python
    [ -x "$PYTHON" ] || python3 -m venv "$root/.venv-export"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --editable "$root/client" --editable "$root[cpu,train]"
fi
exec env PYTHONPATH="$root:$root/client${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 "$PYTHON" -m bench.embedder.train_gpu "$@"
