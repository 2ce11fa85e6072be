//! Every kind of problem of a provider or a drill.

use super::{PROVIDER, assert_problem};

#[test]
fn each_provider_problem_has_line_key_and_hint() {
    let with_key = |text: &str| format!("{PROVIDER}{text}");
    for (text, start, part) in [
        (
            "dialect = \"opnai\"",
            "2: providers[0].dialect: ",
            "\"opnai\" is not a dialect; use openai, anthropic, gemini, azure or ollama",
        ),
        (
            "",
            "1: providers[0].dialect: ",
            "missing; use openai, anthropic",
        ),
    ] {
        assert_problem(
            &format!("[[providers]]\n{text}\nname = \"a\"\nmodel = \"m\""),
            start,
            part,
        );
    }
    let ollama = "[[providers]]\ndialect = \"ollama\"\n";
    assert_problem(
        &format!("{ollama}model = \"m\""),
        "1: providers[0].name: ",
        "missing",
    );
    assert_problem(
        &format!("{ollama}name = \"a\""),
        "1: providers[0].model: ",
        "missing; such as \"llama3.2\"",
    );
    assert_problem(
        &format!("{ollama}name = \"a\"\nmodel = \"\""),
        "4: providers[0].model: ",
        "empty",
    );
    for name in ["Open AI", "", "ä", "auto"] {
        assert_problem(
            &format!("{ollama}model = \"m\"\nname = {name:?}"),
            "4: providers[0].name: ",
            "use a",
        );
    }
    for (text, start, part) in [
        (
            PROVIDER,
            "6: providers[1].name: ",
            "\"a\" is already the name of providers[0] (line 1)",
        ),
        ("weight = 0", "5: providers[0].weight: ", "from 1"),
        (
            "max_concurrent = 0",
            "5: providers[0].max_concurrent: ",
            "from 1",
        ),
        (
            "temperature = 3",
            "5: providers[0].temperature: ",
            "from 0 to 2",
        ),
        (
            "prefill = \"maybe\"",
            "5: providers[0].prefill: ",
            "use off, assistant, vllm or prefix",
        ),
        (
            "base_url = \"localhost:8000\"",
            "5: providers[0].base_url: ",
            "not a URL",
        ),
        (
            "base_url = \"https://user:canary@host\"",
            "5: providers[0].base_url: ",
            "do not belong there",
        ),
        (
            "api_key = \"env:NOPE\"",
            "5: providers[0].api_key: ",
            "variable NOPE is not set",
        ),
        (
            "api_key = \"canary-ä\"",
            "5: providers[0].api_key: ",
            "ASCII",
        ),
        (
            "api_version = \"a&b\"",
            "5: providers[0].api_version: ",
            "letters, digits",
        ),
        (
            "headers = { Host = \"x\" }",
            "5: providers[0].headers.Host: ",
            "set by the service itself",
        ),
        (
            "headers = { \"a b\" = \"x\" }",
            "5: providers[0].headers.\"a b\": ",
            "not the name of a header",
        ),
        (
            "headers = { x-key = \"env:NOPE\" }",
            "5: providers[0].headers.x-key: ",
            "NOPE is not set",
        ),
        (
            "headers = \"x\"",
            "5: providers[0].headers: ",
            "a string where a table",
        ),
        (
            "prices = { input = 0.1 }",
            "5: providers[0].prices.output: ",
            "missing; US dollars per million tokens",
        ),
        (
            "prices = { input = -1, output = 1 }",
            "5: providers[0].prices.input: ",
            "0 or more",
        ),
        (
            "breaker = { open_for = \"x\" }",
            "5: providers[0].breaker.open_for: ",
            "is not a duration",
        ),
        (
            "[providers.breaker]\nopen_fr = \"1s\"",
            "6: providers[0].breaker.open_fr: ",
            "did you mean open_for?",
        ),
        (
            "timeouts = { turn = \"9s\" }",
            "5: providers[0].timeouts.turn: ",
            "write it in [timeouts]",
        ),
        (
            "retry = { budget = 1 }",
            "5: providers[0].retry.budget: ",
            "write it in [retry]",
        ),
        (
            "health = { probe = 1 }",
            "5: providers[0].health.probe: ",
            "where a probe is needed",
        ),
    ] {
        assert_problem(&with_key(text), start, part);
    }
    assert_problem(
        "[[providers]]\nname = \"a\"\ndialect = \"azure\"\nmodel = \"m\"\napi_key = \"k\"",
        "1: providers[0].base_url: ",
        "https://NAME.openai.azure.com",
    );
    assert_problem(
        "[[providers]]\nname = \"a\"\ndialect = \"anthropic\"\nmodel = \"m\"",
        "1: providers[0].api_key: ",
        "variable ANTHROPIC_API_KEY is not set",
    );
}

#[test]
fn each_drill_problem_has_line_key_and_hint() {
    let drill = |at: &str, provider: &str, fault: &str, duration: &str| {
        format!(
            "{PROVIDER}[[drills]]\nat = {at:?}\nprovider = {provider:?}\nfault = {fault:?}\nfor = {duration:?}"
        )
    };
    for (text, start, part) in [
        (
            drill("0 25 * * *", "a", "down", "2m"),
            "6: drills[0].at: ",
            "for the hour",
        ),
        (
            drill("0 3 * *", "a", "down", "2m"),
            "6: drills[0].at: ",
            "five fields",
        ),
        (
            drill("0 3 * * 1", "b", "down", "2m"),
            "7: drills[0].provider: ",
            "\"b\" is not the name of a provider; use a",
        ),
        (
            drill("0 3 * * 1", "a", "fire", "2m"),
            "8: drills[0].fault: ",
            "use down, rate_limit",
        ),
        (
            drill("0 3 * * 1", "a", "down", "16m"),
            "9: drills[0].for: ",
            "at most 15m",
        ),
        (
            format!("{PROVIDER}[[drills]]\nat = \"0 3 * * 1\"\nprovider = \"a\""),
            "5: drills[0].fault: ",
            "missing",
        ),
    ] {
        assert_problem(&text, start, part);
    }
}
