"""A fake Hugging Face Hub: an HTTP server on 127.0.0.1 with repositories in memory.

    with FakeHub() as hub:
        subprocess.run([sys.executable, "-c", code], env=hub.env(tmp_path), check=True)
        assert "README.md" in hub.files("dataset", "org/name")

The clients read HF_ENDPOINT once, at import: run them in a subprocess with `hub.env(...)`. Routes served:

    GET        /api/whoami-v2
    POST       /api/repos/create, /api/validate-yaml
    GET        /api/{type}s/{id}[/revision/{rev}], .../commits/{rev}, .../tree/{rev}[/{folder}]
    POST       /api/{type}s/{id}/paths-info/{rev}, .../preupload/{rev}, .../commit/{rev}, .../tag/{rev}
    GET, PUT   /api/{type}s/{id}/refs, .../settings
    POST       [/datasets|/spaces]/{id}.git/info/lfs/objects/batch, then PUT /lfs/{sha256}
    HEAD, GET  [/datasets|/spaces]/{id}/resolve/{rev}/{path}, with ranges

Not served: branches other than `main`, pull requests, Xet, multipart uploads, and a new
repository's `.gitattributes`.
"""

import base64
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from quiet_server import QuietServer

TOKEN = "hf_test"
USER = "tester"
DATE = "2026-01-01T00:00:00.000Z"  # one date for everything, because no client here orders by it
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".arrow", ".gguf", ".gz", ".zip", ".pt")
LFS_SIZE = 10 * 2**20  # bytes; the Hub stores larger files in LFS

