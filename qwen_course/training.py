"""The training loop: batches, learning rate, evaluation, checkpoints, its history.

Trains the weights of a model that ask for a gradient; adapters are `finetune`'s.
Written to be read. Shapes: [B, T] are B rows of T tokens.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from qwen_course.errors import CourseError
from qwen_course.masking import NOT_COUNTED, Row, collate
from qwen_course.weights import is_live


@dataclass(frozen=True, eq=False)
class History:
    """What a training did: the tuned model and its curves.

    `losses`: a dict a step (step, loss in nats a counted token, learning_rate, tokens,
    seconds since the start). `evaluations`: step, loss on the validation examples, and
    what `measure` returned. The weights are those of `best_step`: of the lowest
    validation loss; without validation of the last step; of 0, the start, if training
    diverged before anything was measured.
    """

    tuned: Any = field(repr=False)
    losses: tuple[dict[str, float], ...] = field(repr=False)
    evaluations: tuple[dict[str, Any], ...] = field(repr=False)
    best_step: int
    stopped: str  # "finished", "early", "interrupted" or "diverged"
    trainable: int = field(repr=False)  # parameters
    peak_gb: float = field(repr=False)  # of the process until then, or of the GPU

    @property
    def seconds(self) -> float:
        """Return how long training took, in seconds, evaluations included."""
        return self.losses[-1]["seconds"] if self.losses else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Return the tokens read a second, prompts and padding included."""
        tokens = sum(row["tokens"] for row in self.losses)
        return tokens / self.seconds if self.seconds else 0.0

    def to_frame(self) -> Any:
        """Return a pandas frame, a row a step; evaluations in columns of their own."""
        import pandas

        frame = pandas.DataFrame(list(self.losses)).set_index("step")
        if not self.evaluations:
            return frame
        held = pandas.DataFrame(list(self.evaluations)).set_index("step")
        return frame.join(held.add_prefix("validation_"))

    def __repr__(self) -> str:
        last = f"{self.losses[-1]['loss']:.3f}" if self.losses else "none"
        return (
            f"History({self.stopped} after {len(self.losses)} steps, loss {last}, "
            f"weights of step {self.best_step}, {self.trainable:,} trained parameters)"
        )


@contextlib.contextmanager
def interrupts() -> Iterator[list[bool]]:
    """Yield a list that the first Ctrl-C fills; a second one interrupts at once."""
    asked: list[bool] = []

    def note(*_: object) -> None:
        asked.append(True)
        signal.signal(signal.SIGINT, before)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread: nobody can interrupt it
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@functools.lru_cache(maxsize=4)
def _shuffled(n: int, epoch: int, seed: int) -> list[int]:
    order = list(range(n))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order


def rate(settings: Any, step: int) -> float:
    """Return the learning rate of a step, the first being step 0."""
    rising = round(settings.warm_up * settings.steps)
    done = (step - rising) / max(1, settings.steps - rising)
    share = (1 + math.cos(math.pi * done)) / 2
    if step < rising:
        share = (step + 1) / (rising + 1)  # the first step moves, too
    return settings.learning_rate * share


