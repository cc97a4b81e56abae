#!/usr/bin/env bash
# Print the folder of a promtool: the PATH's, else Debian's, which is unpacked below FOLDER and not installed.
#
# usage: promtool.sh FOLDER
set -euo pipefail

if found=$(command -v promtool); then
    dirname "$found"
    exit
fi
mkdir -p "$1"
cd "$1"
if [[ ! -x usr/bin/promtool ]]; then
    # Its own lists: those of the system may be old or missing, and only root can renew them.
    mkdir -p state/lists/partial cache/archives/partial
    apt=(apt-get -qq -o "Dir::State=$PWD/state" -o Dir::State::status=/var/lib/dpkg/status
        -o "Dir::Cache=$PWD/cache" -o "APT::Sandbox::User=$(id -un)" -o Acquire::http::Timeout=20)
    "${apt[@]}" update >&2
    "${apt[@]}" download prometheus >&2
    dpkg --fsys-tarfile prometheus_*.deb | tar --extract ./usr/bin/promtool
    rm -rf state cache prometheus_*.deb
fi
echo "$PWD/usr/bin"
