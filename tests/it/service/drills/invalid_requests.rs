//! Rejected orders.

use serde_json::json;

use super::{Drills, alpha_script, send_order};

#[tokio::test]
async fn invalid_orders_are_rejected_with_an_explanation() {
    let drills = Drills::with_alpha(alpha_script(), |_| {}).await;
    let valid = json!({ "provider": "alpha", "fault": "down" });
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
        let mut body = valid.clone();
        body[key] = value;
        let answer = send_order(&drills.app, "POST", "/admin/drills", Some(&body)).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(
            answer.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains(message),
            "{body}: {}",
            answer.body
        );
    }
    for body in [json!({}), json!({ "provider": "alpha" }), json!([])] {
        assert_eq!(
            send_order(&drills.app, "POST", "/admin/drills", Some(&body))
                .await
                .status,
            400,
            "{body}"
        );
    }
    assert_eq!(
        send_order(&drills.app, "DELETE", "/admin/drills?provider=gamma", None)
            .await
            .status,
        404
    );
    assert_eq!(
        send_order(&drills.app, "PUT", "/admin/drills", Some(&valid))
            .await
            .status,
        405
    );
    assert_eq!(drills.end().await, json!([]), "no drill runs");
    for token in ["", "wrong"] {
        for method in ["GET", "POST", "DELETE"] {
            let request = drills
                .app
                .request(method, "/admin/drills")
                .header("authorization", &format!("Bearer {token}"));
            assert_eq!(request.json(&valid).send().await.status, 401, "{method}");
        }
    }
    // Headers of a call do not start a drill.
    let call = drills
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
    assert_eq!(drills.list().await, json!({ "running": [], "reports": [] }));

    drills.start("slow").await;
    let again = send_order(&drills.app, "POST", "/admin/drills", Some(&valid)).await;
    assert_eq!(again.status, 409);
    assert!(
        again.body.contains("a drill (slow) runs at alpha until 20"),
        "{}",
        again.body
    );
    let disable = json!({ "action": "disable" });
    assert_eq!(
        send_order(&drills.app, "POST", "/admin/providers/beta", Some(&disable))
            .await
            .status,
        200
    );
    let beta = json!({ "provider": "beta", "fault": "down" });
    let answer = send_order(&drills.app, "POST", "/admin/drills", Some(&beta)).await;
    assert_eq!(
        (answer.status, answer.body.contains("switched off")),
        (409, true)
    );
    let ended = send_order(&drills.app, "DELETE", "/admin/drills?provider=alpha", None)
        .await
        .json();
    assert_eq!(ended["ended"][0]["fault"], "slow");
}
