//! Two hundred broken files: each changes nothing, says what is wrong where, and `check` says the same.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    process::Command,
};

use serde_json::{Value, json};

use crate::support::{Config, Gateway, Mock, Noise, Reply, run};

/// What stands in the place of a good file.
enum Broken {
    Bytes(Vec<u8>),
    /// So many zeros; takes no place on a disk.
    Zeros(u64),
    Directory,
    /// A pipe that nobody writes to.
    Pipe,
    /// A link to nowhere.
    Dangling,
    Nothing,
}

struct Case {
    name: String,
    what: Broken,
    /// Part of what has to be said; empty for anything.
    says: &'static str,
}

#[derive(Default)]
struct Corpus(Vec<Case>);

impl Corpus {
    fn text(&mut self, name: impl Into<String>, text: impl Into<Vec<u8>>, says: &'static str) {
        self.0.push(Case { name: name.into(), what: Broken::Bytes(text.into()), says });
    }

    fn other(&mut self, name: &str, what: Broken, says: &'static str) {
        self.0.push(Case { name: name.into(), what, says });
    }
}

/// The good file, long: `{...}` of the tests' own is spread out so that lines can be damaged one by one.
fn good(gateway: &Gateway) -> String {
    let text = fs::read_to_string(gateway.dir.path().join("gatekeeper.yaml")).unwrap();
    let text = text.replace(
        "plans:\n",
        "plans:\n  pro:\n    messages: 1000/month\n    tokens: 5000000/month\n    rate: 60/minute\n    \
         concurrency: 4\n    models: [\"*\"]\n    max_output_tokens: 4096\n    min_output_tokens: 256\n    \
         max_input_tokens: 8000\n    devices: optional\n    max_devices: 3\n    on_disconnect: cut\n    \
         price: $9/month\n    upgrade_url: \"https://example.com/up\"\n",
    );
    format!(
        "{text}  long:\n    targets:\n      - p/m1\n    delivery: whole\n    sticky: true\n    timeouts:\n      \
         first_byte: 30s\n      total: 60s\nprices:\n  p/m1:\n    input: 0.05\n    output: 0.08\n    cached: \
         0.025\nbudget:\n  day: $20\nfilters:\n  - license\n  - rate_limit\n  - route\n  - quota\n  - meter\n"
    )
}

/// Damage to one line; `None` where it would be none.
fn damages(line: &str) -> Vec<(&'static str, String)> {
    let indent = line.len() - line.trim_start().len();
    let mut damages = vec![
        ("a quote is left open", format!("{line} \"")),
        ("a brace too many", format!("{line} }}")),
        ("a tab in front", format!("\t{line}")),
        ("an unknown anchor", format!("{line}\n{}*nowhere", " ".repeat(indent))),
    ];
    if let Some((name, value)) = line.split_once(": ") {
        damages.push(("a list for a value", format!("{name}: [[]]")));
        damages.push(("a mapping for a value", format!("{name}: {{ wrong: [ 1 ] }}")));
        damages.push(("a colon is missing", format!("{name} {value}")));
    }
    damages
}

