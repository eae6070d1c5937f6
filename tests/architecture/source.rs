//! Reads the code: modules, what they import, the public types they define.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A module: its crate (`src` or `filters`) and its path there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Module(Vec<String>);

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.join("::"))
    }
}

impl Module {
    /// `pool`, `ledger`; of the filters `filters` and `filters::kernel`.
    pub fn part(&self) -> String {
        match &self.0[..] {
            [source, part, ..] if source == "src" => part.clone(),
            [filters, part, ..] => format!("{filters}::{part}"),
            [one] => one.clone(),
            [] => String::new(),
        }
    }

    fn child(&self, name: &str) -> Self {
        Self(self.0.iter().cloned().chain([name.to_owned()]).collect())
    }

    fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }
}

pub struct File {
    pub name: String,
    pub module: Module,
    /// Without comments, strings and tests.
    pub code: String,
    words: Vec<String>,
    /// Names that `use` brings in, by the path they stand for.
    imports: Vec<Import>,
}

struct Import {
    path: Vec<String>,
    name: String,
}

pub struct Source {
    pub files: Vec<File>,
    places: BTreeMap<Module, usize>,
}

impl Source {
    pub fn read() -> Self {
        let mut files = Vec::new();
        for folder in ["src", "filters"] {
            read_folder(&root().join(folder), &mut files);
        }
        let places = files.iter().enumerate().map(|(place, file)| (file.module.clone(), place));
        Self { places: places.collect(), files }
    }

    pub fn parts(&self) -> BTreeSet<String> {
        self.files.iter().map(|file| file.module.part()).collect()
    }

    /// Every pair of modules of which the first names something of the second.
    pub fn imports(&self) -> BTreeSet<(Module, Module)> {
        self.named().into_iter().map(|(from, to, _)| (from, to)).collect()
    }

    /// The same, with the path by which it is named.
    pub fn named(&self) -> BTreeSet<(Module, Module, String)> {
        let mut pairs = BTreeSet::new();
        for file in &self.files {
            let paths = file.imports.iter().map(|import| import.path.clone());
            for path in paths.chain(file.paths()) {
                if let Some(target) = self.home(&file.module, &path, 0)
                    && target != file.module
                {
                    pairs.insert((file.module.clone(), target, path.join("::")));
                }
            }
        }
        pairs
    }

    /// The module that a path leads to, names that are re-exported followed home.
    fn home(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (mut at, mut rest) = self.start(from, path)?;
        while let [name, more @ ..] = rest {
            let next = at.child(name);
            if self.places.contains_key(&next) {
                (at, rest) = (next, more);
                continue;
            }
            let file = &self.files[*self.places.get(&at)?];
            let import = file.imports.iter().find(|import| import.name == *name);
            return match import {
                Some(import) if depth < 8 && at != *from => {
                    self.home(&at, &import.path, depth + 1).or(Some(at))
                }
                _ => Some(at),
            };
        }
        Some(at)
    }

    /// Where a path begins, and what is left of it; `None` for other crates.
    fn start<'p>(&self, from: &Module, path: &'p [String]) -> Option<(Module, &'p [String])> {
        let (first, rest) = path.split_first()?;
        match &**first {
            "crate" => Some((Module(vec![from.0[0].clone()]), rest)),
            "gatekeeper" => Some((Module(vec!["src".into()]), rest)),
            "gatekeeper_filters" => Some((Module(vec!["filters".into()]), rest)),
            "self" => Some((from.clone(), rest)),
            "super" => {
                let (mut at, mut rest) = (from.parent(), rest);
                while let [word, more @ ..] = rest
                    && word == "super"
                {
                    (at, rest) = (at.parent(), more);
                }
                Some((at, rest))
            }
            child if self.places.contains_key(&from.child(child)) => {
                Some((from.child(child), rest))
            }
            _ => None,
        }
    }
}

fn read_folder(folder: &Path, files: &mut Vec<File>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let is_test = ["tests", "testing", "training", "fuzz_targets", "hang_ups", "reference"]
            .contains(&stem);
        if is_test || stem == "node_modules" {
            continue;
        }
        if path.is_dir() {
            read_folder(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(read_file(&path));
        }
    }
}

fn read_file(path: &Path) -> File {
    let name = path.strip_prefix(root()).unwrap().display().to_string();
    let words = name.strip_suffix(".rs").unwrap().split('/').map(str::to_owned);
    let mut module = Module(words.collect());
    if module.0.last().is_some_and(|last| last == "lib") {
        module = module.parent();
    }
    let code = without_tests(&without_comments(&fs::read_to_string(path).unwrap()));
    let words = words_of(&code);
    let imports = imports_of(&words);
    File { name, module, code, words, imports }
}

