"""The training loop: loss, rate, batches, evaluation, stops, checkpoints."""

import contextlib
import math
import os
import pickle
import random
import resource
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_qwen
from torch import nn

from qwen_course import finetune, training
from qwen_course.errors import CourseError
from qwen_course.masking import NOT_COUNTED, Row, collate, tokenize


def example(question, answer):
    asked = {"role": "user", "content": question}
    return {"messages": [asked, {"role": "assistant", "content": answer}]}


EXAMPLES = [example(f"What is {n}?", f"The sum {n * n}.") for n in range(10)]
HELD = [example(f"And {n}?", f"The numbers {n}.") for n in range(5)]


def options(**changed):
    given = {"rank": 4, "learning_rate": 1e-2, "steps": 6, "batch_size": 4}
    return finetune.LoraSettings(**(given | changed))


def train(
    examples=EXAMPLES, base=None, *, validation=(), measure=None, at=None, **more
):
    return finetune.train(
        base or random_qwen(), examples, options(**more),
        validation=validation, measure=measure, checkpoint=at,
    )  # fmt: skip


def losses(history):
    return [row["loss"] for row in history.losses]


def trained(history):
    return {
        name: weight.detach().clone()
        for name, weight in history.tuned.model.named_parameters()
        if "lora_" in name
    }


def same(one, other):
    """Whether two histories agree in all but the times."""
    ours, theirs = trained(one), trained(other)
    assert losses(one) == losses(other)
    assert one.evaluations == other.evaluations
    assert (one.best_step, one.stopped) == (other.best_step, other.stopped)
    return all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


# The loss


def rows_of(examples=EXAMPLES):
    return tokenize(random_qwen().tokenizer, examples)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_the_loss_is_the_one_of_all_logits(count):
    model = random_qwen().model
    ids, labels = collate(rows_of()[:count], 0)
    with torch.no_grad():
        ours = training.summed_loss(model, ids, labels)
        logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
    theirs = nn.functional.cross_entropy(
        logits, labels[:, 1:].flatten(), ignore_index=NOT_COUNTED, reduction="sum"
    )
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_padding_changes_no_loss():
    model = random_qwen().model
    rows = rows_of([example("a", "b"), example("a " * 40, "the answer " * 20)])
    with torch.no_grad():
        alone = sum(training.summed_loss(model, *collate([row], 0)) for row in rows)
        for padding in (0, 7, model.config.vocab_size - 1):
            beside = training.summed_loss(model, *collate(rows, padding))
            assert beside.item() == pytest.approx(alone.item(), rel=1e-6)


def test_the_loss_of_a_step_is_the_mean_over_its_counted_tokens():
    history = train(steps=1, batch_size=10)
    rows = rows_of()
    with torch.no_grad():
        total = training.summed_loss(random_qwen().model, *collate(rows, 0)).item()
    counted = sum(label != NOT_COUNTED for row in rows for label in row.labels)
    assert losses(history) == [pytest.approx(total / counted, rel=1e-6)]


# The rate and the order


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_rate_rises_then_falls(steps, warm_up):
    chosen = options(steps=steps, warm_up=warm_up, learning_rate=0.5)
    rates = [training.rate(chosen, step) for step in range(steps)]
    rising = round(warm_up * steps)
    assert all(0 < value <= 0.5 for value in rates)
    assert rates[: rising + 1] == sorted(rates[: rising + 1])
    assert rates[rising:] == sorted(rates[rising:], reverse=True)
    if rising < steps:
        assert rates[rising] == 0.5
        assert training.rate(chosen, steps) == pytest.approx(0, abs=1e-12)


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
def test_every_row_comes_once_an_epoch(count, epoch, seed):
    order = training._shuffled(count, epoch, seed)
    assert sorted(order) == [*range(count)]


@pytest.mark.parametrize(("rows", "steps", "batch"), [(1, 3, 4), (10, 1, 3), (3, 9, 2)])
def test_fewer_rows_than_a_batch_or_more(monkeypatch, rows, steps, batch):
    seen = []
    real = training.Run.collated

    def noted(self, taken):
        seen.extend(row.example for row in taken)
        return real(self, taken)

    monkeypatch.setattr(training.Run, "collated", noted)
    history = train(EXAMPLES[:rows], steps=steps, batch_size=batch)
    assert len(history.losses) == steps
    assert len(seen) == steps * batch
    often = [seen.count(number) for number in range(rows)]
    assert max(often) - min(often) <= 1  # an epoch ends before the next begins