/// Everything that can be wrong with a file, by the hundred; the same at every run.
fn corpus(good: &str) -> Vec<Case> {
    let mut corpus = Corpus::default();
    let lines: Vec<&str> = good.lines().collect();
    let with_line = |number: usize, line: &str| {
        let mut changed = lines.clone();
        changed[number] = line;
        changed.join("\n") + "\n"
    };
    for (number, line) in lines.iter().enumerate() {
        let all = damages(line);
        for step in 0..2.min(all.len()) {
            let (what, damaged) = &all[(number * 2 + step) % all.len()];
            corpus.text(format!("line {}: {what}", number + 1), with_line(number, damaged), "");
        }
    }
    // Half-written: cut off before everything that a file must have is there.
    let needed = good.find("models:\n").unwrap();
    for part in 0..45 {
        let end = needed * part / 45 + part % 7;
        corpus.text(format!("the first {end} bytes"), &good.as_bytes()[..end], "");
    }
    for (from, to, says) in [
        ("plans:", "planz:", "did you mean `plans`"),
        ("messages: 1000/month", "mesages: 1000/month", "did you mean `messages`"),
        ("messages: 1000/month", "messages: 1000/fortnight", "like `50/month`"),
        ("messages: 1000/month", "messages: -1/month", "like `50/month`"),
        ("messages: 1000/month", "messages: 1000", "like `50/month`"),
        ("concurrency: 4", "concurrency: 0", "must be"),
        ("concurrency: 4", "concurrency: four", "a whole number"),
        ("concurrency: 4", "concurrency: 4.5", "a whole number"),
        ("min_output_tokens: 256", "min_output_tokens: 9000", "more than max_output_tokens"),
        ("devices: optional", "devices: sometimes", "one of optional, required"),
        ("price: $9/month", "price: 9", "price"),
        ("\"https://example.com/up\"", "example", "web address"),
        ("delivery: whole", "delivery: wholly", "one of stream, whole"),
        ("- p/m1", "- q/m1", "unknown provider `q`"),
        ("- p/m1", "- m1", "provider/model"),
        ("first_byte: 30s", "first_byte: 30", "a duration"),
        ("first_byte: 30s", "first_byte: 0s", "more than zero"),
        ("input: 0.05", "input: cheap", "a number"),
        ("input: 0.05", "input: -1", "0 or more"),
        ("p/m1:\n    input", "q/m1:\n    input", "provider"),
        ("day: $20", "day: 20", "like `$20`"),
        ("  - meter", "  - metre", "did you mean `meter`"),
        ("  - license\n", "", "license"),
        ("  - license\n  - rate_limit", "  - rate_limit\n  - license", "license"),
        ("  - meter", "  - meter\n  - meter", "meter"),
        ("  - meter", "  - meter: { speed: 1 }", "speed"),
        ("threads: 1", "threads: 0", "must be 1 to 1024"),
        ("threads: 1", "threads: 99999999999999999999999", "must be 1 to 1024"),
        ("grace: 5s", "grace: soon", "a duration"),
        ("kind: embedded", "kind: paper", "one of embedded, redis"),
        ("kind: embedded", "kind: redis", "where Redis is"),
        ("127.0.0.1:", "localhost:", "an IP address and a port"),
        ("127.0.0.1:", "0.0.0.0:", "in clear"),
        ("secret: \"file:", "secret: \"plain-", "must not stand here in clear"),
        ("secret: \"file:", "secret: \"sealed:v1:0000000000000000:", "no vault"),
        ("id: p-2", "id: p-1", "duplicate key id"),
        ("id: p-2", "id: \"p 2\"", "a name is"),
        ("plan: free }", "plan: gold }", "unknown plan `gold`"),
        ("plan: free }", "plan: }", "has no value"),
        ("buy_url:", "buy_url: &a *a\n  again:", ""),
        ("licenses:", "licenses:\nlicenses:", "duplicate key `licenses`"),
        ("plans:", "plans: &plans\nextra: *plans\nmore:", "unknown field"),
        ("budget:\n", "budget:\n  <<: { day: $1 }\n", "merge keys are not understood"),
        ("budget:\n", "? [ a, b ]\n: c\nbudget:\n", "a key must be text"),
    ] {
        assert!(good.contains(from), "{from}");
        corpus.text(format!("{from} becomes {to}"), good.replacen(from, to, 1), says);
    }
    add_oddities(&mut corpus, good);
    corpus.0
}

fn add_oddities(corpus: &mut Corpus, good: &str) {
    corpus.text("empty", "", "the file is empty");
    corpus.text("a comment alone", "# soon\n", "the file is empty");
    corpus.text("a list", "- a\n- b\n", "a mapping");
    corpus.text("a word", "gatekeeper\n", "a mapping");
    corpus.text("null", "~\n", "the file is empty");
    corpus.text("two documents", format!("{good}---\n{good}"), "a second document");
    corpus.text("an HTML page", "<!doctype html>\n<html><body>404</body></html>\n", "");
    corpus.text("JSON cut off", "{\"licenses\": {\"sources\": [{", "");
    corpus.text("a merge conflict", good.replace("plans:", "<<<<<<< HEAD\nplans:"), "");
    corpus.text("UTF-16", good.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(), "");
    corpus.text("Latin-1", [good.as_bytes(), b"# \xe9t\xe9\n"].concat(), "not UTF-8");
    corpus.text("NUL bytes", format!("{good}\0\0\0"), "");
    let mut noise = Noise::new(7);
    for nth in 0..10 {
        let bytes: Vec<u8> = (0..2000).map(|_| noise.below(256) as u8).collect();
        let letters: Vec<u8> = bytes.iter().map(|byte| b' ' + byte % 95).collect();
        corpus.text(format!("garbage {nth}"), bytes, "");
        corpus.text(format!("printable garbage {nth}"), letters, "");
    }
    for (depth, says) in
        [(40, "nested more than"), (5_000, "never closed"), (200_000, "never closed")]
    {
        corpus.text(format!("{depth} lists deep"), format!("plans: {}", "[".repeat(depth)), says);
    }
    let steps: String = (0..60).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    corpus.text("60 mappings deep", steps, "nested");
    let mut bomb = "a0: &a0 [ x, x, x, x, x, x, x, x, x, x ]\n".to_owned();
    for step in 1..12 {
        let refers = vec![format!("*a{}", step - 1); 10].join(", ");
        bomb.push_str(&format!("a{step}: &a{step} [ {refers} ]\n"));
    }
    corpus.text("an alias bomb", bomb, "aliases add more than");
    corpus.text("an alias of itself", "plans: &a [ *a ]\n", "an alias inside");
    let padded = format!("{good}{}", "# padding\n".repeat(110_000));
    corpus.text("a good file of more than 1 MiB", padded, "larger than 1 MiB");
    corpus.other("100 MB", Broken::Zeros(100 << 20), "larger than 1 MiB");
    corpus.other("a directory", Broken::Directory, "can't be read");
    corpus.other("a pipe", Broken::Pipe, "not a file");
    corpus.other("a link to nowhere", Broken::Dangling, "can't be read");
    corpus.other("nothing", Broken::Nothing, "can't be read");
}

