# Commands for people: `make demo`, `make test` and `make test-all`; all install what they need into .venv, from the lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := etl,s3,observe,embedded,quality,trainer,refine,export,operator,dev

.PHONY: demo claim install test test-all coverage jars test-cluster-real lanes check dist docs images site lock clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints requirements.lock --editable '.[$(EXTRAS)]'
	touch $@

demo: install
	$(BIN)/python examples/demo/main.py demo

# The paper's claim in the small, docs/claim.md: up to two hours; STUDY=day and STUDY=night reuse what was kept of them
claim: install
	$(BIN)/python examples/claim/main.py claim $(STUDY)

# All tests but those that need a cluster, kill processes for minutes or need another Spark; two files at a time
test: jars
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not cluster and not storm"

# Every test, and a smoke of the oldest Spark: what CI runs
test-all: jars
	tests/all.sh

# Spark's jars come once, from Maven: two resolutions at a time would be in each other's way.
jars: $(VENV)/.jars

$(VENV)/.jars: $(VENV)/.installed
	$(BIN)/python -c 'from capsfusion_etl.spark.session import get_session; get_session(lake="s3a://any").stop()' >/dev/null
	$(BIN)/python -c 'from capsfusion_etl.spark.session import get_session; get_session().stop()' >/dev/null
	touch $@

coverage: jars
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

# ETL and quality on every Spark that is supported
lanes: install
	tests/lanes.sh

# Real pods on a real kubelet; as root, with: apt-get install containerd runc containernetworking-plugins iptables
test-cluster-real: install
	CAPSFUSION_REAL_NODE=1 $(BIN)/python -m pytest tests/cluster/test_real.py

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks --no-warn-unused-ignores --disable-error-code arg-type --disable-error-code no-any-return \
		--disable-error-code import-not-found --disable-error-code import-untyped --disable-error-code no-untyped-call --disable-error-code misc
	$(BIN)/lint-imports

# A wheel is a zip with packages and their metadata at its root: what --py-files wants, under a name that it takes.
dist: install
	rm -rf dist build
	$(BIN)/uv build --quiet --wheel --out-dir dist
	cp dist/capsfusion_lake-*.whl dist/capsfusion-etl.zip
	cp etl/jobs/run.py etl/jobs/gpus.sh etl/jobs/pack_environment.sh dist

# Images for Kubernetes, with docker, podman or buildah: make images REGISTRY=registry.example/capsfusion [PUSH=1]
images:
	k8s/images.sh

docs: install
	$(BIN)/python docs/build_tables.py
	$(BIN)/python docs/build_architecture.py

site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir build/site

lock:
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-header --no-emit-index-url --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist
