"""One cache, two programs: huggingface_hub and steerage read and complete what the other fetched.

    python hub/reference/compat.py path/to/steerage

A server on this machine imitates the hub: its API, the redirect of large files to another host, ranges.
Nothing else is contacted. Tested with huggingface_hub 2.4.0 and 0.36.0; it needs nothing but that library. Expected output:

    steerage fetched; huggingface_hub finds it complete          ok
    huggingface_hub fetched; steerage makes no request           ok
    huggingface_hub fetched half; steerage fetches the rest      ok
    steerage fetched half; huggingface_hub fetches the rest      ok
    the same links and blobs from both                           ok
    a rest of huggingface_hub before it stopped resuming         ok
    a branch that moved                                          ok
    gated, missing model, missing revision                       ok
"""

import atexit
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

STEERAGE = os.path.abspath(sys.argv[1])
WORK = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, WORK, ignore_errors=True)
A, B = "a" * 40, "b" * 40
WANTED = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
          "model-00002-of-00002.safetensors"]
FILES = {
    "README.md": b"# Tiny\n",
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"model": {}}' * 1000,
    "model-00001-of-00002.safetensors": bytes(range(256)) * 4096,
    "model-00002-of-00002.safetensors": bytes(reversed(range(256))) * 2048,
    "model.safetensors.index.json": json.dumps({"weight_map": {
        "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}).encode(),
    "pytorch_model.bin": b"pickle",
    "original/consolidated.safetensors": b"twice",
}
COMMITS = {A: FILES, B: FILES | {"config.json": b'{"model_type": "qwen3"}'}}
REFS = {"main": A}
REQUESTS: list[str] = []


def large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def describe(name: str, data: bytes) -> dict:
    d = {"size": len(data), "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
    if large(name):
        d["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return d


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, data: bytes, **headers: str):
        span = self.headers.get("Range")
        if not span:
            return self.reply(200, data, **headers)
        start = int(span.removeprefix("bytes=").split("-")[0])
        self.reply(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}", **headers)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urlsplit(self.path).path
        REQUESTS.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        parts = [unquote(p) for p in path.strip("/").split("/")]
        if self.server is cdn:
            assert "Authorization" not in self.headers, "the token went to the CDN"
            commit, name = parts[0], "/".join(parts[1:])
            return self.send_file(COMMITS[commit][name])
        assert self.headers.get("Authorization") == "Bearer hf_test"
        api = parts[:2] == ["api", "models"]
        repo, rest = (parts[2:4], parts[4:]) if api else (parts[:2], parts[2:])
        if repo == ["acme", "gated"] and not api:
            return self.reply(403, X_Error_Code="GatedRepo", X_Error_Message="Access to model acme/gated is restricted")
        if repo not in (["acme", "tiny"], ["acme", "gated"]):
            return self.reply(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        revision = rest[1] if len(rest) > 1 else "main"
        commit = REFS.get(revision, revision)
        if commit not in COMMITS:
            return self.reply(404, X_Error_Code="RevisionNotFound", X_Error_Message=f"Invalid rev id: {revision}")
        files = COMMITS[commit]
        if api and rest[0] == "revision":
            siblings = [{"rfilename": name} | describe(name, data) for name, data in files.items()]
            return self.reply(200, json.dumps({"id": "/".join(repo), "sha": commit, "siblings": siblings}).encode(),
                              Content_Type="application/json")
        if api and rest[0] == "tree":
            tree = [{"type": "file", "path": name, "size": d["size"], "oid": d["blobId"]} | (
                {"lfs": {"oid": d["lfs"]["sha256"], "size": d["size"], "pointerSize": 134}} if "lfs" in d else {})
                for name, d in ((name, describe(name, data)) for name, data in files.items())]
            return self.reply(200, json.dumps(tree).encode(), Content_Type="application/json")
        name = "/".join(rest[2:])
        if name not in files:
            return self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        d = describe(name, files[name])
        if not large(name):
            return self.send_file(files[name], X_Repo_Commit=commit, ETag=f'"{d["blobId"]}"')
        self.reply(302, b"moved", X_Repo_Commit=commit, X_Linked_Etag=f'"{d["lfs"]["sha256"]}"', X_Linked_Size=str(d["size"]),
                   Location=f"http://127.0.0.1:{cdn.server_port}/{commit}/{name}?Signature=x")


hub, cdn = (ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2))
for server in (hub, cdn):
    threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": "hf_test", "HF_HOME": str(WORK / "home"),
               "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}

from huggingface_hub import hf_hub_download, snapshot_download  # noqa: E402  after the environment that it reads once

ONLY = ["*.json", "model*.safetensors"]


def steerage(cache: Path, *args: str, status: int = 0, **env: str) -> str:
    p = subprocess.run([STEERAGE, "pull", *args], env=os.environ | {"HF_HUB_CACHE": str(cache)} | env, capture_output=True, text=True, cwd=WORK)
    assert p.returncode == status, p.stderr
    return p.stdout.strip() if status == 0 else p.stderr


def python(cache: Path, **options) -> str:
    return snapshot_download("acme/tiny", cache_dir=cache, **options)


def whole(folder: str, commit: str = A, names=WANTED):
    for name in names:
        assert (Path(folder) / name).read_bytes() == COMMITS[commit][name], name


def layout(cache: Path) -> dict[str, str]:
    """Every link and blob of the wanted files, and what it leads to or holds."""
    root = cache / "models--acme--tiny"
    found = {}
    for path in [*root.glob("snapshots/*/*"), *root.glob("blobs/*"), *root.glob("refs/*")]:
        value = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(root))] = value
    return found


def requests() -> list[str]:
    seen = REQUESTS[:]
    REQUESTS.clear()
    return seen


def check(what: str):
    def decorate(f):
        requests()
        f(WORK / f.__name__)
        print(f"{what:<60} ok")
    return decorate


@check("steerage fetched; huggingface_hub finds it complete")
def ours(cache):
    folder = steerage(cache, "acme/tiny")
    whole(folder)
    assert sorted(os.listdir(folder)) == sorted(WANTED)
    requests()
    assert python(cache, local_files_only=True) == folder
    assert hf_hub_download("acme/tiny", "config.json", cache_dir=cache, local_files_only=True) == folder + "/config.json"
    assert not requests()
    assert python(cache, allow_patterns=ONLY) == folder
    assert not [r for r in requests() if r.startswith("GET") and "/api/" not in r], "huggingface_hub fetched a file again"


@check("huggingface_hub fetched; steerage makes no request")
def theirs(cache):
    folder = python(cache)
    requests()
    assert steerage(cache, "acme/tiny") == folder
    assert steerage(cache, "acme/tiny@" + A) == folder
    assert steerage(cache, "acme/tiny", HF_HUB_OFFLINE="1") == folder
    assert not requests()


@check("huggingface_hub fetched half; steerage fetches the rest")
def their_half(cache):
    python(cache, allow_patterns=["*.json", "model-00001*"])
    assert "missing model-00002-of-00002.safetensors" in steerage(cache, "acme/tiny", status=1, HF_HUB_OFFLINE="1")
    requests()
    whole(steerage(cache, "acme/tiny"))
    assert [r for r in requests() if "/api/" not in r] == [f"GET /acme/tiny/resolve/{A}/model-00002-of-00002.safetensors",
                                                           f"GET /{A}/model-00002-of-00002.safetensors"]


@check("steerage fetched half; huggingface_hub fetches the rest")
def our_half(cache):
    folder = steerage(cache, "acme/tiny")
    for name in ["config.json", "model-00002-of-00002.safetensors"]:
        (Path(folder) / name).resolve().unlink()
        (Path(folder) / name).unlink()
    requests()
    whole(python(cache))
    assert not [r for r in requests() if r.startswith("GET") and "model-00001" in r]


@check("the same links and blobs from both")
def same(cache):
    steerage(cache / "ours", "acme/tiny")
    python(cache / "theirs", allow_patterns=WANTED)
    assert layout(cache / "ours") == layout(cache / "theirs")


@check("a rest of huggingface_hub before it stopped resuming")
def rest(cache):
    name = "model-00001-of-00002.safetensors"
    blobs = cache / "models--acme--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / (hashlib.sha256(FILES[name]).hexdigest() + ".incomplete")).write_bytes(FILES[name][:777])
    whole(steerage(cache, "acme/tiny"))
    assert f"GET /{A}/{name} bytes=777-" in requests()


@check("a branch that moved")
def moved(cache):
    old = python(cache, allow_patterns=ONLY)
    REFS["main"] = B
    assert steerage(cache, "acme/tiny") == old
    new = steerage(cache, "acme/tiny", "--update")
    whole(new, B)
    assert new == python(cache, local_files_only=True)
    assert not [r for r in requests() if r.startswith(f"GET /{B}")], "equal large files are one blob"


@check("gated, missing model, missing revision")
def refused(cache):
    assert "access is restricted: open " in steerage(cache, "acme/gated", status=1)
    assert "there is no such model" in steerage(cache, "acme/nothing", status=1)
    assert 'no revision "v9"' in steerage(cache, "acme/tiny@v9", status=1)
