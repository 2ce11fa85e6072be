//! The tables: what was measured, each line beside the straight one and the relay.

use std::fmt::Write as _;

use crate::goals::Goal;
use crate::load::Way;
use crate::spread::Spread;

/// How a way's value is held against another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// So many times as much.
    Times,
    /// So much more.
    More,
}

/// One measured thing over all ways.
pub struct Row {
    pub name: String,
    pub against: Against,
    pub straight: Spread,
    pub relay: Spread,
    pub v1: Spread,
    pub ws: Spread,
}

impl Row {
    pub fn new(name: impl Into<String>, against: Against) -> Self {
        let [straight, relay, v1, ws] = Default::default();
        Self {
            name: name.into(),
            against,
            straight,
            relay,
            v1,
            ws,
        }
    }

    pub fn push(&mut self, way: Way, value: f64) {
        match way {
            // Nothing stands on it that could take processor time.
            Way::Straight if self.name.starts_with("CPU") => {}
            Way::Gathered => {}
            Way::Straight => self.straight.push(value),
            Way::Relay => self.relay.push(value),
            Way::V1 => self.v1.push(value),
            Way::Ws => self.ws.push(value),
        }
    }

    /// What a way comes to beside the straight line.
    pub fn beside_straight(&self, way: &Spread) -> Spread {
        match self.against {
            Against::Times => way.times(&self.straight),
            Against::More => way.minus(&self.straight),
        }
    }
}

/// Something that the service alone has.
pub struct Single {
    pub name: String,
    pub value: Spread,
}

/// All that was measured.
#[derive(Default)]
pub struct Report {
    pub rows: Vec<Row>,
    pub singles: Vec<Single>,
    pub goals: Vec<Goal>,
}

impl Report {
    pub fn single(&mut self, name: &str, value: Spread) {
        self.singles.push(Single {
            name: name.to_owned(),
            value,
        });
    }

    /// As Markdown.
    pub fn tables(&self) -> String {
        let mut out = String::new();
        if !self.goals.is_empty() {
            out.push_str("| goal | wanted | measured | reached |\n|---|---|---|---|\n");
            for goal in &self.goals {
                let (wanted, reached) =
                    (goal.wanted(), if goal.reached() { "yes" } else { "**no**" });
                let _ = writeln!(
                    out,
                    "| {} | {wanted} | {} | {reached} |",
                    goal.name, goal.measured
                );
            }
            out.push('\n');
        }
        if !self.rows.is_empty() {
            out.push_str("| | straight | relay | `/v1` | `/ws` | relay to straight | `/v1` to straight | `/ws` to straight | `/v1` to relay | `/ws` to relay |\n");
            out.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
            for row in &self.rows {
                let Row {
                    name,
                    straight,
                    relay,
                    v1,
                    ws,
                    ..
                } = row;
                let beside = [relay, v1, ws].map(|way| self.cell(row, &row.beside_straight(way)));
                let to_relay = [v1, ws].map(|way| times(&way.times(relay)));
                let _ = writeln!(
                    out,
                    "| {name} | {straight} | {relay} | {v1} | {ws} | {} | {} |",
                    beside.join(" | "),
                    to_relay.join(" | ")
                );
            }
            out.push('\n');
        }
        if !self.singles.is_empty() {
            out.push_str("| | |\n|---|---|\n");
            for Single { name, value } in &self.singles {
                let _ = writeln!(out, "| {name} | {value} |");
            }
            out.push('\n');
        }
        out
    }

    fn cell(&self, row: &Row, spread: &Spread) -> String {
        match row.against {
            Against::Times => times(spread),
            Against::More if spread.is_empty() => String::new(),
            Against::More => format!("{:+.2}", spread.median()),
        }
    }
}

fn times(spread: &Spread) -> String {
    let median = spread.median();
    if spread.is_empty() || !median.is_finite() {
        String::new()
    } else {
        format!("× {median:.2}")
    }
}

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->";

/// Puts the text between a document's marks.
pub fn placed(document: &str, text: &str) -> anyhow::Result<String> {
    let parts = document
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.ok_or_else(|| anyhow::anyhow!("the document has no marks: {BEGIN}{END}"))?;
    Ok(format!("{before}{BEGIN}{text}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let document = format!("a\n{BEGIN}old\n{END}\nb\n");
        assert_eq!(
            placed(&document, "new\n").unwrap(),
            format!("a\n{BEGIN}new\n{END}\nb\n")
        );
        assert!(placed("a", "new").is_err());
    }
}
