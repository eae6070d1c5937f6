use std::{fs, path::PathBuf};

use anyhow::bail;
use clap::CommandFactory;

use super::{
    seal::{SealPlace, seal},
    *,
};
use crate::{
    config::tests::{registry, root},
    vault::{self, Kek, KekSource},
};

mod broken_files;

fn idle() -> Actions {
    Actions {
        run: |_, _, _| bail!("run was called"),
        demo: |_, _| bail!("demo was called"),
        operate: |_, _, _| bail!("operate was called"),
    }
}

/// Exit, standard output and standard error of a command line.
fn call(arguments: &[&str]) -> (anyhow::Result<ExitCode>, String, String) {
    let cli = Cli::try_parse_from(["gatekeeper"].iter().chain(arguments)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let result = dispatch(cli, registry(), idle(), &mut out, &mut err);
    (result, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn default_file() -> String {
    root().join("conf/gatekeeper.yaml").display().to_string()
}

#[test]
fn the_commands_are_well_formed() {
    Cli::command().debug_assert();
}

/// Every command and every command of a command, by their names.
fn commands(of: &clap::Command, before: &[String]) -> Vec<Vec<String>> {
    let below = of.get_subcommands().filter(|command| command.get_name() != "help");
    let each = below.flat_map(|command| {
        let names = [before, &[command.get_name().to_owned()]].concat();
        let deeper = commands(command, &names);
        [vec![names], deeper].concat()
    });
    each.collect()
}

#[test]
fn every_command_has_help_with_an_example_of_itself() {
    let all = commands(&Cli::command(), &[]);
    assert!(all.len() > 15 && all.contains(&vec!["licenses".into(), "grant".into()]), "{all:?}");
    for names in all {
        let words = ["gatekeeper".to_owned()].into_iter().chain(names.clone());
        let help = Cli::try_parse_from(words.chain(["--help".into()])).unwrap_err().to_string();
        let usage = help.lines().find(|line| line.starts_with("Usage: ")).unwrap();
        let count = |of: char| help.matches(of).count();
        assert!(!usage.contains("] [PROVIDER>") && count('[') == count(']'), "{help}");
        let example = format!("gatekeeper {}", names.join(" "));
        let (_, examples) = help.split_once("Example").unwrap_or_else(|| panic!("none in {help}"));
        assert!(examples.contains(&example), "no `{example}` in:\n{examples}");
    }
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let (result, out, err) = call(&["completions", shell]);
        assert_eq!((result.unwrap(), err.as_str()), (ExitCode::SUCCESS, ""));
        for names in commands(&Cli::command(), &[]) {
            let name = names.last().unwrap();
            assert!(out.contains(name.as_str()), "{shell} does not know {name}");
        }
        assert!(out.contains("--month") || out.contains("-l month"), "{shell} knows no options");
    }
}

#[test]
fn the_manual_has_a_page_for_the_program_and_one_for_each_command() {
    let (result, out, err) = call(&["man"]);
    assert_eq!((result.unwrap(), err.as_str()), (ExitCode::SUCCESS, ""));
    assert!(out.contains(".TH gatekeeper 1") && out.contains("gatekeeper demo"), "{out}");
    for names in commands(&Cli::command(), &[]).into_iter().filter(|names| names.len() == 1) {
        let (result, out, _) = call(&["man", &names[0]]);
        assert_eq!(result.unwrap(), ExitCode::SUCCESS);
        let head = format!(".TH gatekeeper-{} 1", names[0]);
        assert!(out.contains(&head) && out.contains("Example"), "{head}: {out}");
    }
    assert!(call(&["man", "fly"]).0.unwrap_err().to_string().contains("no command `fly`"));
}

#[test]
fn run_and_demo_are_handed_on() {
    assert!(call(&["run", "-c", "x"]).0.unwrap_err().to_string().contains("run was called"));
    assert!(call(&["demo"]).0.unwrap_err().to_string().contains("demo was called"));
    let upgrade = call(&["run", "-c", "x", "--upgrade"]).0.unwrap_err().to_string();
    assert!(upgrade.contains("run was called"), "{upgrade}");
}

#[test]
fn check_counts_what_a_good_file_has() {
    let (result, out, err) = call(&["check", "-c", &default_file()]);
    assert_eq!((result.unwrap(), err.as_str()), (ExitCode::SUCCESS, ""));
    assert_eq!(out.lines().count(), 2);
    assert!(out.contains("3 providers, 3 keys, 2 models, 2 plans, 2 licence keys, 5 filters"));
}

#[test]
fn check_tells_every_problem_of_a_bad_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.yaml");
    let text = fs::read_to_string(default_file()).unwrap();
    fs::write(&file, text.replace("messages: 50", "mesages: 50").replace("[fast]", "[slow]"))
        .unwrap();
    let (result, out, err) = call(&["check", "-c", &file.display().to_string()]);
    assert_eq!((result.unwrap(), out.as_str()), (ExitCode::FAILURE, ""));
    assert!(err.contains("plans.free.mesages: unknown field; did you mean `messages`?"), "{err}");
    assert!(err.ends_with("2 problems\n"), "{err}");
    assert!(call(&["check", "-c", "not/there"]).2.contains("not/there: can't be read"));
}

#[test]
fn explain_shows_chain_models_and_plans() {
    let (result, out, _) = call(&["explain", "-c", &default_file()]);
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    for part in [
        "1. license",
        "5. meter",
        "stand-in/small",
        "inside this process",
        "messages 50/month",
        "models: all",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
}

#[test]
fn schema_prints_what_is_committed() {
    let committed = fs::read_to_string(root().join("conf/schema.json")).unwrap();
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(value(&call(&["schema"]).1), value(&committed));
}

fn sealing(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gatekeeper.yaml");
    let kek = directory.path().join("secrets/kek");
    fs::write(&file, text.replace("@kek", &format!("file:{}", kek.display()))).unwrap();
    (directory, file)
}

fn sealed(file: &Path, input: &str) -> anyhow::Result<(String, String)> {
    let args = SealPlace { config: file.into(), provider: "groq".into(), key_id: "a".into() };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    seal(&args, &mut input.as_bytes(), &mut out, &mut err)?;
    Ok((String::from_utf8(out)?, String::from_utf8(err)?))
}

#[test]
fn seal_needs_no_more_of_the_file_than_its_vault() {
    let (directory, file) =
        sealing("vault: { kek: '@kek' }\nproviders:\n  groq: { keys: [{ id: a }] }\n");
    let (first, told) = sealed(&file, "gsk_abc\n").unwrap();
    assert!(first.starts_with("sealed:v1:") && first.lines().count() == 1);
    assert!(told.contains("made a new KEK") && told.contains("line 3"), "{told}");
    let (second, told) = sealed(&file, "gsk_abc\r\n").unwrap();
    assert!(first != second && !told.contains("made a new KEK"));
    let kek = Kek::load(&KekSource::File(directory.path().join("secrets/kek"))).unwrap();
    for text in [first, second] {
        let secret = vault::open_with(&[&kek], "groq", "a", text.trim()).unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(&secret), "gsk_abc");
    }
}

#[test]
fn seal_says_what_it_can_not_do() {
    let (_directory, file) = sealing("vault: { kek: '@kek' }");
    for (input, why) in [("", "empty"), ("\n", "empty"), ("a b", "a space")] {
        let error = format!("{:#}", sealed(&file, input).unwrap_err());
        assert!(error.contains(why), "{error}");
    }
    assert!(!file.with_file_name("secrets").exists(), "a refused secret leaves no KEK behind");
    for (text, why) in [
        ("plans: {}", "add this line: vault:"),
        ("vault: { kek: 5 }", "expected"),
        ("a: [", "is never closed"),
        ("vault: { kek: env:GATEKEEPER_NOT_SET }", "base64"),
    ] {
        let (_directory, file) = sealing(text);
        let error = format!("{:#}", sealed(&file, "gsk").unwrap_err());
        assert!(error.contains(why), "{error}");
    }
    // A secret on the command line is none that is taken.
    let cli = Cli::try_parse_from(["gatekeeper", "seal", "-c", "f", "groq", "a", "gsk"]).unwrap();
    let CliCommand::Seal(args) = cli.command else { panic!("another command") };
    let error = args.place().err().expect("one word too many").to_string();
    assert!(error.contains("expected [FILE] PROVIDER KEY_ID") && !error.contains("gsk"), "{error}");
}

#[test]
fn a_file_needs_no_option_and_its_problems_have_their_line() {
    let file = default_file();
    let (result, out, _) = call(&["check", &file]);
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    let (first, next) = out.split_once('\n').unwrap();
    assert!(
        first.contains("good: 3 providers, 3 keys, 2 models, 2 plans, 2 licence keys"),
        "{out}"
    );
    assert!(first.ends_with("5 filters, 0 warnings"), "{out}");
    assert!(next.starts_with(&format!("Next: gatekeeper run {file}")), "{out}");
    assert!(Cli::try_parse_from(["gatekeeper", "check", &file, "-c", &file]).is_err());
    for command in ["run", "explain", "rewrap", "usage", "reload", "upgrade", "health"] {
        assert!(Cli::try_parse_from(["gatekeeper", command, &file]).is_ok(), "{command}");
    }
    assert!(Cli::try_parse_from(["gatekeeper", "licenses", "show", &file]).is_ok());
    let seal =
        |words: &[&str]| match Cli::try_parse_from(["gatekeeper", "seal"].iter().chain(words)) {
            Ok(Cli { command: CliCommand::Seal(args) }) => {
                args.place().ok().map(|place| (place.config, place.provider, place.key_id))
            }
            _ => None,
        };
    let sealed = Some((PathBuf::from(&file), "groq".to_owned(), "groq-1".to_owned()));
    assert_eq!(seal(&[&file, "groq", "groq-1"]), sealed);
    assert_eq!(seal(&["-c", &file, "groq", "groq-1"]), sealed);
    assert_eq!(seal(&["groq"]), None);

    let directory = tempfile::tempdir().unwrap();
    let wrong = directory.path().join("gateway.yaml");
    let text = "plans:\n  free:\n   messages: 5/month\n    models: [\"*\"]\n    tokens: 1/day\n";
    fs::write(&wrong, text).unwrap();
    let (result, _, err) = call(&["check", wrong.to_str().unwrap()]);
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    let expected = format!(
        "{0}:3:4: indented by 3, the other fields of `free` by 4\n  |\n3 |    messages: 5/month\n  |    ^\n1 problem\n",
        wrong.display()
    );
    assert_eq!(err, expected);
    let port = Cli::try_parse_from(["gatekeeper", "demo", "--listen", "8080"]).unwrap_err();
    assert!(port.to_string().contains("like 127.0.0.1:8080"), "{port}");
}
