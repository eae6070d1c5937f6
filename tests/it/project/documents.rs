//! The README and the pages in `docs`: their commands run, their configurations pass, their links
//! lead somewhere, and they keep to their size. `docs/README.md` says how blocks are marked.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use tempfile::TempDir;

use crate::support::{
    Config, Gateway, Mock, Reply,
    gateway::{feed, free_port, program, run},
};

/// A gateway for the commands of one page: its provider and its keys are those the pages name.
const BASE: &str = r#"
server: { listen: "127.0.0.1:8080" }
admin: { listen: "127.0.0.1:9090" }
vault: { kek: file:secrets/kek-2, previous: file:conf/secrets/kek }
providers:
  groq:
    base_url: https://api.groq.com/openai/v1
    keys: [{ id: groq-1, secret: env:GROQ_API_KEY }]
  openai:
    base_url: https://api.openai.com/v1
    keys: [{ id: openai-1, secret: env:OPENAI_API_KEY }]
models:
  fast: [groq/llama-3.1-8b-instant]
plans:
  pro: { messages: 1000/month, tokens: 2000000/month, models: ["*"] }
  free: { messages: 50/month, tokens: 100000/month, models: [fast] }
licenses:
  sources:
    - static: { keys: [{ key: BUYER-0001-ABCD, plan: pro }] }
"#;
const KEY: &str = "BUYER-0001-ABCD";
const KEK: &str = "Zm9yIHRoZSB0ZXN0cyBvZiBHYXRla2VlcGVyIG9ubHk=";

struct Page {
    name: String,
    text: String,
    blocks: Vec<Block>,
}

struct Block {
    line: usize,
    mark: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<Page> {
    let mut files = vec![root().join("README.md")];
    for folder in ["docs", "docs/configuration"] {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        files.extend(paths.filter(|path| path.extension().is_some_and(|ext| ext == "md")));
    }
    files.sort();
    files.iter().map(|file| page(file)).collect()
}

fn page(file: &Path) -> Page {
    let text = fs::read_to_string(file).unwrap();
    let name = file.strip_prefix(root()).unwrap().display().to_string();
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (number, line) in text.lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(_) if is_open => is_open = false,
            Some(mark) => {
                is_open = true;
                blocks.push(Block { line: number + 1, mark: mark.into(), text: String::new() });
            }
            None if is_open => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    assert!(!is_open, "{name}: a block has no end");
    Page { name, text, blocks }
}

/// The commands of a block, with their continued lines; those behind `$ ` in a `console` block.
fn commands(block: &Block) -> Vec<String> {
    let is_console = block.mark == "console";
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in block.text.lines().map(str::trim) {
        let begins = line.strip_prefix("$ ");
        match (goes_on, is_console, begins) {
            (true, ..) => {
                let command = commands.last_mut().unwrap();
                command.push('\n');
                command.push_str(line);
            }
            (false, true, Some(command)) => commands.push(command.into()),
            (false, true, None) => continue,
            (false, false, _) => commands.push(line.into()),
        }
        goes_on = line.ends_with('\\');
    }
    commands
}

/// The base with the top-level sections of `part` in place of its own.
fn with_part(part: &str) -> String {
    let named: BTreeSet<&str> =
        part.lines().filter(|line| is_top(line)).filter_map(|l| l.split(':').next()).collect();
    let mut whole = String::new();
    let mut is_kept = true;
    for line in BASE.lines() {
        if is_top(line) {
            is_kept = !named.contains(line.split(':').next().unwrap());
        }
        if is_kept {
            whole.push_str(line);
            whole.push('\n');
        }
    }
    whole + part
}

fn is_top(line: &str) -> bool {
    line.starts_with(|first: char| first.is_ascii_lowercase())
}

fn check(yaml: &str) -> (bool, String) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("gateway.yaml"), yaml).unwrap();
    let output = run(&["check", "-c", "gateway.yaml"], dir.path());
    let words = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(words).unwrap())
}

