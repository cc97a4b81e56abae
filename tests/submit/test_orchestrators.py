"""Claims about the snippets of docs/orchestrators.md: each is parsed, and run as far as it can be.

The names of Airflow's operators are those of the providers that the page names.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import botocore.session
import jsonschema
import pytest
import yaml
from botocore.validate import validate_parameters

from job.errors import ExitCode
from job.submit import run
from job.submit.follow import RUN_AGAIN, STOPPED_BY_A_PERSON

pytestmark = pytest.mark.infra
ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "orchestrators.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NIGHT = ROOT / "examples" / "nightly.yaml"
KUBERNETES = ROOT / "infra" / "kubernetes"
FINAL = [code for code in ExitCode if code not in (ExitCode.DONE, ExitCode.RETRY)]

# Of `amazon` 9.39 and `cncf.kubernetes` 10.25, and of every operator.
OPERATOR = {"task_id", "retries", "retry_delay"}
BATCH_OPERATOR = OPERATOR | {
    "job_name",
    "job_queue",
    "job_definition",
    "array_properties",
    "container_overrides",
    "tags",
    "awslogs_enabled",
    "deferrable",
}
POD_OPERATOR = OPERATOR | {
    "namespace",
    "pod_template_file",
    "base_container_name",
    "env_vars",
    "startup_timeout_seconds",
    "termination_grace_period",
    "get_logs",
    "on_finish_action",
}


def snippets(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, language
    return found


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


# cron


@pytest.mark.parametrize(
    ("codes", "ends", "mails"),
    [
        ([0], 0, 0),
        ([75, 0], 0, 0),
        ([75, 75, 75], 75, 1),
        ([64], 64, 1),
        ([75, 137], 137, 1),
        ([STOPPED_BY_A_PERSON], STOPPED_BY_A_PERSON, 1),
    ],
)
def test_the_cron_script_runs_75_again_and_mails_any_other_code(tmp_path, codes, ends, mails):
    script = tmp_path / "night.sh"
    executable(script, snippets("sh")[0])
    executable(
        tmp_path / "recap",
        f'#!/bin/sh\ncd {tmp_path}\necho "$RECAP_SCHEDULED_AT $*" >>calls\n'
        "code=$(head -n 1 codes)\nsed -i 1d codes\nexit $code\n",
    )
    executable(tmp_path / "mail", f'#!/bin/sh\necho "$*" >>{tmp_path}/mails\n')
    executable(tmp_path / "sleep", "#!/bin/sh\n")
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    (tmp_path / "mails").touch()
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run([script], env=environment, capture_output=True).returncode == ends
    calls = [line.split(maxsplit=1) for line in (tmp_path / "calls").read_text().splitlines()]
    assert len(calls) == len(codes)
    assert {words for _, words in calls} == {
        "submit aws-batch s3://BUCKET/configs/nightly.yaml --var date=yesterday --wait"
    }
    assert len({due for due, _ in calls}) == 1, "a later attempt does the same night"
    assert len((tmp_path / "mails").read_text().splitlines()) == mails


def test_the_crontab_starts_the_script_under_a_lock(tmp_path):
    *_, line = snippets("crontab")[0].splitlines()
    fields = line.split(maxsplit=5)
    assert fields[:5] == ["0", "4", "*", "*", "*"]
    command = fields[5].replace("/opt/recap/night.sh", "true").replace("/var/log", str(tmp_path))
    command = command.replace("/tmp/recap-night.lock", str(tmp_path / "lock"))
    assert "%" not in command, "which crontab takes for the end of the line"
    assert subprocess.run(["sh", "-c", command]).returncode == 0
    assert (tmp_path / "recap-night.log").exists()


# Airflow


class Fail(Exception):
    pass


@pytest.fixture
def dag(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the page's task, with stand-ins of what it imports."""

    def decorator(*_: Any, **options: Any) -> Any:
        return lambda function: function

    names = {
        "airflow": {},
        "airflow.decorators": {"dag": decorator, "task": decorator},
        "airflow.exceptions": {"AirflowFailException": Fail},
        "pendulum": {"datetime": lambda *_, **options: None},
    }
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(subprocess, "call", lambda words, env: 0)
    namespace: dict[str, Any] = {}
    exec(snippets("python")[0], namespace)
    return namespace


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        (0, None),
        (75, RuntimeError),
        *[(code, Fail) for code in FINAL],
        (STOPPED_BY_A_PERSON, Fail),
        (137, Fail),
    ],
)
def test_airflows_task_ends_as_the_code_asks_for(dag, monkeypatch, code, raised):
    summarize = dag["summarize"]
    calls = []

    def call(words: list[str], env: dict[str, str]) -> int:
        calls.append((words, env["RECAP_SCHEDULED_AT"]))
        return code

    monkeypatch.setattr(subprocess, "call", call)
    if raised is None:
        assert summarize("2026-02-01T04:00:00+01:00") is None
    else:
        with pytest.raises(raised):
            summarize("2026-02-01T04:00:00+01:00")
    ((words, due),) = calls
    assert (words[-1], due) == ("--wait", "2026-02-01T04:00:00+01:00")


