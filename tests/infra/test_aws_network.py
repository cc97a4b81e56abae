"""Who reaches a machine of the stack, and whom it reaches."""

from typing import Any

import pytest

from tests.infra import stack

OWN = {
    "VpcId": "vpc-0123456789abcdef0",
    "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
    "SecurityGroupIds": "sg-0123456789abcdef0,sg-0123456789abcdef1",
}


def machines(name: str, **parameters: str) -> dict[str, Any]:
    properties = stack.resources(**parameters)[name]["Properties"]
    found: dict[str, Any] = properties["ComputeResources"]
    return found


def groups(**parameters: str) -> dict[str, set[str]]:
    return {
        name: set(machines(name, **parameters)["SecurityGroupIds"])
        for name in ("SpotMachines", "OnDemandMachines", "NodesMachines")
    }


def reached_from(resources: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    """Return the groups that may open connections to each group."""
    found: dict[str, set[str]] = {}
    for resource in resources.values():
        properties = resource["Properties"]
        if resource["Type"] == "AWS::EC2::SecurityGroupIngress":
            sources = found.setdefault(properties["GroupId"], set())
            sources.add(properties["SourceSecurityGroupId"])
        assert "SecurityGroupIngress" not in properties
    return found


@pytest.mark.parametrize("parameters", [{}, OWN], ids=["of the stack", "of yours"])
def test_only_the_nodes_of_trainings_reach_the_nodes_of_trainings(parameters):
    found = groups(**parameters)
    (target, sources), *others = reached_from(stack.resources(**parameters)).items()
    assert not others
    assert sources == {target}
    assert target in found["NodesMachines"]
    assert target not in found["SpotMachines"] | found["OnDemandMachines"]


@pytest.mark.parametrize(
    "given", [["VpcId"], ["SubnetIds"], ["SecurityGroupIds"], ["SubnetIds", "SecurityGroupIds"]]
)
def test_a_part_of_a_network_never_makes_one_of_the_stacks(given):
    assert "Vpc" not in stack.resources(**{name: OWN[name] for name in given})


def test_your_own_security_groups_take_the_place_of_the_stacks():
    own = set(OWN["SecurityGroupIds"].split(","))
    found = groups(**OWN)
    assert found["SpotMachines"] == found["OnDemandMachines"] == own
    assert found["NodesMachines"] > own
    assert "SecurityGroup" not in stack.resources(**OWN)


def test_no_group_lets_everything_out():
    kinds = stack.resources()
    for resource in kinds.values():
        if resource["Type"] == "AWS::EC2::SecurityGroup":
            for rule in resource["Properties"]["SecurityGroupEgress"]:
                open_rule = (rule.get("FromPort"), rule["CidrIp"])
                assert open_rule in ((443, "0.0.0.0/0"), (None, "127.0.0.1/32"))


def test_nodes_side_by_side_are_in_one_placement_group_and_one_zone():
    apart = machines("NodesMachines")
    assert "PlacementGroup" not in apart
    assert len(apart["Subnets"]) == 3
    for parameters in ({}, OWN):
        together = machines("NodesMachines", PlacementGroup="on", **parameters)
        assert together["PlacementGroup"]
        assert together["Subnets"] == machines("SpotMachines", **parameters)["Subnets"][:1]
        others = machines("OnDemandMachines", PlacementGroup="on", **parameters)
        assert "PlacementGroup" not in others


def test_another_revision_replaces_the_machines():
    # Batch replaces machines, by ones with the newest image, if their tags change.
    for name in groups():
        before, after = (machines(name, MachinesRevision=each) for each in ("1", "2026-12"))
        assert before.pop("Tags") != after.pop("Tags")
        assert before == after
        assert before["UpdateToLatestImageVersion"] is True


def test_what_costs_has_the_name_of_the_stack():
    for name in groups():
        assert machines(name)["Tags"]["recap/stack"] == "recap"
    data = stack.resources()["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    (volumes,) = data["TagSpecifications"]
    assert volumes["Tags"] == [{"Key": "recap/stack", "Value": "recap"}]