impl File {
    /// Paths that stand in the code itself.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.words.len() {
            if self.words[at] == "use" {
                at += self.words[at..].iter().position(|word| word == ";").unwrap_or(1);
                continue;
            }
            let begins = at == 0 || !["::", "."].contains(&&*self.words[at - 1]);
            if !(begins && is_name(&self.words[at])) {
                at += 1;
                continue;
            }
            let mut path = vec![self.words[at].clone()];
            while self.words.get(at + 1).is_some_and(|word| word == "::")
                && self.words.get(at + 2).is_some_and(|word| is_name(word))
            {
                path.push(self.words[at + 2].clone());
                at += 2;
            }
            if path.len() > 1 {
                paths.push(path);
            }
            at += 1;
        }
        paths
    }

    pub fn public_types(&self) -> Vec<String> {
        let lines = self.code.lines().filter_map(|line| line.strip_prefix("pub "));
        lines
            .filter_map(|line| {
                let (kind, rest) = line.split_once(' ')?;
                let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
                ["struct", "enum", "trait", "type", "union"]
                    .contains(&kind)
                    .then(|| name.to_owned())
            })
            .collect()
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Blanks take the place of comments, strings and characters.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let begin = rest.find('"').unwrap() + 1;
            rest[begin..].find(&close).map_or(rest.len(), |end| begin + end + close.len())
        } else if first == '"' {
            quoted(rest)
        } else if first == '\'' {
            character(rest)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            // Names are taken whole, so that an `r` at the end of one begins no raw string.
            while let Some(next) = rest.chars().next()
                && (first.is_alphanumeric() || first == '_')
                && (next.is_alphanumeric() || next == '_')
            {
                code.push(next);
                rest = &rest[next.len_utf8()..];
            }
            continue;
        };
        code.extend(rest[..length].chars().filter(|c| *c == '\n'));
        code.push(' ');
        rest = &rest[length..];
    }
    code
}

/// The number of `#` of a raw string that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let text = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let hashes = text.bytes().take_while(|byte| *byte == b'#').count();
    text[hashes..].starts_with('"').then_some(hashes)
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character, or the `'` of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1)
        }
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

/// Items behind `#[cfg(test)]` are taken out.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let (semicolon, brace) = (rest.find(';'), rest.find('{'));
        let end = match (semicolon, brace) {
            (Some(semicolon), brace) if brace.is_none_or(|brace| semicolon < brace) => {
                semicolon + 1
            }
            (_, Some(brace)) => closing(rest, brace),
            _ => rest.len(),
        };
        rest = &rest[end..];
    }
    kept + rest
}

/// Behind the brace that closes the one at `open`; a `use` ends with its semicolon.
fn closing(text: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1 + usize::from(text[at + 1..].starts_with(';'));
        }
    }
    text.len()
}

fn words_of(code: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            _ if is_part(first) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        words.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    words
}

fn imports_of(words: &[String]) -> Vec<Import> {
    let mut imports = Vec::new();
    for (at, word) in words.iter().enumerate() {
        if word == "use" {
            tree(&words[at + 1..], &[], &mut imports);
        }
    }
    imports
}

/// Reads one tree of a `use`; how many words it takes.
fn tree(words: &[String], before: &[String], imports: &mut Vec<Import>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match &**word {
            "::" => at += 1,
            "{" => {
                at += 1;
                while words.get(at).is_some_and(|word| word != "}") {
                    at += tree(&words[at..], &path, imports);
                    at += usize::from(words.get(at).is_some_and(|word| word == ","));
                }
                return at + 1;
            }
            "as" => {
                if let Some(import) = imports.last_mut() {
                    import.name.clone_from(&words[at + 1]);
                }
                return at + 2;
            }
            "*" => {
                imports.push(Import { path, name: "*".into() });
                return at + 1;
            }
            "self" if !path.is_empty() => at += 1,
            word if is_name(word) => {
                path.push(word.to_owned());
                at += 1;
            }
            _ => break,
        }
        let goes_on = words.get(at).is_some_and(|word| word == "::");
        if !goes_on && words.get(at.wrapping_sub(1)).is_some_and(|word| word != "::") {
            let name = path.last().cloned().unwrap_or_default();
            imports.push(Import { path: path.clone(), name });
            if words.get(at).is_none_or(|word| word != "as") {
                return at;
            }
        }
    }
    at.max(1)
}
