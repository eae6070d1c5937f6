//! `tests/hardening.md`: the tests that it names exist.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A source and its text.
type Source = (PathBuf, String);

fn sources(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// `file::test`, where a folder stands for its file too.
fn is_there(name: &str, sources: &[Source]) -> bool {
    let Some((place, test)) = name.rsplit_once("::") else { return false };
    let (function, place) = (format!("fn {test}("), place.rsplit("::").next().unwrap_or(place));
    let is_at = |path: &Path| path.with_extension("").iter().any(|part| part == place);
    sources.iter().any(|(path, text)| is_at(path) && text.contains(&function))
}

#[test]
fn each_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    ["src", "filters", "tests/it"].iter().for_each(|folder| sources(&root.join(folder), &mut all));
    let page = fs::read_to_string(root.join("tests/hardening.md")).unwrap();
    let is_name = |word: &&str| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c);
        word.contains("::") && word.chars().all(fits)
    };
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(named.len() > 200, "{} tests", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !is_there(name, &all)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    // A line without a test says why.
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.contains("::")) {
        let is_head = ["| fault |", "| attack |"].iter().any(|head| line.starts_with(head));
        assert!(is_head || line.contains("| — "), "{line}");
    }
}
