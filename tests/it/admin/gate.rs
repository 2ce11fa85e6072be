//! Access to the admin API, and its audit log.

use serde_json::json;

use super::service::{ConfiguredService, TOKEN, configuration, provider};
use crate::harness::{ScriptedProvider, TestApp, unique_message_id};

/// Every admin request, with a valid body.
const REQUESTS: [(&str, &str, &str); 8] = [
    ("POST", "/admin/providers/alpha", r#"{"action":"reset"}"#),
    ("POST", "/admin/reload", ""),
    ("DELETE", "/admin/cache", ""),
    ("POST", "/admin/cache/warm", ""),
    ("DELETE", "/admin/conversations/AAAAAAAAAAAAAAAAAAAAAA", ""),
    ("GET", "/admin/audit", ""),
    ("GET", "/admin/drills", ""),
    ("DELETE", "/admin/drills", ""),
];

async fn start_service() -> (ScriptedProvider, ConfiguredService) {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let text = configuration(&[provider("alpha", &alpha, "")]);
    let text = text.replace("enabled = false", "enabled = true\nwarm = [\"Who?\"]");
    (alpha, ConfiguredService::start(&text).await)
}

#[tokio::test]
async fn every_admin_request_requires_the_token() {
    let (_alpha, service) = start_service().await;
    let app = &service.app;
    for (method, path, body) in REQUESTS {
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
        let bearer = format!("Bearer {TOKEN}");
        let other_origin = app
            .request(method, path)
            .header("origin", "https://elsewhere.example");
        let other_origin = other_origin
            .header("authorization", &bearer)
            .body(body)
            .send()
            .await;
        assert_eq!(other_origin.status, 403, "{path}");
        // The host name does not matter: the route decides.
        let other_host = app
            .request(method, path)
            .host("other.example")
            .header("authorization", &bearer);
        assert!(other_host.body(body).send().await.status < 300, "{path}");
        let own_origin = app
            .request(method, path)
            .header("origin", &format!("http://127.0.0.1:{}", app.port));
        assert!(
            own_origin
                .header("authorization", &bearer)
                .body(body)
                .send()
                .await
                .status
                < 300,
            "{path}"
        );
    }
    // A client without the token does not learn which admin requests exist.
    let unknown = app.request("POST", "/admin/explode").send().await;
    assert_eq!(unknown.status, 401);
}

#[tokio::test]
async fn without_a_configured_token_every_admin_request_returns_404() {
    let alpha = ScriptedProvider::answering("x").await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    for (method, path, body) in REQUESTS {
        for token in ["", TOKEN] {
            let request = app
                .request(method, path)
                .header("authorization", &format!("Bearer {token}"));
            assert_eq!(request.body(body).send().await.status, 404, "{path}");
        }
    }
}

#[tokio::test]
async fn unknown_admin_requests_return_404_or_405_with_the_known_ones() {
    let (_alpha, service) = start_service().await;
    for (method, path) in [
        ("POST", "/admin/explode"),
        ("GET", "/admin"),
        ("GET", "/admin/"),
    ] {
        let answer = service.admin_request(method, path).await;
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
        let answer = service.admin_request(method, path).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, allowed),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn audit_log_records_done_and_refused_requests_without_secrets() {
    let (_alpha, service) = start_service().await;
    let app = &service.app;
    let canary = unique_message_id() + "-canary";
    let change_provider = async |name: &str, action: &str| {
        let path = format!("/admin/providers/{name}");
        service
            .admin_request_with("POST", &path, Some(&json!({ "action": action })))
            .await
            .status
    };
    assert_eq!(change_provider("alpha", "disable").await, 200);
    assert_eq!(change_provider("alpha", &canary).await, 400);
    assert_eq!(change_provider(&canary, "enable").await, 404);
    assert_eq!(
        service
            .admin_request("POST", &format!("/admin/{canary}"))
            .await
            .status,
        404
    );
    let wrong = app
        .request("POST", "/admin/reload")
        .header("authorization", &format!("Bearer {canary}"));
    assert_eq!(wrong.send().await.status, 401);
    assert_eq!(
        service.admin_request("POST", "/admin/reload").await.status,
        200
    );
    let mut entries = service.audit_entries().await;
    let mut expected = [
        "provider alpha: disable done loopback",
        "provider alpha invalid loopback",
        "provider - invalid loopback",
        "unknown - invalid loopback",
        "reload - refused loopback",
        "reload - done loopback",
    ];
    // Entries of the same millisecond come in any order.
    entries.sort();
    expected.sort_unstable();
    assert_eq!(entries, expected);
    let list = service.admin_request("GET", "/admin/audit").await;
    assert!(
        !list.body.contains("canary") && list.header("cache-control") == "no-store",
        "{}",
        list.body
    );
    // Reading the audit log adds no entry, except when it is refused.
    assert_eq!(app.request("GET", "/admin/audit").send().await.status, 401);
    assert_eq!(service.audit_entries().await.len(), expected.len() + 1);
}
