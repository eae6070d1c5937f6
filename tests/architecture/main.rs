//! The layers of `src/` and `filters/`: which part may import which, and what only some parts may name.
//!
//! The text of the code is read, not the compiler's output: `use` items and paths, with names that a module
//! re-exports followed to where they are defined. Tests are left out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod graph;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use self::{
    graph::circles,
    source::{Source, root},
};

/// The parts from top to bottom, and what each may import. A row names lower rows only, so there is no circle.
/// An import that is not here fails the test, and so does one that is no longer needed: the list can only shrink.
const ALLOWED: &str = include_str!("allowed.txt");

/// Modules of one part that import each other in a circle. It can only shrink.
const CIRCLES: &str = include_str!("circles.txt");

/// Public types that share a name. The list can only shrink.
const SAME_NAMES: &[&str] = &[];

fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn allowed() -> Vec<(String, BTreeSet<String>)> {
    let row = |line: &str| {
        let (part, below) = line.split_once("->").unwrap();
        (part.trim().to_owned(), below.split_whitespace().map(str::to_owned).collect())
    };
    rows(ALLOWED).map(row).collect()
}

#[test]
fn parts_import_only_what_is_listed() {
    let source = Source::read();
    let allowed = allowed();
    let mut problems = Vec::new();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in source.imports() {
        let (part, other) = (from.part(), to.part());
        if part == other {
            continue;
        }
        used.entry(part.clone()).or_default().insert(other.clone());
        let row = allowed.iter().find(|(name, _)| *name == part);
        if !row.is_some_and(|(_, below)| below.contains(&other)) {
            problems.push(format!("{part} may not import {other}: {from} names {to}"));
        }
    }
    for (part, below) in &allowed {
        for other in below {
            if !used.get(part).is_some_and(|used| used.contains(other)) {
                problems
                    .push(format!("allowed.txt: {part} no longer imports {other}: take it out"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn each_part_has_a_row_and_names_lower_rows_only() {
    let allowed = allowed();
    let names: Vec<&String> = allowed.iter().map(|(part, _)| part).collect();
    for (place, (part, below)) in allowed.iter().enumerate() {
        for other in below {
            let lower = names.iter().position(|name| *name == other);
            assert!(lower.is_some_and(|lower| lower > place), "{part} -> {other} points upwards");
        }
    }
    for part in Source::read().parts() {
        assert!(names.contains(&&part), "allowed.txt has no row for {part}");
    }
}

#[test]
fn circles_inside_of_parts_are_those_that_are_listed() {
    let source = Source::read();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in source.imports() {
        if from.part() == to.part() {
            edges.entry(from.to_string()).or_default().insert(to.to_string());
        }
    }
    let found: BTreeSet<String> = circles(&edges).iter().map(|circle| circle.join(" ")).collect();
    let listed: BTreeSet<String> = rows(CIRCLES).map(str::to_owned).collect();
    let new: Vec<_> = found.difference(&listed).collect();
    assert!(
        new.is_empty(),
        "modules import each other in a circle:\n{}",
        new.iter().map(|circle| edges_of(&source, circle)).collect::<Vec<_>>().join("\n")
    );
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(gone.is_empty(), "circles.txt lists what is no circle any more:\n{gone:#?}");
}

/// What the modules of a circle import of each other.
fn edges_of(source: &Source, circle: &str) -> String {
    let modules: Vec<&str> = circle.split(' ').collect();
    let is_in = |name: &str| modules.contains(&name);
    let edges = source.named().into_iter().filter_map(|(from, to, path)| {
        let (from, to) = (from.to_string(), to.to_string());
        (is_in(&from) && is_in(&to)).then(|| format!("    {from} names {path} of {to}"))
    });
    [circle.to_owned()].into_iter().chain(edges).collect::<Vec<_>>().join("\n")
}

/// The files below `src` and `filters` that name one of these, tests aside.
fn files_that_name(words: &[&str]) -> Vec<String> {
    let source = Source::read();
    let names = |text: &str| words.iter().any(|word| text.contains(word));
    let files = source.files.iter().filter(|file| names(&file.code));
    files.map(|file| file.name.clone()).collect()
}

fn only_in(words: &[&str], places: &[&str]) {
    for file in files_that_name(words) {
        let may = places.iter().any(|place| file.starts_with(place));
        assert!(may, "{file} names one of {words:?}; only {places:?} may");
    }
}

#[test]
fn only_the_listed_parts_name_pingoras_http_types() {
    only_in(
        &[
            "pingora_http",
            "pingora_proxy",
            "pingora_core::protocols::http",
            "pingora_core::apps",
            "HttpPeer",
            "RequestHeader",
            "ServerSession",
        ],
        &[
            "src/downstream",
            "src/proxy",
            "src/upstream",
            "src/runtime",
            "src/pool/peer_options.rs",
            "src/pool/dns.rs",
            "src/server",
            "src/admin",
            "src/stand_in.rs",
        ],
    );
}

#[test]
fn only_the_stores_name_sql() {
    only_in(&["rusqlite"], &["src/ledger/", "src/licenses/"]);
    only_in(&["rusqlite", "pingora", "crate::config"], &["src/"]);
}

#[test]
fn no_two_public_types_share_a_name() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in &Source::read().files {
        for name in file.public_types() {
            places.entry(name).or_default().insert(file.name.clone());
        }
    }
    let shared = places.iter().filter(|(_, files)| files.len() > 1);
    let (listed, new): (Vec<_>, Vec<_>) =
        shared.partition(|(name, _)| SAME_NAMES.contains(&name.as_str()));
    assert!(new.is_empty(), "{new:#?}");
    assert_eq!(
        listed.len(),
        SAME_NAMES.len(),
        "a name of the list is no longer shared: {listed:#?}"
    );
}

#[test]
fn the_places_that_docs_architecture_names_exist() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let mut questions = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, question, file, item, ..] = cells[..] else { continue };
        if !question.ends_with('?') {
            continue;
        }
        questions += 1;
        let (file, item) = (file.trim_matches('`'), item.trim_matches('`'));
        let text = fs::read_to_string(root().join(file));
        let text = text.unwrap_or_else(|_| panic!("docs/architecture.md: there is no {file}"));
        let defined = ["fn ", "struct ", "enum ", "trait ", "const ", "static "];
        let found = defined.iter().any(|kind| text.contains(&format!("{kind}{item}")));
        assert!(found, "docs/architecture.md: {file} defines no {item}");
    }
    assert!(questions >= 12, "{questions} questions are answered");
    for line in page.lines() {
        let Some((folder, _)) = line.trim_start().split_once("/ ") else { continue };
        let is_tree =
            line.starts_with("  ") && folder.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let bases = ["src", "filters", "src/ledger"];
        let is_there = bases.iter().any(|base| root().join(base).join(folder).is_dir());
        assert!(!is_tree || is_there, "the tree names {folder}/, which is not there");
    }
}
