# The commands of this repository. `make` lists them, and each target does its own set-up.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# vLLM's hundred packages have their own environment, apart from what everything else is tested with.
VLLM := .venv-vllm
# A real base for tests on the CPU, made once of packages of the Python index.
REAL_BASE := build/smollm2-135m-instruct
# A deployer needs boto3 alone: seconds, not torch.
DEPLOY := .venv-deploy
LINT := .venv-infra/bin
LINT_INSTALLED := .venv-infra/.installed
PIP_AUDIT := build/audit/bin/pip-audit
CYCLONEDX := build/cyclonedx/bin/cyclonedx-py
SKYPILOT := build/skypilot/.installed
# Debian's, for what only a browser can prove of a page.
CHROMIUM := /usr/bin/chromium
# AWS's command line, with which a stranger fetches a base from S3.
AWS := build/aws/bin/aws
# A peer of benchmarks alone, beside the locked libraries.
UNSLOTH := build/unsloth
PIP_INSTALL := python -m pip install -qq --disable-pip-version-check

# Tests and benchmarks must not depend on this machine's proxies, accounts or Hub cache, nor on a GPU
# whose driver does not work.
# The AWS account is kept only if RECAP_TEST_S3_URI names a real store (docs/storage.md).
NO_ACCOUNT := -u AWS_PROFILE -u AWS_ENDPOINT_URL -u AWS_ENDPOINT_URL_S3 -u AWS_ACCESS_KEY_ID \
	-u AWS_SECRET_ACCESS_KEY -u AWS_SESSION_TOKEN \
	AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true
# Without bytecode, each of the tests' hundreds of processes would compile recap anew.
ALONE := env -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY -u http_proxy -u https_proxy -u all_proxy \
	-u PYTHONDONTWRITEBYTECODE -u HF_TOKEN -u HF_ENDPOINT -u RECAP_CONFIG \
	$(if $(RECAP_TEST_S3_URI),,$(NO_ACCOUNT)) \
	HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false RECAP_GPUS=0
# A user's tokenizer has all cores.
ON_CPU := $(ALONE) env -u TOKENIZERS_PARALLELISM
PYTEST := $(ALONE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# A host with a GPU and no network has torch already. What it lacks is in .gpu-site (docs/performance.md).
GPU_SITE := $(wildcard .gpu-site)
GPU_READY := $(if $(GPU_SITE),,$(INSTALLED))
GPU_PYTHON := $(if $(GPU_SITE),PYTHONPATH=$(CURDIR)/.gpu-site:$(CURDIR) $(PYTHON),$(BIN)/python)
ON_GPU := $(ALONE) env -u RECAP_GPUS $(GPU_PYTHON)

.DEFAULT_GOAL := help
.PHONY: help demo setup clean docker-train docker-summarize docker-tensorboard docker-down
.PHONY: test test-bases test-demo test-faults test-gpu test-quality test-real test-vllm
.PHONY: check check-infra bench bench-gpu bench-quality docs demo-base
.PHONY: deploy push evaluations follow submit-check lock lock-infra image-locks image-check sbom audit

help: ## list the targets
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)


##@ To use recap on this machine

demo: $(INSTALLED) ## train, evaluate and summarize on a local S3 server, without a GPU
	@$(BIN)/recap demo

setup: $(INSTALLED) ## create .venv with the locked dependencies (the other targets do it themselves)

# infra/docker/README.md explains these. Set GPU= to leave the machine's GPU unused.
COMPOSE = REVISION=$(TAG) docker compose --file infra/docker/compose.yaml
GPU ?= $(shell command -v nvidia-smi)
ON := $(if $(GPU),,-cpu)

docker-train: ## train in docker, beside an S3 server with the demo's files (CONFIG=s3://…)
	$(COMPOSE) build s3 train$(ON)
	$(COMPOSE) run --rm train$(ON) $(CONFIG)

docker-summarize: ## summarize in docker with the adapter of docker-train (CONFIG=s3://…)
	$(COMPOSE) build s3 summarize$(ON)
	$(COMPOSE) run --rm summarize$(ON) $(CONFIG)

docker-tensorboard: ## show the curves of the runs on http://localhost:6006
	$(COMPOSE) --profile tensorboard up --build tensorboard

docker-down: ## stop the S3 server of docker-train, and delete its content and the caches
	$(COMPOSE) --profile job --profile tensorboard down --volumes

clean: ## delete what the targets made, except the environments (.venv…)
	rm -rf build dist demo-run .mypy_cache .ruff_cache .pytest_cache
	find job tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +


##@ To change recap

