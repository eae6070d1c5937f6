//! Comma-separated values (RFC 4180), as spreadsheets and shops write them.

use anyhow::{Context, ensure};

/// A row: its line, and its cells by the name of their column.
pub type Row = (u64, Vec<(String, String)>);

/// Rows below a header.
///
/// # Errors
/// A quote that is not closed, or no header.
pub fn read(text: &str) -> anyhow::Result<Vec<Row>> {
    let mut lines = records(text.trim_start_matches('\u{feff}'))?.into_iter();
    let (_, names) = lines.next().context("the file is empty")?;
    let names: Vec<String> =
        names.iter().map(|name| name.trim().to_ascii_lowercase().replace(' ', "_")).collect();
    let filled = lines.filter(|(_, cells)| cells.iter().any(|cell| !cell.trim().is_empty()));
    filled
        .map(|(line, cells)| {
            ensure!(
                cells.len() <= names.len(),
                "line {line}: {} cells, and the header has {}",
                cells.len(),
                names.len()
            );
            Ok((line, names.iter().cloned().zip(cells).collect()))
        })
        .collect()
}

fn records(text: &str) -> anyhow::Result<Vec<(u64, Vec<String>)>> {
    let (mut records, mut cells, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut began, mut quoted) = (1, 1, false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if cell.is_empty() => quoted = true,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                cells.push(std::mem::take(&mut cell));
                records.push((began, std::mem::take(&mut cells)));
                line += 1;
                began = line;
            }
            other => {
                line += u64::from(other == '\n');
                cell.push(other);
            }
        }
    }
    ensure!(!quoted, "line {began}: a quote is not closed");
    if !cell.is_empty() || !cells.is_empty() {
        cells.push(cell);
        records.push((began, cells));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_commas_and_line_ends_are_read() {
        let text = "\u{feff}Key,Plan\r\nA-1,pro\r\n\"B,\"\"2\"\"\",\"two\nlines\"\n\n,\nC,x";
        let rows = read(text).unwrap();
        let cells: Vec<(u64, &str, &str)> =
            rows.iter().map(|(line, cells)| (*line, &*cells[0].1, &*cells[1].1)).collect();
        assert_eq!(cells, [(2, "A-1", "pro"), (3, "B,\"2\"", "two\nlines"), (7, "C", "x")]);
        assert_eq!(rows[0].1[0].0, "key");
        for wrong in ["", "a,b\n\"x", "a\nb,c"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
