#!/usr/bin/env bash
# Lint infra/ and check it against policies and schemas: `make check-infra`.
#
# usage: check.sh BIN LINT
#   BIN   folder of programs of recap's environment (kubectl, python)
#   LINT  folder of programs of the linters' own environment
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

bin=$1
lint=$2
manifests=build/kubernetes
kubernetes_minors=(1.35 1.36 1.37)

"$lint/cfn-lint" infra/aws/*.yaml
"$lint/hadolint" Dockerfile
"$lint/check-jsonschema" --builtin-schema vendor.compose-spec infra/docker/compose.yaml
"$lint/check-jsonschema" --builtin-schema vendor.renovate .github/renovate.json
"$lint/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/renew.yml

# --skip-download: checkov must not ask its vendor's service for more policies.
"$lint/checkov" --framework dockerfile --file Dockerfile --skip-download --compact --quiet
"$lint/checkov" --framework cloudformation --file infra/aws/*.yaml \
    --skip-download --compact --quiet

rm -rf "$manifests"
mkdir -p "$manifests"
for overlay in infra/kubernetes/overlays/*/; do
    "$bin/kubectl" kustomize "$overlay" > "$manifests/$(basename "$overlay").yaml"
done
for minor in "${kubernetes_minors[@]}"; do
    "$lint/kubernetes-validate" --strict --quiet --kubernetes-version "$minor" "$manifests"/*.yaml
done
"$lint/checkov" --config-file infra/kubernetes/checkov.yaml --directory "$manifests"

# Some of the tests of templates take seconds each: `make test` leaves them to this.
"$bin/python" -m pytest -m "sbom or infra" -n 2 tests/infra tests/submit
