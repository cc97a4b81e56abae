"""Claims about infra/terraform: its files are those of the templates, and its plans are real.

The plans are Terraform's own, with HashiCorp's provider for AWS, and are applied to moto's
CloudFormation. `make check-infra` runs these; without a Terraform or OpenTofu they are skipped.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.infra import stack
from tests.infra.scripts import load_script

ROOT = Path(__file__).parent.parent.parent
MODULE = ROOT / "infra" / "terraform"
SOURCE = re.compile(r'source\s+= "[^"]+//infra/terraform[^"]*"')
MAX_TEMPLATE_BYTES = 51200  # of CloudFormation's TemplateBody
PROGRAM = shutil.which("terraform") or shutil.which("tofu")
MIRROR = os.environ.get("RECAP_TERRAFORM_MIRROR")  # a folder with the provider, set by check.sh

needs_terraform = pytest.mark.skipif(
    not (PROGRAM and MIRROR), reason="needs terraform or tofu, and the provider of check-infra"
)
MOTO = pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")


generate = load_script(MODULE / "generate.py")


# The files


def test_the_generated_files_are_those_of_the_templates():
    for name, text in generate.files().items():
        current = (MODULE / name).read_text("utf-8")
        assert current == text, f"{name} does not match infra/aws: run infra/terraform/generate.py"


@pytest.mark.parametrize(
    ("parameter", "variable"),
    [
        ("ImageTag", "image_tag"),
        ("MemoryMiB", "memory_mib"),
        ("HfTokenSecretArn", "hf_token_secret_arn"),
        ("Gpus", "gpus"),
    ],
)
def test_a_variable_is_the_parameters_name_in_snake_case(parameter, variable):
    assert generate.snake(parameter) == variable


def test_each_parameter_without_a_default_gets_an_output():
    recap = stack.load()
    known = recap["Outputs"].keys() | recap["Parameters"].keys() | generate.EXPRESSIONS.keys()
    for template in (stack.WATCH, stack.FOLLOW):
        later = stack.load(template)["Parameters"]
        assert {name for name, p in later.items() if "Default" not in p} <= known
    assert [name for name, p in recap["Parameters"].items() if "Default" not in p] == []


def test_text_that_begins_an_expression_of_terraform_is_escaped():
    assert generate._quoted('a ${b} %{c} "d"') == '"a $${b} %%{c} \\"d\\""'


TEMPLATES = [stack.TEMPLATE, stack.WATCH, stack.FOLLOW]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_each_template_fits_into_a_request(template):
    assert len(template.read_bytes()) <= MAX_TEMPLATE_BYTES


# Terraform itself


class Terraform:
    """Terraform in a folder with the README's lines, against CloudFormation at an endpoint."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder = folder
        self.call = folder / "call"
        self.call.mkdir()
        shutil.copytree(MODULE, folder / "infra" / "terraform", ignore=lambda *_: {".terraform"})
        shutil.copytree(ROOT / "infra" / "aws", folder / "infra" / "aws")
        block = re.search(
            r'^module "recap" \{\n.*?^\}$', (MODULE / "README.md").read_text("utf-8"), re.M | re.S
        )
        assert block
        local, replaced = SOURCE.subn('source = "../infra/terraform"', block[0])
        assert replaced == 1
        # Without an endpoint for EC2, the provider asks EC2's own for half a minute.
        provider = f"""
            provider "aws" {{
              region                      = "us-east-1"
              skip_credentials_validation = true
              skip_requesting_account_id  = true
              skip_metadata_api_check     = true
              endpoints {{
                cloudformation = "{endpoint}"
                ec2            = "{endpoint}"
              }}
            }}
            output "recap" {{ value = module.recap }}
        """
        (self.call / "main.tf").write_text(f"{local}\n{provider}")
        config = folder / "terraform.rc"
        config.write_text(f'provider_installation {{ filesystem_mirror {{ path = "{MIRROR}" }} }}')
        self._environment = os.environ | {
            "TF_CLI_CONFIG_FILE": str(config),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
        }
        self.run("init")

    def run(self, *arguments: str, fails: bool = False) -> str:
        assert PROGRAM
        done = subprocess.run(
            [PROGRAM, *arguments, *([] if arguments[0] == "show" else ["-no-color"])],
            cwd=self.call,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        text = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, text
        return done.stdout if arguments[0] == "show" else text

    def planned(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """The change of each resource: actions, before, after, after_unknown."""
        self.run("plan", "-out=plan", *arguments)
        plan = json.loads(self.run("show", "-json", "plan"))
        return {
            change["address"].removeprefix("module.recap.aws_cloudformation_stack."): change[
                "change"
            ]
            for change in plan["resource_changes"]
            if change["mode"] == "managed"
        }


@pytest.fixture
def terraform(tmp_path, s3):
    return Terraform(tmp_path, s3.endpoint)


def defaults(template: Path) -> dict[str, str]:
    parameters = stack.load(template)["Parameters"]
    return {name: str(p["Default"]) for name, p in parameters.items() if "Default" in p}


@pytest.mark.infra
@needs_terraform
def test_the_module_is_valid_and_formatted(terraform):
    assert "Success!" in terraform.run("validate")
    # A read-only look at the module itself.
    assert PROGRAM
    subprocess.run([PROGRAM, "fmt", "-check", "-diff", str(MODULE)], check=True)


@pytest.mark.infra
@needs_terraform
def test_the_readmes_lines_plan_both_stacks_as_the_templates_have_them(terraform):
    planned = terraform.planned()
    assert {name: change["actions"] for name, change in planned.items()} == {
        "recap": ["create"],
        "watch": ["create"],
    }
    recap = planned["recap"]["after"]
    given = {
        "ImageTag": "0123456789ab",
        "AlarmEmail": "you@example.org",
        "Night": "on",
        "TimeZone": "Europe/Berlin",
        "InstanceTypes": "g6.4xlarge,g5.4xlarge",
        "Vcpus": "16",
        "MemoryMiB": "60000",
    }
    assert recap["parameters"] == defaults(stack.TEMPLATE) | given
    assert recap["template_body"] == stack.TEMPLATE.read_text("utf-8")
    watch = planned["watch"]["after"]
    assert watch["template_body"] == stack.WATCH.read_text("utf-8")
    for after in (recap, watch):
        assert after["tags"] == {"team": "support", "recap/stack": "recap"}
        assert "AWS::IAM::Role" in after["template_body"]
        assert after["capabilities"] == ["CAPABILITY_IAM"]


@pytest.mark.infra
@needs_terraform
def test_what_follows_the_nights_is_a_third_stack(terraform):
    main = terraform.call / "main.tf"
    first, rest = main.read_text().split("\n", 1)
    main.write_text("\n".join([first, '  follow = "on"', '  week = "on"', rest]))
    planned = terraform.planned()
    assert planned.keys() == {"recap", "watch", "follow[0]"}
    follow = planned["follow[0]"]["after"]
    assert follow["name"] == "recap-follow"
    assert follow["template_body"] == stack.FOLLOW.read_text("utf-8")
    assert follow["capabilities"] == ["CAPABILITY_IAM"]


@pytest.mark.infra
@needs_terraform
def test_values_that_the_template_refuses_fail_the_plan(terraform):
    main = terraform.call / "main.tf"
    text = re.sub(r"^  night +=.*\n", "", main.read_text(), flags=re.MULTILINE)
    first, rest = text.split("\n", 1)
    wrong = ['  name = "Recap"', '  night = "yes"', "  attempts = 11", "  log_days = 8"]
    main.write_text("\n".join([first, *wrong, rest]))
    output = " ".join(terraform.run("plan", fails=True).replace("│", "").split())
    assert "name must be lower case" in output
    assert "night must be one of on, off" in output
    assert "attempts must be at most 10" in output
    assert "log_days must be one of 7, 14" in output


@pytest.mark.infra
@needs_terraform
def test_values_without_those_that_they_need_fail_the_plan(terraform):
    main = terraform.call / "main.tf"
    first, rest = main.read_text().split("\n", 1)
    alone = ['  subnet_ids = ["subnet-0"]', '  input_bucket = "calls"']
    main.write_text("\n".join([first, *alone, rest]))
    output = " ".join(terraform.run("plan", fails=True).replace("│", "").split())
    assert "subnet_ids and security_group_ids need vpc_id" in output
    assert "input_bucket needs train_input and night_input" in output


@pytest.mark.infra
@needs_terraform
@MOTO
def test_a_stack_is_made_and_an_imported_one_is_changed_in_place(terraform):
    """One test, since each stack costs ten seconds of the provider's waiting."""
    for name, text in stack.for_moto().items():
        (terraform.folder / "infra" / "aws" / name).write_text(text)
    terraform.run("apply", "-auto-approve")
    cloudformation = boto3.client("cloudformation")
    found = {}
    for name in ("recap", "recap-watch"):
        (found[name],) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    outputs = {o["OutputKey"]: o["OutputValue"] for o in found["recap"]["Outputs"]}
    told = json.loads(terraform.run("show", "-json"))["values"]["outputs"]["recap"]["value"]
    assert told["stack"] == "recap"
    for name in stack.load()["Outputs"]:
        assert told[generate.snake(name)] == outputs.get(name), name
    passed = {p["ParameterKey"]: p["ParameterValue"] for p in found["recap-watch"]["Parameters"]}
    for name in passed.keys() & outputs.keys():
        assert passed[name] == outputs[name], name

    # What `make deploy` made: Terraform must not replace it, with all that it holds.
    for name, address in (("recap", "recap"), ("recap-watch", "watch")):
        address = f"module.recap.aws_cloudformation_stack.{address}"
        terraform.run("state", "rm", address)
        terraform.run("import", address, name)
    template = terraform.folder / "infra" / "aws" / "recap.yaml"
    changed = json.loads(template.read_text())
    changed["Outputs"]["Later"] = {"Value": "later"}
    template.write_text(json.dumps(changed))
    planned = terraform.planned()
    assert {name: change["actions"] for name, change in planned.items()} == {
        "recap": ["update"],
        "watch": ["update"],
    }
    # With the outputs of before the change, the provider would refuse its own plan.
    assert planned["watch"]["after_unknown"]["parameters"] is True
