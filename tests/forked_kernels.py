"""Kernels for the strict run, forked: pytest -p tests.forked_kernels --nbval ...

A kernel takes seconds to import torch and transformers, and there are forty. Here each
is forked from a process that has imported them and none of the course. What a learner
starts, a kernel of its own, is what `make notebooks`, `test-real` and `test-colab` run.
(A file kernels.py would be taken by transformers for the package of that name.)
"""

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from jupyter_client.provisioning import local_provisioner

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "ipykernel.kernelapp",
        "peft",
        "transformers.generation.utils",
        "transformers.models.auto.modeling_auto",
        "transformers.models.qwen3.modeling_qwen3",
        "transformers.models.qwen2.tokenization_qwen2",
    ]
)


def serve(file: str, environment: dict[str, str], folder: str, told: Connection):
    """Be a kernel, as `python -m ipykernel_launcher -f FILE` would."""
    os.setsid()
    told.send(os.getpid())  # from here on a signal to our group hits nobody else
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    from ipykernel.kernelapp import IPKernelApp

    parent = f"--IPKernelApp.parent_handle={os.getppid()}"  # it ends with that process
    sys.argv = ["ipykernel_launcher.py", "-f", file, parent]
    IPKernelApp.launch_instance()


class Forked:
    """A kernel's process with the methods of Popen that jupyter_client calls."""

    stdin = stdout = stderr = None

    def __init__(self, *arguments: Any) -> None:
        hears, tells = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=serve, args=(*arguments, tells))
        self.process.start()
        self.pid = hears.recv()

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def launch_kernel(command: list[str], *, env: Any, cwd: Any, **_: Any) -> Forked:
    """Fork a kernel where jupyter_client would start one."""
    return Forked(command[command.index("-f") + 1], dict(env), str(cwd or "."))


if sys.platform == "linux":  # elsewhere a fork of what torch has loaded may crash
    local_provisioner.launch_kernel = launch_kernel
