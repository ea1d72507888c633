#!/usr/bin/env bash
# What serving gets out of this machine's GPU: bench/embedder/gpu.sh [FLAGS OF bench/embedder/gpu.py]
#
# Sets up vmmr with its extra gpu in .venv-gpu, exports the ImageNet ResNet-50 in fp16, and runs bench/embedder/gpu.py on it; figures go to
# bench/results/gpu.json. MODEL=BUNDLE takes that bundle instead, PYTHON=... an environment that is ready instead.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -z "${PYTHON:-}" ]; then
    PYTHON=.venv-gpu/bin/python
    [ -x "$PYTHON" ] || python3 -m venv .venv-gpu
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --editable ./client --editable '.[gpu]' psutil
fi
if [ -z "${MODEL:-}" ]; then
    MODEL=.cache/resnet50-fp16
    if [ ! -d "$MODEL" ]; then
        WEIGHTS=${WEIGHTS:-../shared/weights/resnet50_imagenet.safetensors}
        # Export needs torch, whose CUDA libraries must not meet onnxruntime's: an environment of its own.
        [ -x .venv-export/bin/python ] || python3 -m venv .venv-export
        .venv-export/bin/python -m pip install --quiet --disable-pip-version-check --editable ./client --editable '.[cpu,train]'
        mkdir -p .cache
        .venv-export/bin/python -m embedder_svc export --weights "$WEIGHTS" --precision fp16 --out "$MODEL"
    fi
fi
command -v nvidia-smi >/dev/null || echo "gpu.sh: no nvidia-smi: utilisation will be missing" >&2
exec env PYTHONPATH="$PWD:$PWD/client" "$PYTHON" -m bench.embedder.gpu --model "$MODEL" "$@"
