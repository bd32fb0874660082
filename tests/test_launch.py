"""Scaling out: two processes train as one does, and the files for more are read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DATA = Path(__file__).resolve().parent.parent / "data"


def launched(path: Path, processes: int, *options: str) -> dict:
    """What the script wrote, alone or in the processes that accelerate started."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "accelerate.commands.launch", "--multi_gpu"]
        command += ["--num_processes", str(processes)]
        command += ["--num_machines", "1", "--main_process_port", "0"]
        command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command += [DATA / "recipes" / "launch.py", path, "--steps", "3", *options]
    alone = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **alone, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(path.read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--trl",)], ids=["ours", "trl"])
def test_two_processes_give_the_losses_of_one(tmp_path: Path, options: tuple):
    one = launched(tmp_path / "one.json", 1, *options)
    two = launched(tmp_path / "two.json", 2, *options)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert one["losses"][-1] < one["losses"][0]


@pytest.mark.parametrize(
    ("name", "kind"), [("fsdp", "FSDP"), ("deepspeed", "DEEPSPEED")]
)
def test_accelerate_reads_the_configuration(name: str, kind: str):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    path = DATA / "scaling" / f"{name}.yaml"
    found = load_config_from_file(str(path))
    assert found.distributed_type.value == kind
    assert found.num_processes == 2
    options = {action.dest for action in launch_command_parser()._actions}
    inner = found.fsdp_config or found.deepspeed_config
    assert inner.keys() <= options


def test_the_task_for_skypilot_starts_the_script_on_every_node():
    task = yaml.safe_load((DATA / "scaling" / "sky.yaml").read_text("utf-8"))
    assert task.keys() == {
        "name", "workdir", "num_nodes", "resources", "setup", "run"
    }  # fmt: skip
    assert "data/recipes/launch.py" in task["run"]
    for name in ("NUM_NODES", "NUM_GPUS_PER_NODE", "NODE_RANK", "NODE_IPS"):
        assert f"SKYPILOT_{name}" in task["run"]
