# check=skip=FromPlatformFlagConstDisallowed
# The images of recap: `docker build --platform linux/amd64 --target train .` and `--target summarize`.
# Needs BuildKit (docker 23 or newer, or buildah). infra/docker/README.md explains each part and its size.

# Use another base (a mirror, a company's own) with `--build-arg BASE_IMAGE=…`. It must have Debian,
# and Python 3.11 with its headers, venv and pip.
ARG BASE_IMAGE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# checkov:skip=CKV_DOCKER_2: a job needs no health check; its exit code says how it ended
# checkov:skip=CKV_DOCKER_7: BASE_IMAGE above has the tag and the digest
# The base of all jobs. Its platform is fixed: the locks name files for linux/amd64 only, and a laptop with
# another processor would otherwise take a base of its own.
# hadolint ignore=DL3029
FROM --platform=linux/amd64 ${BASE_IMAGE} AS base
RUN --mount=type=bind,source=infra/docker/install-gcc.sh,target=/run/install-gcc \
    --mount=type=secret,id=apt_sources --mount=type=secret,id=pip_ca \
    sh /run/install-gcc \
    && python3 -m venv --without-pip /opt/recap \
    && install --directory --mode 1777 /work /work/cache

# Of the stages from here to `job`, only the folders /layer reach an image: no secret, no pip, no cache.
FROM base AS builder
COPY infra/docker/install.sh /usr/local/bin/install-locked
COPY infra/docker/locks/build.txt /locks/
RUN --mount=type=secret,id=pip_ca --mount=type=secret,id=pip_conf --mount=type=cache,target=/root/.cache/pip \
    install-locked /opt/recap /locks/build.txt

FROM builder AS torch
ARG TORCH_LOCK=torch.txt
COPY infra/docker/locks/${TORCH_LOCK} /locks/
RUN --mount=type=secret,id=pip_ca --mount=type=secret,id=pip_conf --mount=type=cache,target=/root/.cache/pip \
    install-locked /layer "/locks/${TORCH_LOCK}"

FROM builder AS libraries
COPY infra/docker/locks/train.txt /locks/
RUN --mount=type=secret,id=pip_ca --mount=type=secret,id=pip_conf --mount=type=cache,target=/root/.cache/pip \
    install-locked /layer /locks/train.txt

FROM builder AS vllm
ARG SUMMARIZE_LOCK=summarize.txt
COPY infra/docker/locks/${SUMMARIZE_LOCK} /locks/
RUN --mount=type=secret,id=pip_ca --mount=type=secret,id=pip_conf --mount=type=cache,target=/root/.cache/pip \
    install-locked /layer "/locks/${SUMMARIZE_LOCK}"

FROM builder AS moto
COPY infra/docker/locks/s3.txt /locks/
RUN --mount=type=secret,id=pip_ca --mount=type=secret,id=pip_conf --mount=type=cache,target=/root/.cache/pip \
    install-locked /layer /locks/s3.txt

FROM builder AS recap
COPY pyproject.toml README.md LICENSE /source/
COPY examples/demo /source/examples/demo
COPY job /source/job
RUN install-locked /layer

# All targets share these layers. torch's is by far the largest and changes least: it is stored and
# pulled once for all.
FROM base AS job
# Everything is written below /work, so the root can be read-only and the user can be any id. An id
# without a name has no home, and libraries that ask for its name find LOGNAME. TMPDIR must exist before
# anything runs, so it is /work itself.
#
# Only /work/cache may outlive a job: it holds data. Code that was compiled or downloaded (kernels,
# modeling_*.py) is in /work/compiled, where no other job can leave it. A file of AWS settings can name a
# command to run; jobs get their credentials from the environment or a role, so none is read.
#
# GKE mounts the driver's libraries below /usr/local/nvidia and leaves it to the image to look there.
ENV PATH=/opt/recap/bin:$PATH \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/nvidia/lib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LOGNAME=recap \
    HOME=/work \
    TMPDIR=/work \
    RECAP_WORK=/work/runs \
    RECAP_CACHE=/work/cache/recap \
    HF_HUB_CACHE=/work/cache/huggingface \
    HF_HOME=/work/compiled/huggingface \
    XDG_CACHE_HOME=/work/compiled \
    TRITON_CACHE_DIR=/work/compiled/triton \
    TORCHINDUCTOR_CACHE_DIR=/work/compiled/torchinductor \
    VLLM_CACHE_ROOT=/work/compiled/vllm \
    CUDA_CACHE_PATH=/work/compiled/cuda \
    AWS_CONFIG_FILE=/dev/null \
    AWS_SHARED_CREDENTIALS_FILE=/dev/null \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    VLLM_NO_USAGE_STATS=1 \
    VLLM_USE_FLASHINFER_SAMPLER=0
# torch's CUDA 13 needs them. A job checks them when it starts; a person can read them before.
LABEL recap.gpu.driver=">=580" \
      recap.gpu.compute-capability=">=7.5"
COPY --from=torch /layer /opt/recap
COPY --from=libraries /layer /opt/recap
WORKDIR /work
USER 10001:10001

# An S3 server in memory, with the demo's files. It is for compose.yaml and `make image-check`, never for
# data that matters.
FROM job AS s3
COPY --from=moto /layer /opt/recap
COPY --from=recap /layer /opt/recap
COPY infra/docker/s3.py /opt/recap/
ENTRYPOINT ["python", "/opt/recap/s3.py"]

FROM job AS summarize
COPY --from=vllm /layer /opt/recap
COPY --from=recap /layer /opt/recap
ARG BASE_IMAGE
ARG VERSION=0 REVISION=unknown CREATED=unknown
LABEL org.opencontainers.image.title="recap summarize" \
      org.opencontainers.image.description="Summaries of conversations, every night" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
ENTRYPOINT ["recap", "summarize"]

FROM job AS train
COPY --from=recap /layer /opt/recap
ARG BASE_IMAGE
ARG VERSION=0 REVISION=unknown CREATED=unknown
LABEL org.opencontainers.image.title="recap train" \
      org.opencontainers.image.description="QLoRA fine-tuning of a model that summarizes conversations" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
ENTRYPOINT ["recap", "train"]
