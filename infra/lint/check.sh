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
provider=terraform-provider-aws_3.39.0
provider_sha256=4b75e0a259b56d97e66b7d69f3f25bd4cc7be2440c0fe35529f46de7d40a49d3 # by HashiCorp's list

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

# SkyPilot reads its tasks itself, and writes a database into its home. It is asked for no cloud and no price.
HOME=$PWD/build/skypilot/home build/skypilot/bin/python infra/lint/skypilot_tasks.py infra/skypilot/*.yaml

# Terraform's provider for AWS, for the tests of infra/terraform. The package is not HashiCorp's, the archive in it is.
for archive in "$lint"/../lib/python3.*/site-packages/cloudrail/terraform_plugins/"$provider"_linux_amd64.zip; do
    [[ -f $archive ]] || break # the package is for Linux on x86 only
    echo "$provider_sha256  $archive" | sha256sum --check --quiet
    export RECAP_TERRAFORM_MIRROR=$PWD/build/terraform
    target=$RECAP_TERRAFORM_MIRROR/registry.terraform.io/hashicorp/aws/${provider#*_}/linux_amd64
    "$bin/python" -m zipfile --extract "$archive" "$target"
    chmod +x "$target"/*
    # OpenTofu looks for the same provider below its own registry's name.
    ln -sfn registry.terraform.io "$RECAP_TERRAFORM_MIRROR/registry.opentofu.org"
done
command -v terraform tofu > /dev/null \
    || echo "no terraform or tofu on the PATH: infra/terraform is only compared with the templates" >&2

# Prometheus' own tool runs the cases of the alerts.
if promtool=$(infra/lint/promtool.sh build/promtool); then
    export PATH=$PATH:$promtool
else
    echo "no promtool on the PATH, and none to be had from Debian: when alerts fire is not tested" >&2
fi

# Some of the tests of templates take seconds each: `make test` leaves them to this.
"$bin/python" -m pytest -m "sbom or infra" -n 2 tests/infra tests/submit
