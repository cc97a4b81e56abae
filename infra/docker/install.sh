#!/bin/sh
# In the image's builder: install-locked FOLDER [LOCK]. Puts into FOLDER exactly the files that LOCK names, or without
# one recap itself from /source. Where packages come from, and whom to trust, may be told by two build secrets:
# pip_conf, a pip.conf, and pip_ca, a bundle of certificates in place of pip's own.
set -eu

[ ! -s /run/secrets/pip_ca ] || export PIP_CERT=/run/secrets/pip_ca
[ ! -s /run/secrets/pip_conf ] || export PIP_CONFIG_FILE=/run/secrets/pip_conf

folder=$1
if [ $# -gt 1 ]; then
    set -- --require-hashes --requirement "$2"
else
    set -- --no-index /source
fi
# The environment's own Python, so that commands start with it; what it holds itself does not count as installed.
exec python3 -m pip --python /opt/recap/bin/python install --quiet --disable-pip-version-check --root-user-action ignore \
    --no-deps --no-build-isolation --ignore-installed --prefix "$folder" "$@"
