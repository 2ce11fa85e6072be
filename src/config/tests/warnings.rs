//! Warnings, which do not prevent a start.

use super::{PROVIDER, load};

fn warnings(text: &str) -> Vec<String> {
    let loaded = load(text).unwrap_or_else(|problems| panic!("{problems}\nin\n{text}"));
    loaded
        .warnings
        .iter()
        .map(|warning| format!("{}: {}", warning.line.unwrap_or_default(), warning.key))
        .collect()
}

#[test]
fn defaults_and_disabled_features_give_no_warning() {
    for text in [
        "[routing]\nstrategy = \"weighted\"\nhedge_after = \"1s\"\nmid_stream = \"continue\"",
        "[chat]\nretention = \"1d\"",
        "[cache]\nttl = \"2h\"\nwarm = [\"hi\"]",
        "[degradation]\noutbox = false",
        "[[drills]]\nat = \"0 3 * * 1\"\nprovider = \"openai\"\nfault = \"down\"",
        "[degradation]\noutbox = true",
        "[health]\nprobe = \"completion\"\ninterval = \"30s\"",
        "[alerts]\nwebhook = \"\"\nmin_interval = \"300s\"",
        "[alerts]\nslack_webhook = \"https://hooks.example/canary\"",
        "[alerts]\nwebhook = \"https://hooks.example/canary\"\nwebhook_secret = \"whsec_Y2FuYXJ5\"",
        "[server]\nadmin_token = \"canary\"\napi_keys = [\"canary\"]",
        "[widget]\nidentity_secret = \"\"",
    ] {
        assert_eq!(warnings(text), [""; 0], "{text}");
    }
    let folder = std::env::temp_dir();
    assert_eq!(
        warnings(&format!("[degradation]\nknowledge = {folder:?}")),
        [""; 0]
    );
    assert_eq!(
        warnings(&format!("{PROVIDER}prefill = false\ndaily_budget_usd = 0")),
        [""; 0]
    );
}

#[test]
fn suspicious_settings_give_a_warning() {
    for (text, expected) in [
        (
            "base_url = \"https://llm.example.com/v1\"",
            &["5: providers[0].base_url"][..],
        ),
        (
            "base_url = \"https://llm.example.com/v1\"\napi_key = \"\"",
            &[],
        ),
        (
            "base_url = \"http://localhost:1/v1/chat/completions\"",
            &["5: providers[0].base_url"],
        ),
        (
            "daily_budget_usd = 5.0",
            &["5: providers[0].daily_budget_usd"],
        ),
        (
            "prices = { input = 1, output = 1 }\ndaily_budget_usd = 5.0",
            &[],
        ),
    ] {
        assert_eq!(warnings(&format!("{PROVIDER}{text}")), expected, "{text}");
    }
    let ollama = "[[providers]]\nname = \"a\"\ndialect = \"ollama\"\nmodel = \"m\"\n";
    assert_eq!(
        warnings(ollama),
        ["1: providers[0].context_tokens"],
        "the server truncates silently"
    );
    assert_eq!(warnings(&format!("{ollama}context_tokens = 8192")), [""; 0]);
    let elsewhere = "[[providers]]\nname = \"a\"\ndialect = \"gemini\"\nmodel = \"m\"\nbase_url = \"http://gateway:1\"";
    assert_eq!(warnings(elsewhere), ["1: providers[0].api_key"]);
    assert_eq!(
        warnings("[alerts]\nwebhook = \"https://hooks.example/canary\""),
        ["2: alerts.webhook"],
        "unsigned"
    );
    assert_eq!(
        warnings("[telemetry]\notlp_endpoint = \"http://localhost:4317\""),
        ["2: telemetry.otlp_endpoint"]
    );
    assert_eq!(
        warnings("[telemetry]\notlp_endpoint = \"http://localhost:4318\""),
        [""; 0]
    );
    assert_eq!(
        warnings("[alerts]\nwebhook_secret = \"canary\""),
        ["2: alerts.webhook_secret"]
    );
    assert_eq!(
        warnings("[limits]\nframe_bytes = 4096"),
        ["2: limits.frame_bytes"]
    );
    assert_eq!(
        warnings("[chat]\nmax_message_chars = 100000"),
        ["2: chat.max_message_chars"]
    );
}
