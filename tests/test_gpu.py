"""What only a CUDA device can show: off by default, run with `pytest -m gpu`."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import torch

from qwen_course import (
    answers,
    batching,
    chat,
    finetune,
    generate,
    models,
    server,
    service,
    tasks,
)

pytestmark = pytest.mark.gpu


def loaded(name, device="cuda"):
    return models.load(name, device=device)


def asked(problems):
    return [[{"role": "user", "content": p.question}] for p in problems]


def calls(n):
    examples = []
    for problem in tasks.draw("tool", n, held_out=False):
        functions = [{"function": c} for c in chat.parse_tool_calls(problem.answer)]
        answer = {"role": "assistant", "content": "", "tool_calls": functions}
        examples.append([{"role": "user", "content": problem.question}, answer])
    return examples


def test_replies_are_those_of_the_processor():
    problems = tasks.draw("french", 100)
    settings = generate.Settings(max_new_tokens=40, temperature=0, thinking=False)
    texts = []
    for device in ("cuda", "cpu"):
        one = loaded("pocket-generalist-3x", device)
        replies = generate.batch(one, asked(problems), settings)
        texts.append([reply.text for reply in replies])
    same = sum(a == b for a, b in zip(*texts, strict=True))
    assert same >= 98  # float32 sums in another order may turn a close choice


def test_a_seed_repeats_and_batch_is_single():
    one = loaded("pocket-thinking")
    problems = asked(tasks.draw("chain", 8))
    greedy = generate.Settings(max_new_tokens=150, temperature=0)
    together = [r.text for r in generate.batch(one, problems, greedy)]
    assert together == [generate.reply(one, p, greedy).text for p in problems]
    drawn = generate.Settings(max_new_tokens=40, temperature=1.0, seed=3)
    assert generate.reply(one, problems[0], drawn).text == (
        generate.reply(one, problems[0], drawn).text
    )


def test_a_new_task_is_learnt():
    base = loaded("pocket-generalist-echo")
    before = [p.detach().clone() for p in base.model.parameters()]
    settings = finetune.LoraSettings(
        learning_rate=2e-3, batch_size=16, steps=300, warm_up=0.05
    )
    history = finetune.train(base, calls(400), settings)
    problems = tasks.draw("tool", 100, seed=5)
    greedy = generate.Settings(max_new_tokens=80, temperature=0, thinking=False)
    replies = generate.batch(history.tuned, asked(problems), greedy)
    right = sum(
        answers.solves("tool", reply.text, problem.answer).passed
        for reply, problem in zip(replies, problems, strict=True)
    )
    assert right >= 90
    assert history.peak_gb > 0
    now = base.model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))


def test_resume_equals_uninterrupted(tmp_path):
    base, examples = loaded("pocket-generalist-echo"), calls(60)
    options = {"learning_rate": 2e-3, "dropout": 0.1, "evaluate_every": 10}
    whole = finetune.train(base, examples, finetune.LoraSettings(steps=30, **options))
    settings = finetune.LoraSettings(steps=30, **options)
    stopped = []

    def stop(_):
        stopped.append(1)
        if len(stopped) == 2:
            raise InterruptedError
        return {}

    path = tmp_path / "run.pt"
    with pytest.raises(InterruptedError):
        finetune.train(base, examples, settings, measure=stop, checkpoint=path)
    again = finetune.train(
        base, examples, settings, measure=lambda _: {}, checkpoint=path
    )
    losses = [[row["loss"] for row in h.losses] for h in (whole, again)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_qlora():
    import transformers

    source = models.resolve("pocket-generalist-echo")
    quantized = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source.path, quantization_config=quantized, device_map={"": 0}
    )
    tokenizer = loaded("pocket-generalist-echo").tokenizer
    base = models.Loaded(model.eval(), tokenizer, source)
    settings = finetune.LoraSettings(learning_rate=2e-3, batch_size=16, steps=60)
    history = finetune.train(base, calls(200), settings)
    assert history.losses[-1]["loss"] < history.losses[0]["loss"] / 3


def test_the_service_answers_as_the_model_does_and_measures_the_gpu():
    one = loaded("pocket-chat")
    names = ("Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal")
    questions = [f"My name is {name}. What is my name?" for name in names] * 2
    greedy = generate.Settings(max_new_tokens=30, temperature=0)
    expected = [
        generate.reply(one, [{"role": "user", "content": q}], greedy).text
        for q in questions
    ]
    free = service.Limits(requests_per_minute=None, tokens_per_minute=None)
    made = service.ChatService(batching.Local(one), free)
    with server.running(service.create_app(made)) as url:
        client = openai.OpenAI(base_url=url, api_key="none")

        def ask(question):
            answer = client.chat.completions.create(
                model="pocket-chat", max_tokens=30, temperature=0,
                messages=[{"role": "user", "content": question}],
            )  # fmt: skip
            return answer.choices[0].message.content

        with ThreadPoolExecutor(16) as pool:
            answers = [*pool.map(ask, questions)]
    assert sum(a == b for a, b in zip(answers, expected, strict=True)) >= 15
    frame = made.monitor.to_frame()
    assert len(frame) == 16
    assert frame.cuda_peak_mb.iloc[-1] == pytest.approx(
        torch.cuda.max_memory_allocated() / 1e6
    )
