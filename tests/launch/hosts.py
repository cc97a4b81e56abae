"""Two hosts on one machine: network namespaces, linked with each other and with this machine.

S3 is on this machine. Each host has a disk of its own, and a name that resolves to its own address,
as containers have. Needs root and Linux.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.faults.trials import QUIET, ROOT

ENTER = 'mount --bind "$1" /etc/hosts; hostname "$2"; shift 2; exec "$@"'


@dataclass
class Host:
    """One of the two hosts, with its files below `disk`."""

    name: str  # of the host and of its network namespace
    address: str  # on the link to the other host
    s3_address: str  # of this machine, on the link to it
    address_for_s3: str  # of the host, on the link to this machine
    disk: Path
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def start(self, config: dict[str, Any], environment: dict[str, str]) -> "subprocess.Popen[str]":
        """Start `recap train` there. Its output is appended to `log`."""
        path = self.disk / f"{config['run']}.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        hosts = self.disk / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n", encoding="utf-8")
        places = {"RECAP_CACHE": str(self.disk / "cache"), "RECAP_WORK": str(self.disk / "work")}
        enter = ["ip", "netns", "exec", self.name, "unshare", "--mount", "--uts"]
        enter += ["sh", "-ec", ENTER, "sh", str(hosts)]
        with self.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [*enter, self.name, sys.executable, "-m", "job", "train", str(path)],
                stdout=log,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=os.environ | QUIET | places | environment,
            )
        self.started.append(process)
        return process

    @property
    def log(self) -> Path:
        """The output of all processes there."""
        return self.disk / "log"

    def disappear(self) -> None:
        """Cut the links, and then kill everything there, so that no connection is closed."""
        for link in ("eth0", "s3"):
            run("ip", "-n", self.name, "link", "set", link, "down")
        for pid in run("ip", "netns", "pids", self.name).split():
            subprocess.run(["kill", "-9", pid], check=False)

    def come_back(self) -> None:
        """Connect it again."""
        for link in ("eth0", "s3"):
            run("ip", "-n", self.name, "link", "set", link, "up")
        route = ("route", "replace", self.s3_address, "dev", "s3", "src", self.address_for_s3)
        run("ip", "-n", self.name, *route)


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[list[Host], str]]:
    """Yield two hosts and the address of this machine for both; remove all of it afterwards."""
    number = os.getpid()
    net = f"10.{200 + number % 50}"
    low = (number // 50) % 120 * 2
    here = f"{net}.{low}.1"
    hosts = []
    for n in (0, 1):
        host = Host(
            name=f"recap{number}h{n}",
            address=f"{net}.{low + 1}.{10 + n}",
            s3_address=here,
            address_for_s3=f"{net}.{low}.{10 + n}",
            disk=folder / f"host{n}",
        )
        hosts.append(host)
    try:
        for host in hosts:
            host.disk.mkdir()
            run("ip", "netns", "add", host.name)
            run("ip", "-n", host.name, "link", "set", "lo", "up")
        first, second = hosts
        add_link("eth0", second.name, "eth0", "-n", first.name)
        for n, host in enumerate(hosts):
            outside = f"rc{number % 100000}h{n}"
            add_link(outside, host.name, "s3")
            run("ip", "addr", "add", f"{here}/32", "dev", outside)
            run("ip", "link", "set", outside, "up")
            run("ip", "route", "add", host.address_for_s3, "dev", outside, "src", here)
            run("ip", "-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            run("ip", "-n", host.name, "addr", "add", f"{host.address_for_s3}/32", "dev", "s3")
            host.come_back()
        yield hosts, here
    finally:
        for host in hosts:
            for process in host.started:
                process.kill()
                process.wait()
            pids = ["ip", "netns", "pids", host.name]
            found = subprocess.run(pids, capture_output=True, text=True, check=False)
            for pid in found.stdout.split():
                subprocess.run(["kill", "-9", pid], check=False)
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True, check=False)


def why_not() -> str | None:
    """Return the reason why there can be no hosts here, or None if there can."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return "two hosts on one machine are network namespaces, which need root and Linux"
    name = f"recap{os.getpid()}try"
    try:
        run("ip", "netns", "add", name)
        try:
            run("ip", "-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two")
            run("ip", "netns", "exec", name, "unshare", "--mount", "--uts", "true")
        finally:
            run("ip", "netns", "del", name)
    except (OSError, subprocess.CalledProcessError) as error:
        return (
            f"two hosts on one machine are network namespaces, which are not allowed here ({error})"
        )
    return None


def add_link(name: str, peer_namespace: str, peer_name: str, *where: str) -> None:
    """Add an interface whose other end is `peer_name` in another namespace."""
    peer = ("peer", "name", peer_name, "netns", peer_namespace)
    run("ip", *where, "link", "add", name, "type", "veth", *peer)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
