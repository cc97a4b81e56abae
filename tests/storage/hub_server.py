"""A Hub on loopback: as much of it as huggingface_hub needs to write and read a repository.

It serves the Hub's HTTP interface from a dictionary of files. It records all commits and requests.
`fail(path part, status, times)` makes it misbehave.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE_SUFFIXES = (".safetensors", ".bin")


@dataclass
class Repository:
    """Files by path, whether it is private or gated, and the commits: message and paths of each."""

    private: bool = False
    gated: bool = False
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr((self.commits, sorted(self.files))).encode()).hexdigest()


@dataclass
class Request:
    """One request as it came, and its parts."""

    method: str
    path: str
    query: dict[str, list[str]]
    token: str | None
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Hub:
    """The service: repositories by `models/org/name` or `datasets/org/name`, and its requests."""

    endpoint: str = ""
    token: str = "hf_" + "T" * 34
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    failures: list[tuple[str, int]] = field(default_factory=list)
    account: dict[str, Any] = field(
        default_factory=lambda: {"type": "user", "name": "tester", "orgs": []}
    )

    @classmethod
    @contextmanager
    def started(cls) -> "Iterator[Hub]":
        hub = cls()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _speaker_for(hub))
        server.daemon_threads = True
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        try:
            yield hub
        finally:
            from huggingface_hub import close_session

            close_session()  # its connections are to a server that is about to go
            server.shutdown()
            server.server_close()
            thread.join()

    def add(
        self, name: str, files: dict[str, bytes], kind: str = "models", **about: bool
    ) -> Repository:
        """Add a repository, as if somebody had pushed it."""
        repository = self.repositories[f"{kind}/{name}"] = Repository(**about, files=dict(files))
        repository.commits.append(("initial", sorted(files)))
        return repository

    def fail(self, path_part: str, status: int, times: int = 1) -> None:
        """Answer the next `times` requests whose path has `path_part` with `status`."""
        self.failures += [(path_part, status)] * times

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        for failure in self.failures:
            if failure[0] in request.path:
                self.failures.remove(failure)
                return _json(failure[1], {"error": "as the test wants"})
        for pattern, reply in ROUTES:
            match = re.fullmatch(pattern, f"{request.method} {request.path}")
            if match:
                return reply(self, request, **match.groupdict())
        return _json(404, {"error": f"no such route: {request.method} {request.path}"})

    def writable(self, request: Request) -> Answer | None:
        return None if request.token == self.token else _json(401, {"error": "Invalid credentials"})

    def readable(self, request: Request, name: str) -> Repository | Answer:
        repository = self.repositories.get(name)
        known = request.token == self.token
        if repository is None or (repository.private and not known):
            return _json(
                404 if known else 401,
                {"error": "Repository not found"},
                {"X-Error-Code": "RepoNotFound"},
            )
        return repository


def _whoami(hub: Hub, request: Request) -> Answer:
    return hub.writable(request) or _json(200, hub.account)


def _create(hub: Hub, request: Request) -> Answer:
    refused = hub.writable(request)
    if refused:
        return refused
    wanted = request.json()
    name = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
    place = f"{wanted.get('type') or 'model'}s/{name}"
    url = {"url": f"{hub.endpoint}/{name}", "name": name, "id": name}
    if place in hub.repositories:
        return _json(409, url | {"error": "You already created this model repo"})
    private = wanted.get("private", wanted.get("visibility") == "private")
    hub.repositories[place] = Repository(private=bool(private))
    return _json(200, url)


def _preupload(hub: Hub, request: Request, repo: str, revision: str) -> Answer:
    modes = [
        {
            "path": file["path"],
            "uploadMode": "lfs" if file["path"].endswith(LARGE_SUFFIXES) else "regular",
            "shouldIgnore": False,
            "oid": None,
        }
        for file in request.json()["files"]
    ]
    return hub.writable(request) or _json(200, {"files": modes})


def _lfs_batch(hub: Hub, request: Request, repo: str) -> Answer:
    objects = []
    for wanted in request.json()["objects"]:
        actions = {"upload": {"href": f"{hub.endpoint}/lfs-storage/{wanted['oid']}", "header": {}}}
        objects.append(wanted if wanted["oid"] in hub.blobs else wanted | {"actions": actions})
    return hub.writable(request) or _json(200, {"transfer": "basic", "objects": objects})


def _lfs_put(hub: Hub, request: Request, oid: str) -> Answer:
    if hashlib.sha256(request.body).hexdigest() != oid:
        return _json(422, {"error": "content and name differ"})
    hub.blobs[oid] = request.body
    return _json(200, {})


def _commit(hub: Hub, request: Request, repo: str, revision: str) -> Answer:
    refused = hub.writable(request)
    if refused:
        return refused
    repository = hub.repositories[repo]
    lines = [json.loads(line) for line in request.body.splitlines()]
    if lines[0]["value"].get("parentCommit") not in (None, repository.sha):
        return _json(412, {"error": "A commit has happened since."})
    files = {}
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            files[value["path"]] = hub.blobs[value["oid"]]
    repository.files |= files
    repository.commits.append((lines[0]["value"]["summary"], sorted(files)))
    name = repo.removeprefix("models/")
    url = f"{hub.endpoint}/{name}/commit/{repository.sha}"
    return _json(
        200, {"success": True, "commitOid": repository.sha, "commitUrl": url, "hookOutput": ""}
    )


def _info(hub: Hub, request: Request, repo: str, revision: str | None = None) -> Answer:
    repository = hub.readable(request, repo)
    if not isinstance(repository, Repository):
        return repository
    if revision not in (None, "main", repository.sha):
        return _json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
    name = repo.partition("/")[2]
    about = {
        "id": name,
        "sha": repository.sha,
        "private": repository.private,
        "tags": [],
        "siblings": [],
    }
    return _json(200, about)


def _tree(
    hub: Hub, request: Request, repo: str, revision: str, folder: str | None = None
) -> Answer:
    repository = hub.readable(request, repo)
    if not isinstance(repository, Repository):
        return repository
    inside = f"{unquote(folder)}/" if folder else ""
    names = sorted(name for name in repository.files if name.startswith(inside))
    if inside and not names:
        return _json(404, {"error": "no such path"}, {"X-Error-Code": "EntryNotFound"})
    # Pages of two, so that following them is not an untested promise.
    start = int(request.query.get("cursor", ["0"])[0])
    page, rest = names[start : start + 2], names[start + 2 :]
    more = f"{hub.endpoint}{request.path}?recursive=true&cursor={start + 2}"
    headers = {"Link": f'<{more}>; rel="next"'} if rest else {}
    return _json(200, [_file(repository, name) for name in page], headers)


def _auth_check(hub: Hub, request: Request, repo: str) -> Answer:
    repository = hub.readable(request, repo)
    if not isinstance(repository, Repository):
        return repository
    if repository.gated:
        return _json(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
    return _json(200, {})


def _paths_info(hub: Hub, request: Request, repo: str, revision: str) -> Answer:
    repository = hub.readable(request, repo)
    if not isinstance(repository, Repository):
        return repository
    wanted = parse_qs(request.body.decode())["paths"]
    return _json(200, [_file(repository, name) for name in wanted if name in repository.files])


def _resolve(hub: Hub, request: Request, repo: str, revision: str, path: str) -> Answer:
    place = repo if repo.startswith("datasets/") else f"models/{repo}"
    repository = hub.readable(request, place)
    if not isinstance(repository, Repository):
        return repository
    if repository.gated:  # for the files alone: everybody may read what the Hub knows of them
        status = 403 if request.token == hub.token else 401
        return _json(status, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
    data = repository.files.get(unquote(path))
    if data is None:
        return _json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
    etag = hashlib.sha256(data).hexdigest()
    return (
        200,
        {"X-Repo-Commit": repository.sha, "ETag": f'"{etag}"', "Content-Length": str(len(data))},
        data,
    )


def _file(repository: Repository, name: str) -> dict[str, Any]:
    data = repository.files[name]
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return {"type": "file", "path": name, "size": len(data), "oid": oid}


def _json(status: int, content: Any, headers: dict[str, str] | None = None) -> Answer:
    body = json.dumps(content).encode()
    return (
        status,
        {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})},
        body,
    )


REPO = r"(?P<repo>(models|datasets)/[^/]+/[^/]+)"
ROUTES: list[tuple[str, Callable[..., Answer]]] = [
    (r"GET /api/whoami-v2", _whoami),
    (r"POST /api/repos/create", _create),
    (r"POST /api/validate-yaml", lambda hub, request: _json(200, {"errors": [], "warnings": []})),
    (rf"POST /api/{REPO}/preupload/(?P<revision>[^/]+)", _preupload),
    (r"POST /(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _lfs_batch),
    (r"PUT /lfs-storage/(?P<oid>\w+)", _lfs_put),
    (rf"POST /api/{REPO}/commit/(?P<revision>[^/]+)", _commit),
    (rf"GET /api/{REPO}", _info),
    (rf"GET /api/{REPO}/auth-check", _auth_check),
    (rf"GET /api/{REPO}/revision/(?P<revision>[^/]+)", _info),
    (rf"GET /api/{REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", _tree),
    (rf"POST /api/{REPO}/paths-info/(?P<revision>[^/]+)", _paths_info),
    (
        r"(GET|HEAD) /(?P<repo>(datasets/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        _resolve,
    ),
]


def _speaker_for(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Speaker(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True
        protocol_version = "HTTP/1.1"

        def _speak(self) -> None:
            body = self._body()
            url = urlsplit(self.path)
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            status, headers, content = hub.answer(
                Request(self.command, url.path, parse_qs(url.query), token, body)
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_HEAD = do_POST = do_PUT = _speak

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test looks at `hub.requests`."""

    return Speaker
