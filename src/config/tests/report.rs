//! The output of `failsoft check`.

use super::super::{Settings, report};
use super::{CANARY, empty, env, load};

#[test]
fn report_lists_providers_in_order() {
    let loaded = load(
        "[server]\nadmin_token = \"canary\"\n[alerts]\nwebhook_secret = \"canary\"\n[[providers]]\nname = \"main\"\ndialect = \"openai\"\nmodel = \"gpt-4o-mini\"\n\
         prices = { input = 1, output = 1 }\nheaders = { x-key = \"canary\" }\n\
         [[providers]]\nname = \"local-one\"\ndialect = \"ollama\"\nmodel = \"llama3.2\"\ncontext_tokens = 8192\n",
    )
    .unwrap();
    assert_eq!(
        report(&loaded),
        "no configuration file: fine

Providers, in order of preference:
     name       dialect  model        base_url                   key
  1  main       openai   gpt-4o-mini  https://api.openai.com/v1  key set
  2  local-one  ollama   llama3.2     http://127.0.0.1:11434     no key needed

Routing   priority, at most 4 attempts a turn, restart in mid-answer
Timeouts  first token 5s, 10s, 15s; turn 2m
Server    127.0.0.1:8080, data in failsoft-data

Warnings:
  failsoft.toml:4: alerts.webhook_secret: has no effect: there is no alerts.webhook whose alerts it could sign
"
    );
}

#[test]
fn report_lists_missing_settings() {
    let alone = report(&Settings::load(None, &env).unwrap());
    for part in [
        "$ANTHROPIC_API_KEY: not set",
        "$OLLAMA_HOST: not set",
        "a second provider",
        "prices of openai",
        "server.admin_token",
    ] {
        assert!(alone.contains(part), "{part} in\n{alone}");
    }
    assert!(!alone.contains("$OPENAI_API_KEY"));
    let demo = report(&Settings::load(None, &empty).unwrap());
    assert!(
        demo.contains("demo mode") && demo.contains("$OPENAI_API_KEY: not set"),
        "{demo}"
    );
}

#[test]
fn no_secret_is_reported_nor_shown_by_debug() {
    let text = "[server]\nadmin_token = \"canary\"\napi_keys = [\"canary\"]\n[alerts]\nslack_webhook = \"https://x/canary\"\nwebhook = \
                \"https://x/canary\"\nwebhook_secret = \"canary\"\n[store]\nredis_url = \"redis://:canary@x\"\n[widget]\n\
                identity_secret = \"canary\"\n[[providers]]\nname = \"a\"\ndialect = \"openai\"\nmodel = \"m\"\nheaders = { k = \"canary\" }";
    let loaded = load(text).unwrap();
    for text in [report(&loaded), format!("{loaded:?}")] {
        assert!(!text.contains(CANARY), "{text}");
    }
}
