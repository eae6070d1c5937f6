//! `gatekeeper licenses move`: pairs of keys on standard input, in portions that one order of the admin API holds.
//! What was moved stays so: run again after any failure it goes on where it ended.

use std::{
    collections::HashSet,
    io::{self, Read as _, Write},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::asking::{Operate, ask};
use crate::{
    cli::file_args::FileArgs, config::Settings, license_admin::LicenseCommand, progress::Progress,
};

/// Bytes of the pairs in one order; the admin API takes 16 KiB, and each key may need quoting.
const PORTION: usize = 6 * 1024;
/// Bytes of the whole file: some hundred thousand keys.
const LONGEST_FILE: u64 = 64 << 20;

pub const EXAMPLES: &str = "\
Standard input has one licence a line: the old key, a comma or a tab, and the new key, or the new shop's
id of the licence as SOURCE:ID. Empty lines, lines that begin with # and a first line `old,new` are left out.

  38B1460A-5104-4067-A91D-77B872934D51,JSTAR-3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34
  38B1460A-5104-4067-A91D-77B872934D52,polar:8d5f1c52-6a3e-4f7b-9c1d-2e4a6b8c0d1f

Examples:
  gatekeeper licenses move -c gateway.yaml --dry-run < pairs.csv
  gatekeeper licenses move -c gateway.yaml --accept-until 2027-04-30 < pairs.csv
  gatekeeper licenses move -c gateway.yaml --say \"Your new key is in the mail of 2 March.\" < pairs.csv";

#[derive(Debug, Clone, Args)]
pub struct MoveArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// Say what would happen, line by line, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take the old keys, too, before this day (UTC); without it they are refused at once
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    pub accept_until: Option<String>,
    /// What buyers read who still use an old key: where the new one is; at most 200 characters
    #[arg(long, value_name = "TEXT")]
    pub say: Option<String>,
    /// Why, for the record: at most 200 characters
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Print what became of each line as JSON
    #[arg(long)]
    pub json: bool,
}

/// The start of a day, or any RFC 3339 timestamp.
fn day(text: &str) -> Result<String, String> {
    let moment = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    match crate::shops::license::moment(&moment) {
        Some(_) => Ok(moment),
        None => Err("expected a day like 2027-04-30".into()),
    }
}

/// One line of the file.
struct Pair {
    line: usize,
    old: Zeroizing<String>,
    new: Zeroizing<String>,
}

/// # Errors
/// A line that is no pair, by its number; keys are not repeated.
fn read(text: &str) -> anyhow::Result<Vec<Pair>> {
    let (mut pairs, mut old_keys, mut new_keys) = (Vec::new(), HashSet::new(), HashSet::new());
    for (place, line) in text.lines().enumerate() {
        let trimmed = line.trim().trim_start_matches('\u{feff}');
        let is_title = pairs.is_empty() && trimmed.replace(' ', "").eq_ignore_ascii_case("old,new");
        if trimmed.is_empty() || trimmed.starts_with('#') || is_title {
            continue;
        }
        let number = place + 1;
        let (old, new) = split(trimmed).with_context(|| {
            format!("line {number}: expected two columns, the old key and the new one")
        })?;
        for (known, key, which) in [(&mut old_keys, &old, "old"), (&mut new_keys, &new, "new")] {
            // As keys are compared: in any case.
            let is_new = known.insert(key.to_ascii_uppercase());
            ensure!(is_new, "line {number}: this {which} key stands in an earlier line, too");
        }
        pairs.push(Pair { line: number, old, new });
    }
    ensure!(!pairs.is_empty(), "standard input: expected lines of OLD,NEW");
    Ok(pairs)
}

