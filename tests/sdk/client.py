"""The official Python client against the service: argument 1 is a JSON object of base URLs by name, see tests/it/door/sdk.rs."""

import asyncio
import json
import sys

import openai

SERVICES = json.loads(sys.argv[1])
ASK = {"model": "auto", "messages": [{"role": "user", "content": "What jumps?"}]}
TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps."
SAID = "The quick brown fox jumps over the lazy dog, and then it"
REQUESTS = []


def client(name, key="any", kind=openai.OpenAI):
    """A client with its own retries on, as people have it."""
    if kind is openai.AsyncOpenAI:
        return kind(base_url=SERVICES[name], api_key=key)
    hooks = {"request": [lambda request: REQUESTS.append(name)]}
    return kind(base_url=SERVICES[name], api_key=key, http_client=openai.DefaultHttpxClient(event_hooks=hooks))


def equal(found, wanted):
    assert found == wanted, f"{found!r} instead of {wanted!r}"


def raises(kind, call, name):
    """The error, after one request: none of these is to be tried again."""
    REQUESTS.clear()
    try:
        call()
    except openai.APIError as error:
        assert type(error) is kind, f"{type(error)} instead of {kind}: {error}"
        equal(REQUESTS, [name])
        return error
    raise AssertionError(f"no {kind}")


def whole():
    raw = client("well").chat.completions.with_raw_response.create(
        **ASK, max_tokens=50, temperature=0.5, stop=["END"], seed=7, user="x"
    )
    for name, value in [("x-provider", "alpha"), ("x-source", "ai"), ("x-degraded", "false"), ("x-attempts", "1")]:
        equal(raw.headers[name], value)
    answer = raw.parse()
    equal(answer._request_id, raw.headers["x-request-id"])
    equal((answer.object, answer.model), ("chat.completion", "alpha-model"))
    choice = answer.choices[0]
    equal((choice.message.role, choice.message.content, choice.finish_reason), ("assistant", TEXT, "stop"))
    equal((answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens), (7, 5, 12))
    equal(answer.model_extra["failsoft"], {"provider": "alpha", "attempt": 1, "source": "ai"})
    roles = [("developer", "Be brief."), ("user", "One?"), ("assistant", "Two."), ("user", "Three?")]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in roles]
    answer = client("well").chat.completions.create(model="alpha", messages=messages, max_completion_tokens=9)
    equal(answer.choices[0].message.content, TEXT)


def streamed():
    chunks = list(client("well").chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    equal("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), TEXT)
    equal(chunks[0].choices[0].delta.role, "assistant")
    equal([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1], "stop")
    equal(chunks[-1].usage.total_tokens, 12)
    equal(len({(chunk.id, chunk.created) for chunk in chunks}), 1)
    equal(chunks[0].model_extra["failsoft"]["provider"], "alpha")
    # Who has seen enough leaves.
    with client("well").chat.completions.create(**ASK, stream=True) as stream:
        assert next(iter(stream)).choices


def helper(name="well"):
    with client(name).chat.completions.stream(**ASK) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    equal((final.choices[0].message.content, final.choices[0].finish_reason), (TEXT, "stop"))
    assert "content.delta" in kinds and kinds[-1] == "content.done", kinds


async def concurrent():
    async def one():
        stream = await client("well", kind=openai.AsyncOpenAI).chat.completions.create(**ASK, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    equal(await asyncio.gather(*(one() for _ in range(10))), [TEXT] * 10)


def models():
    names = [model.id for model in client("well").models.list()]
    equal(names, ["auto", "alpha", "alpha-model"])
    equal(client("well").models.retrieve("alpha").owned_by, "failsoft")
    error = raises(openai.NotFoundError, lambda: client("well").models.retrieve("gpt-9"), "well")
    equal(error.code, "model_not_found")


def mistakes():
    ask = client("well").chat.completions.create
    error = raises(openai.NotFoundError, lambda: ask(**{**ASK, "model": "gpt-9"}), "well")
    equal((error.code, error.param, error.type), ("model_not_found", "model", "invalid_request_error"))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for name, value in [("tools", tools), ("n", 2), ("response_format", {"type": "json_object"})]:
        error = raises(openai.BadRequestError, lambda: ask(**ASK, **{name: value}), "well")
        equal((error.param, error.code), (name, "unsupported_parameter"))
    big = [{"role": "user", "content": "x" * 3_000_000}]
    error = raises(openai.APIStatusError, lambda: ask(model="auto", messages=big), "well")
    equal(error.status_code, 413)
    equal(client("closed", "right").chat.completions.create(**ASK).choices[0].message.content, TEXT)
    error = raises(openai.AuthenticationError, lambda: client("closed", "wrong").chat.completions.create(**ASK), "closed")
    equal(error.code, "invalid_api_key")


def refused():
    for stream in (False, True):
        error = raises(openai.BadRequestError, lambda: client("refuses").chat.completions.create(**ASK, stream=stream), "refuses")
        assert "temperature must be nice" in error.message, error.message
        assert error.request_id
        error = raises(openai.BadRequestError, lambda: client("narrow").chat.completions.create(**ASK, stream=stream), "narrow")
        equal(error.code, "context_length_exceeded")


def down():
    raw = client("down").chat.completions.with_raw_response.create(**ASK)
    equal((raw.headers["x-degraded"], raw.headers["x-provider"]), ("true", "none"))
    equal(raw.parse().choices[0].message.content, "Later, please.")
    stream = client("down").chat.completions.create(**ASK, stream=True)
    equal("".join(chunk.choices[0].delta.content or "" for chunk in stream), "Later, please.")
    for stream in (False, True):
        off = {"X-Degraded-Answers": "off"}
        ask = lambda: client("down").chat.completions.create(**ASK, stream=stream, extra_headers=off)
        error = raises(openai.InternalServerError, ask, "down")
        equal((error.status_code, error.code), (503, "unavailable"))


def broken():
    # The second provider goes on.
    text, providers = "", []
    for chunk in client("breaks").chat.completions.create(**ASK, stream=True):
        text += chunk.choices[0].delta.content or ""
        providers.append(chunk.model_extra["failsoft"]["provider"])
    equal((text, providers[0], providers[-1]), (TEXT, "alpha", "beta"))
    helper("breaks")
    # Nobody does: an error, not a short answer.
    said = []

    def read():
        for chunk in client("torn").chat.completions.create(**ASK, stream=True):
            said.append(chunk.choices[0].delta.content or "")

    error = raises(openai.APIError, read, "torn")
    equal(("".join(said), error.code, error.type), (SAID, "stream_interrupted", "server_error"))


def demo():
    ask = client("demo").chat.completions
    equal(len(list(client("demo").models.list())), 7)
    raw = ask.with_raw_response.create(**ASK)
    equal((raw.headers["x-provider"], raw.headers["x-degraded"]), ("aurora", "false"))
    assert raw.parse().choices[0].message.content
    for fault in ("cut", "garbage", "down"):
        command(fault)
        chunks = list(ask.create(**ASK, stream=True))
        assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks)) > 100
        equal((chunks[-1].choices[0].finish_reason, chunks[-1].model), ("stop", "borealis-sim"))
        command("none")


def command(fault):
    url = SERVICES["demo"].removesuffix("/v1") + "/demo/providers/aurora"
    client("demo").post(url, body={"fault": fault}, cast_to=object)


for check in (whole, streamed, helper, models, mistakes, refused, down, broken, demo):
    check()
    print("ok", check.__name__)
asyncio.run(concurrent())
print("ok concurrent")
