//! What an operator does to a running service, and what only an operator sees.

use failsoft::config::{Prices, Secret};
use serde_json::{Value, json};

use crate::harness::{Answer, ScriptedProvider, TestApp, WsClient, settings};

const TOKEN: &str = "admin-canary";

async fn service() -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let (alpha, beta) = (
        ScriptedProvider::answering("From alpha.").await,
        ScriptedProvider::answering("From beta.").await,
    );
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.server.admin_token = Some(Secret::new(TOKEN));
    settings.providers[0].prices = Some(Prices {
        input: 1.0,
        output: 2.0,
    });
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

async fn order(app: &TestApp, name: &str, token: &str, body: &Value) -> Answer {
    let request = app.request("POST", &format!("/admin/providers/{name}"));
    request
        .header("authorization", &format!("Bearer {token}"))
        .json(body)
        .send()
        .await
}

#[tokio::test]
async fn a_provider_is_switched_off_on_and_reset() {
    let (alpha, beta, app) = service().await;
    let mut client = WsClient::open(&app).await;
    let told = order(&app, "alpha", TOKEN, &json!({ "action": "disable" })).await;
    assert_eq!(
        (told.status, told.json()),
        (200, json!({ "provider": "alpha", "state": "disabled" }))
    );
    // The status says at once who is next.
    assert_eq!(app.status().await["active"], "beta");
    assert_eq!(client.answered("Who?").await.text, "From beta.");
    assert_eq!((alpha.asked(), beta.asked()), (0, 1));
    assert_eq!(app.provider("alpha").await["state"], "disabled");
    // Nor does a reset switch it on.
    assert_eq!(
        order(&app, "alpha", TOKEN, &json!({ "action": "reset" }))
            .await
            .json()["state"],
        "disabled"
    );
    let told = order(&app, "alpha", TOKEN, &json!({ "action": "enable" })).await;
    assert_eq!(told.json()["state"], "closed");
    assert_eq!(client.answered("Who now?").await.text, "From alpha.");

    alpha.refuse().await;
    for _ in 0..5 {
        client.answered("Who?").await;
    }
    assert_ne!(app.provider("alpha").await["state"], "closed");
    alpha.listen();
    assert_eq!(
        order(&app, "alpha", TOKEN, &json!({ "action": "reset" }))
            .await
            .json()["state"],
        "closed"
    );
    assert_eq!(client.answered("Who now?").await.text, "From alpha.");
}

#[tokio::test]
async fn who_has_not_the_token_gives_no_orders() {
    let (_alpha, _beta, app) = service().await;
    let disable = json!({ "action": "disable" });
    for token in ["", "wrong", "admin-canar", "admin-canaryy"] {
        let answer = order(&app, "alpha", token, &disable).await;
        assert_eq!(answer.status, 401, "{token}");
        assert!(!answer.body.contains(TOKEN));
    }
    let foreign = app
        .request("POST", "/admin/providers/alpha")
        .header("origin", "https://elsewhere.example");
    let foreign = foreign
        .header("authorization", &format!("Bearer {TOKEN}"))
        .json(&disable)
        .send()
        .await;
    assert_eq!(foreign.status, 403);
    let none = order(&app, "gamma", TOKEN, &disable).await;
    assert_eq!(none.status, 404);
    assert!(none.body.contains("alpha, beta"), "{}", none.body);
    for body in [json!({ "action": "explode" }), json!({}), json!([])] {
        assert_eq!(
            order(&app, "alpha", TOKEN, &body).await.status,
            400,
            "{body}"
        );
    }
    assert_eq!(app.provider("alpha").await["state"], "closed");

    // Where no token is configured there is nothing to be found.
    let alpha = ScriptedProvider::answering("x").await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    for token in ["", "any"] {
        assert_eq!(order(&app, "alpha", token, &disable).await.status, 404);
    }
}

#[tokio::test]
async fn what_providers_cost_is_for_the_operator_alone() {
    let (_alpha, _beta, app) = service().await;
    WsClient::open(&app).await.answered("What?").await;
    let status = async |token: &str| {
        let request = app
            .request("GET", "/status.json")
            .header("authorization", &format!("Bearer {token}"));
        request.send().await.json()["providers"][0]["usage"].clone()
    };
    assert_eq!(status("wrong").await, Value::Null);
    let usage = status(TOKEN).await;
    assert!(
        usage["output_tokens"].as_u64() > Some(0) && usage["cost_usd"].as_f64() > Some(0.0),
        "{usage}"
    );
    for (token, shown) in [("wrong", false), (TOKEN, true)] {
        let page = app
            .request("GET", "/status")
            .header("authorization", &format!("Bearer {token}"))
            .send()
            .await;
        assert_eq!(page.body.contains("data-role=\"usage\""), shown, "{token}");
    }
}
