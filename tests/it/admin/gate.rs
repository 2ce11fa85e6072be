//! Who may give orders, and what of them is taken down.

use serde_json::json;

use super::service::{Configured, TOKEN, configuration, provider};
use crate::harness::{ScriptedProvider, TestApp, fresh_id};

/// Every order that there is, with a body that is right.
const ORDERS: [(&str, &str, &str); 8] = [
    ("POST", "/admin/providers/alpha", r#"{"action":"reset"}"#),
    ("POST", "/admin/reload", ""),
    ("DELETE", "/admin/cache", ""),
    ("POST", "/admin/cache/warm", ""),
    ("DELETE", "/admin/conversations/AAAAAAAAAAAAAAAAAAAAAA", ""),
    ("GET", "/admin/audit", ""),
    ("GET", "/admin/drills", ""),
    ("DELETE", "/admin/drills", ""),
];

async fn service() -> (ScriptedProvider, Configured) {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let text = configuration(&[provider("alpha", &alpha, "")]);
    let text = text.replace("enabled = false", "enabled = true\nwarm = [\"Who?\"]");
    (alpha, Configured::start(&text).await)
}

#[tokio::test]
async fn every_order_is_for_who_has_the_token_alone() {
    let (_alpha, service) = service().await;
    let app = &service.app;
    for (method, path, body) in ORDERS {
        for (header, value) in [
            ("x-nothing", ""),
            ("authorization", "Bearer wrong"),
            ("authorization", "Bearer admin-canar"),
            ("authorization", "Bearer admin-canaryy"),
            ("authorization", "Bearer "),
            ("authorization", "Basic admin-canary"),
        ] {
            let answer = app
                .request(method, path)
                .header(header, value)
                .body(body)
                .send()
                .await;
            assert_eq!(
                (answer.status, answer.header("www-authenticate")),
                (401, "Bearer"),
                "{path} {value}"
            );
            assert!(!answer.body.contains(TOKEN));
        }
        let right = format!("Bearer {TOKEN}");
        let foreign = app
            .request(method, path)
            .header("origin", "https://elsewhere.example");
        let foreign = foreign
            .header("authorization", &right)
            .body(body)
            .send()
            .await;
        assert_eq!(foreign.status, 403, "{path}");
        // Whatever name the service is asked by: the route decides.
        let named = app
            .request(method, path)
            .host("other.example")
            .header("authorization", &right);
        assert!(named.body(body).send().await.status < 300, "{path}");
        let own = app
            .request(method, path)
            .header("origin", &format!("http://127.0.0.1:{}", app.port));
        assert!(
            own.header("authorization", &right)
                .body(body)
                .send()
                .await
                .status
                < 300,
            "{path}"
        );
    }
    // Who has no token is not told which orders exist.
    let unknown = app.request("POST", "/admin/explode").send().await;
    assert_eq!(unknown.status, 401);
}

#[tokio::test]
async fn without_a_token_in_the_configuration_there_is_nothing() {
    let alpha = ScriptedProvider::answering("x").await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    for (method, path, body) in ORDERS {
        for token in ["", TOKEN] {
            let request = app
                .request(method, path)
                .header("authorization", &format!("Bearer {token}"));
            assert_eq!(request.body(body).send().await.status, 404, "{path}");
        }
    }
}

#[tokio::test]
async fn an_order_that_does_not_exist_is_told_which_ones_do() {
    let (_alpha, service) = service().await;
    for (method, path) in [
        ("POST", "/admin/explode"),
        ("GET", "/admin"),
        ("GET", "/admin/"),
    ] {
        let answer = service.order(method, path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains("/admin/reload"), "{}", answer.body);
    }
    for (method, path, allowed) in [
        ("GET", "/admin/reload", "POST"),
        ("DELETE", "/admin/reload", "POST"),
        ("GET", "/admin/providers/alpha", "POST"),
        ("POST", "/admin/audit", "GET"),
        ("GET", "/admin/cache", "DELETE"),
        ("DELETE", "/admin/cache/warm", "POST"),
        (
            "GET",
            "/admin/conversations/AAAAAAAAAAAAAAAAAAAAAA",
            "DELETE",
        ),
    ] {
        let answer = service.order(method, path).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, allowed),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn what_operators_do_and_what_is_refused_is_taken_down_without_secrets() {
    let (_alpha, service) = service().await;
    let app = &service.app;
    let canary = fresh_id() + "-canary";
    let order = async |name: &str, action: &str| {
        let path = format!("/admin/providers/{name}");
        service
            .order_with("POST", &path, Some(&json!({ "action": action })))
            .await
            .status
    };
    assert_eq!(order("alpha", "disable").await, 200);
    assert_eq!(order("alpha", &canary).await, 400);
    assert_eq!(order(&canary, "enable").await, 404);
    assert_eq!(
        service
            .order("POST", &format!("/admin/{canary}"))
            .await
            .status,
        404
    );
    let wrong = app
        .request("POST", "/admin/reload")
        .header("authorization", &format!("Bearer {canary}"));
    assert_eq!(wrong.send().await.status, 401);
    assert_eq!(service.order("POST", "/admin/reload").await.status, 200);
    let mut taken_down = service.audit().await;
    let mut expected = [
        "provider alpha: disable done loopback",
        "provider alpha invalid loopback",
        "provider - invalid loopback",
        "unknown - invalid loopback",
        "reload - refused loopback",
        "reload - done loopback",
    ];
    // Two of the same millisecond come in no certain order.
    taken_down.sort();
    expected.sort_unstable();
    assert_eq!(taken_down, expected);
    let list = service.order("GET", "/admin/audit").await;
    assert!(
        !list.body.contains("canary") && list.header("cache-control") == "no-store",
        "{}",
        list.body
    );
    // Looking takes nothing down, but for who may not look.
    assert_eq!(app.request("GET", "/admin/audit").send().await.status, 401);
    assert_eq!(service.audit().await.len(), expected.len() + 1);
}