def summed_loss(model: Any, input_ids: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy in nats, summed over the counted tokens of [B, T].

    Logits are computed only at positions where a row counts: with 151,936 entries
    in the vocabulary they would cost more than the rest of a small model.
    """
    targets = labels[:, 1:]
    where = (targets != NOT_COUNTED).any(0).nonzero().flatten()
    output = model(input_ids=input_ids, use_cache=False, logits_to_keep=where)
    logits, targets = output.logits.flatten(0, 1).float(), targets[:, where].flatten()
    return nn.functional.cross_entropy(
        logits, targets, ignore_index=NOT_COUNTED, reduction="sum"
    )


class Run:
    """One training: the model, its optimizer, and what has happened so far."""

    def __init__(
        self, tuned: Any, rows: list[Row], held: list[Row], settings: Any,
        accelerator: Any,
    ) -> None:  # fmt: skip
        self.rows, self.held, self.settings = rows, held, settings
        self.accelerator = accelerator
        self.backward = accelerator.backward if accelerator else Tensor.backward
        self.tuned, model = tuned, tuned.model
        self.weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), settings.learning_rate,
            weight_decay=settings.weight_decay,
        )  # fmt: skip
        self.model, self.processes = model, 1
        if accelerator:
            self.model, self.optimizer = accelerator.prepare(model, self.optimizer)
            self.processes = accelerator.num_processes
            if settings.batch_size % self.processes:
                rule = f"batch_size {settings.batch_size} cannot be shared evenly by"
                rule += f" {self.processes} processes."
                raise CourseError(rule, f"Try {8 * self.processes}.")
        self.losses: list[dict[str, float]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"step": 0, "loss": math.inf}
        self.best["weights"] = self.copied()
        self.stopped, self.before = "finished", 0.0
        first = [weight.flatten()[:2].tolist() for weight in self.weights.values()]
        run = [tuned.source.name, asdict(settings), rows, held, first]
        told = json.dumps(run, default=sorted)  # a set of targets, a range of ids
        self.name = hashlib.sha256(told.encode()).hexdigest()

    def copied(self) -> dict[str, Tensor]:
        """Return a copy of the trained weights."""
        return {n: p.detach().clone() for n, p in self.weights.items()}

    def go(self, measure: Any, path: Path | None, interrupted: list[bool]) -> None:
        """Train until the last step, an early stop or an interrupt."""
        settings, started = self.settings, time.perf_counter() - self.before
        every = settings.evaluate_every or max(1, settings.steps // 10)
        bar = tqdm(
            total=settings.steps, initial=len(self.losses), desc="training",
            disable=not is_live(), leave=False,
        )  # fmt: skip
        if path and not self.losses:
            self.save(path)  # a folder that takes no file is found out now
        step, asked = len(self.losses), False
        self.tuned.model.train()
        while True:
            due = step > 0 and (step % every == 0 or step == settings.steps)
            # Saved before it is evaluated: an error of `measure` loses no step, and
            # what goes on from here evaluates first, as if it had never stopped.
            if path and (due or asked) and self.stopped == "finished":
                self.save(path)
            if due and self.stopped == "finished":
                self.evaluate(step, measure)
                self.losses[-1]["seconds"] = time.perf_counter() - started
            if step == settings.steps or self.stopped != "finished":
                break
            if asked:
                self.stopped = "interrupted"
                break
            row = self.step(step)
            self.losses.append(row | {"seconds": time.perf_counter() - started})
            step, asked = step + 1, self.agreed(interrupted)
            bar.set_postfix_str(f"loss {row['loss']:.3f}", refresh=False)
            bar.update()
        bar.close()
        if self.held and math.isfinite(self.best["loss"]) or self.stopped == "diverged":
            self.tuned.model.load_state_dict(self.best["weights"], strict=False)
        else:
            self.best["step"] = len(self.losses)
        self.tuned.model.eval()

    def agreed(self, interrupted: list[bool]) -> bool:
        """Return whether any process was interrupted, so that all stop together."""
        if self.processes == 1:
            return bool(interrupted)
        asked = torch.tensor(float(len(interrupted)), device=self.accelerator.device)
        return self.accelerator.reduce(asked).item() > 0

    def step(self, number: int) -> dict[str, float]:
        """Update the weights once; return what happened."""
        settings, n = self.settings, len(self.rows)
        size, share = settings.batch_size * settings.accumulate, self.processes
        places = [divmod(i, n) for i in range(number * size, (number + 1) * size)]
        taken = [self.rows[_shuffled(n, e, settings.seed)[i]] for e, i in places]
        counted = sum(label != NOT_COUNTED for row in taken for label in row.labels)
        mine = taken[self.accelerator.process_index :: share] if share > 1 else taken
        total, tokens = torch.zeros(()), 0
        for part in range(settings.accumulate):
            batch = self.collated(mine[part :: settings.accumulate])
            loss = summed_loss(self.model, *batch) / counted
            total += loss.detach().cpu()
            tokens += batch[0].numel()
            # Processes average their gradients: times their number gives the sum.
            self.backward(loss * share)
        if share > 1:
            total = self.accelerator.reduce(total.to(self.accelerator.device)).cpu()
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        now = rate(settings, number)
        for group in self.optimizer.param_groups:
            group["lr"] = now
        if torch.isfinite(total + norm.cpu()):
            self.optimizer.step()
        else:
            self.stopped = "diverged"
        self.optimizer.zero_grad()
        row = {"step": number + 1, "loss": total.item(), "learning_rate": now}
        return row | {"tokens": tokens * share}

    def collated(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Return input_ids and labels [B, T] on the model's device."""
        ids, labels = collate(rows, self.tuned.tokenizer.pad_token_id or 0)
        device = self.tuned.model.device
        return ids.to(device), labels.to(device)

    @torch.no_grad()
    def evaluate(self, step: int, measure: Any) -> None:
        """Measure the loss on the validation rows; keep the weights if it is better."""
        if not self.held and not measure:
            return
        self.tuned.model.eval()
        row: dict[str, Any] = {"step": step}
        if self.held:
            size, held, total = self.settings.batch_size, self.held, 0.0
            for first in range(0, len(held), size):
                batch = self.collated(held[first : first + size])
                total += summed_loss(self.tuned.model, *batch).item()
            counted = sum(label != NOT_COUNTED for row in held for label in row.labels)
            row["loss"] = total / counted
            if row["loss"] < self.best["loss"]:
                self.best = {"step": step, "loss": row["loss"]}
                self.best["weights"] = self.copied()
        found = measure(self.tuned) if measure else {}
        plain: dict[str, Any] | None = None
        with contextlib.suppress(AttributeError, ValueError, RuntimeError, TypeError):
            plain = {n: v.item() if hasattr(v, "item") else v for n, v in found.items()}
        figures = str | int | float | None
        if plain is None or not all(isinstance(v, figures) for v in plain.values()):
            rule = f"measure must return a dict of figures, got {found!r:.60}."
            raise CourseError(rule, 'Return {"right": 0.5}, for example.')
        self.evaluations.append(row | plain | row)  # step and loss are ours
        since = sum(row["step"] > self.best["step"] for row in self.evaluations)
        if self.held and self.settings.patience and since >= self.settings.patience:
            self.stopped = "early"
        self.tuned.model.train()

    def save(self, path: Path) -> None:
        """Write all that training needs to go on; whole, or not at all."""
        if self.accelerator and not self.accelerator.is_main_process:
            return
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        state: dict[str, Any] = {"name": self.name, "weights": self.copied()}
        state |= {"best": self.best, "evaluations": self.evaluations}
        state |= {"losses": self.losses, "random": torch.get_rng_state()}
        state |= {"optimizer": self.optimizer.state_dict(), "cuda": cuda}
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, part)
            part.replace(path)
        except (OSError, RuntimeError) as error:  # the second is torch's: a full disk
            rule = f"The checkpoint {path} cannot be written: {error}"
            raise CourseError(rule, "Make room, or name another file.") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def restore(self, path: Path) -> None:
        """Go back to what `save` wrote."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            name = state["name"]
        except Exception as error:
            rule = f"{path} is no checkpoint: {type(error).__name__}."
            raise CourseError(rule, "Name another file.") from None
        if name != self.name:
            rule = f"{path} is of a training with other examples or settings."
            raise CourseError(rule, "Delete it, or name another file.")
        self.tuned.model.load_state_dict(state["weights"], strict=False)
        self.best = state["best"]
        self.losses, self.evaluations = state["losses"], state["evaluations"]
        self.before = self.losses[-1]["seconds"] if self.losses else 0.0
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])

    def history(self) -> History:
        """Return what happened, with the tuned model."""
        trained = sum(weight.numel() for weight in self.weights.values())
        unit = 1024 if sys.platform == "linux" else 1  # Linux counts KiB, macOS bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
        if self.tuned.model.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated() / 1e9
        curves = tuple(self.losses), tuple(self.evaluations)
        best = self.best["step"]
        return History(self.tuned, *curves, best, self.stopped, trained, peak)
