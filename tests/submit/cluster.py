"""The part of a cluster's API that the real kubectl needs to wait for a job and its pods."""

import json
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

VERSION = {"resourceVersion": "1"}
KINDS = {
    "pods": {"kind": "Pod", "apiVersion": "v1"},
    "jobs": {"kind": "Job", "apiVersion": "batch/v1"},
}
BATCH = {"groupVersion": "batch/v1", "version": "v1"}


def resource(kind: str) -> dict[str, Any]:
    names = {"name": f"{kind.lower()}s", "singularName": kind.lower(), "kind": kind}
    return names | {"namespaced": True, "verbs": ["get", "list", "watch"]}


ANSWERS = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "batch", "versions": [BATCH], "preferredVersion": BATCH}],
    },
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [resource("Pod")]},
    "/apis/batch/v1": {
        "kind": "APIResourceList",
        "groupVersion": "batch/v1",
        "resources": [resource("Job")],
    },
}


def job(name: str, started: bool = False) -> dict[str, Any]:
    """Return a job, for which its controller has created pods if `started`."""
    status = {"startTime": "2026-01-31T02:00:00Z"} if started else {}
    return KINDS["jobs"] | {"metadata": metadata(name), "status": status}


def pod(name: str, state: str | None = None) -> dict[str, Any]:
    """Return a pod with its container in this state, or one without a machine."""
    status = {
        "containerStatuses": [
            {"name": "recap", "state": {state: {"startedAt": "2026-01-31T02:00:00Z"}}}
        ]
    }
    return KINDS["pods"] | {"metadata": metadata(name), "status": status if state else {}}


def metadata(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": "recap"} | VERSION


class Cluster:
    """A cluster on loopback with the jobs and pods of the last `set`.

    `answered` gets "get jobs", "list pods" and so on for each request. Every pod has the `log`, and
    the connection breaks off after it. `log_queries` are the queries with which it was asked for.
    """

    def __init__(self) -> None:
        self.log = ""
        self.log_queries: list[dict[str, list[str]]] = []
        self.answered: queue.Queue[str] = queue.Queue()
        self._changed = threading.Condition()
        self._objects: list[dict[str, Any]] = []
        self._version = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @contextmanager
    def running(self) -> Iterator["Cluster"]:
        """Serve for the duration of the block."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        yield self
        self._server.shutdown()
        self._server.server_close()

    def environment(self, folder: Path) -> dict[str, str]:
        """Return variables with which kubectl uses this cluster and no other."""
        server = {"server": f"http://127.0.0.1:{self._server.server_port}"}
        config = folder / "kubeconfig"
        context = {"name": "here", "context": {"cluster": "here", "user": ""}}
        clusters = [{"name": "here", "cluster": server}]
        config.write_text(
            yaml.safe_dump({"current-context": "here", "contexts": [context], "clusters": clusters})
        )
        return {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(config)}

    def set(self, *objects: dict[str, Any]) -> None:
        """Replace all jobs and pods."""
        with self._changed:
            self._objects = list(objects)
            self._version += 1
            self._changed.notify_all()

    def _found(self, kind: str, field: str = "") -> list[dict[str, Any]]:
        found = []
        for each in self._objects:
            is_of_kind = f"{each['kind'].lower()}s" == kind
            if is_of_kind and field in ("", f"metadata.name={each['metadata']['name']}"):
                found.append(each)
        return found

    def _events(self, kind: str, field: str) -> Iterator[dict[str, Any]]:
        """Yield the events of a watch: first all that is there, then every change."""
        end = {"annotations": {"k8s.io/initial-events-end": "true"}} | VERSION
        seen = -1
        event = "ADDED"
        while True:
            with self._changed:
                self._changed.wait_for(lambda seen=seen: self._version != seen)
                seen = self._version
                found = self._found(kind, field)
            yield from ({"type": event, "object": each} for each in found)
            if event == "ADDED":
                yield {"type": "BOOKMARK", "object": KINDS[kind] | {"metadata": end}}
                self.answered.put(f"watch {kind}")
                event = "MODIFIED"

    def _handler(cluster) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                """Log nothing."""

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = parse_qs(url.query)
                self.send_response(200)
                is_log = url.path.endswith("/log")
                self.send_header("Content-Type", "text/plain" if is_log else "application/json")
                self.end_headers()
                if is_log:
                    cluster.log_queries.append(query)
                    self.wfile.write(cluster.log.encode())
                    return
                kind, _, name = url.path.partition("/namespaces/recap/")[2].partition("/")
                field = query.get("fieldSelector", [f"metadata.name={name}" if name else ""])[0]
                done = None
                answers: Iterable[dict[str, Any]]
                if url.path in ANSWERS:
                    answers = [ANSWERS[url.path]]
                elif "watch" in query:
                    answers = cluster._events(kind, field)
                elif name:
                    answers = cluster._found(kind, field)
                    done = f"get {kind}"
                else:
                    of_list = {"kind": f"{KINDS[kind]['kind']}List", "metadata": VERSION}
                    items = {"items": cluster._found(kind, field)}
                    answers = [KINDS[kind] | of_list | items]
                    done = f"list {kind}"
                try:
                    for each in answers:
                        self.wfile.write(json.dumps(each).encode() + b"\n")
                except OSError:  # kubectl has closed the connection
                    return
                if done:
                    cluster.answered.put(done)

        return Handler
