//! Turns a handler's panic into a 500 that reveals nothing of the cause. Other requests are
//! unaffected.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use actix_http::{Request, Response};
use actix_service::Service;
use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use futures_util::FutureExt as _;

/// Calls the application, around all its middleware. Without this a panic would close the
/// connection without a response.
///
/// A panic in a body that is already being sent still cuts the connection.
pub fn catch_panic<S, B>(
    request: Request,
    app: &S,
) -> impl Future<Output = Result<Response<EitherBody<B, BoxBody>>, S::Error>> + use<S, B>
where
    S: Service<Request, Response = ServiceResponse<B>>,
    B: MessageBody,
{
    let path = request.path().to_owned();
    // Routing, guards and middleware run in `call` itself, before the returned future is polled.
    let called = catch_unwind(AssertUnwindSafe(|| app.call(request)));
    async move {
        let result = match called {
            Ok(future) => AssertUnwindSafe(future).catch_unwind().await,
            Err(panic) => Err(panic),
        };
        match result {
            Ok(response) => {
                Ok(Response::from(response?).map_body(|_, body| EitherBody::left(body)))
            }
            // The panic hook has already logged the panic.
            Err(_) => Ok(internal_error(&path)),
        }
    }
}

fn internal_error<B>(path: &str) -> Response<EitherBody<B, BoxBody>> {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    let message = "the service failed on this request; try again, or tell its operator";
    let mut response = super::closing_error(path, status, "internal", message);
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Response::from(response).map_body(|_, body| EitherBody::right(body))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use actix_service::apply_fn_factory;
    use actix_web::{App, HttpResponse, HttpServer, guard, web};
    use serde_json::Value;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::provider::http::build_client;

    const SECRET: &str = "internal detail";

    async fn panics() -> HttpResponse {
        panic!("{SECRET}")
    }

    /// Responds once the gate is opened.
    async fn waits(gate: web::Data<Semaphore>) -> String {
        gate.acquire().await.unwrap().forget();
        "done".into()
    }

    #[actix_rt::test]
    async fn panicking_handler_fails_its_own_request_only() {
        let gate = web::Data::from(Arc::new(Semaphore::new(0)));
        let state = gate.clone();
        let server = HttpServer::new(move || {
            let app = App::new()
                .app_data(state.clone())
                .route("/panics", web::get().to(panics))
                .route("/v1/panics", web::post().to(panics))
                .route(
                    "/guarded",
                    web::get()
                        .guard(guard::fn_guard(|_| panic!("{SECRET}")))
                        .to(panics),
                )
                .route("/waits", web::get().to(waits));
            apply_fn_factory(app, catch_panic)
        });
        // One worker: the waiting request shares its thread with those that panic.
        let server = server.workers(1).bind(("127.0.0.1", 0)).unwrap();
        let base = format!("http://{}", server.addrs()[0]);
        let running = server.run();
        let stop = running.handle();
        let served = actix::spawn(running);
        let client = build_client(Duration::from_secs(5), |builder| builder.no_proxy()).unwrap();
        let waiting = actix::spawn(client.get(format!("{base}/waits")).send());
        // A panic in a handler, and one in a guard.
        for path in ["/panics", "/guarded", "/panics", "/guarded"] {
            let response = client.get(format!("{base}{path}")).send().await.unwrap();
            assert_eq!(
                (
                    response.status().as_u16(),
                    response.headers()["connection"].as_bytes()
                ),
                (500, &b"close"[..])
            );
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            let text = response.text().await.unwrap();
            let body: Value = serde_json::from_str(&text).unwrap();
            assert!(
                body["error"]["code"] == "internal" && !text.contains(SECRET),
                "{text}"
            );
        }
        // With a body that nobody read, and in the shape of that API.
        let response = client
            .post(format!("{base}/v1/panics"))
            .body("x".repeat(100_000))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 500);
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (&body["error"]["type"], &body["error"]["param"]),
            (&"server_error".into(), &Value::Null)
        );
        gate.add_permits(1);
        let response = waiting.await.unwrap().unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                response.text().await.unwrap().as_str()
            ),
            (200, "done")
        );
        stop.stop(false).await;
        served.await.unwrap().unwrap();
    }
}