REPO = r"(?P<repo>[^/]+/[^/]+)"
API = re.compile(
    rf"/api/(?P<kind>model|dataset|space)s/{REPO}(?:/(?P<verb>[a-z-]+)(?:/(?P<rev>[^/]+)(?:/(?P<path>.+))?)?)?"
)
CALLS = (
    "GET revision", "GET commits", "GET tree", "GET refs", "PUT settings",
    "POST paths-info", "POST preupload", "POST commit", "POST tag",
)  # fmt: skip
RESOLVE = re.compile(rf"/(?P<prefix>datasets/|spaces/)?{REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
LFS_BATCH = re.compile(rf"/(?P<prefix>datasets/|spaces/)?{REPO}\.git/info/lfs/objects/batch")


class HubError(Exception):
    """A response other than 2xx. `code` becomes X-Error-Code, which selects the exception in the client."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class File:
    """One version of a file."""

    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """The id that clients compare and cache by: SHA-256 for LFS, else the SHA-1 of a git blob."""
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    def info(self, path: str) -> dict[str, Any]:
        """An entry of the tree listing."""
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(self.content), "oid": self.oid}
        if self.lfs:
            entry["lfs"] = {"oid": self.oid, "sha256": self.oid, "size": len(self.content), "pointerSize": 134}
        return entry


@dataclass(frozen=True)
class Commit:
    """A commit: its title and all files by path."""

    sha: str
    title: str
    files: dict[str, File]


@dataclass
class Repo:
    """A repository with its commits, oldest first."""

    kind: str
    name: str
    private: bool
    commits: list[Commit] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)  # tags, and other names such as refs/convert/parquet

    def add_commit(self, title: str, files: dict[str, File]) -> Commit:
        """Append a commit with exactly these files."""
        seed = repr((self.kind, self.name, len(self.commits), title, [(p, f.oid) for p, f in sorted(files.items())]))
        self.commits.append(Commit(hashlib.sha1(seed.encode()).hexdigest(), title, files))
        return self.commits[-1]

    def at(self, revision: str) -> Commit:
        """Find a commit by `main`, its sha or one of `refs`."""
        if revision == "main":
            return self.commits[-1]
        revision = self.refs.get(revision, revision)
        for commit in self.commits:
            if commit.sha == revision:
                return commit
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def info(self, commit: Commit) -> dict[str, Any]:
        """The response to model_info, dataset_info and space_info."""
        siblings = [{"rfilename": p, "blobId": f.oid, **f.info(p)} for p, f in sorted(commit.files.items())]
        return {
            "id": self.name,
            "author": self.name.split("/")[0],
            "sha": commit.sha,
            "private": self.private,
            "gated": False,
            "disabled": False,
            "createdAt": DATE,
            "lastModified": DATE,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }

    def tree(self, commit: Commit, folder: str, recursive: bool) -> list[dict[str, Any]]:
        """The files and folders under `folder` ("" for the root)."""
        start = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, Any]] = {}
        for path, file in sorted(commit.files.items()):
            if not path.startswith(start):
                continue
            parts = path[len(start) :].split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                parent = start + "/".join(parts[:depth])
                oid = hashlib.sha1(parent.encode()).hexdigest()
                entries[parent] = {"type": "directory", "path": parent, "size": 0, "oid": oid}
            if recursive or len(parts) == 1:
                entries[path] = file.info(path)
        if folder and not entries:
            raise HubError(404, f"{folder} does not exist on {commit.sha}", "EntryNotFound")
        last = {"id": commit.sha, "title": commit.title, "date": DATE}
        return [{**entry, "lastCommit": last} for entry in entries.values()]


class FakeHub:
    """The Hub, which runs inside a `with` block. `requests` lists (method, path without query) in order of arrival."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self._server = QuietServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def env(self, home: Path) -> dict[str, str]:
        """This process's environment for a subprocess, with this Hub and with caches under `home`."""
        outer = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_"))}
        return outer | {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_ETAG_TIMEOUT": "120",  # seconds; the default of 10 is short on a loaded machine
            "HF_HUB_DOWNLOAD_TIMEOUT": "120",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def files(self, repo_type: str, repo_id: str) -> dict[str, bytes]:
        """The contents on `main`, by path. KeyError for a repository that was never created."""
        return {path: file.content for path, file in self.repos[repo_type, repo_id].commits[-1].files.items()}

    def private(self, repo_type: str, repo_id: str) -> bool:
        """Whether the repository was created private."""
        return self.repos[repo_type, repo_id].private

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Create an empty repository from the body of /api/repos/create; 409 if it exists."""
        kind, name = request.get("type", "model"), f"{request.get('organization') or USER}/{request['name']}"
        answer = {"url": f"{self.url}/{PREFIXES[kind]}{name}", "name": name}
        if kind == "space" and not request.get("sdk"):
            raise HubError(400, "a Space needs an sdk")
        if (kind, name) in self.repos:
            raise HubError(409, json.dumps({"error": f"You already created this {kind} repo", **answer}))
        self.repos[kind, name] = Repo(kind, name, private=request.get("visibility") == "private")
        self.repos[kind, name].add_commit("initial commit", {})
        return answer

    def preupload(self, repo: Repo, revision: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return for each file whether it goes through LFS, and which version exists."""
        known, answer = repo.at(revision).files, []
        for file in request["files"]:
            path, binary = file["path"], b"\0" in base64.b64decode(file["sample"])
            mode = "lfs" if binary or path.endswith(LFS_SUFFIXES) or file["size"] > LFS_SIZE else "regular"
            oid = known[path].oid if path in known else None
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answer}

    def tag(self, repo: Repo, commit: Commit, name: str) -> dict[str, Any]:
        """Name a commit; 409 if another has this name."""
        if repo.refs.setdefault(name, commit.sha) != commit.sha:
            raise HubError(409, "Tag reference exists already")
        return {}

    def lfs_batch(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return where to PUT each object that is missing."""
        objects = [{"oid": item["oid"], "size": item["size"]} for item in request["objects"]]
        for item in objects:
            if item["oid"] not in self.lfs:
                item["actions"] = {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def commit(self, repo: Repo, revision: str, body: bytes) -> dict[str, Any]:
        """Apply the operations of an ndjson body to `main`, all or none."""
        parent = repo.at(revision)
        files, title = dict(parent.files), ""
        for line in body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            path = value.get("path", "").rstrip("/")
            if key == "header":
                title = value["summary"]
                if parent is not repo.commits[-1] or value.get("parentCommit", parent.sha) != parent.sha:
                    raise HubError(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[path] = File(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in self.lfs:
                    raise HubError(400, f"LFS object of {path} was not uploaded")
                files[path] = File(self.lfs[value["oid"]], lfs=True)
            elif key in ("deletedFile", "deletedFolder"):
                gone = [p for p in files if p == path or (key == "deletedFolder" and p.startswith(f"{path}/"))]
                if not gone:
                    raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                for old in gone:
                    del files[old]
            else:
                raise HubError(400, f"operation not served by the fake Hub: {key}")
        sha = repo.add_commit(title, files).sha
        return {"commitOid": sha, "commitUrl": f"{self.url}/{PREFIXES[repo.kind]}{repo.name}/commit/{sha}"}


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every response waits 40 ms for an acknowledgment

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test output quiet."""

    def do_GET(self) -> None:
        """Answer any method; a HubError becomes its status."""
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.hub.lock:
            self.hub.requests.append((self.command, url.path))
            try:
                status, content, headers = self._route(url.path, body)
            except HubError as error:
                status, text = error.status, str(error)
                content = text.encode() if text.startswith("{") else json.dumps({"error": text}).encode()
                headers = {"X-Error-Code": error.code} if error.code else {}
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))} | headers
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_PUT = do_GET

    def _route(self, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if path.startswith("/lfs/") and self.command == "PUT":  # a signed URL on the Hub, without a token
            if hashlib.sha256(body).hexdigest() != path[len("/lfs/") :]:
                raise HubError(400, "the object's SHA-256 is not the one announced")
            self.hub.lfs[path[len("/lfs/") :]] = body
            return 200, b"", {}
        if match := RESOLVE.fullmatch(path):
            return self._resolve(match)
        return 200, json.dumps(self._api(path, body)).encode(), {}

    def _api(self, path: str, body: bytes) -> Any:
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path == "/api/whoami-v2":
            self._need_token()
            return {"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token"}}
        if path == "/api/repos/create" and self.command == "POST":
            self._need_token()
            return self.hub.create(json.loads(body))
        if (match := LFS_BATCH.fullmatch(path)) and self.command == "POST":
            self._need_token()
            self._repo(_kind(match), match["repo"])
            return self.hub.lfs_batch(json.loads(body))
        if not (match := API.fullmatch(path)):
            raise HubError(404, f"Repository not found: {path}", "RepoNotFound")
        verb = match["verb"] or "revision"
        call = f"{self.command} {verb}"
        if call not in CALLS:
            raise HubError(400, f"route not served by the fake Hub: {self.command} {path}")
        if verb in ("preupload", "commit", "tag", "settings"):
            self._need_token()
        repo, revision = self._repo(match["kind"], match["repo"]), unquote(match["rev"] or "main")
        if call == "POST preupload":
            return self.hub.preupload(repo, revision, json.loads(body))
        if call == "POST commit":
            return self.hub.commit(repo, revision, body)
        if call == "PUT settings":
            repo.private = json.loads(body).get("visibility", "private") == "private"
            return {"private": repo.private}
        if call == "GET refs":
            tags = [(name, sha) for name, sha in repo.refs.items() if not name.startswith("refs/")]
            listed = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": sha} for name, sha in tags]
            return {"branches": [], "converts": [], "tags": listed}
        commit = repo.at(revision)
        if call == "POST tag":
            return self.hub.tag(repo, commit, json.loads(body)["tag"])
        if call == "GET revision":
            return repo.info(commit)
        if call == "GET tree":
            return repo.tree(commit, unquote(match["path"] or ""), "recursive=true" in self.path.lower())
        if call == "POST paths-info":  # unknown paths are omitted, as on the Hub
            paths = parse_qs(body.decode()).get("paths", [])
            return [entry for entry in repo.tree(commit, "", recursive=True) if entry["path"] in paths]
        past = reversed(repo.commits[: repo.commits.index(commit) + 1])  # GET commits
        return [{"id": c.sha, "title": c.title, "message": "", "date": DATE, "authors": []} for c in past]

    def _validate(self, card: str) -> dict[str, list]:
        """The answer to /api/validate-yaml; 400 for a license that is not a text, as on the Hub for an unknown one."""
        block = yaml.safe_load(card.split("---")[1]) if card.startswith("---") else {}
        if isinstance(block.get("license", ""), str):
            return {"errors": [], "warnings": []}
        raise HubError(400, json.dumps({"errors": [{"message": '"license" must be a string'}], "warnings": []}))

    def _resolve(self, match: re.Match[str]) -> tuple[int, bytes, dict[str, str]]:
        commit = self._repo(_kind(match), match["repo"]).at(unquote(match["rev"]))
        path = unquote(match["path"])
        if path not in commit.files:
            raise HubError(404, f"Entry not found: {path}", "EntryNotFound")
        file = commit.files[path]
        headers = {
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "X-Repo-Commit": commit.sha,
            "ETag": f'"{file.oid}"',
        }
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or not (asked[1] or asked[2]):
            return 200, file.content, headers
        size = len(file.content)
        first = int(asked[1]) if asked[1] else max(size - int(asked[2]), 0)
        last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
        if first > last:
            return 416, b"", headers | {"Content-Range": f"bytes */{size}"}
        return 206, file.content[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{size}"}

    def _repo(self, kind: str, name: str) -> Repo:
        repo = self.hub.repos.get((kind, name))
        if repo is None:
            raise HubError(404, f"Repository not found: {name}", "RepoNotFound")
        if repo.private:
            self._need_token()
        return repo

    def _need_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise HubError(401, "Invalid username or password.")


def _kind(match: re.Match[str]) -> str:
    """The repository type behind the prefix of a web address."""
    return (match["prefix"] or "models/")[:-2]
