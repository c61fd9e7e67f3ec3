#!/bin/bash
# On every node of a job cluster: this project and the libraries of CAPSFUSION_EXTRAS into the cluster's Python.
set -euo pipefail
wheel=$(ls -t "/Workspace${CAPSFUSION_WHEEL#/Workspace}"/capsfusion_lake-*.whl | head -1)
/databricks/python/bin/pip install --quiet "$wheel[$CAPSFUSION_EXTRAS]"
