"""What the scripts beside this file share: running a command for its last line of JSON, saying what machine and versions it ran on, and
writing a report that never overwrites an earlier one."""

import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "steerage"


def python():
    """The Python that has torch and transformers: $PYTHON, or that of `make venv`."""
    path = os.environ.get("PYTHON") or str(CACHE / "venv/bin/python")
    if not os.path.exists(path):
        sys.exit(f"{path} is not there: `make venv` makes it, PYTHON names another with torch, transformers and scikit-learn")
    return path


def llamacpp_python():
    """The Python that has llama-cpp-python and gguf: $LLAMACPP_PYTHON, or that of `make llamacpp`."""
    path = os.environ.get("LLAMACPP_PYTHON") or str(CACHE / "llamacpp/bin/python")
    if not os.path.exists(path):
        sys.exit(f"{path} is not there: `make llamacpp` makes it, LLAMACPP_PYTHON names another with llama-cpp-python and gguf")
    return path


def output(*command):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True, cwd=HERE.parent).stdout


def measure(*command, env=None):
    """Runs a command and returns the JSON of its last line; what it says besides goes to standard error."""
    done = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    return json.loads(done.stdout.splitlines()[-1])


def build(package):
    """Builds a command of this repository and returns the binary's path."""
    binary = CACHE / "bench" / package.split("/")[-1]
    output("go", "build", "-o", binary, "./" + package)
    return binary


def model(dtype):
    """The random checkpoint of Qwen3-0.6B's shape, made once."""
    folder = CACHE / "bench" / f"qwen3-0.6b-{dtype}"
    if not (folder / "config.json").exists():
        subprocess.run([python(), HERE / "random_model.py", folder, dtype], check=True)
    return folder


def peer(name, dtype):
    """The command of a peer on that checkpoint, without its options."""
    if name == "transformers":
        return [python(), HERE / "peers/transformers_bench.py", model(dtype)]
    file = CACHE / "bench" / f"qwen3-0.6b-{dtype}.gguf"
    if not file.exists():
        partial = file.with_suffix(".partial")
        subprocess.run([llamacpp_python(), HERE / "peers/gguf_model.py", model(dtype), partial], check=True)
        partial.rename(file)
    return [llamacpp_python(), HERE / "peers/llamacpp_bench.py", file]


PEERS = ["transformers", "llamacpp"]


def where():
    """Machine, load, commit and Go, in a sentence or two."""
    cpu = platform.processor()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    changed = " with uncommitted changes" if output("git", "status", "--porcelain", "--untracked-files=no").strip() else ""
    return (f"Commit {output('git', 'rev-parse', '--short', 'HEAD').strip()}{changed}. {os.cpu_count()} cores of {cpu}, {memory:.0f} GiB, "
            f"{platform.system()} {platform.release()}, load {os.getloadavg()[0]:.1f} at the beginning; {output('go', 'version').split()[2]}.")


def said(script, args):
    """The command line that a reader repeats, without paths of this machine."""
    given = {k.replace("_", "-"): v for k, v in vars(args).items() if k not in ("out", "steerage") and v not in (None, False)}
    words = [f"--{k}" + ("" if v is True else f" {v}") for k, v in given.items()]
    return f"`bench/{script} {' '.join(words)}`"


def spread(values, digits=2):
    """Median (least to greatest)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def write(lines, out):
    """Prints the report and, where a path is given, writes it there, or beside it if there is one already."""
    text = "\n".join(lines) + "\n"
    print(text)
    if out is None:
        return
    n, free = 1, out
    while free.exists():
        n, free = n + 1, out.with_stem(f"{out.stem}-{n + 1}")
    free.parent.mkdir(parents=True, exist_ok=True)
    free.write_text(text)
    print(f"written to {free}", file=sys.stderr)


def today():
    return datetime.date.today()
