"""Try what recap's pods can reach: what they need must be open, and what they do not need closed.

Pod 0 of the Job listens. Pod 1 reaches for the store, or for the proxy on the way to it, and then
for pod 0, which the network policies forbid. It prints a line for each. Then it runs `recap plan`
with the account of a training. It ends with 1 if a line is wrong, else with the code of the plan.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import boto3
import yaml
from botocore.exceptions import BotoCoreError

PORT = int(os.environ.get("CHECK_PORT", "19321"))  # no policy of recap opens it
# Some networks need seconds to apply the policies to a new pod. Until then everything is open.
SECONDS = float(os.environ.get("CHECK_SECONDS", "60"))
LISTENING = Path(os.environ.get("CHECK_FILE", "/work/listening"))


def listen() -> None:
    """Accept connections until the Job ends, which the other pod decides."""
    with socket.create_server(("", PORT)) as server:
        LISTENING.touch()
        while True:
            server.accept()[0].close()


def try_all(listener: str, config: str) -> int:
    """Print what is open and what is closed, and the plan of a training. Return the exit code."""
    found = [report_store(storage_of(config)), report_policies(listener)]
    sys.stdout.flush()
    plan = subprocess.run(["recap", "plan", config], check=False)
    return plan.returncode if all(found) else 1


def storage_of(config: str) -> dict[str, Any]:
    """Return the config's section `storage`. What is wrong with the config, the plan will say."""
    try:
        found = yaml.safe_load(Path(config).read_text(encoding="utf-8"))["storage"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def report_store(storage: dict[str, Any]) -> bool:
    """Print if the store, or the proxy on the way to it, can be reached. Return it."""
    try:
        host, port = way_to_store(storage)
    except (BotoCoreError, ValueError) as wrong:
        print(f"the store: NOT REACHED: {wrong}")
        return False
    error = connection_error(host, port)
    if error:
        print(f"{host}:{port}: NOT REACHED: {error}")
        return False
    print(f"{host}:{port}: reached, as it must be")
    return True


def way_to_store(storage: dict[str, Any]) -> tuple[str, int]:
    """Return host and port of the proxy, or of the store itself, as boto3 asks it.

    AWS has an address for each region.
    """
    # With these keys it looks for no others, which is up to the plan: a failure has one line.
    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
    session = boto3.session.Session(region_name=storage.get("region"), **keys)
    client = session.client("s3", endpoint_url=storage.get("endpoint_url"))
    url = urlsplit(client.meta.endpoint_url)
    proxy = getproxies().get(url.scheme)
    if proxy and not proxy_bypass(url.hostname or ""):
        url = urlsplit(proxy)
    return url.hostname or "", url.port or (80 if url.scheme == "http" else 443)


def report_policies(listener: str) -> bool:
    """Print if the other pod is out of reach. Return it."""
    if not gets_name(listener):
        print(f"{listener}: HAS NO NAME: did its pod start? Are names resolved at all?")
        return False
    end = time.monotonic() + SECONDS
    error = refusal(listener)
    while error is None and time.monotonic() < end:
        time.sleep(1)
        error = refusal(listener)
    if error:
        print(f"{listener}:{PORT}: not reached ({error}), as it must be")
        return True
    print(f"{listener}:{PORT}: REACHED: this cluster does not enforce network policies")
    return False


def refusal(listener: str) -> OSError | None:
    """Return the error if two connections in a row fail: one alone may be an accident."""
    if connection_error(listener, PORT) is None:
        return None
    return connection_error(listener, PORT)


def gets_name(host: str) -> bool:
    """Wait for the name of the other pod, whose image may have to be pulled first."""
    end = time.monotonic() + 5 * SECONDS
    while time.monotonic() < end:
        try:
            socket.getaddrinfo(host, PORT)
        except socket.gaierror:
            time.sleep(1)
        else:
            return True
    return False


def connection_error(host: str, port: int) -> OSError | None:
    """Return the error of one connection, or None if it was made."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return error
    return None


if __name__ == "__main__":
    if os.environ["JOB_COMPLETION_INDEX"] == "0":
        listen()
    sys.exit(try_all(os.environ["LISTENER"], os.environ["RECAP_CONFIG"]))
