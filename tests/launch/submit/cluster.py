"""As much of a cluster's API on loopback as the real kubectl needs to wait for pods."""

import json
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

VERSION = {"resourceVersion": "1"}
RESOURCE = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list", "watch"]}
ANSWERS = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [RESOURCE]},
}


def pod(name: str, state: str | None = None) -> dict[str, Any]:
    """A pod whose container is in this state, or that has no machine yet."""
    status = {"containerStatuses": [{"name": "recap", "state": {state: {"startedAt": "2026-01-31T02:00:00Z"}}}]}
    metadata = {"name": name, "namespace": "recap"} | VERSION
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "status": status if state else {}}


class Cluster:
    """The pods that it was told of last; `asked` gets `list` or `watch` for each that has been told of all of them."""

    def __init__(self) -> None:
        self.asked: queue.Queue[str] = queue.Queue()
        self._changed, self._pods, self._version = threading.Condition(), [], 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @contextmanager
    def running(self) -> Iterator["Cluster"]:
        """It answers until the end of the block."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        yield self
        self._server.shutdown()
        self._server.server_close()

    def environment(self, folder: Path) -> dict[str, str]:
        """What makes kubectl ask this cluster and no other."""
        server = {"server": f"http://127.0.0.1:{self._server.server_port}"}
        config = folder / "kubeconfig"
        context = {"name": "here", "context": {"cluster": "here", "user": ""}}
        clusters = [{"name": "here", "cluster": server}]
        config.write_text(yaml.safe_dump({"current-context": "here", "contexts": [context], "clusters": clusters}))
        return {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(config)}

    def tell(self, *pods: dict[str, Any]) -> None:
        """These pods are there now."""
        with self._changed:
            self._pods, self._version = list(pods), self._version + 1
            self._changed.notify_all()

    def _events(self, field: str) -> Iterator[dict[str, Any]]:
        """What a watch is told: first all that there is, then every change."""
        end = {"annotations": {"k8s.io/initial-events-end": "true"}} | VERSION
        seen, kind = -1, "ADDED"
        while True:
            with self._changed:
                self._changed.wait_for(lambda seen=seen: self._version != seen)
                seen = self._version
                pods = [
                    each for each in self._pods if not field or field == f"metadata.name={each['metadata']['name']}"
                ]
            yield from ({"type": kind, "object": each} for each in pods)
            if kind == "ADDED":
                yield {"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": end}}
                self.asked.put("watch")
                kind = "MODIFIED"

    def _handler(cluster) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                asked = parse_qs(url.query)
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                pods = {"kind": "PodList", "apiVersion": "v1", "metadata": VERSION, "items": cluster._pods}
                events = cluster._events(asked.get("fieldSelector", [""])[0])
                answers = events if "watch" in asked else [ANSWERS.get(url.path, pods)]
                try:
                    for each in answers:
                        self.wfile.write(json.dumps(each).encode() + b"\n")
                    if "watch" not in asked and url.path.endswith("/pods"):
                        cluster.asked.put("list")
                except OSError:  # kubectl has heard enough
                    return

        return Handler