/// Two columns, parted by a tab or else a comma; with a comma, `"` may stand around each.
fn split(line: &str) -> Option<(Zeroizing<String>, Zeroizing<String>)> {
    let plain = |text: &str| Zeroizing::new(text.trim().to_owned());
    let (old, new) = match line.split_once('\t') {
        Some((old, new)) => (plain(old), plain(new)),
        None => {
            let (old, rest) = field(line)?;
            let (new, rest) = field(rest?)?;
            (old, if rest.is_some() { return None } else { new })
        }
    };
    let fits = |key: &str| !key.is_empty() && !key.chars().any(char::is_control);
    (fits(&old) && fits(&new)).then_some((old, new))
}

/// The first field of a line of RFC 4180, and what follows its comma.
fn field(line: &str) -> Option<(Zeroizing<String>, Option<&str>)> {
    let line = line.trim_start();
    let Some(quoted) = line.strip_prefix('"') else {
        return Some(match line.split_once(',') {
            Some((field, rest)) => (Zeroizing::new(field.trim().to_owned()), Some(rest)),
            None => (Zeroizing::new(line.trim().to_owned()), None),
        });
    };
    let mut text = Zeroizing::new(String::new());
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"')?;
        text.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                text.push('"');
                rest = more;
            }
            None => {
                let after = after.trim_start();
                let next = after.strip_prefix(',');
                return (next.is_some() || after.is_empty()).then_some((text, next));
            }
        }
    }
}

/// What became of all lines.
#[derive(Default)]
struct Report {
    moved: usize,
    already: usize,
    unused: usize,
    carried: [u64; 2],
    refused: Vec<(usize, String)>,
    busy: Vec<usize>,
    lines: Vec<Value>,
}

impl Report {
    fn add(&mut self, line: usize, told: &Value) {
        match told["result"].as_str() {
            Some("moved") => {
                self.moved += 1;
                self.unused += usize::from(told["used_here"] == false);
            }
            Some("already") => self.already += 1,
            _ => self.refused.push((line, told["why"].as_str().unwrap_or("unknown").to_owned())),
        }
        for (sum, name) in self.carried.iter_mut().zip(["messages", "tokens"]) {
            *sum += told["carried"][name].as_u64().unwrap_or(0);
        }
        if told["carried"] == "busy" {
            self.busy.push(line);
        }
        let mut told = told.clone();
        told["line"] = json!(line);
        self.lines.push(told);
    }

    fn write(&self, dry_run: bool, out: &mut dyn Write) -> io::Result<()> {
        let verb = if dry_run { "would move" } else { "moved" };
        writeln!(
            out,
            "{} {verb}, {} moved before, {} refused",
            self.moved,
            self.already,
            self.refused.len()
        )?;
        if self.unused > 0 {
            writeln!(
                out,
                "{} of the old keys were never used here; look for typing errors",
                self.unused
            )?;
        }
        if self.carried != [0, 0] {
            let [messages, tokens] = self.carried;
            writeln!(
                out,
                "{messages} messages and {tokens} tokens that new keys had used count on"
            )?;
        }
        Ok(())
    }
}

