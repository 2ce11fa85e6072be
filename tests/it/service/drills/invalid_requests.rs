//! Orders that are no good.

use serde_json::json;

use super::{Ground, counts, order};

#[tokio::test]
async fn bad_orders_are_told_what_would_be_right() {
    let ground = Ground::of(counts(), |_| {}).await;
    let whole = json!({ "provider": "alpha", "fault": "down" });
    for (key, value, status, message) in [
        (
            "provider",
            json!("gamma"),
            404,
            "no provider has that name; there are: alpha, beta",
        ),
        ("provider", json!(1), 400, "expected a string"),
        ("fault", json!("fire"), 400, "use down, rate_limit"),
        ("for", json!("16m"), 400, "at most 15m"),
        ("for", json!("0s"), 400, "longer than zero"),
        ("for", json!(30), 400, "expected a string"),
        ("share", json!(0), 400, "above 0 and up to 1"),
        ("share", json!(1.5), 400, "above 0 and up to 1"),
        ("share", json!("half"), 400, "invalid type"),
    ] {
        let mut body = whole.clone();
        body[key] = value;
        let told = order(&ground.app, "POST", "/admin/drills", Some(&body)).await;
        assert_eq!(told.status, status, "{body}: {}", told.body);
        assert!(
            told.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains(message),
            "{body}: {}",
            told.body
        );
    }
    for body in [json!({}), json!({ "provider": "alpha" }), json!([])] {
        assert_eq!(
            order(&ground.app, "POST", "/admin/drills", Some(&body))
                .await
                .status,
            400,
            "{body}"
        );
    }
    assert_eq!(
        order(&ground.app, "DELETE", "/admin/drills?provider=gamma", None)
            .await
            .status,
        404
    );
    assert_eq!(
        order(&ground.app, "PUT", "/admin/drills", Some(&whole))
            .await
            .status,
        405
    );
    assert_eq!(ground.end().await, json!([]), "none runs");
    for token in ["", "wrong"] {
        for method in ["GET", "POST", "DELETE"] {
            let request = ground
                .app
                .request(method, "/admin/drills")
                .header("authorization", &format!("Bearer {token}"));
            assert_eq!(request.json(&whole).send().await.status, 401, "{method}");
        }
    }
    // No header of a call arms one.
    let call = ground
        .app
        .request("POST", "/api/chat")
        .header("x-failsoft-drill", "down")
        .header("x-drill", "alpha=down");
    assert_eq!(
        call.json(&json!({ "message": "Who?" }))
            .send()
            .await
            .header("x-provider"),
        "alpha"
    );
    assert_eq!(ground.list().await, json!({ "running": [], "reports": [] }));

    ground.begin("slow").await;
    let again = order(&ground.app, "POST", "/admin/drills", Some(&whole)).await;
    assert_eq!(again.status, 409);
    assert!(
        again.body.contains("a drill (slow) runs at alpha until 20"),
        "{}",
        again.body
    );
    let off = json!({ "action": "disable" });
    assert_eq!(
        order(&ground.app, "POST", "/admin/providers/beta", Some(&off))
            .await
            .status,
        200
    );
    let beta = json!({ "provider": "beta", "fault": "down" });
    let told = order(&ground.app, "POST", "/admin/drills", Some(&beta)).await;
    assert_eq!(
        (told.status, told.body.contains("switched off")),
        (409, true)
    );
    let ended = order(&ground.app, "DELETE", "/admin/drills?provider=alpha", None)
        .await
        .json();
    assert_eq!(ended["ended"][0]["fault"], "slow");
}
