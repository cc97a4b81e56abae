# What a person runs here; `make` alone lists it. Every target does its own set-up.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VLLM := .venv-vllm# its hundred packages stay out of the environment that everything else is tested in
LINT := .venv-infra/bin
LINT_INSTALLED := .venv-infra/.installed
CYCLONEDX := build/cyclonedx/bin/cyclonedx-py

# Nothing that a test or a benchmark does may depend on this machine's proxies, accounts or Hub cache. Only where
# RECAP_TEST_S3_URI names a real store (docs/storage.md) does the AWS account stay: its tests ask that store.
NO_ACCOUNT := -u AWS_PROFILE -u AWS_ENDPOINT_URL -u AWS_ENDPOINT_URL_S3 -u AWS_ACCESS_KEY_ID \
	-u AWS_SECRET_ACCESS_KEY -u AWS_SESSION_TOKEN \
	AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true
ALONE := env -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY -u http_proxy -u https_proxy -u all_proxy \
	-u HF_TOKEN -u HF_ENDPOINT -u RECAP_CONFIG $(if $(RECAP_TEST_S3_URI),,$(NO_ACCOUNT)) \
	HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false

# `make lock` holds these still: the versions that recap is tested with, in the one window that vllm 0.32 shares
# (docs/decisions/0003-pip-and-exact-versions.md).
PINS := torch==2.13.0 transformers==5.19.0 trl==1.16.0 peft==0.21.2 bitsandbytes==0.50.2 accelerate==1.15.0 \
	datasets==5.2.0 numpy==2.3.5

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-faults test-vllm check check-infra deploy push bench lock lock-infra docs demo-base clean
.PHONY: docker-train docker-summarize docker-tensorboard docker-down image-check image-locks sbom

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv with the locked dependencies (the others do it themselves)

demo: $(INSTALLED) ## the whole story on this machine: S3 on loopback, train, evaluate, summarize
	@$(BIN)/recap demo

