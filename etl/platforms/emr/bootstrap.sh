#!/bin/bash
# Bootstrap action of an EMR 7 cluster on EC2: Python 3.11 with our libraries on every node, for driver and workers.
#   s3://BUCKET/capsfusion/bootstrap.sh  s3://BUCKET/capsfusion/capsfusion_lake-0.1.0-py3-none-any.whl  workers,quality
set -euo pipefail
wheel=/tmp/$(basename "$1")
sudo dnf install --assumeyes --quiet python3.11 python3.11-pip
aws s3 cp "$1" "$wheel"
sudo python3.11 -m pip install --quiet "$wheel[${2:-workers}]"
