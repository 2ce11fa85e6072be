//! A handler that panics costs its own request and no other: it is answered with 500, which says nothing of why.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use actix_http::{Request, Response};
use actix_service::Service;
use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::http::{ConnectionType, StatusCode};
use futures_util::FutureExt as _;

use super::openai;
use super::refusal::refuse;

/// Calls the whole of the routes, around everything else that is done to a request. Without it a panic would end the connection without a word.
///
/// What has begun to be sent is beyond it: where the body of an answer panics, the connection is cut.
pub fn caught<S, B>(
    request: Request,
    routes: &S,
) -> impl Future<Output = Result<Response<EitherBody<B, BoxBody>>, S::Error>> + use<S, B>
where
    S: Service<Request, Response = ServiceResponse<B>>,
    B: MessageBody,
{
    let api = request.path().starts_with("/v1/");
    // Finding the route, its guards and what wraps it are called at once, before there is anything to wait for.
    let called = catch_unwind(AssertUnwindSafe(|| routes.call(request)));
    async move {
        let answered = match called {
            Ok(answering) => AssertUnwindSafe(answering).catch_unwind().await,
            Err(panic) => Err(panic),
        };
        match answered {
            Ok(answered) => {
                Ok(Response::from(answered?).map_body(|_, body| EitherBody::left(body)))
            }
            // The panic itself is in the log by now.
            Err(_) => Ok(fault(api)),
        }
    }
}

fn fault<B>(api: bool) -> Response<EitherBody<B, BoxBody>> {
    let (status, code) = (StatusCode::INTERNAL_SERVER_ERROR, "internal");
    let message = "the service made a mistake with this request; try again, or tell its operator";
    let mut answer = if api {
        openai::refuse(status, code, message)
    } else {
        refuse(status, code, message)
    };
    answer
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // How much of the request was read is not known.
    answer.head_mut().set_connection_type(ConnectionType::Close);
    Response::from(answer).map_body(|_, body| EitherBody::right(body))
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
    use crate::provider::transport::client;

    const SECRET: &str = "canary of the inside";

    async fn panics() -> HttpResponse {
        panic!("{SECRET}")
    }

    /// An answer that is under way until it is let go.
    async fn waits(gate: web::Data<Semaphore>) -> String {
        gate.acquire().await.unwrap().forget();
        "whole".into()
    }

    #[actix_rt::test]
    async fn a_handler_that_panics_costs_its_own_request_and_no_other() {
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
            apply_fn_factory(app, caught)
        });
        // One worker: who waits is served by the thread on which the others panic.
        let server = server.workers(1).bind(("127.0.0.1", 0)).unwrap();
        let base = format!("http://{}", server.addrs()[0]);
        let running = server.run();
        let stop = running.handle();
        let served = actix::spawn(running);
        let client = client(Duration::from_secs(5), |builder| builder.no_proxy()).unwrap();
        let waiting = actix::spawn(client.get(format!("{base}/waits")).send());
        // In what answers, and in what decides who answers.
        for path in ["/panics", "/guarded", "/panics", "/guarded"] {
            let answer = client.get(format!("{base}{path}")).send().await.unwrap();
            assert_eq!(
                (
                    answer.status().as_u16(),
                    answer.headers()["connection"].as_bytes()
                ),
                (500, &b"close"[..])
            );
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
            let text = answer.text().await.unwrap();
            let body: Value = serde_json::from_str(&text).unwrap();
            assert!(
                body["error"]["code"] == "internal" && !text.contains(SECRET),
                "{text}"
            );
        }
        // With a body that nobody read; in the words of that API.
        let answer = client
            .post(format!("{base}/v1/panics"))
            .body("x".repeat(100_000))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 500);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(
            (&body["error"]["type"], &body["error"]["param"]),
            (&"server_error".into(), &Value::Null)
        );
        gate.add_permits(1);
        let answer = waiting.await.unwrap().unwrap();
        assert_eq!(
            (
                answer.status().as_u16(),
                answer.text().await.unwrap().as_str()
            ),
            (200, "whole")
        );
        stop.stop(false).await;
        served.await.unwrap().unwrap();
    }
}
