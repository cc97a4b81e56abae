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
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

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
    found = [report_store(), report_policies(listener)]
    sys.stdout.flush()
    plan = subprocess.run(["recap", "plan", config], check=False)
    return plan.returncode if all(found) else 1


def report_store() -> bool:
    """Print if the store, or the proxy on the way to it, can be reached. Return it."""
    store = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    url = urlsplit(store or "https://s3.amazonaws.com")
    proxy = getproxies().get(url.scheme)
    if proxy and not proxy_bypass(url.hostname or ""):
        url = urlsplit(proxy)

    port = url.port or (80 if url.scheme == "http" else 443)
    error = connection_error(url.hostname or "", port)
    if error:
        print(f"{url.hostname}:{port}: NOT REACHED: {error}")
        return False
    print(f"{url.hostname}:{port}: reached, as it must be")
    return True


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
