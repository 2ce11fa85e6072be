//! A strict parser of the Prometheus text format (0.0.4).

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

pub type MetricLabels = BTreeMap<String, String>;

/// The content of one scrape.
#[derive(Debug)]
pub struct MetricsScrape {
    /// The type of each metric, by name.
    pub types: BTreeMap<String, String>,
    /// The values, by sample name and labels.
    pub samples: BTreeMap<(String, MetricLabels), f64>,
}

impl MetricsScrape {
    /// Parses a scrape. Panics at everything the format forbids: samples before their HELP or TYPE,
    /// a metric in two places, a repeated sample, a histogram which does not add up.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no newline");
        let mut scrape = Self {
            types: BTreeMap::new(),
            samples: BTreeMap::new(),
        };
        let mut current = String::new();
        let mut with_help = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest
                    .split_once(' ')
                    .unwrap_or_else(|| panic!("no help: {line}"));
                assert!(
                    !help.is_empty() && with_help.insert(name.to_owned()),
                    "an empty or second HELP: {line}"
                );
                current = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, current, "not directly after its HELP: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(
                    scrape
                        .types
                        .insert(name.to_owned(), kind.to_owned())
                        .is_none(),
                    "a second TYPE: {line}"
                );
            } else {
                scrape.add_sample(line, &current);
            }
        }
        assert!(
            with_help.iter().eq(scrape.types.keys()),
            "a HELP without a TYPE"
        );
        scrape.check_histograms();
        scrape
    }

    fn add_sample(&mut self, line: &str, current: &str) {
        let form = Regex::new(r#"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$"#).unwrap();
        let parts = form
            .captures(line)
            .unwrap_or_else(|| panic!("not a sample: {line:?}"));
        let name = &parts[1];
        let family = match self.types.get(current).map(String::as_str) {
            Some("histogram") => {
                let base = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| name.strip_suffix(suffix));
                base.unwrap_or_else(|| panic!("not a part of a histogram: {line}"))
            }
            Some(_) => name,
            None => panic!("a sample before its TYPE: {line}"),
        };
        assert_eq!(family, current, "not with its metric: {line}");
        let value: f64 = parts[3]
            .parse()
            .unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let labels = parse_labels(parts.get(2).map_or("", |found| found.as_str()));
        assert!(
            self.samples
                .insert((name.to_owned(), labels), value)
                .is_none(),
            "a repeated sample: {line}"
        );
    }

    fn check_histograms(&self) {
        for (name, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut series: BTreeMap<MetricLabels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((sample, labels), value) in &self.samples {
                if *sample == format!("{name}_bucket") {
                    let mut labels = labels.clone();
                    let bound = labels.remove("le").expect("a bucket without its bound");
                    series
                        .entry(labels)
                        .or_default()
                        .push((bound.parse().unwrap(), *value));
                }
            }
            for (labels, mut buckets) in series {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(
                    buckets.is_sorted_by(|a, b| a.1 <= b.1),
                    "{name} {labels:?} {buckets:?}"
                );
                let (bound, total) = *buckets.last().unwrap();
                assert!(bound.is_infinite(), "{name} {labels:?} has no last bucket");
                let part = |suffix: &str| {
                    self.samples
                        .get(&(format!("{name}{suffix}"), labels.clone()))
                        .copied()
                };
                assert_eq!(part("_count"), Some(total), "{name} {labels:?}");
                assert!(part("_sum").is_some(), "{name} {labels:?}");
            }
        }
    }

    /// Returns a sample's value, or `None` if there is no such sample.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// Returns the sum of all samples with this name.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples
            .iter()
            .filter(|((sample, _), _)| sample == name)
            .map(|(_, value)| value)
            .sum()
    }

    /// Returns the samples with this name which are not 0, each with its label values ordered by
    /// label name.
    pub fn nonzero_samples(&self, name: &str) -> Vec<(Vec<&str>, f64)> {
        let nonzero = self
            .samples
            .iter()
            .filter(|((sample, _), value)| sample == name && **value != 0.0);
        nonzero
            .map(|((_, labels), value)| (labels.values().map(String::as_str).collect(), *value))
            .collect()
    }
}

/// Parses the labels between the braces.
fn parse_labels(mut text: &str) -> MetricLabels {
    let label =
        Regex::new(r#"^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)"#).unwrap();
    let mut labels = MetricLabels::new();
    while !text.is_empty() {
        let found = label
            .captures(text)
            .unwrap_or_else(|| panic!("not a label: {text:?}"));
        assert!(
            labels
                .insert(found[1].to_owned(), found[2].to_owned())
                .is_none(),
            "a repeated label"
        );
        text = &text[found[0].len()..];
    }
    labels
}