def test_accumulating_is_a_larger_batch():
    whole = train(batch_size=8, steps=8)
    parts = train(batch_size=2, accumulate=4, steps=8)
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-5)
    assert whole.losses[-1]["tokens"] >= parts.losses[-1]["tokens"]  # less padding


def test_the_seed_repeats_and_the_caller_s_random_state_stays():
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first, second = train(dropout=0.3), train(dropout=0.3)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    torch.manual_seed(6)
    assert same(first, second)
    assert same(first, train(dropout=0.3))
    assert losses(train(dropout=0.3, seed=1)) != losses(first)


def test_it_learns_and_tells_what_it_did():
    history = train(steps=40, learning_rate=2e-2, batch_size=10, validation=HELD)
    assert losses(history)[-1] < losses(history)[0] / 2
    assert history.stopped == "finished"
    assert history.trainable == sum(w.numel() for w in trained(history).values())
    assert 0.05 < history.peak_gb < 100
    times = [row["seconds"] for row in history.losses]
    assert times == sorted(times)
    assert history.seconds == times[-1]
    tokens = sum(row["tokens"] for row in history.losses)
    assert history.tokens_per_second == pytest.approx(tokens / times[-1])
    frame = history.to_frame()
    assert [*frame.index] == [*range(1, 41)]
    assert frame["validation_loss"].notna().sum() == len(history.evaluations) == 10
    assert repr(history).startswith("History(finished after 40 steps, loss ")
    assert not history.tuned.model.training


def test_it_trains_where_gradients_are_off_and_in_a_thread():
    expected = train()
    with torch.no_grad():
        assert same(train(), expected)
    found = []
    thread = threading.Thread(target=lambda: found.append(train()))
    thread.start()
    thread.join()
    assert same(found[0], expected)


# Evaluation


def held_loss(loaded):
    rows = tokenize(loaded.tokenizer, HELD)
    with torch.no_grad():
        total = training.summed_loss(loaded.model, *collate(rows, 0)).item()
    return total / sum(label != NOT_COUNTED for row in rows for label in row.labels)


def test_the_best_weights_are_kept_and_patience_ends():
    history = train(
        learning_rate=0.1, steps=60, evaluate_every=2, patience=3, validation=HELD
    )
    found = {row["step"]: row["loss"] for row in history.evaluations}
    assert history.stopped == "early"
    assert found[history.best_step] == min(found.values())
    assert len(history.losses) == history.best_step + 6  # 3 evaluations later
    assert held_loss(history.tuned) == pytest.approx(min(found.values()), rel=1e-5)


def test_the_last_step_is_evaluated_too():
    history = train(steps=7, evaluate_every=3, validation=HELD)
    assert [row["step"] for row in history.evaluations] == [3, 6, 7]
    assert train(steps=3, evaluate_every=50, validation=HELD).best_step == 3


def test_measure_is_called_with_a_model_that_answers():
    modes = []

    def measure(tuned):
        modes.append(tuned.model.training)
        figures = {"share": np.float64(0.5), "norm": torch.tensor(2.0), "text": "a"}
        return figures | {"loss": 7, "step": 99}

    history = train(steps=2, validation=HELD, measure=measure)
    assert modes == [False, False]
    row = history.evaluations[1]
    assert (row["share"], row["norm"], row["text"]) == (0.5, 2.0, "a")
    assert row["step"] == 2  # its own are not overwritten
    assert row["loss"] == pytest.approx(held_loss(history.tuned), rel=1e-5)
    assert train(steps=2, measure=measure).evaluations[0]["loss"] == 7
    several = ({"right": {"maths": np.float64(0.5)}}, {"right": np.ones(3)})
    for bad in (None, 0.5, [1], *several):
        with pytest.raises(CourseError, match="measure must return a dict"):
            train(steps=2, measure=lambda _, bad=bad: bad)


# Divergence


def test_a_loss_that_is_no_number_ends_it_with_finite_weights():
    base = random_qwen()
    with torch.no_grad():
        broken = replace(base, model=type(base.model)(base.model.config))
        broken.model.lm_head.weight.mul_(1e30)
        history = train(base=broken, steps=5)
    assert history.stopped == "diverged"
    assert (history.best_step, len(history.losses)) == (0, 1)
    assert all(weight.isfinite().all() for weight in trained(history).values())


