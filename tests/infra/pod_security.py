"""Kubernetes' Pod Security Standard "restricted", with all of "baseline", for 1.34 and later.

It lists what the admission controller of a restricted namespace would refuse in a pod's spec.
"""

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral",
    "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip
SELINUX_TYPES = {
    None,
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
}
Spec = dict[str, Any]


def violations(pod: Spec) -> list[str]:
    """Every rule of the standard that the pod breaks."""
    found = list(_of_pod(pod))
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(group, ()):
            found += [
                f"{container['name']}: {rule}"
                for rule in _of_container(container, pod.get("securityContext", {}))
            ]
    return found


def _of_pod(pod: Spec) -> Iterator[str]:
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))
    yield from (f"volume {each['name']}" for each in pod.get("volumes", ()) if set(each) - VOLUMES)
    context = pod.get("securityContext", {})
    yield from (
        f"sysctl {each['name']}"
        for each in context.get("sysctls", ())
        if each["name"] not in SAFE_SYSCTLS
    )
    yield from _of_either(context)


def _of_container(container: Spec, of_pod: Spec) -> Iterator[str]:
    context = container.get("securityContext", {})
    yield from _of_either(context)
    effective = of_pod | context
    if context.get("privileged"):
        yield "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if not effective.get("runAsNonRoot"):
        yield "runAsNonRoot"
    if effective.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {
        "NET_BIND_SERVICE"
    }:
        yield "capabilities"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"
    probes = [
        container.get(name, {}) for name in ("livenessProbe", "readinessProbe", "startupProbe")
    ]
    hooks = list(container.get("lifecycle", {}).values())
    if any(
        each.get(way, {}).get("host") for each in probes + hooks for way in ("httpGet", "tcpSocket")
    ):
        yield "host of a probe or hook"


def _of_either(context: Spec) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield "runAsUser"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    if context.get("seccompProfile", {}).get("type") == "Unconfined":
        yield "seccompProfile Unconfined"
    if context.get("appArmorProfile", {}).get("type") == "Unconfined":
        yield "appArmorProfile"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"
