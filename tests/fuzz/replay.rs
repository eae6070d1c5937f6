//! Runs the corpus of a fuzzer, and mutations of it, as an ordinary test. The mutations are the same at every run;
//! `GATEKEEPER_MUTATIONS` says how many of each file (`make fuzz` makes more).

use std::path::{Path, PathBuf};

/// Of each file, in `make test`.
const MUTATIONS: usize = 200;

/// Shows the input that something does not hold of.
struct Shown<'a>(&'a Path, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.1.escape_ascii();
            eprintln!("made from {}:\n\"{text}\"", self.0.display());
        }
    }
}

/// Numbers without a pattern, the same ones every time (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let below = Path::new("tests/fuzz/corpus").join(target);
    let folder = [here.join(&below), here.join("..").join(&below)];
    let folder = folder.into_iter().find(|folder| folder.is_dir()).expect("a corpus");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), std::fs::read(path).expect("a file")))
        .collect();
    files.sort();
    files
}

/// One change: a bit, a cut, a doubled piece, another file's end, or a word that parsers stumble over.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    const WORDS: [&str; 12] = [
        "\n\n",
        "\r",
        "null",
        "-1",
        "1e999",
        "18446744073709551616",
        "\\ud800",
        "\"",
        "{",
        "[",
        "data: ",
        "\u{feff}",
    ];
    let (at, end) = (dice.below(bytes.len() + 1), dice.below(bytes.len() + 1));
    match dice.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 => bytes.truncate(at),
        2 if at < end => drop(bytes.drain(at..end)),
        3 if at < end => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        4 => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[dice.below(other.len() + 1)..]);
        }
        _ => drop(bytes.splice(at..at, WORDS[dice.below(WORDS.len())].bytes())),
    }
}

pub fn replay(target: &str, holds: impl Fn(&[u8])) {
    let files = corpus(target);
    assert!(files.len() >= 20, "a corpus of {} files", files.len());
    let wanted = std::env::var("GATEKEEPER_MUTATIONS").ok().and_then(|count| count.parse().ok());
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for (path, bytes) in &files {
        let shown = Shown(path, bytes);
        holds(bytes);
        drop(shown);
        for _ in 0..wanted.unwrap_or(MUTATIONS) {
            let mut changed = bytes.clone();
            for _ in 0..=dice.below(3) {
                let other = &files[dice.below(files.len())].1;
                mutate(&mut changed, other, &mut dice);
            }
            let _shown = Shown(path, &changed);
            holds(&changed);
        }
    }
}
