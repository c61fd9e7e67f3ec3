#!/bin/sh
# Tells Spark which GPUs an executor has: one JSON object, as spark.executor.resource.gpu.discoveryScript wants it.
addresses=$(nvidia-smi --query-gpu=index --format=csv,noheader | sed 's/.*/"&"/' | paste -sd, -)
printf '{"name": "gpu", "addresses": [%s]}\n' "$addresses"