test: $(INSTALLED) ## all tests, without network, on two cores
	@$(ALONE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-faults: $(INSTALLED) ## hundreds of kills and faults of real training runs: under half an hour on two cores
	@$(ALONE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults -n 2 --dist load --maxschedchunk 1 -rPs --show-capture=stdout --durations 12 --timeout 1800

test-vllm: $(VLLM)/.installed ## the engine on vLLM, which is real and runs on the CPU; in .venv-vllm
	@$(ALONE) OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -m vllm tests/vllm

check: $(INSTALLED) ## lint, format, types, the direction of imports, generated documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py
	@$(BIN)/python -m job.config.reference | diff -u docs/configuration.md - \
		|| { echo "docs/configuration.md is not what the config sections say: run 'make docs'" >&2; exit 1; }

KUBERNETES_MINORS := 1.35 1.36 1.37
MANIFESTS := build/kubernetes

check-infra: $(INSTALLED) $(LINT_INSTALLED) $(CYCLONEDX) ## lint and policy of infra/, in an environment of its own (.venv-infra)
	$(LINT)/cfn-lint infra/aws/recap.yaml
	$(LINT)/hadolint Dockerfile
	$(LINT)/check-jsonschema --builtin-schema vendor.compose-spec infra/docker/compose.yaml
	$(LINT)/checkov --framework dockerfile --file Dockerfile --skip-download --compact --quiet
	$(LINT)/checkov --framework cloudformation --file infra/aws/recap.yaml --skip-download --compact --quiet
	@rm -rf $(MANIFESTS) && mkdir -p $(MANIFESTS)
	@for overlay in infra/kubernetes/overlays/*/; do \
		$(BIN)/kubectl kustomize $$overlay > $(MANIFESTS)/$$(basename $$overlay).yaml; \
	done
	@for minor in $(KUBERNETES_MINORS); do \
		$(LINT)/kubernetes-validate --strict --quiet --kubernetes-version $$minor $(MANIFESTS)/*.yaml; \
	done
	$(LINT)/checkov --config-file infra/kubernetes/checkov.yaml --directory $(MANIFESTS)
	$(BIN)/python -m pytest -m sbom tests/infra/test_sbom.py

# infra/aws/README.md says what these do, and for which account and region: those of the AWS environment.
STACK ?= recap
TAG ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*')

deploy: $(INSTALLED) check-infra ## make or change the stack of infra/aws (PARAMETERS='Night=on …', STACK=, TAG=, YES=1)
	$(BIN)/python infra/aws/deploy.py --stack $(STACK) --tag $(TAG) $(if $(YES),--yes) $(PARAMETERS)

push: $(INSTALLED) ## build both images and push them to the stack's repository (TAG=, DRY_RUN=1; needs docker)
	$(BIN)/python infra/aws/push.py --stack $(STACK) --tag $(TAG) $(if $(DRY_RUN),--dry-run)

bench: $(INSTALLED) $(VLLM)/.installed ## speed beside what one would write without recap; reports in build/bench/
	@mkdir -p build/bench
	@for name in train_speed checkpoint_cost summarize_scale; do \
		$(ALONE) $(BIN)/python benchmarks/$$name.py | tee build/bench/$$name.txt; \
	done
	@$(ALONE) $(VLLM)/bin/python benchmarks/summarize_speed.py | tee build/bench/summarize_speed.txt

docs: $(INSTALLED) ## write docs/configuration.md from the config sections
	$(BIN)/python -m job.config.reference > docs/configuration.md

demo-base: $(INSTALLED) ## train the demo's small base model again (about 15 minutes)
	$(BIN)/python -m examples.demo.make.base

lock: $(INSTALLED) ## write requirements.lock again: the newest that pyproject.toml allows (asks the package index)
	@mkdir -p build
	@printf '%s\n' $(PINS) > build/pins.txt
	$(BIN)/pip-compile --quiet --upgrade --no-header --no-annotate --no-strip-extras --allow-unsafe \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--extra demo --extra dev --build-deps-for editable --constraint build/pins.txt \
		--output-file build/compiled.txt pyproject.toml 2> build/lock.log || { cat build/lock.log >&2; exit 1; }
	@{ echo "# Every version that recap is tested with: to run, for the demo and to develop. 'make lock' writes this file."; \
	   echo "# torch's own builds differ by machine: no local version is named, and what a GPU build needs (nvidia-*,"; \
	   echo "# triton, cuda-*) is pinned by torch itself."; \
	   grep -v -E '^(--|#|nvidia-|triton|cuda-|pip==|$$)' build/compiled.txt \
	   | sed -E 's/^(torch==[0-9.]+)\+[a-z0-9.]+/\1/' | LC_ALL=C sort; \
	} > requirements.lock

lock-infra: $(INSTALLED) ## write infra/lint/requirements.lock again: the newest that requirements.in allows
	@mkdir -p build
	$(BIN)/pip-compile --quiet --upgrade --no-header --no-annotate --no-strip-extras --allow-unsafe \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file build/infra.txt infra/lint/requirements.in 2> build/lock.log || { cat build/lock.log >&2; exit 1; }
	@{ echo "# Every version that 'make check-infra' lints with. 'make lock-infra' writes this file."; cat build/infra.txt; } \
		> infra/lint/requirements.lock

# infra/docker/README.md says what these do. GPU= is for a machine that has a GPU and is not to use it.
COMPOSE = REVISION=$(TAG) docker compose --file infra/docker/compose.yaml
GPU ?= $(shell command -v nvidia-smi)
ON := $(if $(GPU),,-cpu)

docker-train: ## train in docker, beside an S3 server with the demo's files (CONFIG=s3://… for another config)
	$(COMPOSE) build s3 train$(ON)
	$(COMPOSE) run --rm train$(ON) $(CONFIG)

docker-summarize: ## summarize in docker with what docker-train left there (CONFIG=s3://… for another config)
	$(COMPOSE) build s3 summarize$(ON)
	$(COMPOSE) run --rm summarize$(ON) $(CONFIG)

docker-tensorboard: ## the runs' curves on http://localhost:6006
	$(COMPOSE) --profile tensorboard up --build tensorboard

docker-down: ## stop the S3 server of docker-train, which forgets what it holds, and remove the jobs' caches
	$(COMPOSE) --profile job --profile tensorboard down --volumes

image-check: $(INSTALLED) ## build the Dockerfile without docker or a registry and run the demo in it (root, Debian)
	infra/docker/check.sh $(BIN)/python

image-locks: $(INSTALLED) ## write infra/docker/locks/ from requirements.lock (asks the package index; some minutes)
	$(BIN)/pip install --quiet --upgrade --target build/pip 'pip==26.3'
	PYTHONPATH=build/pip $(BIN)/python infra/docker/lock.py

SBOM := build/sbom

sbom: $(CYCLONEDX) ## what the images hold, as CycloneDX: build/sbom/train.cdx.json and summarize.cdx.json
	@mkdir -p $(SBOM)
	@cat infra/docker/locks/{torch,train}.txt > $(SBOM)/train.txt
	@cat infra/docker/locks/{torch,train,summarize}.txt > $(SBOM)/summarize.txt
	@for target in train summarize; do \
		PYTHONWARNINGS=ignore $(CYCLONEDX) requirements $(SBOM)/$$target.txt \
			--pyproject pyproject.toml --mc-type application --spec-version 1.6 --output-reproducible \
			--output-file $(SBOM)/$$target.cdx.json; \
		echo "$(SBOM)/$$target.cdx.json: $$(grep -c '"purl"' $(SBOM)/$$target.cdx.json) packages"; \
	done

clean: ## remove what the targets made, except .venv and .venv-infra
	rm -rf build dist demo-run .mypy_cache .ruff_cache .pytest_cache
	find job tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/python
	@echo 'installing the locked dependencies into $(VENV): a few minutes'
	$(BIN)/python -m pip install -qq --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(VLLM)/.installed: requirements.lock requirements-vllm.lock pyproject.toml | $(BIN)/python
	@echo 'installing vLLM for CPUs with the locked dependencies into $(VLLM): a few minutes'
	$(BIN)/python -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install -qq --disable-pip-version-check --requirement requirements.lock
	$(VLLM)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --requirement requirements-vllm.lock
	$(VLLM)/bin/python -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(LINT_INSTALLED): infra/lint/requirements.lock | $(BIN)/python
	@echo 'installing the linters of infra/ into .venv-infra: a few minutes'
	$(BIN)/python -m venv .venv-infra
	$(LINT)/python -m pip install -qq --disable-pip-version-check --requirement infra/lint/requirements.lock
	@touch $@

$(CYCLONEDX):
	$(PYTHON) -m venv build/cyclonedx
	build/cyclonedx/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { echo "there is no $(PYTHON): install Python 3.11 or newer, or name one with 'make PYTHON=…'" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1): recap needs Python 3.11 or newer; name one with 'make PYTHON=python3.12'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments: install them (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