test: $(INSTALLED) ## run the tests: no network, two cores, five to ten minutes
	@$(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder

test-faults: $(INSTALLED) ## kill and damage real runs, hundreds of times: half an hour
	@$(PYTEST) -m faults -n 2 --dist load --maxschedchunk 1 -rPs --show-capture=stdout \
		--durations 12 --timeout 1800

test-bases: $(INSTALLED) ## try every family of bases and write docs/bases.md: ten minutes
	@rm -f build/bases.jsonl
	@$(PYTEST) -m bases -n 2 --dist worksteal --durations 12
	@$(BIN)/python -m tests.bases.page

test-demo: $(INSTALLED) ## judge what `make demo` left in demo-run/: the adapter beats all floors
	@$(PYTEST) -m demo tests/demo

test-gpu: $(GPU_READY) ## test on a GPU what only a GPU can show: four minutes (DRY_RUN=1: on a CPU)
	@$(if $(DRY_RUN),RECAP_DRY_RUN_GPU_TESTS=1) $(ON_GPU) -m pytest -m gpu tests/gpu -W default -rs --durations 5

test-quality: $(INSTALLED) $(CHROMIUM) $(AWS) ## train, reload and judge adapters; open reports in Chromium: minutes
	@RECAP_CHROMIUM=$(CHROMIUM) RECAP_AWS=$(AWS) $(PYTEST) -m quality -n 2 --dist loadfile -rs --durations 12 --timeout 900

test-real: $(INSTALLED) $(REAL_BASE) ## fine-tune a real base on the CPU and judge it: half an hour
	@$(ALONE) $(BIN)/python -m pytest -m real tests/real -rs --durations 0 --timeout 3600

test-vllm: $(VLLM)/.installed $(REAL_BASE) ## test the vLLM engine on the CPU, in .venv-vllm
	@$(ALONE) OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -m vllm tests/vllm

check: $(INSTALLED) ## lint, format, types, the direction of imports, generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py
	@$(BIN)/python -m job.config.reference | diff -u docs/configuration.md - \
		|| { echo "docs/configuration.md does not match the config sections: run 'make docs'" >&2; exit 1; }

check-infra: $(INSTALLED) $(LINT_INSTALLED) $(CYCLONEDX) $(SKYPILOT) ## lint infra/ and check it against policies and schemas
	@infra/lint/check.sh $(BIN) $(LINT)

docs: $(INSTALLED) ## write docs/configuration.md, infra/terraform, and tables of other pages
	$(BIN)/python -m job.config.reference > docs/configuration.md
	$(BIN)/python infra/terraform/generate.py
	$(BIN)/python -m benchmarks.redaction_quality
	$(BIN)/python -m benchmarks.evaluation_quality

bench: $(INSTALLED) $(AWS) $(VLLM)/.installed $(UNSLOTH) ## measure speed against plain scripts; reports in build/bench/
	@mkdir -p build/bench
	@for name in 'train_speed --rows demo' 'train_speed --rows mixed' step_options checkpoint_cost \
			rows_scale summarize_scale busy_machine transfers; do \
		PYTHONPATH=$(UNSLOTH) $(ON_CPU) $(BIN)/python -m benchmarks.$$name | tee "build/bench/$$name.txt"; \
	done
	@$(ON_CPU) $(BIN)/python -m benchmarks.scale --out build/bench/scale.jsonl
	@$(BIN)/python -m benchmarks.plots build/bench/scale.jsonl build/bench
	@$(ON_CPU) $(VLLM)/bin/python -m benchmarks.summarize_speed | tee build/bench/summarize_speed.txt

bench-gpu: $(GPU_READY) ## measure on a GPU beside peers: nine minutes (ONLY='training …', OUT=, DRY_RUN=1: on a CPU)
	@$(ON_GPU) -m benchmarks.gpu $(if $(DRY_RUN),--shape tiny --seconds 3600) $(if $(ONLY),--only $(ONLY)) \
		$(if $(OUT),--out $(OUT))

bench-quality: $(INSTALLED) $(REAL_BASE) ## fine-tune a real base on TweetSumm, in RECAP_TWEETSUMM, and judge it: an hour
	@$(ALONE) RECAP_SMOLLM2=$(or $(RECAP_SMOLLM2),$(REAL_BASE)) $(BIN)/python -m benchmarks.quality

demo-base: $(INSTALLED) ## train the demo's small base model again (about 15 minutes)
	$(BIN)/python -m examples.demo.make.base


##@ To release and deploy recap

# infra/aws/README.md explains these four. Account and region come from the AWS environment.
STACK ?= recap
TAG ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*')

deploy: $(DEPLOY)/.installed ## create or update the AWS stacks (PARAMETERS='Night=on …', STACK=, TAG=, YES=1)
	$(DEPLOY)/bin/python infra/aws/deploy.py --stack $(STACK) --tag $(TAG) $(if $(YES),--yes) $(PARAMETERS)

push: $(DEPLOY)/.installed ## build both images and push them to the stack's repository (TAG=, DRY_RUN=1)
	$(DEPLOY)/bin/python infra/aws/push.py --stack $(STACK) --tag $(TAG) $(if $(DRY_RUN),--dry-run)

evaluations: $(DEPLOY)/.installed ## let the stack's jobs evaluate: image and job definition (STACK=, DRY_RUN=1)
	$(DEPLOY)/bin/python infra/aws/evaluations.py --stack $(STACK) $(if $(DRY_RUN),--dry-run)

follow: $(DEPLOY)/.installed ## watch each night, and train each week on AWS (PARAMETERS='Week=on', STACK=, DRY_RUN=1)
	$(DEPLOY)/bin/python infra/aws/follow.py --stack $(STACK) $(if $(DRY_RUN),--dry-run) \
		$(if $(IMAGE_ONLY),--image-only) $(if $(YES),--yes) $(PARAMETERS)

submit-check: $(INSTALLED) ## try a throw-away stack on AWS, half an hour, cents (DRY_RUN=1, KEEP=1, YES=1, REMOVE=name)
	$(BIN)/python infra/aws/submit_check.py --tag $(TAG) $(if $(DRY_RUN),--dry-run) \
		$(if $(KEEP),--keep) $(if $(YES),--yes) $(if $(REMOVE),--remove $(REMOVE))

image-check: $(INSTALLED) ## build the image without docker and run the demo in it (root, Debian)
	infra/docker/check.sh $(BIN)/python

image-locks: $(INSTALLED) ## write infra/docker/locks/ from requirements.lock (asks the package index)
	$(BIN)/pip install --quiet --upgrade --target build/pip 'pip==26.3'
	PYTHONPATH=build/pip $(BIN)/python infra/docker/lock.py

lock: $(INSTALLED) ## write requirements.lock: the newest allowed versions (asks the package index)
	infra/lint/lock.sh $(BIN)/pip-compile recap

lock-infra: $(INSTALLED) ## write the locks in infra/lint in the same way
	infra/lint/lock.sh $(BIN)/pip-compile infra

SBOM := build/sbom

sbom: $(CYCLONEDX) ## list the images' Python packages as CycloneDX, in build/sbom/
	@infra/docker/sbom.sh $(CYCLONEDX) $(SBOM)

audit: $(PIP_AUDIT) ## look the images' packages up in PyPI's list of vulnerabilities (asks pypi.org)
	$(PIP_AUDIT) --strict --disable-pip --progress-spinner off \
		$(patsubst %,--requirement infra/docker/locks/%.txt,build torch train summarize)


# Environments, and the real base

$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/python
	@echo 'installing the locked dependencies into $(VENV): a few minutes'
	$(BIN)/$(PIP_INSTALL) --requirement requirements.lock
	$(BIN)/$(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

$(VLLM)/.installed: requirements.lock requirements-vllm.lock pyproject.toml | $(BIN)/python
	@echo 'installing vLLM for CPUs with the locked dependencies into $(VLLM): a few minutes'
	$(BIN)/python -m venv $(VLLM)
	$(VLLM)/bin/$(PIP_INSTALL) --requirement requirements.lock
	$(VLLM)/bin/$(PIP_INSTALL) --no-deps --requirement requirements-vllm.lock
	$(VLLM)/bin/$(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

$(REAL_BASE): | $(INSTALLED)
	@$(BIN)/python -m tests.real.base $@

$(UNSLOTH): | $(INSTALLED)
	$(BIN)/$(PIP_INSTALL) --no-deps --target $@ unsloth==2026.10.9 unsloth_zoo==2026.10.9

$(DEPLOY)/.installed: requirements.lock | $(BIN)/python
	$(BIN)/python -m venv $(DEPLOY)
	$(DEPLOY)/bin/$(PIP_INSTALL) \
		$$(grep -E '^(boto3|botocore|jmespath|python-dateutil|s3transfer|six|urllib3)==' requirements.lock)
	@touch $@

$(LINT_INSTALLED): infra/lint/requirements.lock | $(BIN)/python
	@echo 'installing the linters of infra/ into .venv-infra: a few minutes'
	$(BIN)/python -m venv .venv-infra
	$(LINT)/$(PIP_INSTALL) --requirement infra/lint/requirements.lock
	@touch $@

$(SKYPILOT): infra/lint/skypilot.lock | $(BIN)/python
	@echo 'installing SkyPilot into build/skypilot: a minute or two'
	$(BIN)/python -m venv build/skypilot
	build/skypilot/bin/$(PIP_INSTALL) --requirement infra/lint/skypilot.lock
	@touch $@

$(CHROMIUM):
	@echo 'installing Chromium'
	@apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
		--no-install-recommends chromium fonts-dejavu-core > /dev/null \
		|| { echo "there is no $@: install it as root (apt-get install chromium)," \
		"or name another with 'make test-quality CHROMIUM=…'" >&2; exit 1; }

$(AWS):
	$(PYTHON) -m venv build/aws
	build/aws/bin/$(PIP_INSTALL) awscli==1.45.11

$(CYCLONEDX):
	$(PYTHON) -m venv build/cyclonedx
	build/cyclonedx/bin/$(PIP_INSTALL) cyclonedx-bom==7.5.0

$(PIP_AUDIT):
	$(PYTHON) -m venv build/audit
	build/audit/bin/$(PIP_INSTALL) pip-audit==2.10.1

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { echo "there is no $(PYTHON): install Python 3.11" \
		"or newer, or name one with 'make PYTHON=…'" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1): recap needs Python 3.11 or newer;" \
		"name one with 'make PYTHON=python3.12'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments: install them" \
		"(Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