fn clear(file: &Path) {
    match fs::symlink_metadata(file) {
        Ok(meta) if meta.is_dir() => fs::remove_dir(file).unwrap(),
        Ok(_) => fs::remove_file(file).unwrap(),
        Err(_) => {}
    }
}

fn put(file: &Path, what: &Broken) {
    clear(file);
    match what {
        Broken::Bytes(bytes) => fs::write(file, bytes).unwrap(),
        Broken::Zeros(length) => File::create(file).unwrap().set_len(*length).unwrap(),
        Broken::Directory => fs::create_dir(file).unwrap(),
        Broken::Pipe => assert!(Command::new("mkfifo").arg(file).status().unwrap().success()),
        Broken::Dangling => symlink("nowhere", file).unwrap(),
        Broken::Nothing => {}
    }
}

async fn reload(gateway: &Gateway, order: Value) -> Value {
    let answer = gateway.operator().request("POST", "/api/reload").body(order.to_string());
    let answer = answer.header("content-type", "application/json").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// What `check` says of the file, one problem a line, without the file's name.
fn checked(dir: &Path) -> Vec<String> {
    let output = run(&["check", "-c", "gatekeeper.yaml"], dir);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let lines = said.lines().filter_map(|line| line.strip_prefix("gatekeeper.yaml:"));
    lines
        .filter(|line| !line.ends_with("(warning)"))
        .map(|line| line.trim_start().to_owned())
        .collect()
}

fn has_a_place(problem: &str) -> bool {
    let mut parts = problem.splitn(3, ':');
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<usize>().is_ok());
    is_number(parts.next())
        && is_number(parts.next())
        && parts.next().is_some_and(|rest| rest.len() > 3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_broken_files_change_nothing_and_each_is_told() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let (dir, file) = (gateway.dir.path(), gateway.dir.path().join("gatekeeper.yaml"));
    let good = good(&gateway);
    fs::write(&file, &good).unwrap();
    let first = reload(&gateway, json!({})).await;
    assert_eq!((&first["ok"], &first["live"]), (&json!(true), &json!(true)), "{first}");
    let since = gateway.status().await["config"]["since"].clone();
    let corpus = corpus(&good);
    assert!(corpus.len() >= 200, "{}", corpus.len());
    let mut unexpected = Vec::new();
    for (nth, Case { name, what, says }) in corpus.iter().enumerate() {
        put(&file, what);
        let answer = reload(&gateway, json!({})).await;
        assert_eq!((&answer["ok"], &answer["live"]), (&json!(false), &json!(false)), "{name}");
        let problems: Vec<&str> =
            answer["problems"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
        let is_of_the_file = matches!(*says, "larger than 1 MiB" | "can't be read" | "not a file");
        let has_places = problems.iter().all(|problem| has_a_place(problem));
        assert!(has_places != is_of_the_file, "{name}: {problems:?}");
        if !problems.iter().any(|problem| problem.contains(says)) {
            unexpected.push(format!("{name}: {problems:?}, not {says:?}"));
        }
        let log = gateway.logs();
        assert!(log.contains(problems[0]) && !log.contains("panicked"), "{name}: {problems:?}");
        // A gateway that runs takes no pipe; `check` may be fed by one, and would wait for it here.
        if !matches!(what, Broken::Pipe | Broken::Directory) {
            assert_eq!(checked(dir), problems, "{name}");
        }
        if nth % 8 == 0 {
            let config = gateway.status().await["config"].clone();
            assert_eq!(config["since"], since, "{name}");
            assert_eq!(config["refused"]["problems"], answer["problems"], "{name}");
            gateway.app().chat().await.ok();
        }
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    // Not one line twice as long as the file: what is told of garbage is bounded.
    assert!(gateway.logs().len() < 4 << 20, "{}", gateway.logs().len());
    clear(&file);
    fs::write(&file, &good).unwrap();
    let last = reload(&gateway, json!({})).await;
    assert_eq!((&last["ok"], &last["changes"]), (&json!(true), &json!([])), "{last}");
    assert!(gateway.status().await["config"]["refused"].is_null());
}
