//! What is wrong with a configuration file, and where.

use std::{fmt, path::PathBuf};

use gatekeeper_filters::kernel::near::nearest;

use super::{mask::mask, source_files::SourceFiles};

/// A place in the file, or with line 0 none; line and column count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// The first character of the file; also stands for the file as a whole.
pub const START: Position = Position { line: 1, column: 1 };

/// One problem to fix. The message is for the operator and never contains any part of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub line: usize,
    pub column: usize,
    /// `plans.free.messages`, `providers.groq.keys[0].secret`; empty for the file as a whole.
    pub path: String,
    pub message: String,
}

/// Worth knowing, but the configuration works.
pub type Warning = Diagnostic;

/// What reading a file has found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    pub problems: Vec<Diagnostic>,
    pub warnings: Vec<Warning>,
    /// Files that were read, or should have been.
    pub files: SourceFiles,
}

impl Diagnostic {
    pub fn new(at: Position, path: impl Into<String>, message: impl Into<String>) -> Self {
        let (line, column) = (at.line, at.column);
        Self { line, column, path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl Diagnostics {
    pub fn problem(&mut self, at: Position, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Diagnostic::new(at, path, message));
    }

    pub fn warn(&mut self, at: Position, path: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Diagnostic::new(at, path, message));
    }

    /// File order, each problem once.
    pub(super) fn tidy(&mut self) {
        for list in [&mut self.problems, &mut self.warnings] {
            list.sort_by(|a, b| (a.line, a.column, &a.path).cmp(&(b.line, b.column, &b.path)));
            list.dedup();
        }
    }
}

/// Everything that keeps a file from being used, in file order. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    pub file: PathBuf,
    pub list: Vec<Diagnostic>,
    /// Found on the way; shown by `check` as well.
    pub warnings: Vec<Warning>,
    /// The files that were read: a change in any of them may resolve the problems.
    pub files: SourceFiles,
}

impl Problems {
    /// For the log and for `/status`: see [`super::mask`].
    #[must_use]
    pub fn masked(mut self) -> Self {
        for problem in self.list.iter_mut().chain(&mut self.warnings) {
            problem.path = mask(&problem.path);
            problem.message = mask(&problem.message);
        }
        self
    }

    /// One problem of the whole file, which has no place.
    pub(super) fn one(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::at(file, Position { line: 0, column: 0 }, message)
    }

    pub(super) fn at(
        file: impl Into<PathBuf>,
        place: Position,
        message: impl Into<String>,
    ) -> Self {
        let list = vec![Diagnostic::new(place, "", message)];
        Self { file: file.into(), list, warnings: Vec::new(), files: SourceFiles::default() }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            writeln!(f, "{}", in_file(&self.file.display(), problem))?;
        }
        match self.list.len() {
            1 => f.write_str("1 problem"),
            count => write!(f, "{count} problems"),
        }
    }
}

/// `FILE:LINE:COLUMN: message`, or `FILE: message` for a problem of the whole file.
pub fn in_file(file: &impl fmt::Display, problem: &impl fmt::Display) -> String {
    let problem = problem.to_string();
    let space = if problem.starts_with(|first: char| first.is_ascii_digit()) { "" } else { " " };
    format!("{file}:{space}{problem}")
}

/// `` ; did you mean `x`?`` when a known name is near enough, else nothing.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(name, known) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => String::new(),
    }
}
