//! Problems and warnings of a file, as commands print them.

use std::{
    io::{self, Write},
    path::Path,
};

use crate::config::{self, Diagnostic, Problems, excerpt};

/// Writes warnings as `FILE:LINE:COLUMN: warning: ...`.
///
/// # Errors
/// When `err` is closed.
pub fn write_warnings(file: &Path, warnings: &[Diagnostic], err: &mut dyn Write) -> io::Result<()> {
    for warning in warnings {
        writeln!(err, "{}:{warning} (warning)", file.display())?;
    }
    Ok(())
}

/// Warnings and problems, each with its line of the file and a caret, and their number.
///
/// # Errors
/// When `err` is closed.
pub fn write_problems(problems: &Problems, err: &mut dyn Write) -> io::Result<()> {
    let file = &problems.file;
    write_warnings(file, &problems.warnings, err)?;
    let text = config::read(file).ok();
    let mut told = String::new();
    for problem in &problems.list {
        let _ = excerpt::write(&mut told, &file.display().to_string(), problem, text.as_deref());
    }
    writeln!(err, "{told}{}", many(problems.list.len(), "problem"))
}

/// "1 problem", "2 problems".
pub fn many(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}