def test_a_gradient_that_is_no_number_ends_it_too(monkeypatch):
    real, calls = training.summed_loss, []

    def bent(model, ids, labels):
        calls.append(1)
        loss = real(model, ids, labels)
        return loss + (loss * 0).sqrt() if len(calls) == 3 else loss

    expected = train(steps=6)
    monkeypatch.setattr(training, "summed_loss", bent)
    history = train(steps=6)
    assert history.stopped == "diverged"
    assert losses(history) == losses(expected)[:3]  # the loss itself was finite
    assert all(weight.isfinite().all() for weight in trained(history).values())


def test_a_huge_rate_raises_nothing():
    history = train(learning_rate=10.0, steps=15, full=True, warm_up=0.0)
    assert history.stopped in ("finished", "diverged")
    assert all(w.isfinite().all() for w in history.tuned.model.parameters())


# Stopping and going on

HARD = {"dropout": 0.3, "accumulate": 2, "evaluate_every": 2}


@contextlib.contextmanager
def keeps_its_signal():
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


def stops_at(step, how):
    """A measure that does something at one evaluation."""
    done = []

    def measure(tuned):
        done.append(1)
        if len(done) == step:
            how()
        return {"evaluated": 1.0}

    return measure


def press(times=1):
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


def quiet(_):
    return {"evaluated": 1.0}


@pytest.mark.parametrize("at", [1, 2, 3])
def test_one_interrupt_ends_after_the_step_and_another_run_goes_on(tmp_path, at):
    file = tmp_path / "folder" / "run.pt"
    with keeps_its_signal():
        history = train(**HARD, validation=HELD, measure=stops_at(at, press), at=file)
    best = min(history.evaluations, key=lambda row: row["loss"])
    if at < 3:
        assert history.stopped == "interrupted"
        assert len(history.losses) == 2 * at + 1
    assert history.best_step == best["step"]
    assert held_loss(history.tuned) == pytest.approx(best["loss"], rel=1e-5)
    whole = train(**HARD, validation=HELD, measure=quiet)
    assert same(train(**HARD, validation=HELD, measure=quiet, at=file), whole)
    assert [path.name for path in file.parent.iterdir()] == ["run.pt"]


def test_an_interrupt_at_the_step_of_an_evaluation(tmp_path, monkeypatch):
    real = training.Run.step

    def pressed(self, number):
        if number == 3:  # the fourth step, after which it evaluates
            press()
        return real(self, number)

    whole = train(**HARD, validation=HELD)
    with monkeypatch.context() as patched:
        patched.setattr(training.Run, "step", pressed)
        history = train(**HARD, validation=HELD, at=tmp_path / "run")
    assert (history.stopped, len(history.losses)) == ("interrupted", 4)
    assert same(train(**HARD, validation=HELD, at=tmp_path / "run"), whole)


def test_an_interrupt_without_validation_keeps_the_last_weights():
    history = train(steps=50, evaluate_every=2, measure=stops_at(1, press))
    expected = train(steps=50, evaluate_every=2, measure=stops_at(1, press))
    assert (history.stopped, history.best_step) == ("interrupted", 3)
    assert same(history, expected)
    assert "interrupted after 3 steps" in repr(history)


def test_a_second_interrupt_ends_at_once_and_loses_no_saved_step(tmp_path):
    file = tmp_path / "run"
    with keeps_its_signal(), pytest.raises(KeyboardInterrupt):
        train(**HARD, measure=stops_at(2, lambda: press(2)), at=file)
    assert same(train(**HARD, measure=quiet, at=file), train(**HARD, measure=quiet))


def test_an_error_of_measure_loses_no_step(tmp_path, monkeypatch):
    def fail():
        raise ZeroDivisionError

    file = tmp_path / "run"
    with keeps_its_signal(), pytest.raises(ZeroDivisionError):
        train(**HARD, validation=HELD, measure=stops_at(3, fail), at=file)
    whole = train(**HARD, validation=HELD, measure=quiet)
    steps = []
    monkeypatch.setattr(training.Run, "step", lambda *_: steps.append(1))
    assert same(train(**HARD, validation=HELD, measure=quiet, at=file), whole)
    assert steps == []