/// What the README shows of the demo is what it prints.
#[test]
fn the_readme_shows_what_the_demo_prints() {
    let ports = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let mut demo = Command::new(program())
        .args(["demo", "--listen", &ports[0], "--admin", &ports[1]])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    while !said.contains("Ctrl-C") {
        said.push_str(&lines.next().expect("another line").unwrap());
        said.push('\n');
    }
    demo.kill().unwrap();
    demo.wait().unwrap();
    let said = said.replace(&ports[0], "127.0.0.1:8080").replace(&ports[1], "127.0.0.1:9090");
    let readme = page(&root().join("README.md"));
    let shown = readme.blocks.iter().find(|block| block.text.starts_with("Gatekeeper demo"));
    assert_eq!(shown.unwrap().text, said);
}

/// As it stands on the page, after a rotation: the KEK in use is kept, and all of it is its owner's alone.
#[test]
fn the_backup_takes_the_kek_in_use_and_shows_it_to_nobody() {
    let pages = pages();
    let page = pages.iter().find(|page| page.name == "docs/operations.md").unwrap();
    let recipe = page.blocks.iter().find(|block| block.text.contains(".backup ")).unwrap();
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    for folder in ["data", "conf/secrets", "secrets", "bin"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    let vault = "vault: { kek: file:secrets/kek-2, previous: file:conf/secrets/kek }\n";
    fs::write(at("gateway.yaml"), vault).unwrap();
    fs::write(at("secrets/kek-2"), "the new one").unwrap();
    fs::write(at("conf/secrets/kek"), "the old one").unwrap();
    // Where there is no SQLite: what is copied matters here, not by whom.
    fs::write(at("bin/sqlite3"), "#!/bin/sh\necho \"$1\" >\"${2#.backup }\"\n").unwrap();
    fs::set_permissions(at("bin/sqlite3"), fs::Permissions::from_mode(0o755)).unwrap();
    for file in ["gateway.yaml", "secrets/kek-2"] {
        fs::set_permissions(at(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap());
    let done = Command::new("bash")
        .args(["-e", "-c", &recipe.text])
        .current_dir(dir.path())
        .env("PATH", path)
        .status();
    assert!(done.unwrap().success());
    assert_eq!(fs::read_to_string(at("backup-kek/kek")).unwrap(), "the new one");
    for file in ["backup/gatekeeper.db", "backup/gateway.yaml", "backup-kek/kek"] {
        assert_eq!(fs::metadata(at(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::metadata(at("backup-kek")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn each_block_says_what_it_is_and_pages_keep_to_their_size() {
    const MARKS: [&str; 8] =
        ["console", "js", "rust", "sh not-run", "text", "toml", "yaml", "yaml part"];
    let rows = |page: &Page| page.text.lines().count();
    for page in pages() {
        for block in &page.blocks {
            let known = MARKS.contains(&&*block.mark);
            assert!(known, "{}:{}: no such mark: {:?}", page.name, block.line, block.mark);
        }
        let most = match &*page.name {
            "README.md" => 160,
            name if name.starts_with("docs/configuration") => 600,
            _ => 250,
        };
        assert!(rows(&page) <= most, "{} has more than {most} lines", page.name);
        let mut is_block = false;
        for (number, line) in page.text.lines().enumerate() {
            is_block ^= line.trim_start().starts_with("```");
            let may = page.name != "README.md"
                && (is_block || ["|", "!", "<"].iter().any(|mark| line.starts_with(mark)));
            let fits = may || line.chars().count() <= 100;
            assert!(fits, "{}:{}: more than 100 columns", page.name, number + 1);
        }
    }
}

#[test]
fn configurations_pass_the_check() {
    for page in pages() {
        for block in page.blocks {
            let at = format!("{}:{}", page.name, block.line);
            match &*block.mark {
                "yaml" => {
                    let (is_good, words) = check(&block.text);
                    assert!(is_good, "{at}: {words}");
                }
                "yaml part" => {
                    let (_, words) = check(&with_part(&block.text));
                    for problem in ["unknown field", "unknown value", "expected"] {
                        assert!(!words.contains(problem), "{at}: {words}");
                    }
                }
                _ => {}
            }
        }
    }
}

#[test]
fn commands_that_are_not_run_are_there() {
    let dir = TempDir::new().unwrap();
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.mark == "sh not-run") {
            for command in commands(block) {
                let mut words = command.split_whitespace();
                if words.next() != Some("gatekeeper") {
                    continue;
                }
                let at = format!("{}:{}: {command}", page.name, block.line);
                let names = words.clone().take_while(|word| !word.starts_with('-'));
                let mut args: Vec<&str> = names.collect();
                args.push("--help");
                let output = run(&args, dir.path());
                assert!(output.status.success(), "{at}: no such command");
                let help = String::from_utf8(output.stdout).unwrap();
                for option in words.filter(|word| word.starts_with('-')) {
                    assert!(help.contains(option), "{at}: no such option: {option}");
                }
            }
        }
    }
}

#[tokio::test]
async fn commands_run() {
    for page in pages() {
        let scripts: Vec<_> = page.blocks.iter().filter(|b| b.mark == "console").collect();
        if scripts.is_empty() {
            continue;
        }
        let gateway = started().await;
        for block in scripts {
            for command in commands(block) {
                let output = shell(&gateway, &command);
                let words = [output.stdout, output.stderr].concat();
                let words = String::from_utf8_lossy(&words).into_owned();
                let at = format!("{}:{}: {command}", page.name, block.line);
                assert!(output.status.success(), "{at}: {}\n{words}", output.status);
            }
        }
    }
}

/// A gateway on `gateway.yaml`, with the files beside it that the pages name.
async fn started() -> Gateway {
    let dir = Arc::new(TempDir::new().unwrap());
    let at = |name: &str| dir.path().join(name);
    for folder in ["bin", "conf/secrets", "secrets"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    symlink(program(), at("bin/gatekeeper")).unwrap();
    for (file, text) in [
        ("conf/secrets/kek", KEK),
        ("secrets/kek-2", KEK),
        ("key.txt", KEY),
        ("new-key.txt", "gsk_another"),
        (".curlrc", "fail\nsilent\nmax-time = 10\n"),
    ] {
        fs::write(at(file), text).unwrap();
        fs::set_permissions(at(file), fs::Permissions::from_mode(0o600)).unwrap();
    }
    for _ in 0..3 {
        let port = || std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (public, admin) = (port(), port());
        let yaml = BASE
            .replace("127.0.0.1:8080", &public.to_string())
            .replace("127.0.0.1:9090", &admin.to_string());
        fs::write(at("gateway.yaml"), &yaml).unwrap();
        fs::write(at("next.yaml"), yaml.replace("1000/month", "2000/month")).unwrap();
        let mut config = Config::new(&Mock::start(Reply::chat()).await);
        for name in ["GROQ_API_KEY", "OPENAI_API_KEY"] {
            config.env.push((name.into(), "sk-of-the-documents".into()));
        }
        let file = at("gateway.yaml");
        let mut gateway = Gateway::spawn_file(dir.clone(), config, public, admin, &file);
        if gateway.ready().await {
            return gateway;
        }
        gateway.logged("in use").await;
    }
    panic!("no free port for the gateway");
}

/// Runs one command in the gateway's folder.
fn shell(gateway: &Gateway, command: &str) -> std::process::Output {
    let dir = gateway.dir.path();
    let command = command
        .replace("127.0.0.1:8080", &gateway.public.to_string())
        .replace("127.0.0.1:9090", &gateway.admin.to_string())
        .replace("YOUR-KEY", KEY);
    let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-ec", &command]).current_dir(dir).env("PATH", path).env("HOME", dir);
    bash.env("GROQ_API_KEY", "sk-of-the-documents").env("OPENAI_API_KEY", "sk-of-the-documents");
    feed(bash, "")
}

#[test]
fn links_lead_somewhere_and_each_page_is_in_the_table_of_contents() {
    let pages = pages();
    let contents = &pages.iter().find(|page| page.name == "docs/README.md").unwrap().text;
    let all =
        ["benches", "conf", "filters", "tests"].map(|f| page(&root().join(f).join("README.md")));
    for page in pages.iter().chain(&all) {
        let folder = root().join(&page.name).parent().unwrap().to_owned();
        for link in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(&page.name) } else { folder.join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.name);
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let found =
                    text.lines().any(|line| line.starts_with('#') && anchor_of(line) == anchor);
                assert!(found, "{}: no heading for {link}", page.name);
            }
        }
        if let Some(name) = page.name.strip_prefix("docs/").filter(|name| !name.contains('/')) {
            let listed = name == "README.md" || contents.contains(&format!("({name})"));
            assert!(listed, "docs/README.md does not list {name}");
        }
    }
}

/// As GitHub makes it of a heading.
fn anchor_of(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    words.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}
