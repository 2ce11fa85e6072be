//! The tables of results, which compare each route with the direct one and the proxy.

use std::fmt::Write as _;

use crate::distribution::Distribution;
use crate::load::Route;
use crate::targets::Target;

/// How a route's value is compared with another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The quotient.
    Ratio,
    /// The difference.
    Difference,
}

/// One figure, measured over all routes.
pub struct Row {
    pub name: String,
    pub comparison: Comparison,
    pub direct: Distribution,
    pub proxy: Distribution,
    pub v1: Distribution,
    pub ws: Distribution,
}

impl Row {
    pub fn new(name: impl Into<String>, comparison: Comparison) -> Self {
        let [direct, proxy, v1, ws] = Default::default();
        Self {
            name: name.into(),
            comparison,
            direct,
            proxy,
            v1,
            ws,
        }
    }

    pub fn push(&mut self, route: Route, value: f64) {
        match route {
            // No measured process is on the direct route.
            Route::Direct if self.name.starts_with("CPU") => {}
            Route::ProxyStreamed => {}
            Route::Direct => self.direct.push(value),
            Route::Proxy => self.proxy.push(value),
            Route::V1 => self.v1.push(value),
            Route::Ws => self.ws.push(value),
        }
    }

    /// Compares a route with the direct one.
    pub fn compare_with_direct(&self, route: &Distribution) -> Distribution {
        match self.comparison {
            Comparison::Ratio => route.ratio_to(&self.direct),
            Comparison::Difference => route.difference_to(&self.direct),
        }
    }
}

/// A figure which has one value only.
pub struct SingleFigure {
    pub name: String,
    pub value: Distribution,
}

/// All results.
#[derive(Default)]
pub struct Report {
    pub rows: Vec<Row>,
    pub singles: Vec<SingleFigure>,
    pub targets: Vec<Target>,
}

impl Report {
    pub fn add_single(&mut self, name: &str, value: Distribution) {
        self.singles.push(SingleFigure {
            name: name.to_owned(),
            value,
        });
    }

    /// Formats the tables as Markdown.
    pub fn tables(&self) -> String {
        let mut out = String::new();
        if !self.targets.is_empty() {
            out.push_str("| target | bound | measured | met |\n|---|---|---|---|\n");
            for target in &self.targets {
                let bound = target.describe_bound();
                let is_met = if target.is_met() { "yes" } else { "**no**" };
                let _ = writeln!(
                    out,
                    "| {} | {bound} | {} | {is_met} |",
                    target.name, target.measured
                );
            }
            out.push('\n');
        }
        if !self.rows.is_empty() {
            out.push_str("| | direct | proxy | `/v1` | `/ws` | proxy vs direct | `/v1` vs direct | `/ws` vs direct | `/v1` vs proxy | `/ws` vs proxy |\n");
            out.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
            for row in &self.rows {
                let Row {
                    name,
                    direct,
                    proxy,
                    v1,
                    ws,
                    ..
                } = row;
                let vs_direct =
                    [proxy, v1, ws].map(|route| self.cell(row, &row.compare_with_direct(route)));
                let vs_proxy = [v1, ws].map(|route| format_ratio(&route.ratio_to(proxy)));
                let _ = writeln!(
                    out,
                    "| {name} | {direct} | {proxy} | {v1} | {ws} | {} | {} |",
                    vs_direct.join(" | "),
                    vs_proxy.join(" | ")
                );
            }
            out.push('\n');
        }
        if !self.singles.is_empty() {
            out.push_str("| | |\n|---|---|\n");
            for SingleFigure { name, value } in &self.singles {
                let _ = writeln!(out, "| {name} | {value} |");
            }
            out.push('\n');
        }
        out
    }

    fn cell(&self, row: &Row, distribution: &Distribution) -> String {
        match row.comparison {
            Comparison::Ratio => format_ratio(distribution),
            Comparison::Difference if distribution.is_empty() => String::new(),
            Comparison::Difference => format!("{:+.2}", distribution.median()),
        }
    }
}

fn format_ratio(distribution: &Distribution) -> String {
    let median = distribution.median();
    if distribution.is_empty() || !median.is_finite() {
        String::new()
    } else {
        format!("× {median:.2}")
    }
}

const BEGIN_MARK: &str = "<!-- measured: begin -->\n";
const END_MARK: &str = "<!-- measured: end -->";

/// Replaces the text between the marks of a document.
pub fn replace_tables(document: &str, text: &str) -> anyhow::Result<String> {
    let parts = document
        .split_once(BEGIN_MARK)
        .and_then(|(before, rest)| Some((before, rest.split_once(END_MARK)?.1)));
    let (before, after) = parts
        .ok_or_else(|| anyhow::anyhow!("the document has no marks: {BEGIN_MARK}{END_MARK}"))?;
    Ok(format!("{before}{BEGIN_MARK}{text}{END_MARK}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_between_the_marks_is_replaced() {
        let document = format!("a\n{BEGIN_MARK}old\n{END_MARK}\nb\n");
        assert_eq!(
            replace_tables(&document, "new\n").unwrap(),
            format!("a\n{BEGIN_MARK}new\n{END_MARK}\nb\n")
        );
        assert!(replace_tables("a", "new").is_err());
    }
}
