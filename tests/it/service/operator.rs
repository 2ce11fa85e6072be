//! Orders of an operator to a running service, and data that only an operator sees.

use failsoft::config::{Prices, Secret};
use serde_json::{Value, json};

use crate::harness::{ScriptedProvider, TestApp, TestResponse, WsClient, test_settings};

const TOKEN: &str = "admin-canary";

async fn service() -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let beta = ScriptedProvider::answering("From beta.").await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.server.admin_token = Some(Secret::new(TOKEN));
    settings.providers[0].prices = Some(Prices {
        input: 1.0,
        output: 2.0,
    });
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

async fn order(app: &TestApp, name: &str, token: &str, body: &Value) -> TestResponse {
    let request = app.request("POST", &format!("/admin/providers/{name}"));
    request
        .header("authorization", &format!("Bearer {token}"))
        .json(body)
        .send()
        .await
}

#[tokio::test]
async fn orders_disable_enable_and_reset_a_provider() {
    let (alpha, beta, app) = service().await;
    let mut client = WsClient::open(&app).await;
    let answer = order(&app, "alpha", TOKEN, &json!({ "action": "disable" })).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "provider": "alpha", "state": "disabled" }))
    );
    // The status names the next provider at once.
    assert_eq!(app.status().await["active"], "beta");
    assert_eq!(client.ask_and_wait("Who?").await.text, "From beta.");
    assert_eq!((alpha.question_count(), beta.question_count()), (0, 1));
    assert_eq!(app.provider_status("alpha").await["state"], "disabled");
    // A reset does not enable a disabled provider.
    assert_eq!(
        order(&app, "alpha", TOKEN, &json!({ "action": "reset" }))
            .await
            .json()["state"],
        "disabled"
    );
    let answer = order(&app, "alpha", TOKEN, &json!({ "action": "enable" })).await;
    assert_eq!(answer.json()["state"], "closed");
    assert_eq!(client.ask_and_wait("Who now?").await.text, "From alpha.");

    alpha.stop_listening().await;
    for _ in 0..5 {
        client.ask_and_wait("Who?").await;
    }
    assert_ne!(app.provider_status("alpha").await["state"], "closed");
    alpha.listen();
    assert_eq!(
        order(&app, "alpha", TOKEN, &json!({ "action": "reset" }))
            .await
            .json()["state"],
        "closed"
    );
    assert_eq!(client.ask_and_wait("Who now?").await.text, "From alpha.");
}

#[tokio::test]
async fn orders_without_the_token_are_rejected() {
    let (_alpha, _beta, app) = service().await;
    let disable = json!({ "action": "disable" });
    for token in ["", "wrong", "admin-canar", "admin-canaryy"] {
        let answer = order(&app, "alpha", token, &disable).await;
        assert_eq!(answer.status, 401, "{token}");
        assert!(!answer.body.contains(TOKEN));
    }
    let cross_origin = app
        .request("POST", "/admin/providers/alpha")
        .header("origin", "https://elsewhere.example");
    let cross_origin = cross_origin
        .header("authorization", &format!("Bearer {TOKEN}"))
        .json(&disable)
        .send()
        .await;
    assert_eq!(cross_origin.status, 403);
    let unknown = order(&app, "gamma", TOKEN, &disable).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("alpha, beta"), "{}", unknown.body);
    for body in [json!({ "action": "explode" }), json!({}), json!([])] {
        assert_eq!(
            order(&app, "alpha", TOKEN, &body).await.status,
            400,
            "{body}"
        );
    }
    assert_eq!(app.provider_status("alpha").await["state"], "closed");

    // Without a configured token the route does not exist.
    let alpha = ScriptedProvider::answering("x").await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    for token in ["", "any"] {
        assert_eq!(order(&app, "alpha", token, &disable).await.status, 404);
    }
}

#[tokio::test]
async fn costs_are_visible_only_to_the_operator() {
    let (_alpha, _beta, app) = service().await;
    WsClient::open(&app).await.ask_and_wait("What?").await;
    app.wait_for_status("alpha", |status| status.successes == 1)
        .await;
    let usage_seen_with = async |token: &str| {
        let request = app
            .request("GET", "/status.json")
            .header("authorization", &format!("Bearer {token}"));
        request.send().await.json()["providers"][0]["usage"].clone()
    };
    assert_eq!(usage_seen_with("wrong").await, Value::Null);
    let usage = usage_seen_with(TOKEN).await;
    assert!(
        usage["output_tokens"].as_u64() > Some(0) && usage["cost_usd"].as_f64() > Some(0.0),
        "{usage}"
    );
    for (token, is_shown) in [("wrong", false), (TOKEN, true)] {
        let page = app
            .request("GET", "/status")
            .header("authorization", &format!("Bearer {token}"))
            .send()
            .await;
        assert_eq!(
            page.body.contains("data-role=\"usage\""),
            is_shown,
            "{token}"
        );
    }
}
