"""room: replies from a server are those of the same model in memory."""

import contextlib
import sys
from dataclasses import replace

import openai
import pytest
from serving import KEY, Endless, ask, pocket, served, until
from tiny import scripted

from qwen_course import batching, generate
from qwen_course.errors import CourseError
from qwen_course.generate import Piece, Reply, Settings
from qwen_course.room import Room

CONVERSATIONS = [
    ask(text)["messages"]
    for text in (
        "Hello",
        "What colour is snow?",
        "Grüße 你好 🙂",
        "Name three colours.",
    )
]
CONVERSATIONS.append(
    [
        {"role": "system", "content": "Answer in French only."},
        {"role": "user", "content": "What colour is the sky?"},
    ]
)
COUNTS = ("text", "thinking", "prompt_tokens", "new_tokens", "thinking_tokens", "stop")


def told(reply):
    return [getattr(reply, name) for name in COUNTS]


def room(url, key=KEY, name="pocket-chat"):
    """Return a Loaded whose model is on the server."""
    return replace(pocket(), model=Room(url, key, name))


@pytest.fixture(scope="module")
def running():
    with served(keys={"me": KEY}) as made:
        yield made


@pytest.mark.parametrize(
    "settings",
    [
        Settings(temperature=0, max_new_tokens=24),
        Settings(temperature=0, max_new_tokens=24, thinking=True),
        Settings(temperature=0, max_new_tokens=24, thinking=False),
        Settings(temperature=0, max_new_tokens=24, thinking=True, thinking_budget=2),
        Settings(temperature=0, stop=("help", "i"), max_new_tokens=24),
        Settings(temperature=0, presence_penalty=1, repetition_penalty=1.1,
                 max_new_tokens=12),
        Settings(temperature=1.5, top_k=5, top_p=0.9, min_p=0.01, seed=7,
                 max_new_tokens=12),
    ],
)  # fmt: skip
def test_replies_are_those_of_the_model_itself(running, settings):
    there, here = room(running.url), pocket()
    for messages in CONVERSATIONS:
        direct = generate.reply(here, messages, settings)
        assert told(generate.reply(there, messages, settings)) == told(direct)
        *pieces, last = generate.stream(there, messages, settings)
        assert isinstance(last, Reply)
        assert all(isinstance(piece, Piece) for piece in pieces)
        for kind, text in (("answer", direct.text), ("thinking", direct.thinking)):
            assert "".join(p.text for p in pieces if p.kind == kind) == text
        assert last.first_token_seconds <= last.seconds
        assert len(last.token_seconds) == max(0, len(pieces) - 1)


def test_a_batch_is_made_on_the_server(running):
    wanted = Settings(temperature=0, max_new_tokens=24)
    there = generate.batch(room(running.url), CONVERSATIONS * 4, wanted)
    here = generate.batch(pocket(), CONVERSATIONS * 4, wanted)
    assert [told(reply) for reply in there] == [told(reply) for reply in here]
    assert generate.batch(room(running.url), []) == []


def ask_ada():
    """Ask Ada."""


def test_a_call_of_a_tool_is_written_out_again():
    call = '<tool_call>\n{"name": "ask_ada", "arguments": {"a": "ö"}}\n</tool_call>'
    wanted = Settings(max_new_tokens=120)
    for text in (call, f"{call}{call}", "No call."):
        with served(batching.Local(scripted(text))) as here:
            reply = generate.reply(
                room(here.url, name="chat"), CONVERSATIONS[0], wanted, [ask_ada]
            )
        assert reply.text == text
        assert reply.stop == "stop"


def test_what_is_wrong_is_told_with_the_next_step(running):
    hello = CONVERSATIONS[0]
    wrong = {
        "refuses the key": room(running.url, "another-wrong-key"),
        "No model 'gpt'": room(running.url, name="gpt"),
        "No answer": room("http://127.0.0.1:9/v1"),
    }
    for words, there in wrong.items():
        with pytest.raises(CourseError, match=words) as caught:
            generate.reply(there, hello)
        assert caught.value.hint
    with pytest.raises(CourseError, match="the address whole"):
        Room(running.url.removesuffix("/v1"), KEY, "").names()
    for key in ("schl\u00fcssel-12345678", "a-key\nof-two-lines"):
        with pytest.raises(CourseError, match="QWEN_COURSE_ROOM_KEY"):
            Room(running.url, key, "")
    assert Room(running.url, f"{KEY}\r\n", "").names()  # as a file of Windows ends
    with pytest.raises(CourseError, match="positions|at most"):
        generate.reply(room(running.url), ask("Hello " * 2500)["messages"])
    with pytest.raises(CourseError, match="temperature"):
        generate.reply(room(running.url), hello, Settings(temperature=9))
    with pytest.raises(CourseError, match="role"):
        generate.reply(room(running.url), [{"role": "x", "content": ""}])


def test_names_and_what_a_room_has_not(running):
    made = Room(running.url, KEY, "pocket-chat")
    assert made.names() == ["pocket-chat", "chat"]
    with pytest.raises(CourseError, match="refuses the key"):
        Room(running.url, "wrong", "").names()
    with pytest.raises(AttributeError, match="pocket-chat"):
        _ = made.config
    with pytest.raises(AttributeError):
        made.generate()


