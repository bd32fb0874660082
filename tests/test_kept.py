"""kept: the learner's own files, whole or not at all."""

import json
import os
import threading

import pytest

from qwen_course import kept


def test_tests_never_touch_the_learners_own(monkeypatch, tmp_path):
    monkeypatch.delenv("QWEN_COURSE_HOME", raising=False)
    assert kept.place("x.json") is None
    monkeypatch.setenv("QWEN_COURSE_HOME", str(tmp_path))
    assert kept.place("x.json") == tmp_path / "x.json"


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "x.json"
    assert kept.read(path, dict) is None
    kept.write(path, {"é": [1, None]})
    assert kept.read(path, dict) == {"é": [1, None]}
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"day": 5}', "\udcff"])
def test_a_broken_file_is_put_aside(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert kept.read(path, lambda found: found["day"].upper()) is None
    assert os.listdir(tmp_path) == ["x.json.broken"]


def test_what_was_put_aside_before_stays(tmp_path):
    path = tmp_path / "x.json"
    for text in ("one", "two", "three"):
        path.write_text(text)
        assert kept.read(path, dict) is None
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {
        "x.json.broken": "one", "x.json.broken2": "two", "x.json.broken3": "three"
    }  # fmt: skip


def test_a_file_with_an_editor_s_mark_is_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}', "utf-8-sig")
    assert kept.read(path, dict) == {"a": 1}


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    kept.write(path, {"old": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        kept.write(path, {"new": 2})
    assert json.loads(path.read_bytes()) == {"old": 1}


def test_changes_of_many_at_once_are_all_kept(tmp_path):
    path = tmp_path / "deep" / "x.json"

    def add(name):
        with kept.locked(path):
            kept.write(path, (kept.read(path, dict) or {}) | {name: 1})

    threads = [threading.Thread(target=add, args=(str(n),)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept.read(path, dict)) == 20
