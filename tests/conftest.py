"""What every test gets: no hub, a progress file of its own, steady property tests."""

import os
import random
import signal
import tempfile

import hypothesis
import pytest

# Before any test module imports transformers or tokenizers, which read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A shell starts what runs in its background deaf to Ctrl-C; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
_home = tempfile.TemporaryDirectory(prefix="qwen_course_test_")
os.environ["QWEN_COURSE_HOME"] = os.environ.get("QWEN_COURSE_TEST_HOME", _home.name)

# The machine may be busy: a slow example is no failure. Figures belong to `make bench`.
hypothesis.settings.register_profile("course", deadline=None)
hypothesis.settings.load_profile("course")

# Files that take longest: started first, no worker waits at the end for another's.
LONGEST = ("launch", "forked_kernels", "recipes", "models", "service", "checks", "chat")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what -m must name: browser, hub, ...; pytest counts them."""
    wanted = config.getoption("-m")
    marks = ("browser", "gpu", "hub", "mutants", "vllm")
    off = [mark for mark in marks if mark not in wanted]
    left = [item for item in items if any(item.get_closest_marker(m) for m in off)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    if seed := os.environ.get("QWEN_COURSE_SHUFFLE"):  # the same in every worker
        order = random.Random(seed)
        files = {item.path: order.random() for item in items}
        items.sort(key=lambda item: (files[item.path], order.random()))


@pytest.fixture(autouse=True)
def _progress_of_its_own(tmp_path, monkeypatch):
    """Each test starts with no exercise done."""
    monkeypatch.setenv("QWEN_COURSE_HOME", str(tmp_path / "home"))
