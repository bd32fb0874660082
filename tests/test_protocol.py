"""protocol: what a request may hold, chunks that add up, errors in OpenAI's shape."""

import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from serving import known

from qwen_course import protocol
from qwen_course.protocol import ApiError, ChatRequest, Chunks, fold, parse

HI = [{"role": "user", "content": "Hi"}]


def refused(body):
    """Return the error of a body, or of its settings."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ApiError) as caught:
        parse(body).settings()
    assert caught.value.status == 400
    error = caught.value.body()["error"]
    assert {*error} == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) <= 300
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", []),
        ("messages", None),
        ("messages", "Hi"),
        ("messages", ["Hi"]),
        ("max_tokens", 0),
        ("max_tokens", True),
        ("max_tokens", "12"),
        ("max_tokens", 1.5),
        ("max_tokens", 10**400),
        ("max_completion_tokens", -1),
        ("temperature", 2.1),
        ("temperature", True),
        ("temperature", "0"),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0),
        ("top_k", -2),
        ("min_p", 2),
        ("presence_penalty", 3),
        ("repetition_penalty", 0),
        ("stop", 5),
        ("stop", [5]),
        ("stop", ""),
        ("stop", ["x"] * 17),
        ("stop", "x" * 1001),
        ("n", 0),
        ("n", True),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 0.5),
        ("stream", "yes"),
        ("stream", 1),
        ("stream_options", {"include_usage": 1}),
        ("stream_options", {"unknown": True}),
        ("tools", {}),
        ("tools", ["weather"]),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("tool_choice", 5),
        ("chat_template_kwargs", {"enable_thinking": "no"}),
        ("chat_template_kwargs", {"chat_template": "x"}),
        ("chat_template_kwargs", []),
        ("thinking_budget", -1),
        ("model", 5),
        # those that this service does not know
        ("logprobs", True),
        ("logit_bias", {"5": 1}),
        ("response_format", {"type": "json_object"}),
        ("frequency_penalty", 0.5),
        ("functions", []),
        ("max_new_tokens", 5),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(field, value):
    error = refused({"messages": HI} | {field: value})
    named = error["param"] or error["message"]
    assert named.startswith(field) or "thinking" in named
    assert "[" not in named  # "[key]" is pydantic's word


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"5", b'"text"', b"\xff\xfe", b"{}" * 2, b"\x00",
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b"[" * 100_000, b'{"a":' * 100_000,
        b'{"messages": [' + b'{"a": [' * 5_000,
        b'{"messages": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"temperature": ' + b"9" * 5_000 + b"}",
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(body):
    assert refused(body)["message"]


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_make_anything_but_an_api_error(body):
    refused(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*ChatRequest.model_fields]), JSON))
def test_no_values_make_anything_but_settings_or_an_api_error(fields):
    body = json.dumps({"messages": HI} | fields).encode("utf-8", "replace")
    with contextlib.suppress(ApiError):
        parse(body).settings()


def test_the_fields_reach_the_settings():
    body = {
        "messages": HI, "max_tokens": 5, "temperature": 1, "top_p": 0.5, "top_k": -1,
        "min_p": 0.25, "presence_penalty": 1, "repetition_penalty": 1.5, "seed": 7,
        "stop": "x", "chat_template_kwargs": {"enable_thinking": True},
        "thinking_budget": 3,
    }  # fmt: skip
    made = parse(json.dumps(body).encode()).settings()
    assert (made.max_new_tokens, made.temperature, made.top_p) == (5, 1, 0.5)
    assert (made.top_k, made.min_p, made.presence_penalty) == (0, 0.25, 1)
    assert (made.repetition_penalty, made.seed, made.stop) == (1.5, 7, ("x",))
    assert (made.thinking, made.thinking_budget) == (True, 3)
    newer = parse(json.dumps(body | {"max_completion_tokens": 9}).encode())
    assert newer.settings().max_new_tokens == 9


def test_what_clients_send_by_default_is_taken():
    """Null is "not given"; what changes nothing here is let through."""
    nulls = dict.fromkeys({*ChatRequest.model_fields} - {"messages"})
    harmless = {
        "user": "me", "metadata": {"a": "b"}, "store": False, "logprobs": False,
        "parallel_tool_calls": True, "frequency_penalty": 0, "logit_bias": {},
        "response_format": {"type": "text"}, "top_logprobs": None,
    }  # fmt: skip
    body = {"messages": HI} | nulls | harmless
    made = parse(json.dumps(body).encode()).settings()
    assert (made.max_new_tokens, made.temperature, made.stop) == (None, None, ())


def test_chunks_and_what_they_fold_to_are_openai_s():
    chunks, reply = Chunks("pocket-chat"), known()
    call = {"index": 0, "id": "call_1", "type": "function"}
    made = [
        chunks.delta(0, role="assistant", content=""),
        chunks.delta(1, role="assistant", content=""),
        chunks.delta(0, reasoning_content="Hm"),
        chunks.delta(0, reasoning_content="m."),
        chunks.delta(1, content="Grü"),
        chunks.delta(0, tool_calls=[call | {"function": {"name": "f"}}]),
        chunks.delta(0, tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
        chunks.delta(1, content="ße"),
        chunks.delta(1, "stop"),
        chunks.delta(0, "tool_calls"),
        chunks.usage([reply, reply]),
    ]
    for chunk in made:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    whole = ChatCompletion.model_validate(fold(made), strict=True)
    first, second = whole.choices
    assert (first.index, second.index) == (0, 1)
    assert first.message.model_extra == {"reasoning_content": "Hmm."}
    function = first.message.tool_calls[0].function
    assert (function.name, function.arguments) == ("f", "{}")
    assert (second.message.content, second.finish_reason) == ("Grüße", "stop")
    assert first.finish_reason == "tool_calls"
    assert whole.usage.prompt_tokens == reply.prompt_tokens
    assert whole.usage.completion_tokens == 2 * reply.new_tokens
    assert whole.usage.total_tokens == reply.prompt_tokens + 2 * reply.new_tokens


@given(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=5)), max_size=30))
def test_fold_joins_the_texts_of_each_choice_in_order(parts):
    chunks = Chunks("m")
    whole = fold(chunks.delta(index, content=text) for index, text in parts)
    for choice in whole["choices"]:
        own = [text for index, text in parts if index == choice["index"]]
        assert choice["message"]["content"] == "".join(own)
    assert [c["index"] for c in whole["choices"]] == sorted({i for i, _ in parts})


@given(st.text() | st.dictionaries(st.text(), st.text()))
@example("\u2028\u2029\x85\x0b\x1c\ud800")
def test_an_event_is_one_line_and_reads_back(data):
    text = protocol.event({"data": data})
    assert text.startswith("data: ")
    assert text.endswith("\n\n")
    line = text[6:-2]
    assert len(text.splitlines()) == 2  # the reader of lines of httpx is as strict
    assert json.loads(line) == {"data": data}


def test_an_error_has_openai_s_shape():
    error = ApiError(429, "Slow down.", "requests", None, "rate", {"Retry-After": "1"})
    told = {"message": "Slow down.", "type": "requests", "param": None, "code": "rate"}
    assert error.body() == {"error": told}
    assert error.headers == {"Retry-After": "1"}
