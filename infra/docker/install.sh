#!/bin/sh
# Install into FOLDER exactly the files that LOCK names, or recap itself from /source. The image's builder
# runs it as `install-locked FOLDER [LOCK]`.
#
# Two optional build secrets name the package index and its certificates: pip_conf is a pip.conf, and
# pip_ca is a bundle of certificates that replaces pip's own.
set -eu

# pip would report hashes that do not match, and suspect an attack.
machine=$(uname -m)
if [ "$machine" != x86_64 ]; then
    echo "The image is for linux/amd64, and this build runs on $machine: add --platform linux/amd64 to" \
        "docker build, or build on an x86 machine (docs: infra/docker/README.md)" >&2
    exit 1
fi

[ ! -s /run/secrets/pip_ca ] || export PIP_CERT=/run/secrets/pip_ca
[ ! -s /run/secrets/pip_conf ] || export PIP_CONFIG_FILE=/run/secrets/pip_conf

folder=$1
if [ $# -gt 1 ]; then
    set -- --require-hashes --requirement "$2"
else
    set -- --no-index /source
fi
# With --python, commands start with the environment's own Python. With --ignore-installed, packages that
# it already has are installed into FOLDER too. Not quiet: the names of large files show that it works.
exec python3 -m pip --python /opt/recap/bin/python install \
    --disable-pip-version-check --root-user-action ignore --no-deps --no-build-isolation --ignore-installed \
    --prefix "$folder" "$@"
