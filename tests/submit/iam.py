"""IAM on loopback: what moto lacks, the simulation of the policies of a role that it stores."""

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest


def simulate_policies(patch: pytest.MonkeyPatch) -> None:
    """Let moto answer SimulatePrincipalPolicy from the inline policies of its roles.

    It knows StringLike on s3:prefix, and no other condition.
    """
    from moto.core.responses import ActionResult
    from moto.iam.responses import IamResponse

    def answer(self: Any) -> ActionResult:
        role = self._get_param("PolicySourceArn").rpartition("/")[2]
        actions = self._get_param("ActionNames")
        resources = self._get_param("ResourceArns")
        prefixes = [each["ContextKeyValues"][0] for each in self._get_param("ContextEntries", [])]
        statements = []
        for name in self.backend.list_role_policies(role):
            _, document = self.backend.get_role_policy(role, name)
            document = json.loads(document) if isinstance(document, str) else document
            # What a template leaves out (AWS::NoValue) is null.
            statements += [each for each in document["Statement"] if each]
        results = []
        for action in actions:
            for resource in resources:
                fits = [is_allowed(each, action, resource, prefixes) for each in statements]
                decision = "allowed" if any(fits) else "implicitDeny"
                results.append({"EvalActionName": action, "EvalDecision": decision})
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})

    patch.setattr(IamResponse, "simulate_principal_policy", answer, raising=False)


def is_allowed(statement: dict[str, Any], action: str, resource: str, prefixes: list[str]) -> bool:
    """Return True if a statement that allows something allows this."""
    if action not in listed(statement["Action"]):
        return False
    if not any(fnmatchcase(resource, each) for each in listed(statement["Resource"])):
        return False
    wanted = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
    if wanted is None:
        return True
    return any(fnmatchcase(prefix, each) for prefix in prefixes for each in listed(wanted))


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
