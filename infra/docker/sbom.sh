#!/usr/bin/env bash
# List the Python packages that each image holds, as CycloneDX: `make sbom`.
#
# usage: sbom.sh CYCLONEDX FOLDER
#   CYCLONEDX  the program cyclonedx-py
#   FOLDER     gets train.cdx.json and summarize.cdx.json
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cyclonedx=$1
folder=$2
locks=infra/docker/locks

# An image holds the packages of its layers, each of which has a lock.
mkdir -p "$folder"
cat "$locks"/{torch,train}.txt > "$folder/train.txt"
cat "$locks"/{torch,train,summarize}.txt > "$folder/summarize.txt"

for target in train summarize; do
    PYTHONWARNINGS=ignore "$cyclonedx" requirements "$folder/$target.txt" \
        --pyproject pyproject.toml --mc-type application \
        --spec-version 1.6 --output-reproducible --output-file "$folder/$target.cdx.json"
    echo "$folder/$target.cdx.json: $(grep -c '"purl"' "$folder/$target.cdx.json") packages"
done
