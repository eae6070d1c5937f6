//! Commands that take long say how far they are; and what shells and containers ask of the program.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::support::{
    Config, Gateway, LICENSE, Mock, Reply,
    gateway::{feed, program},
    run,
};

/// An admin listener that takes its time.
fn slow_gateway(answers_after: Duration) -> (TempDir, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = TempDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mock = runtime.block_on(Mock::start(Reply::chat()));
    let public = ([127, 0, 0, 1], 1).into();
    Config::new(&mock).write(dir.path(), public, listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let _ = connection.read(&mut [0; 4096]);
        std::thread::sleep(answers_after);
    });
    (dir, answering)
}

#[test]
fn elsewhere_a_plain_line_and_on_a_terminal_a_moving_one() {
    for terminal in [false, true] {
        let (dir, answering) = slow_gateway(Duration::from_millis(2600));
        let words = ["licenses", "show", "-c", "gatekeeper.yaml"];
        let mut command = match terminal {
            false => Command::new(program()),
            // util-linux's `script` gives it a terminal of its own.
            true => {
                let mut script = Command::new("script");
                let line = [&[program()], &words[..]].concat().join(" ");
                script
                    .args(["-qec", &line, "/dev/null"])
                    .env("TERM", "xterm")
                    .env("COLUMNS", "100");
                script
            }
        };
        if !terminal {
            command.args(words);
        }
        command.current_dir(dir.path());
        let output = feed(command, &format!("{LICENSE}\n"));
        answering.join().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let times = said.matches("Asking the gateway at 127.0.0.1:").count();
        if terminal {
            assert!(times > 2, "it does not move: {said}");
            assert!(said.contains("\u{1b}["), "it is no terminal: {said}");
        } else {
            assert_eq!(times, 1, "{said}");
            assert!(said.lines().any(|line| line.ends_with(": 2 s")), "{said}");
            assert!(!said.contains('\u{1b}') && !said.contains('\r'), "{said}");
        }
    }
}

#[test]
fn what_is_over_soon_says_nothing() {
    let output = run(&["schema"], std::path::Path::new("/"));
    assert!(output.status.success() && output.stderr.is_empty());
}

#[tokio::test]
async fn health_tells_a_container_whether_to_keep_it() {
    let mock = Mock::start(Reply::chat()).await;
    let token = TempDir::new().unwrap();
    let file = token.path().join("token");
    crate::support::yaml::write_private(&file, "a-long-admin-token-0123456789");
    let config = Config::new(&mock).admin(&format!("token: \"file:{}\"", file.display()));
    let mut gateway = Gateway::start(config).await;
    let asked = |words: &[&str]| {
        let output = run(&[&["health"][..], words].concat(), gateway.dir.path());
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let url = format!("http://{}/healthz", gateway.admin);
    for words in
        [&["-c", "gatekeeper.yaml"][..], &[], &["gatekeeper.yaml", "--ready"], &["--url", &url]]
    {
        let (code, said) = asked(words);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.ends_with(": well\n"), "{said}");
    }
    let (code, said) = asked(&["--url", &format!("http://{}/nothing", gateway.admin)]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("404"), "{said}");
    for words in
        [&["nothing.yaml"][..], &["--url", "https://localhost/"], &["--url", &url, "-c", "x"]]
    {
        assert!(asked(words).0.is_some_and(|code| code > 0), "{words:?}");
    }
    gateway.kill();
    let output = run(&["health", "--url", &url], gateway.dir.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused"), "{output:?}");
}

/// Bash itself reads what it is given, and completes with it.
#[test]
fn a_shell_completes_commands_and_options() {
    let dir = TempDir::new().unwrap();
    let script = dir.path().join("gatekeeper.bash");
    let output = run(&["completions", "bash"], dir.path());
    fs::write(&script, output.stdout).unwrap();
    let complete = |words: &str, cword: usize| {
        let line = format!(
            "source {}; COMP_WORDS=(gatekeeper {words}); COMP_CWORD={cword}; \
             _gatekeeper gatekeeper \"${{COMP_WORDS[$COMP_CWORD]}}\" \
             \"${{COMP_WORDS[$((COMP_CWORD-1))]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output =
            Command::new("bash").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("us", 1), ["usage"]);
    assert_eq!(complete("licenses gr", 2), ["grant"]);
    assert_eq!(complete("usage --mo", 2), ["--month"]);
    assert!(complete("usage --by ''", 3).contains(&"licence".to_owned()));
}
