"""A stand-in for W&B's service: what `wandb.Api().artifact(...)` asks for, answered on this machine."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DATE = "2026-01-01T00:00:00Z"
PROJECT = {"id": "p", "internalId": "p", "name": "alexnet-lab", "entity": {"name": "team"}}


class Service(NamedTuple):
    """What the service knows."""

    files: Mapping[str, bytes]  # of the one artifact
    name: str  # `model-<run>`
    asked: list[str]  # the names of artifacts that were asked for

    def answer(self, query: str, variables: Mapping[str, Any], address: str) -> dict[str, Any]:
        """The data of a GraphQL query."""
        name = re.findall(r"(?:query|mutation)\s+(\w+)", query)[0]
        viewer = {"id": "1", "entity": "team", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
        if name in ("Viewer", "GetDefaultEntity"):
            return {"viewer": viewer}
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if name == "FetchArtifactManifest":
            return {"artifact": {"currentManifest": {"file": {"directUrl": f"{address}/manifest"}}}}
        self.asked.append(f"{variables['entity']}/{variables['project']}/{variables['name']}")
        found = variables["name"] == f"{self.name}:best"
        return {"project": {"artifactCollectionMembership": self._membership() if found else None}}

    def _membership(self) -> dict[str, Any]:
        sequence = {"__typename": "ArtifactSequence", "id": "s", "name": self.name, "project": PROJECT}
        aliases = [{"__typename": "ArtifactAlias", "id": "a", "alias": "best", "artifactCollection": sequence}]
        artifact = {
            "__typename": "Artifact", "id": "QXJ0", "artifactSequence": sequence, "versionIndex": 0,
            "artifactType": {"name": "model"}, "description": None, "metadata": "{}", "ttlDurationSeconds": -2,
            "ttlIsInherited": False, "tags": [], "historyStep": None, "state": "COMMITTED", "size": 1, "digest": "d",
            "commitHash": "c", "fileCount": len(self.files), "createdAt": DATE, "updatedAt": DATE, "aliases": aliases,
        }  # fmt: skip
        return {
            "__typename": "ArtifactCollectionMembership", "id": "m", "versionIndex": 0, "createdAt": DATE,
            "aliases": aliases, "artifactCollection": sequence, "artifact": artifact,
        }  # fmt: skip

    def manifest(self) -> dict[str, Any]:
        """The manifest of the artifact."""
        entries = {
            name: {
                "digest": base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode(),
                "size": len(content), "birthArtifactID": "QXJ0",
            }
            for name, content in self.files.items()
        }  # fmt: skip
        policy = {"storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {"storageLayout": "V2"}}
        return {"version": 1, **policy, "contents": entries}

    def content(self, path: str) -> bytes | None:
        """The bytes behind an address that ends with the MD5 and the name of a file."""
        if path == "/manifest":
            return json.dumps(self.manifest()).encode()
        by_digest = {
            hashlib.md5(content, usedforsecurity=False).hexdigest(): content for content in self.files.values()
        }
        return next((content for digest, content in by_digest.items() if f"/{digest}/" in path), None)


class Handler(BaseHTTPRequestHandler):
    """Answers requests from a `Service`."""

    def __init__(self, service: Service, *arguments: Any) -> None:
        self.service = service
        super().__init__(*arguments)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Prints nothing."""

    def _reply(self, content: bytes | None) -> None:
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def do_GET(self) -> None:
        self._reply(self.service.content(self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/graphql":  # W&B's own statistics
            self._reply(b"{}")
            return
        asked = json.loads(body)
        address = f"http://{self.headers['Host']}"
        data = self.service.answer(asked["query"], asked.get("variables") or {}, address)
        self._reply(json.dumps({"data": data}).encode())


@contextlib.contextmanager
def serving(files: Mapping[str, bytes], run_id: str) -> Iterator[tuple[str, list[str]]]:
    """Serves the artifact of a run of `team/alexnet-lab` within the block.

    Yields:
        The address, and the list of the artifacts that are asked for.
    """
    service = Service(files, f"model-{run_id}", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, service)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", service.asked
        server.shutdown()
