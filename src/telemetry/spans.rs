//! Spans of turns and attempts, for a collector that speaks OTLP.
//!
//! A turn's spans are made when it has ended, from what is then known of it: while it runs, nothing is paid for them. They hold ids, names, outcomes
//! and times; never a text. What waits for the collector is bounded, and goes out on a thread of its own in batches; what there is no room for, and
//! what a collector does not take, is lost.

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

use crate::chat::{Outcome, TurnRecord};

/// The most spans that wait.
const MOST: usize = 4096;

/// How long spans wait for others to go with.
const GATHER: Duration = Duration::from_secs(2);

/// The most spans of one batch.
const BATCH: usize = 512;

/// How long the collector may take to answer, tries again included.
pub const EXPORT_LIMIT: Duration = Duration::from_secs(10);

/// Where an OTLP collector takes traces over HTTP.
const PATH: &str = "/v1/traces";

/// How an attempt lay in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Its number.
    pub attempt: u32,
    /// From the turn's beginning to its own.
    pub after: Duration,
    /// How long it took.
    pub took: Duration,
    /// From its beginning to its first token; none where none came.
    pub first_token: Option<Duration>,
}

/// Makes spans and sends them.
pub struct Spans {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Spans {
    /// To the collector at this address, over this client.
    ///
    /// # Errors
    /// The address is none.
    pub fn to(
        endpoint: &str,
        instance: &str,
        client: impl HttpClient + 'static,
    ) -> Result<Self, ExporterBuildError> {
        let endpoint = if endpoint.ends_with(PATH) {
            endpoint.to_owned()
        } else {
            format!("{endpoint}{PATH}")
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_LIMIT)
            .build()?;
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(MOST)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(GATHER)
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

    /// A turn has ended just now. `aside`: it was none of a visitor's.
    pub fn turn(&self, record: &TurnRecord, timings: &[Timing], aside: bool) {
        let ended = SystemTime::now();
        let began = ended
            .checked_sub(Duration::from_millis(record.total_ms))
            .unwrap_or(ended);
        let name = |one: Option<&'static str>| one.unwrap_or_default();
        let mut attributes = vec![
            KeyValue::new("failsoft.turn", record.turn.to_string()),
            KeyValue::new(
                "failsoft.source",
                name(record.source.map(crate::chat::Source::name)),
            ),
            KeyValue::new(
                "failsoft.finish",
                name(record.finish.map(crate::chat::Finish::name)),
            ),
            KeyValue::new("failsoft.degraded", record.degraded),
            KeyValue::new("failsoft.attempts", i64::from(record.attempts)),
            KeyValue::new("failsoft.aside", aside),
        ];
        attributes.extend(
            record
                .provider
                .as_ref()
                .map(|one| KeyValue::new("failsoft.provider", one.to_string())),
        );
        attributes.extend(
            record
                .first_token_ms
                .map(|ms| KeyValue::new("failsoft.first_text_ms", whole(ms))),
        );
        let turn = self
            .tracer
            .span_builder("turn")
            .with_kind(SpanKind::Server)
            .with_start_time(began);
        let mut turn = turn.with_attributes(attributes).start(&self.tracer);
        let parent = Context::new().with_remote_span_context(turn.span_context().clone());
        for one in &record.tried {
            let Some(timing) = timings.iter().find(|timing| timing.attempt == one.attempt) else {
                continue;
            };
            let mut attributes = vec![
                KeyValue::new("failsoft.turn", record.turn.to_string()),
                KeyValue::new("failsoft.attempt", i64::from(one.attempt)),
                KeyValue::new("failsoft.provider", one.provider.to_string()),
                KeyValue::new("failsoft.outcome", one.outcome.as_str()),
                KeyValue::new("gen_ai.request.model", one.model.to_string()),
            ];
            let first = timing
                .first_token
                .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            attributes.extend(first.map(|ms| KeyValue::new("failsoft.first_token_ms", whole(ms))));
            let start = began + timing.after;
            let span = self
                .tracer
                .span_builder("attempt")
                .with_kind(SpanKind::Client)
                .with_start_time(start);
            let mut span = span
                .with_attributes(attributes)
                .start_with_context(&self.tracer, &parent);
            if one.outcome != Outcome::OK && one.outcome != Outcome::STOPPED {
                span.set_status(Status::error(one.outcome.as_str()));
            }
            span.end_with_timestamp(start + timing.took);
        }
        turn.end_with_timestamp(ended);
    }

    /// Sends what waits, and no more after. Blocks, at most as long as is given.
    pub fn shut_down(&self, limit: Duration) {
        // What did not go out in time is lost, as is said above.
        drop(self.provider.shutdown_with_timeout(limit));
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
