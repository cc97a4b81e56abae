#!/usr/bin/env bash
# Resolve the newest versions that are allowed and pin each of them: `make lock`, `make lock-infra`.
# Asks the package index.
#
# usage: lock.sh PIP_COMPILE recap|infra
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

pip_compile=$1
what=$2

# The versions that recap is tested with, in the one window that vllm 0.32 shares
# (docs/decisions/0003-pip-and-exact-versions.md). `make lock` keeps them.
pins=(
    torch==2.13.0 transformers==5.19.0 trl==1.16.0 peft==0.21.2 bitsandbytes==0.50.2
    accelerate==1.15.0 datasets==5.2.0 numpy==2.3.5
)

# Write the resolved versions to the file $1. No location of an index gets into a lock.
compile() {
    local output=$1
    shift
    mkdir -p build
    "$pip_compile" --quiet --upgrade --no-header --no-annotate --no-strip-extras --allow-unsafe \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
        --output-file "$output" "$@" 2> build/lock.log || { cat build/lock.log >&2; exit 1; }
}

lock_recap() {
    mkdir -p build
    printf '%s\n' "${pins[@]}" > build/pins.txt
    compile build/compiled.txt --extra demo --extra dev --build-deps-for editable \
        --constraint build/pins.txt pyproject.toml
    {
        echo "# Every version that recap is tested with: to run, for the demo and to develop." \
            "'make lock' writes this file."
        echo "# torch's own builds differ by machine: no local version is named, and what a GPU build needs" \
            "(nvidia-*,"
        echo "# triton, cuda-*) is pinned by torch itself."
        # torch==2.13.0+cpu becomes torch==2.13.0, so that each machine takes the build that it needs.
        {
            grep -v -E '^(--|#|nvidia-|triton|cuda-|pip==|$)' build/compiled.txt
            grep '^nvidia-ml-py==' build/compiled.txt  # recap's own, on every machine
        } | sed -E 's/^(torch==[0-9.]+)\+[a-z0-9.]+/\1/' | LC_ALL=C sort
    } > requirements.lock
}

lock_infra() {
    local name
    for name in requirements skypilot; do
        compile "build/$name.txt" "infra/lint/$name.in"
        {
            echo "# Every version that 'make check-infra' takes from $name.in. 'make lock-infra' writes this file."
            cat "build/$name.txt"
        } > "infra/lint/$name.lock"
    done
}

"lock_$what"
