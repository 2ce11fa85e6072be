//! Spans of turns and attempts, exported over OTLP.
//!
//! The spans of a turn are created from its record when it has ended, so a running turn has no
//! overhead. They contain ids, names, outcomes and times, but no text. A bounded queue is exported
//! in batches on a separate thread. Spans that do not fit or that the collector rejects are
//! dropped.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider,
};

use crate::domain::{AttemptOutcome, TurnRecord};

const MAX_QUEUED_SPANS: usize = 4096;

const BATCH_DELAY: Duration = Duration::from_secs(2);

const MAX_BATCH_SPANS: usize = 512;

/// The time limit of an export, retries included.
pub const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

const TRACES_PATH: &str = "/v1/traces";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptTiming {
    pub attempt: u32,
    pub started_after: Duration,
    pub elapsed: Duration,
    /// From the start of the attempt to its first token. `None` if none arrived.
    pub first_token: Option<Duration>,
}

pub struct TurnTracer {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl TurnTracer {
    /// Exports to the collector at `endpoint` through `client`.
    ///
    /// # Errors
    /// `endpoint` is not a valid URL.
    pub fn new(
        endpoint: &str,
        instance: &str,
        client: impl HttpClient + 'static,
    ) -> Result<Self, ExporterBuildError> {
        let endpoint = if endpoint.ends_with(TRACES_PATH) {
            endpoint.to_owned()
        } else {
            format!("{endpoint}{TRACES_PATH}")
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_QUEUED_SPANS)
            .with_max_export_batch_size(MAX_BATCH_SPANS)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config)
            .build();
        let resource = Resource::builder()
            .with_service_name("failsoft")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("failsoft");
        Ok(Self { provider, tracer })
    }

    /// Exports a turn that has just ended. `aside` marks background turns.
    pub fn record_turn(&self, record: &TurnRecord, timings: &[AttemptTiming], aside: bool) {
        let ended = SystemTime::now();
        let began = ended
            .checked_sub(Duration::from_millis(record.total_ms))
            .unwrap_or(ended);
        let or_empty = |name: Option<&'static str>| name.unwrap_or_default();
        let mut attributes = vec![
            KeyValue::new("failsoft.turn", record.turn.to_string()),
            KeyValue::new(
                "failsoft.source",
                or_empty(record.source.map(crate::domain::AnswerSource::as_str)),
            ),
            KeyValue::new(
                "failsoft.finish",
                or_empty(record.finish.map(crate::domain::FinishReason::as_str)),
            ),
            KeyValue::new("failsoft.degraded", record.degraded),
            KeyValue::new("failsoft.attempts", i64::from(record.attempts)),
            KeyValue::new("failsoft.aside", aside),
        ];
        attributes.extend(
            record
                .provider
                .as_ref()
                .map(|provider| KeyValue::new("failsoft.provider", provider.to_string())),
        );
        attributes.extend(
            record
                .first_token_ms
                .map(|ms| KeyValue::new("failsoft.first_text_ms", saturating_i64(ms))),
        );
        let turn = self
            .tracer
            .span_builder("turn")
            .with_kind(SpanKind::Server)
            .with_start_time(began);
        let mut turn = turn.with_attributes(attributes).start(&self.tracer);
        let parent = Context::new().with_remote_span_context(turn.span_context().clone());
        for attempt in &record.tried {
            let Some(timing) = timings
                .iter()
                .find(|timing| timing.attempt == attempt.attempt)
            else {
                continue;
            };
            let mut attributes = vec![
                KeyValue::new("failsoft.turn", record.turn.to_string()),
                KeyValue::new("failsoft.attempt", i64::from(attempt.attempt)),
                KeyValue::new("failsoft.provider", attempt.provider.to_string()),
                KeyValue::new("failsoft.outcome", attempt.outcome.as_str()),
                KeyValue::new("gen_ai.request.model", attempt.model.to_string()),
            ];
            let first_token_ms = timing
                .first_token
                .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            attributes.extend(
                first_token_ms
                    .map(|ms| KeyValue::new("failsoft.first_token_ms", saturating_i64(ms))),
            );
            let start = began + timing.started_after;
            let span = self
                .tracer
                .span_builder("attempt")
                .with_kind(SpanKind::Client)
                .with_start_time(start);
            let mut span = span
                .with_attributes(attributes)
                .start_with_context(&self.tracer, &parent);
            if attempt.outcome != AttemptOutcome::OK && attempt.outcome != AttemptOutcome::STOPPED {
                span.set_status(Status::error(attempt.outcome.as_str()));
            }
            span.end_with_timestamp(start + timing.elapsed);
        }
        turn.end_with_timestamp(ended);
    }

    /// Exports the queued spans and stops. Blocks for at most `limit`.
    pub fn shutdown(&self, limit: Duration) {
        // Spans that are not exported in time are dropped.
        drop(self.provider.shutdown_with_timeout(limit));
    }
}

fn saturating_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