def test_airflows_task_submits_from_a_light_installation(dag, monkeypatch, recap):
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    words = [str(NIGHT) if word.startswith("s3://") else word for word in dag["SUBMIT"][1:]]
    words += ["--var", "date=yesterday", "--wait", "--set", "model.base=org/base"]
    ended = recap(*words, "--dry-run", "--queue", "q", "--job-definition", "d")
    assert (ended.code, json.loads(ended.out)["jobQueue"]) == (ExitCode.DONE, "q"), ended.err


def test_no_snippet_skips_a_night():
    assert re.findall(r"(?i)\w*skip\w*", "".join(CODE)) == []


def operator(snippet: str, name: str) -> dict[str, Any]:
    """Return the keywords with which a snippet calls an operator."""
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name:
            delta = {"timedelta": SimpleNamespace}
            return {str(each.arg): eval(ast.unparse(each.value), delta) for each in node.keywords}
    raise AssertionError(name)


def check_request(request: dict[str, Any]) -> None:
    """Fail if Batch's SubmitJob has no such parameters."""
    batch = botocore.session.get_session().get_service_model("batch")
    validate_parameters(request, batch.operation_model("SubmitJob").input_shape)


def test_airflows_batch_operator_makes_a_request_of_batch():
    given = operator(snippets("python")[1], "BatchOperator")
    assert set(given) <= BATCH_OPERATOR
    check_request(
        {
            "jobName": given["job_name"],
            "jobQueue": given["job_queue"],
            "jobDefinition": given["job_definition"],
            "arrayProperties": given["array_properties"],
            "containerOverrides": given["container_overrides"],
            "tags": given["tags"],
        }
    )
    assert given["retries"] == 0


def test_airflows_pod_operator_takes_the_nights_template():
    given = operator(snippets("python")[2], "KubernetesPodOperator")
    assert set(given) <= POD_OPERATOR
    template = yaml.safe_load((KUBERNETES / "base" / "summarize.yaml").read_text())
    (container,) = template["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert given["base_container_name"] == container["name"]
    in_template = {each["name"] for each in container["env"]}
    assert {"RECAP_CONFIG", "RECAP_VAR_DATE", "RECAP_TIME_ZONE"} <= in_template
    assert not in_template & set(given["env_vars"])


@pytest.mark.skipif(not shutil.which("jq"), reason="no jq on this machine")
def test_the_line_that_makes_a_pod_of_the_template_makes_one(tmp_path):
    template = yaml.safe_load((KUBERNETES / "base" / "summarize.yaml").read_text())
    executable(tmp_path / "kubectl", f"#!/bin/sh\ncat <<'END'\n{json.dumps(template)}\nEND\n")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-ec", snippets("sh")[1]], env=environment, cwd=tmp_path, check=True)
    pod = json.loads((tmp_path / "recap-night.json").read_text())
    assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")
    assert pod["spec"] == template["spec"]["jobTemplate"]["spec"]["template"]["spec"]


# Step Functions


MACHINE = json.loads(snippets("json")[0])


def test_the_state_machine_is_one():
    # Of cfn-lint, which takes a second to import.
    package = Path(str(find_spec("cfnlint").origin)).parent
    schema = package / "data" / "schemas" / "other" / "step_functions" / "statemachine.json"
    jsonschema.validate(MACHINE, json.loads(schema.read_text()))
    states = MACHINE["States"]
    reached = {MACHINE["StartAt"]}
    for state in states.values():
        ways = [state, *state.get("Choices", ()), *state.get("Catch", ())]
        reached |= {way["Next"] for way in ways if "Next" in way} | {state.get("Default")}
    assert reached - {None} == set(states)


def test_the_state_machine_submits_what_batch_takes():
    def renamed(value: Any) -> Any:
        if isinstance(value, list):
            return [renamed(each) for each in value]
        if not isinstance(value, dict):
            return value
        return {
            key[0].lower() + key[1:].removesuffix(".$"): each if key == "Tags" else renamed(each)
            for key, each in value.items()
        }

    request = renamed(MACHINE["States"]["Night"]["Parameters"])
    check_request(request)
    assert request["containerOverrides"]["environment"][0]["value"] == "$.scheduled_at"


def value_at(path: str, data: Any) -> Any:
    """Return the value of a path or of States.StringToJson; KeyError if there is none."""
    found = re.fullmatch(r"States\.StringToJson\((.*)\)", path)
    if found:
        return json.loads(value_at(found[1], data))
    for name in path.removeprefix("$.").split("."):
        data = data[name]
    return data


def holds(rule: dict[str, Any], data: Any) -> bool:
    if "And" in rule:
        return all(holds(each, data) for each in rule["And"])
    if "IsPresent" in rule:
        try:
            value_at(rule["Variable"], data)
        except KeyError:
            return not rule["IsPresent"]
        return bool(rule["IsPresent"])
    value = value_at(rule["Variable"], data)
    if "StringMatches" in rule:
        return fnmatchcase(value, rule["StringMatches"])
    return bool(value == rule["NumericEquals"])


def end_after(cause: str) -> str:
    """Walk from the failed task to a state that waits or ends, and return its name."""
    data: Any = {"scheduled_at": "", "failure": {"Error": "States.TaskFailed", "Cause": cause}}
    ((name,),) = [[each["Next"] for each in MACHINE["States"]["Night"]["Catch"]]]
    while True:
        state = MACHINE["States"][name]
        if state["Type"] == "Choice":
            taken = [rule["Next"] for rule in state["Choices"] if holds(rule, data)]
            name = [*taken, state["Default"]][0]
        elif state["Type"] == "Pass":
            given = state["Parameters"].items()
            data = {key.removesuffix(".$"): value_at(path, data) for key, path in given}
            name = state["Next"]
        else:
            return name


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (75, "Wait an hour"),
        *[(code, "Failed") for code in FINAL],
        *[(code, "Failed") for code in RUN_AGAIN if code != ExitCode.RETRY],
        (None, "Failed"),
    ],
)
def test_the_state_machine_goes_where_the_code_asks_for(code, state):
    container = {} if code is None else {"ExitCode": code}
    assert end_after(json.dumps({"JobId": "1", "Container": container})) == state


