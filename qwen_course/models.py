"""Which weights fill which role here, where they come from, and how to load them.

A profile says which checkpoint fills a role: `pocket` (trained by this course), `small`
(official, for a laptop), `gpu` (official, for a T4 or better) or `room` (on somebody's
server: its address in QWEN_COURSE_ROOM, the key in QWEN_COURSE_ROOM_KEY). `auto` takes
the best on this machine and downloads nothing. Knows no prompts and no sampling.
"""

import difflib
import functools
import hashlib
import importlib.util
import json
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_course import catalog
from qwen_course.errors import CourseError, ModelUnavailable, UnknownModel
from qwen_course.room import Room
from qwen_course.weights import dequantised, download, is_live, located

GPU_MINIMUM_GB = 12
PROFILES = ("auto", "pocket", "small", "gpu", "room")
# role -> profile -> model
ROLES: dict[str, dict[str, str]] = json.loads(catalog.text("roles.json"))
# The chat templates that pocket models use: files of trl 1.16.0, and their SHA-256.
TEMPLATES = {
    "qwen3": "a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8",
    "qwen3_vl": "3636d0f0bd6bef02654cdffdc447b79cb2cef8ab02cc75267345946291a489e4",
}


@dataclass(frozen=True)
class Source:
    """Where the weights of a role come from, and why this checkpoint was chosen."""

    role: str
    name: str
    profile: str  # "pocket", "small", "gpu", "room", "named": asked for by its name
    path: Path | None  # None: not on this machine, in the profile "room" on a server
    size_mb: float  # on disk
    why: str

    def __repr__(self) -> str:
        place = f"{self.size_mb:.0f} MB" if self.path else "not on this machine"
        place = "on a server" if self.profile == "room" else place
        if self.path and (card := self.path / "card.json").is_file():
            size = json.loads(card.read_text("utf-8"))["parameters"] / 1e6
            place = f"{size:.1f} M parameters, trained by this course; not an Alibaba"
            place += " checkpoint"
        return f"{self.name} ({place}; {self.why})"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model and its tokenizer, ready to use, with the source they came from."""

    model: Any
    tokenizer: Any
    source: Source
    processor: Any = None  # of a vision model: prepares texts with images

    def __repr__(self) -> str:
        kind = str(self.model.dtype).removeprefix("torch.")
        return f"Loaded({self.source.name}, {kind}, {self.model.device.type})"


@dataclass(frozen=True)
class Session:
    """What `start` found: the profile and a source for each role."""

    profile: str
    sources: tuple[Source, ...] = field(repr=False)


def profile() -> str:
    """Return the profile in force: QWEN_COURSE_PROFILE, else "auto"."""
    return _in_force(None)


def _in_force(wanted: str | None) -> str:
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


def gpu_needed_gb(name: str) -> float:
    """Return the GPU memory that a model needs in bfloat16, in GB; at least 12."""
    memory = catalog.memory(catalog.find(name), "bf16", context=2048)
    return max(GPU_MINIMUM_GB, memory.total_gb)


def resolve(role: str, profile: str | None = None) -> Source:
    """Return the source for a role or a model's name; nothing is downloaded."""
    wanted, role = _in_force(profile), str(role)
    if role.startswith("pocket-"):
        found = _source(role.removeprefix("pocket-"), role, "pocket", "asked for")
        if found.path is None:
            known = sorted(p.parent.name for p in _pocket().glob("*/card.json"))
            near = ", ".join(difflib.get_close_matches(role, known, 3, 0.0))
            rule = f"No pocket model {role!r}. Nearest names: {near}."
            raise UnknownModel(rule, f"Use one of {', '.join(known)}.")
        return found
    if role not in ROLES:
        try:
            name = catalog.find(role).name
        except UnknownModel as error:
            hint = f"{error.hint}; or a role: {', '.join(ROLES)}."
            raise UnknownModel(error.message, hint) from None
        return _source(name, name, "named", "asked for by name")
    lacks = f"the profile {wanted} has no model for {role}"
    why = lacks if wanted in ("small", "gpu") else "profile pocket"
    if wanted == "room":
        offered, why = _offered(*_room(), round(time.monotonic(), -1))
        if name := _in_room(role, offered):
            return Source(role, name, "room", None, 0.0, f"server {_room()[0]}")
        why = why or f"the room's server has no model for {role}"
    for level in ("gpu", "small") if wanted == "auto" else (wanted,):
        if model := ROLES[role].get(level):
            if level == "gpu" and gpu_memory_gb() < gpu_needed_gb(model):
                why = f"no GPU of {gpu_needed_gb(model):.0f} GB"
            elif (found := _source(role, model, level, f"profile {level}")).path:
                return found
            else:
                why = f"{model} is not on this machine"
    return _source(role, f"pocket-{role}", "pocket", why)


