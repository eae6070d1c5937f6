//! Fields that stand further in or out than those beside them.

use std::collections::BTreeMap;

use super::lines::{Found, Line, lines};

/// The field that stands oddly among those around a line.
pub(super) fn odd(text: &str, last: usize) -> Found {
    let all = lines(text, usize::MAX);
    let here = all.iter().rposition(|line| line.number <= last)?;
    // What the parser stumbles on stands at the line, or just before it.
    (here.saturating_sub(1)..=here).rev().find_map(|place| among_siblings(&all, place))
}

fn among_siblings(all: &[Line<'_>], place: usize) -> Found {
    let mut at = place;
    // Each section around the line, from the inside out.
    loop {
        let indent = all.get(at)?.indent;
        let parent = all[..at].iter().rposition(|line| line.indent < indent && opens(line));
        let outer = parent.map_or(0, |parent| parent + 1);
        let above = parent.map(|parent| all[parent].indent);
        if let Some(found) = section(all, outer, above, parent.map(|parent| &all[parent])) {
            return Some(found);
        }
        at = parent?;
    }
}

/// Whether what follows belongs to it.
fn opens(line: &Line<'_>) -> bool {
    line.content.ends_with(':') || line.content.starts_with("- ")
}

fn section(
    all: &[Line<'_>],
    from: usize,
    above: Option<usize>,
    parent: Option<&Line<'_>>,
) -> Found {
    let below = |line: &&Line<'_>| above.is_none_or(|above| line.indent > above);
    let mut fields: Vec<&Line<'_>> = Vec::new();
    let mut nested: Option<usize> = None;
    for line in all[from..].iter().take_while(below) {
        if nested.is_some_and(|opener| line.indent > opener) {
            continue;
        }
        // Lists may stand as far out as their field.
        nested = opens(line).then_some(line.indent);
        fields.push(line);
    }
    let mut times: BTreeMap<usize, usize> = BTreeMap::new();
    for line in &fields {
        *times.entry(line.indent).or_default() += 1;
    }
    if times.len() < 2 {
        return None;
    }
    let usual = times
        .iter()
        .max_by_key(|(indent, times)| (**times, **indent % 2 == 0))
        .map(|(indent, _)| *indent)?;
    let odd = fields.iter().find(|line| line.indent != usual)?;
    let whose = match parent.map(|parent| parent.bare().trim_end_matches(':')) {
        Some(name) if super::lines::is_name(name) => format!("the other fields of `{name}`"),
        Some(_) => "the others beside it".into(),
        None => "the other fields".into(),
    };
    Some((odd.start(), format!("indented by {}, {whose} by {usual}", odd.indent)))
}