def test_closing_a_stream_ends_the_row_there():
    with served(Endless()) as here:
        there = room(here.url)
        pieces = generate.stream(there, CONVERSATIONS[0], Settings(max_new_tokens=1900))
        assert isinstance(next(pieces), Piece)
        pieces.close()
        assert until(lambda: not here.backend._running)
        assert until(lambda: [r.stop for r in here.monitor.records()]) == ["closed"]


def test_a_server_that_breaks_off_is_no_end_of_a_reply():
    network = openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]
    network, made = sys.modules[network], Room("http://there/v1", "", "m")
    part = b'data: {"choices": [{"index": 0, "delta": {"content": "Half"}}]}\n\n'

    def answer(_):
        kind = {"content-type": "text/event-stream"}
        return network.Response(200, content=part, headers=kind)

    http = network.Client(transport=network.MockTransport(answer))
    made._client = openai.OpenAI(base_url="http://there/v1", api_key="x",
                                 http_client=http)  # fmt: skip
    pieces = made.stream(CONVERSATIONS[0], None, None)
    assert next(pieces).text == "Half"
    with pytest.raises(CourseError, match="broke off"):
        next(pieces)


@pytest.mark.parametrize(
    "address",
    [
        "http://10.0.0.5:PORT/v1", "http://10.0.0.5:8000/v1\n",
        "10.0.0.5:8000/v1", "http:///v1", "http://10.0.0.5: 8000/v1",
        "http://http://10.0.0.5:8000/v1", "http://10.0.0.5:/v1",
    ],
)  # fmt: skip
def test_a_mistyped_address_is_told(address):
    with pytest.raises(CourseError, match=r"no address of a server.*\n.*ROOM=http"):
        Room(address, "", "m")


def test_what_is_wrong_with_the_arguments_is_told_as_without_a_server():
    there = Room("http://127.0.0.1:9/v1", "", "m")
    here = replace(scripted("Hi"), model=there)
    asked = [{"role": "user", "content": "Hi"}]
    for call in (
        lambda to: generate.reply(to, asked, {"temperature": 0}),
        lambda to: generate.batch(to, [asked], {"temperature": 0}),
        lambda to: generate.batch(to, None),
    ):
        told = []
        for loaded in (here, scripted("Hi")):
            with pytest.raises(CourseError) as caught:
                call(loaded)
            told.append(str(caught.value))
        assert told[0] == told[1]
    cut = Settings(thinking_budget=2, thinking_cut="official")
    with pytest.raises(CourseError, match="in its own way"):
        next(generate.stream(here, asked, cut))


def scripted_chunks(monkeypatch, there, *chunks):
    """Let a room's server answer with these chunks."""
    made = [
        openai.types.chat.ChatCompletionChunk.construct(**chunk) for chunk in chunks
    ]
    stream = contextlib.nullcontext(iter(made))
    monkeypatch.setattr(
        there.model._client.chat.completions, "create", lambda **_: stream
    )


def test_chunks_that_hold_little_are_passed_by(monkeypatch):
    there = room("http://127.0.0.1:9/v1")
    delta = openai.types.chat.chat_completion_chunk.ChoiceDelta
    call = openai.types.chat.chat_completion_chunk.ChoiceDeltaToolCall
    choice = openai.types.chat.chat_completion_chunk.Choice.construct
    bare = call.construct(index=0, function=None)
    scripted_chunks(
        monkeypatch, there,
        {"choices": None, "usage": None},
        {"choices": [choice(delta=None, finish_reason=None)], "usage": None},
        {"choices": [choice(delta=delta(content="Yes"), finish_reason=None)],
         "usage": None},
        {"choices": [choice(delta=delta.construct(tool_calls=[bare], content=None),
                            finish_reason="stop")], "usage": None},
    )  # fmt: skip
    *pieces, _ = generate.stream(there, CONVERSATIONS[0])
    assert "Yes" in "".join(piece.text for piece in pieces)


def test_what_comes_in_mid_reply_is_what_the_server_said(monkeypatch):
    there = room("http://127.0.0.1:9/v1")

    def broken(**_):
        raise openai.APIError("Not done within 0.1 s.", request=None, body=None)

    monkeypatch.setattr(there.model._client.chat.completions, "create", broken)
    with pytest.raises(CourseError, match=r"broke off: Not done within") as caught:
        generate.reply(there, CONVERSATIONS[0])
    assert "is the server running" not in str(caught.value)


def test_a_page_that_is_no_api_gets_a_next_step(monkeypatch):
    there = room("http://127.0.0.1:9/v1")
    page = "<html>Log in</html>"
    monkeypatch.setattr(
        there.model._client.chat.completions, "create", lambda **_: page
    )
    with pytest.raises(
        CourseError, match="answers in no way of OpenAI's API"
    ) as caught:
        generate.reply(there, CONVERSATIONS[0])
    assert "/v1" in caught.value.hint


def test_a_proxy_of_the_machine_is_not_the_address_s_fault(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(CourseError, match="proxy of this machine") as caught:
        Room("http://10.0.0.5:8000/v1", KEY)
    assert "ALL_PROXY" in caught.value.hint