def _room() -> tuple[str, str]:
    """Return the address of the room's server and the key, as they are set."""
    url = os.environ.get("QWEN_COURSE_ROOM", "")
    if not url:
        rule = "The profile room needs the address of a server."
        raise CourseError(rule, "export QWEN_COURSE_ROOM=http://TEACHER:8000/v1")
    return url, os.environ.get("QWEN_COURSE_ROOM_KEY", "")


@functools.lru_cache(2)
def _offered(url: str, key: str, moment: float) -> tuple[list[str], str]:
    """Return the models of a server, or why there are none; asked every 10 seconds."""
    try:
        return Room(url, key).names(), ""
    except CourseError as error:
        return [], error.message


def _in_room(role: str, offered: list[str]) -> str:
    """Return which of the server's models fills a role, "" when none does.

    A server of this course offers roles by name; another one's model must be among
    those that the course knows for the role. Any first model can chat.
    """
    known = {role, f"pocket-{role}", *ROLES[role].values()}
    fits = [name for name in offered if name.rpartition("/")[2] in known]
    return (fits + offered[: role == "chat"] + [""])[0]


def _pocket() -> Path:
    return catalog.data_dir() / "pocket"


def _source(role: str, name: str, profile: str, why: str) -> Source:
    """Return the Source of one checkpoint, with its path when all of it is here."""
    path = _pocket() / name if profile == "pocket" else located(name)
    if path is None or not path.exists():
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
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)  # transformers.set_seed does the same, and loads peft
    session = Session(profile(), tuple(map(resolve, ROLES)))
    print(f"Qwen course, profile {session.profile}: role -> model (size; why)")
    for source in session.sources:
        size = f"{source.size_mb:.1f} MB" if source.path else "not on this machine"
        size = "on a server" if source.profile == "room" else size
        print(f"  {source.role:<10} -> {source.name} ({size}; {source.why})")
    pocket = [source.role for source in session.sources if source.profile == "pocket"]
    if fetchable := ", ".join(role for role in pocket if "small" in ROLES[role]):
        print(
            "Pocket models are trained by this course; they are no Alibaba checkpoints."
        )
        print(f"Official ones: python -m qwen_course fetch ROLE ({fetchable})")
    return session


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
    return download(name, say)


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
        dtype: "auto" is "bfloat16"; "float32" for pocket models, and for files under
            1 GB on a processor with AVX2 alone, where bfloat16 is slow.
        device: "auto" is "cuda" when there is one, else "cpu"; pocket models: "cpu".
    """
    source = resolve(role, profile)
    wanted = _in_force(profile)
    official = ROLES.get(role, {}).get(wanted, "")
    fits = wanted != "gpu" or official and gpu_memory_gb() >= gpu_needed_gb(official)
    if source.profile == "pocket" and official and fits:
        try:
            fetch(official)
            source = resolve(role, profile)
        except ModelUnavailable as error:
            print(f"{role} falls back to {source.name}: {error.message}")
    if source.profile == "room":  # the tokenizer stands in: the server has its own
        tokenizer = load("pocket-chat").tokenizer
        return Loaded(Room(*_room(), source.name), tokenizer, source)
    if source.path is None:
        hint = f"run `python -m qwen_course fetch {role}` once, while connected."
        if source.profile == "pocket":
            hint = "clone the repository whole: data/pocket holds these models."
        rule = f"No weights for {role!r} on this machine: {source}."
        raise ModelUnavailable(rule, hint)
    pocket = source.profile == "pocket"
    gpu = not pocket and gpu_memory_gb()
    device = ("cuda" if gpu else "cpu") if device == "auto" else device
    if dtype == "auto":
        wide = pocket or slow_in_bfloat16(source, device)
        dtype = "float32" if wide else "bfloat16"
    dtype = str(dtype).removeprefix("torch.")
    model, tokenizer, processor = _load(source.path, dtype, device)
    return Loaded(model, tokenizer, source, processor)


def slow_in_bfloat16(source: Source, device: str) -> bool:
    """Return whether float32 is better: a processor without AVX-512, a small model.

    There a prompt of the official 0.5B took 4 to 5 times as long in bfloat16 as in
    float32, a token of the reply 0.8 times. float32 takes twice the memory.
    """
    import torch

    plain = torch.backends.cpu.get_cpu_capability() == "AVX2"
    return device == "cpu" and plain and source.size_mb < 1000


@functools.cache
def _load(path: Path, dtype: str, device: str) -> tuple[Any, Any, Any]:
    import torch
    import transformers

    kind = getattr(torch, dtype, None)
    if kind not in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        raise CourseError(f"Unknown dtype {dtype!r}.", 'try "bfloat16" or "float32".')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        rule = f"The device {device!r} cannot be used: {str(error).splitlines()[0]}"
        raise CourseError(rule, 'try device="cpu".') from None
    folder = dequantised(path) if path.suffix == ".gguf" else path
    config = transformers.AutoConfig.from_pretrained(folder)
    vision = hasattr(config, "vision_config")
    maker = "AutoModelForImageTextToText" if vision else "AutoModelForCausalLM"
    model = getattr(transformers, maker).from_pretrained(folder, dtype=dtype)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if folder.parent == _pocket():
        tokenizer.chat_template = pocket_template("qwen3_vl" if vision else "qwen3")
    processor = None
    if vision:
        images = transformers.Qwen2VLImageProcessorPil.from_pretrained(folder)
        processor = image_chat(images, tokenizer, tokenizer.chat_template)
    # cuDNN plans its attention anew for each length: on an H200 a step of a batch took
    # 65 to 74 ms with it and 23 without.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return model.to(device).eval(), tokenizer, processor


def image_chat(images: Any, tokenizer: Any, chat_template: str | None = None) -> Any:
    """Return what prepares texts with images for a Qwen-VL; needs no torchvision.

    The official processor asks for a part that reads videos too; this one does not.
    """
    from transformers import Qwen3VLProcessor

    class ImageChat(Qwen3VLProcessor):
        def __init__(self, image_processor, tokenizer, chat_template=None):  # type: ignore
            super().__init__(image_processor, tokenizer, chat_template=chat_template)

    return ImageChat(images, tokenizer, chat_template)


def pocket_template(name: str = "qwen3") -> str:
    """Return the official chat template of that name, as the installed trl ships it."""
    if name not in TEMPLATES:
        rule = f"No pocket model uses a chat template {name!r}."
        raise CourseError(rule, f"try one of: {', '.join(TEMPLATES)}.")
    spec = importlib.util.find_spec("trl")  # finds the folder, imports nothing
    places = (spec and spec.submodule_search_locations) or [""]
    path = Path(places[0], "chat_templates", f"{name}.jinja")
    text = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(text).hexdigest() != TEMPLATES[name]:
        rule = f"The installed trl lacks the template {name} that was tested here."
        raise CourseError(rule, "python -m pip install trl==1.16.0")
    return text.decode()