def test_the_state_machine_fails_with_the_words_of_a_refusal():
    cause = "JobQueue recap-night not found. (Service: AWSBatch; Status Code: 400)"
    assert end_after(cause) == "Failed"
    assert MACHINE["States"]["Failed"]["CausePath"] == "$.failure.Cause"


# Argo


def pod_of_component(name):
    """Return the pod of a patch that all CronJobs, or those with a GPU, are merged with."""
    patch = yaml.safe_load((KUBERNETES / "components" / "pod" / name).read_text())
    return patch["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_argos_workers_are_as_the_templates_of_kubernetes():
    workflow = yaml.safe_load(snippets("yaml")[0])["spec"]["workflowSpec"]
    night, worker = workflow["templates"]
    base = yaml.safe_load((KUBERNETES / "base" / "summarize.yaml").read_text())
    job = base["spec"]["jobTemplate"]["spec"]
    pod = pod_of_component("pod.yaml")
    on_a_gpu = pod_of_component("gpu.yaml")
    own = job["template"]["spec"]

    _, again, _ = job["podFailurePolicy"]["rules"]
    (codes,) = re.findall(r"\[.*\]", worker["retryStrategy"]["expression"])
    assert json.loads(codes) == again["onExitCodes"]["values"]
    assert worker["retryStrategy"]["limit"] == str(job["backoffLimitPerIndex"])
    # Argo counts it from the start of the first attempt, which may take hours.
    assert "maxDuration" not in worker["retryStrategy"]["backoff"]
    assert workflow["activeDeadlineSeconds"] == job["activeDeadlineSeconds"]
    assert workflow["securityContext"] == pod["securityContext"] | own["securityContext"]
    assert workflow["serviceAccountName"] == own["serviceAccountName"]
    assert workflow["tolerations"] == on_a_gpu["tolerations"]
    assert workflow["nodeSelector"] == pod["nodeSelector"]
    grace = {"terminationGracePeriodSeconds": pod["terminationGracePeriodSeconds"]}
    assert json.loads(worker["podSpecPatch"]) == grace
    ((container,), (with_gpu,)) = pod["containers"], on_a_gpu["containers"]
    assert worker["container"]["securityContext"] == container["securityContext"]
    assert worker["container"]["resources"] == with_gpu["resources"]
    ((step,),) = night["steps"]
    assert step["arguments"]["parameters"][0]["value"] == f"{{{{item}}}}/{job['completions']}"
    assert step["withSequence"]["count"] == str(job["completions"])


def test_the_table_of_codes_has_every_code_that_is_not_any_other():
    (table,) = re.findall(r"^\| code \|.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    named = {
        int(code)
        for code in re.findall(
            r"\b\d+\b", " ".join(re.findall(r"^\| ([\d, ]+)", table, re.MULTILINE))
        )
    }
    assert named == {0, ExitCode.MISSING, ExitCode.GATE, STOPPED_BY_A_PERSON} | RUN_AGAIN