/// # Errors
/// The file can't be read, or no gateway and no store takes it.
pub fn run(
    args: &MoveArgs,
    settings: &Settings,
    operate: Operate,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> anyhow::Result<ExitCode> {
    let mut text = Zeroizing::new(String::new());
    io::stdin().take(LONGEST_FILE).read_to_string(&mut text).context("standard input")?;
    let pairs = read(&text).context("licenses move")?;
    let progress = Progress::of("Moving licences", "licences");
    progress.expect(pairs.len() as u64);
    let mut report = Report::default();
    let mut rest = &pairs[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(portion(rest));
        let body = order(args, now)?;
        let answer = ask(LicenseCommand::Move, &args.file, settings, operate, &body)?;
        if !answer.status.is_success() {
            let message = answer.body["error"]["message"].as_str().unwrap_or("it failed");
            bail!("licenses move: from line {} on: {message}", now[0].line);
        }
        let told = answer.body["moves"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(told.len() == now.len(), "licenses move: the gateway's answer is incomplete");
        for (pair, told) in now.iter().zip(told) {
            report.add(pair.line, told);
            progress.step();
        }
        rest = later;
    }
    drop(progress);
    for (line, why) in &report.refused {
        writeln!(err, "line {line}: {why}")?;
    }
    for line in &report.busy {
        writeln!(
            err,
            "line {line}: requests of the new key from before the move still run; run this again \
             when they have ended, so that they count, too"
        )?;
    }
    match args.json {
        true => writeln!(out, "{:#}", json!({ "moves": report.lines, "dry_run": args.dry_run }))?,
        false => report.write(args.dry_run, out)?,
    }
    let is_whole = report.refused.is_empty() && report.busy.is_empty();
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many of the next pairs one order holds.
fn portion(pairs: &[Pair]) -> usize {
    let mut bytes = 0;
    let fits = pairs.iter().take_while(|pair| {
        bytes += pair.old.len() + pair.new.len() + 20;
        bytes <= PORTION
    });
    fits.count().max(1)
}

fn order(args: &MoveArgs, pairs: &[Pair]) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let pairs: Vec<Value> =
        pairs.iter().map(|pair| json!({ "old": &*pair.old, "new": &*pair.new })).collect();
    let mut order = Map::new();
    order.insert("pairs".into(), pairs.into());
    order.insert("dry_run".into(), json!(args.dry_run));
    let texts = [("accept_until", &args.accept_until), ("say", &args.say), ("note", &args.note)];
    for (name, text) in texts {
        if let Some(text) = text {
            order.insert(name.into(), json!(text));
        }
    }
    Ok(Zeroizing::new(serde_json::to_vec(&Value::Object(order))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        let read = read(text).unwrap();
        read.iter().map(|pair| (pair.line, pair.old.to_string(), pair.new.to_string())).collect()
    }

    #[test]
    fn lines_are_pairs_by_comma_or_tab() {
        let text =
            "\u{feff}old, new\n# since March\n\nA-1,B-1\n A-2\tB,2 \r\n\"A,3\", \"B\"\"3\"\n";
        let expected = [(4, "A-1", "B-1"), (5, "A-2", "B,2"), (6, "A,3", "B\"3")];
        assert_eq!(pairs(text), expected.map(|(line, old, new)| (line, old.into(), new.into())));
    }

    #[test]
    fn a_line_that_is_no_pair_is_told_by_its_number_and_never_repeated() {
        for (text, says) in [
            ("", "expected lines"),
            ("A-1,B-1\nSECRET-KEY\n", "line 2: expected two columns"),
            ("A-1,B-1\nSECRET-KEY,\n", "line 2: expected two columns"),
            ("SECRET-KEY,B-1,C-1\n", "line 1: expected two columns"),
            ("\"SECRET-KEY,B-1\n", "line 1: expected two columns"),
            ("SECRET-KEY,B-1\nsecret-key,B-2\n", "line 2: this old key"),
            ("A-1,SECRET-KEY\nA-2,secret-key\n", "line 2: this new key"),
        ] {
            let told = format!("{:#}", read(text).err().unwrap());
            assert!(told.contains(says) && !told.to_uppercase().contains("SECRET"), "{told}");
        }
    }

    #[test]
    fn a_portion_fits_an_order_and_is_never_empty() {
        let pair = |size: usize| Pair {
            line: 1,
            old: Zeroizing::new("a".repeat(size)),
            new: Zeroizing::new("b".repeat(size)),
        };
        assert_eq!(portion(&[pair(36), pair(4096)]), 1);
        assert_eq!(portion(&[pair(4096)]), 1);
        let many: Vec<Pair> = (0..1000).map(|_| pair(36)).collect();
        assert_eq!(portion(&many), PORTION / 92);
    }

    #[test]
    fn a_day_is_the_moment_it_begins() {
        assert_eq!(day("2027-04-30").unwrap(), "2027-04-30T00:00:00Z");
        assert!(day("30.4.2027").is_err());
    }
}