def test_a_finished_or_early_ended_run_ends_the_same_again(tmp_path):
    early = {"learning_rate": 0.1, "steps": 60, "evaluate_every": 2, "patience": 3}
    for number, more in enumerate((early, {"steps": 7}, {"steps": 7, "full": True})):
        file = tmp_path / str(number)
        first = train(**more, validation=HELD, at=file)
        assert same(train(**more, validation=HELD, at=file), first)
        assert first.stopped == ("finished" if number else "early")


def test_kill_at_any_moment(tmp_path):
    """A child process is killed again and again; another one goes on each time."""
    file = tmp_path / "run"
    more = {"steps": 8, "dropout": 0.3, "evaluate_every": 1}
    whole = train(**more, validation=HELD)
    moments = random.Random(1)
    for _ in range(20):
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                train(**more, validation=HELD, at=file)
                os._exit(0)
            os._exit(1)
        time.sleep(moments.uniform(0.05, 0.4))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert status in (0, signal.SIGKILL), "the child failed"
        if status == 0:
            break
    assert same(train(**more, validation=HELD, at=file), whole)


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_a_broken_checkpoint_is_refused_and_stays(tmp_path, capsys):
    file = tmp_path / "run"
    train(at=file)
    whole = file.read_bytes()
    cases = [b"", b"text", whole[: len(whole) // 2], whole[:-50]]
    cases += [pickle.dumps({"name": "x"}), pickle.dumps(Evil()), pickle.dumps([1])]
    for content in cases:
        file.write_bytes(content)
        with pytest.raises(
            CourseError, match=r"is no checkpoint: \w+\.\n.*Name another"
        ):
            train(at=file)
        assert file.read_bytes() == content
    assert capsys.readouterr().out == ""
    with pytest.raises(CourseError, match="is no checkpoint"):
        train(at=tmp_path)


def test_a_checkpoint_of_another_training_is_refused_and_stays(tmp_path):
    file = tmp_path / "run"
    base = random_qwen()
    first = train(at=file)
    content = file.read_bytes()
    other = replace(base, source=replace(base.source, name="pocket-other"))
    cases = [
        {"examples": EXAMPLES[1:]}, {"validation": HELD}, {"steps": 7}, {"seed": 1},
        {"learning_rate": 1e-3}, {"full": True}, {"base": other},
        {"base": first.tuned},  # going on from the adapter is another training
    ]  # fmt: skip
    for case in cases:
        with pytest.raises(CourseError, match="other examples or settings"):
            train(**case, at=file)
        assert file.read_bytes() == content
    assert same(train(at=file), first)


@contextlib.contextmanager
def full_disk(room):
    """Let no file grow beyond `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    file = tmp_path / "run"
    whole = train(**HARD)
    with pytest.raises(KeyboardInterrupt):
        train(**HARD, measure=stops_at(1, lambda: press(2)), at=file)
    old = file.read_bytes()
    with (
        full_disk(len(old) // 2),
        pytest.raises(CourseError, match="cannot be written"),
    ):
        train(**HARD, at=file)
    assert file.read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert same(train(**HARD, at=file), whole)


def test_a_place_that_takes_no_file_is_found_out_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    steps = []
    monkeypatch.setattr(training.Run, "step", lambda *_: steps.append(1))
    with pytest.raises(CourseError, match=r"(?s)cannot be written.*another file"):
        train(at=tmp_path / "file" / "run")
    assert steps == []
    assert (tmp_path / "file").read_text() == "mine"


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 5))
def test_counted_tokens_are_those_of_the_whole_step(accumulate, batch):
    """However a step is cut, its loss is a mean over the same tokens."""
    rows = [Row([1, 2, 3 + n], [NOT_COUNTED] * 2 + [3 + n], n) for n in range(7)]
    chosen = options(batch_size=batch, accumulate=accumulate, steps=1, rank=1)
    base = random_qwen()
    tuned = replace(base, model=finetune._prepared(base, chosen))
    run = training.Run(tuned, rows, [], chosen, None)
    size = batch * accumulate
    places = [divmod(n, 7) for n in range(size)]
    taken = [rows[training._shuffled(7, epoch, 0)[n]] for epoch, n in places]
    with torch.no_grad():
        expected = training.summed_loss(base.model, *collate(taken, 0)) / size
    assert run.step(0)["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert math.isfinite(expected)
