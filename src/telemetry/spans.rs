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

use crate::domain::{
    AnswerSource, AttemptOutcome, AttemptSummary, FinishReason, TurnId, TurnRecord,
};

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
        let total = Duration::from_millis(record.total_ms);
        let began = ended.checked_sub(total).unwrap_or(ended);
        let source = record.source.map(AnswerSource::as_str);
        let finish = record.finish.map(FinishReason::as_str);
        let mut attributes = vec![
            KeyValue::new("failsoft.turn", record.turn.to_string()),
            KeyValue::new("failsoft.source", source.unwrap_or_default()),
            KeyValue::new("failsoft.finish", finish.unwrap_or_default()),
            KeyValue::new("failsoft.degraded", record.degraded),
            KeyValue::new("failsoft.attempts", i64::from(record.attempts)),
            KeyValue::new("failsoft.aside", aside),
        ];
        if let Some(provider) = &record.provider {
            attributes.push(KeyValue::new("failsoft.provider", provider.to_string()));
        }
        if let Some(ms) = record.first_token_ms {
            let ms = i64::try_from(ms).unwrap_or(i64::MAX);
            attributes.push(KeyValue::new("failsoft.first_text_ms", ms));
        }
        let turn = self.tracer.span_builder("turn").with_kind(SpanKind::Server);
        let turn = turn.with_start_time(began).with_attributes(attributes);
        let mut turn = turn.start(&self.tracer);
        let parent = Context::new().with_remote_span_context(turn.span_context().clone());
        for attempt in &record.tried {
            let mut timings = timings.iter();
            if let Some(timing) = timings.find(|timing| timing.attempt == attempt.attempt) {
                self.record_attempt(record.turn, attempt, timing, began, &parent);
            }
        }
        turn.end_with_timestamp(ended);
    }

    fn record_attempt(
        &self,
        turn: TurnId,
        attempt: &AttemptSummary,
        timing: &AttemptTiming,
        turn_began: SystemTime,
        parent: &Context,
    ) {
        let mut attributes = vec![
            KeyValue::new("failsoft.turn", turn.to_string()),
            KeyValue::new("failsoft.attempt", i64::from(attempt.attempt)),
            KeyValue::new("failsoft.provider", attempt.provider.to_string()),
            KeyValue::new("failsoft.outcome", attempt.outcome.as_str()),
            KeyValue::new("gen_ai.request.model", attempt.model.to_string()),
        ];
        if let Some(after) = timing.first_token {
            let ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
            attributes.push(KeyValue::new("failsoft.first_token_ms", ms));
        }
        let start = turn_began + timing.started_after;
        let span = self
            .tracer
            .span_builder("attempt")
            .with_kind(SpanKind::Client);
        let span = span.with_start_time(start).with_attributes(attributes);
        let mut span = span.start_with_context(&self.tracer, parent);
        if attempt.outcome != AttemptOutcome::OK && attempt.outcome != AttemptOutcome::STOPPED {
            span.set_status(Status::error(attempt.outcome.as_str()));
        }
        span.end_with_timestamp(start + timing.elapsed);
    }

    /// Exports the queued spans and stops. Blocks for at most `limit`.
    pub fn shutdown(&self, limit: Duration) {
        // Spans that are not exported in time are dropped.
        drop(self.provider.shutdown_with_timeout(limit));
    }
}
