#!/usr/bin/env bash
# Build the Dockerfile without a daemon or an image registry, and run the images as strictly as any
# cluster does: `make image-check`. Must run as root on Debian.
#
# The base is a stand-in: Debian of the same release with its own Python, made by debootstrap. torch is
# the build that this machine's pip prefers, maybe for CPUs. All other packages are those of the locks.
#
# Prints each step with its seconds, and leaves build/image-check/ (report.txt, a log of each step).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=${1:-python3}
here=$PWD/build/image-check
mark="recap-image-check-$RANDOM$RANDOM"
uid=12345
# After 40 steps, no adapter passes the gate of the demo: the night names the adapter itself.
train=(s3://recap-demo/configs/train.yaml --set training.max_steps=40 --set evaluation.max_conversations=10
    --set publish.gate=null --set publish.champion=null)
night=(s3://recap-demo/configs/summarize.yaml --set adapter=s3://recap-demo/runs/demo/adapter)
store=(--root "$here/storage" --runroot "$here/run")
log=
exec 3>&1 # the terminal; a step's own output goes to its log

main() {
    rm -rf "$here/mount" "$here/report.txt"
    install --directory --owner "$uid" --group "$uid" "$here/mount" "$here/s3"
    trap finish EXIT
    step "tools" install_tools
    step "stand-in base" make_base
    step "lock of this machine's torch" "$python" infra/docker/lock.py --torch-here
    write_secrets
    step "a stranger's certificates are refused" refuse_strangers_ca
    for target in train summarize s3; do
        step "build $target" build "$target"
    done
    for target in train summarize; do
        step "no secret in the layers of $target" search_layers "$target"
    done
    step "a base with gcc: no Debian mirror is asked" build_on_gcc
    step "another machine's build says what to do" refuse_arm
    step "gcc and Python's headers, for Triton" compile_extension
    step "apt's packages are whole, without the kernel's headers" packages
    step "torch, bitsandbytes and vLLM can be imported" imports
    step "nothing is missing but what lock.py leaves out" missing
    step "vLLM imports what is left out only where it is chosen" unguarded_imports
    step "S3 on loopback, and no other network" start_s3
    step "without the mount: exit code 73" refuse_without_mount
    step "recap train, 40 steps" job train "${train[@]}"
    step "recap train again: nothing to do" done_already
    step "recap summarize" job summarize "${night[@]}"
    step "a summary or a reject for each record" count_summaries
    step "sizes" sizes
    tail -n +1 "$here/sizes.log"
}

# Never call this in a condition: bash would not stop at a function's first failure. The trap reports it.
step() {
    name=$1 started=$SECONDS
    shift
    log="$here/$(tr -cs '[:alnum:]' - <<< "$name" | sed 's/-$//').log"
    "$@" > "$log" 2>&1
    echo "$((SECONDS - started)) s: $name" | tee -a "$here/report.txt"
    log=
}

finish() {
    if [ -n "$log" ]; then
        tail -n 40 "$log" >&3
        echo "FAILED after $((SECONDS - started)) s: $name (all of it: $log)" >&3
    fi
    podman "${store[@]}" --cgroup-manager cgroupfs --runtime runc rm --force --ignore recap-s3 &> /dev/null || true
}

install_tools() {
    local missing=()
    for tool in buildah podman runc debootstrap; do
        command -v "$tool" || missing+=("$tool")
    done
    ((${#missing[@]} == 0)) && return
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
}

make_base() {
    buildah "${store[@]}" inspect --type image recap-base && return
    rm -rf "$here/base"
    debootstrap --variant=minbase \
        --include=ca-certificates,netbase,tzdata,python3,python3-venv,python3-pip,python3-dev bookworm "$here/base"
    rm -rf "$here"/base/var/cache/apt/* "$here"/base/var/lib/apt/lists/*
    printf 'FROM scratch\nCOPY . /\n' > "$here/base.Dockerfile"
    buildah "${store[@]}" build --isolation chroot --tag recap-base --file "$here/base.Dockerfile" "$here/base"
    rm -rf "$here/base"
}

# Write this machine's pip configuration and certificates as the two build secrets, both with the mark.
write_secrets() {
    local keys='index-url|extra-index-url|find-links|no-index|trusted-host|proxy'
    {
        echo "# $mark"
        echo '[global]'
        "$python" -m pip config list | sed -nE "s/^[^ ]*\.($keys)='(.*)'$/\1 = \2/p" | awk '!seen[$1]++'
    } > "$here/pip.conf"
    {
        echo "# $mark"
        cat "${PIP_CERT:-$("$python" -c 'from pip._vendor import certifi; print(certifi.where())')}"
    } > "$here/ca.pem"
}

# build_image ARGUMENT…: mount the folders of packages that pip.conf names, if any, at the same paths.
build_image() {
    local folder volumes=()
    for folder in $(grep -oE '(^| |file://)/[^ ]+' "$here/pip.conf" | sed -E 's/^( |file:\/\/)//; s/\/simple\/?$//' | sort -u); do
        volumes+=(--volume "$folder:$folder:ro")
    done
    buildah "${store[@]}" build --isolation chroot --layers --build-arg BASE_IMAGE=localhost/recap-base \
        --build-arg TORCH_LOCK=torch-here.txt --build-arg SUMMARIZE_LOCK=summarize-here.txt "${volumes[@]}" "$@" .
}

build() {
    build_image --target "$1" --tag "recap-$1" --secret "id=pip_ca,src=$here/ca.pem" \
        --secret "id=pip_conf,src=$here/pip.conf"
}

# Build again with an unknown certificate: pip must trust only what the secret contains.
refuse_strangers_ca() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=nobody -keyout "$here/key.pem" -out "$here/stranger.pem"
    grep -v -E '(= |file://)/' "$here/pip.conf" > "$here/remote.conf"
    if build_image --no-cache --target builder --secret "id=pip_ca,src=$here/stranger.pem" \
        --secret "id=pip_conf,src=$here/remote.conf" > "$here/stranger.log" 2>&1; then
        echo "pip trusted an index whose certificate it was not given"
        return 1
    fi
    grep -i 'certificate.verify.failed' "$here/stranger.log"
}

# Search every layer and config that a registry would get for the mark of the secrets. The search must
# find a text of recap's code, or it searches nothing.
search_layers() {
    local found='def run_training('
    rm -rf "$here/pushed"
    buildah "${store[@]}" push --disable-compression "recap-$1" "dir:$here/pushed"
    du -sh "$here/pushed"
    grep --recursive --text --only-matching --no-filename --fixed-strings -e "$mark" -e "$found" "$here/pushed" \
        | sort -u > "$here/found.txt"
    rm -rf "$here/pushed"
    diff <(echo "$found") "$here/found.txt"
}

# contain ARGUMENT…: run a container with an unnamed user id, no capabilities and a read-only root.
contain() {
    podman "${store[@]}" --cgroup-manager cgroupfs --runtime runc run --rm --read-only --read-only-tmpfs=false \
        --user "$uid:$uid" --passwd=false --cap-drop all --security-opt no-new-privileges \
        --ulimit "nofile=$(ulimit -Hn):$(ulimit -Hn)" --ulimit nproc=4096:4096 \
        --env AWS_ENDPOINT_URL=http://127.0.0.1:9000 --env AWS_ACCESS_KEY_ID=demo --env AWS_SECRET_ACCESS_KEY=demo \
        --env AWS_DEFAULT_REGION=us-east-1 --env AWS_EC2_METADATA_DISABLED=true --env HF_HUB_OFFLINE=1 "$@"
}

# job TARGET ARGUMENT…: run a job with the S3 server as only peer. As on a cluster, /work is new for each job,
# and only the cache is kept.
job() {
    rm -rf "$here/mount"
    install --directory --owner "$uid" --group "$uid" "$here/mount" "$here/cache"
    contain --network container:recap-s3 --volume "$here/mount:/work" --volume "$here/cache:/work/cache" \
        "recap-$1" "${@:2}"
}

# The headers of Triton's driver.c, but its own cuda.h.
compile_extension() {
    contain --network none --volume "$here/mount:/work" --entrypoint sh recap-train -euc '
        id
        if touch /opt/recap/x || touch /tmp/x || touch /var/tmp/x; then exit 1; fi
        for header in dlfcn stdalign stdbool stddef stdint stdio stdlib Python; do
            echo "#include <$header.h>"
        done > x.c
        gcc -O3 -shared -fPIC -o x.so x.c -I"$(python -c "import sysconfig; print(sysconfig.get_path(\"include\"))")"
        rm x.c x.so'
}

# Build on the base that has gcc, with a mirror of Debian that does not exist.
build_on_gcc() {
    echo 'deb http://127.0.0.1:9/debian bookworm main' > "$here/sources.list"
    buildah "${store[@]}" build --isolation chroot --target base --tag recap-base-gcc \
        --build-arg BASE_IMAGE=localhost/recap-base .
    buildah "${store[@]}" build --isolation chroot --no-cache --target base \
        --build-arg BASE_IMAGE=localhost/recap-base-gcc --secret "id=apt_sources,src=$here/sources.list" .
    if buildah "${store[@]}" build --isolation chroot --no-cache --target base \
        --build-arg BASE_IMAGE=localhost/recap-base --secret "id=apt_sources,src=$here/sources.list" . \
        > "$here/sources.log" 2>&1; then
        echo "apt did not use the secret apt_sources"
        return 1
    fi
    grep -F '127.0.0.1:9' "$here/sources.log"
}

# A uname that answers as on an ARM machine.
refuse_arm() {
    printf '#!/bin/sh\necho aarch64\n' > "$here/uname"
    chmod +x "$here/uname"
    PATH="$here:$PATH" sh infra/docker/install.sh /layer /locks/torch.txt 2> "$here/arm.txt" && return 1
    grep -F -- '--platform linux/amd64' "$here/arm.txt"
}

packages() {
    contain --user 0 --network none --entrypoint sh recap-train -euc '
        dpkg --audit
        apt-get check
        dpkg --verify recap-errno-headers
        if dpkg --status linux-libc-dev; then exit 1; fi
        test "$(echo $(ls /usr/include/linux))" = "errno.h limits.h"'
}

imports() {
    contain --network none --volume "$here/mount:/work" --entrypoint python recap-train -c \
        'import torch, bitsandbytes, transformers, peft, trl; print(torch.__version__, bitsandbytes.__version__)'
    contain --network none --volume "$here/mount:/work" --entrypoint python recap-summarize -c '
import job.inference.vllm_start as start
import vllm, vllm.envs
print(vllm.__version__)
unread = start.ENVIRONMENT.keys() - vllm.envs.environment_variables.keys()
assert not unread, unread'
}

# Every requirement of every package of the image is there, but those that lock.py leaves out on purpose.
missing() {
    local left_out of_cuda
    left_out=$(PYTHONPATH=infra/docker "$python" -c 'from lock import LEFT_OUT; print(*LEFT_OUT)')
    of_cuda=$(PYTHONPATH=infra/docker "$python" -c 'from lock import OF_CUDA; print(*OF_CUDA)')
    of_cuda+=" $(sed -n 's/==.*//p' infra/docker/locks/torch.txt | tr '\n' ' ')" # this torch may lack triton
    contain --network none --volume "$here/mount:/work" --env LEFT_OUT="$left_out" --env OF_CUDA="$of_cuda" \
        --entrypoint python recap-summarize -c '
import os
from importlib.metadata import distributions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
left_out, of_cuda = set(os.environ["LEFT_OUT"].split()), set(os.environ["OF_CUDA"].split())
there = {canonicalize_name(d.metadata["Name"]) for d in distributions()}
asked = {}
for package in distributions():
    for line in package.requires or []:
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            asked.setdefault(canonicalize_name(need.name), []).append(package.metadata["Name"])
missing = asked.keys() - there
print(len(there), "packages; missing:", {name: asked[name] for name in sorted(missing)})
assert missing <= left_out | of_cuda, missing
assert not left_out & there'
}

refuse_without_mount() {
    local code=0
    contain --network container:recap-s3 recap-train s3://recap-demo/configs/train.yaml || code=$?
    ((code == 73))
}

start_s3() {
    contain --detach --name recap-s3 --network none --volume "$here/s3:/work" recap-s3
    local try
    for try in {1..60}; do
        podman "${store[@]}" logs recap-s3 | grep serves && return
        sleep 1
    done
    echo "the S3 server did not start within $try s"
    return 1
}

done_already() {
    job train "${train[@]}" 2>&1 | tee /dev/stderr | grep 'already done'
}

count_summaries() {
    contain --network container:recap-s3 --volume "$here/mount:/work" --entrypoint python recap-summarize -c '
import boto3, json
s3 = boto3.client("s3")
read = lambda key: s3.get_object(Bucket="recap-demo", Key=key)["Body"].read().decode()
keys = [e["Key"] for e in s3.list_objects_v2(Bucket="recap-demo", Prefix="summaries/")["Contents"]]
lines = [line for key in keys if key.endswith(".jsonl") for line in read(key).splitlines()]
records = read("data/conversations.jsonl").splitlines()
print(len(records), "records,", len(lines), "summaries and rejects")
assert {json.loads(line)["id"] for line in lines} == {json.loads(line)["id"] for line in records}
assert "summaries/_SUCCESS" in keys'
}

# vLLM's modules that import a package that is left out as soon as they are imported. These are kernels: vLLM
# catches the ImportError and chooses another. A new name here needs a look before a release.
unguarded_imports() {
    contain --network none --volume "$here/mount:/work" --entrypoint python recap-summarize -c '
import ast
from importlib.util import find_spec
from pathlib import Path
left_out = ("flashinfer", "tilelang", "tokenspeed_mla", "tokenspeed_triton", "PyNvVideoCodec", "nccl", "cudnn", "cuda.core",
    "cuda.tile", "z3", "ml_dtypes")
found, files = set(), 0
folder = Path(find_spec("vllm").submodule_search_locations[0])
for path in folder.rglob("*.py"):
    files += 1
    for line in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [each.name for each in line.names] if isinstance(line, ast.Import) else []
        if isinstance(line, ast.ImportFrom) and not line.level:
            names += [line.module, *(f"{line.module}.{each.name}" for each in line.names)]
        if any(f"{name}.".startswith(f"{package}.") for name in names for package in left_out):
            found.add(str(path.relative_to(folder)))
print(files, "files,", sorted(found))
assert files > 1000
assert found == {
    "distributed/device_communicators/mnnvl_compat.py",
    "v1/attention/backends/flashinfer.py",
    "v1/attention/backends/mla/flashinfer_mla.py",
}'
}

sizes() {
    local target
    for target in train summarize; do
        echo "recap-$target, layer by layer:"
        podman "${store[@]}" history --format '{{.Size}}  {{.CreatedBy}}' "recap-$target" | grep -v '^0 B' | cut -c 1-150
    done
    for target in train summarize; do
        echo "of $target, in MB:"
        contain --network none --entrypoint sh "recap-$target" -c '
            du -sm /usr /opt/recap | sort -rn
            cd /opt/recap/lib/python3*/site-packages
            du -sm -- * | sort -rn | head -n 15
            find . -name "*.pyc" -printf "%s\n" | awk "{ n += \$1 } END { printf \"%d in all: compiled .pyc\n\", n / 1e6 }"'
    done
}

[ "${BASH_SOURCE[0]}" != "$0" ] || main
