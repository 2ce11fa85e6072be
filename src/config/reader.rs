//! The problems, warnings and key positions collected while a document is read.

use super::diagnostics::Problem;

pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

pub(super) struct Diagnostics<'e> {
    pub(super) file: String,
    pub(super) env: Environment<'e>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) key_positions: Vec<KeyPosition>,
    line_starts: Vec<usize>,
}

pub(super) struct KeyPosition {
    /// Dotted, with indices of arrays.
    pub(super) key: String,
    pub(super) line: usize,
}

impl<'e> Diagnostics<'e> {
    pub(super) fn new(file: &str, text: &str, env: Environment<'e>) -> Self {
        let ends = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            file: file.to_owned(),
            env,
            problems: Vec::new(),
            warnings: Vec::new(),
            key_positions: Vec::new(),
            line_starts: std::iter::once(0).chain(ends).collect(),
        }
    }

    /// The line of a byte offset, counted from 1.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    pub(super) fn line_start(&self, offset: usize) -> usize {
        self.line_starts
            .get(self.line_at(offset) - 1)
            .copied()
            .unwrap_or_default()
    }

    /// The line of a dotted key. `None` if the file does not contain it.
    pub(super) fn line_of_key(&self, key: &str) -> Option<usize> {
        self.key_positions
            .iter()
            .find(|written| written.key == key)
            .map(|written| written.line)
    }

    pub(super) fn add_problem(&mut self, line: Option<usize>, key: &str, what: impl Into<String>) {
        let problem = self.new_problem(line, key, what.into());
        self.problems.push(problem);
    }

    pub(super) fn add_warning(&mut self, line: Option<usize>, key: &str, what: impl Into<String>) {
        let warning = self.new_problem(line, key, what.into());
        self.warnings.push(warning);
    }

    fn new_problem(&self, line: Option<usize>, key: &str, what: String) -> Problem {
        Problem {
            file: self.file.clone(),
            line,
            key: key.to_owned(),
            message: what,
        }
    }
}
