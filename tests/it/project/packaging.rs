//! What others get: the files of `make dist`, the image and the compose file.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use gatekeeper::config::yaml::{self, Node};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    gateway::{free_port, program},
    run,
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Standard output of a command that must do well.
#[track_caller]
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{err}");
    said
}

#[test]
fn the_sbom_holds_what_is_linked_and_nothing_that_only_tests_use() {
    let text = said(Command::new(root().join(".ci/sbom")).arg("gatekeeper").current_dir(root()));
    let sbom: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(sbom["bomFormat"], "CycloneDX");
    assert_eq!(sbom["specVersion"], "1.5");
    assert_eq!(sbom["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let components: BTreeMap<&str, &Value> = sbom["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| (component["name"].as_str().unwrap(), component))
        .collect();
    for name in ["pingora-core", "rustls", "redis", "libsqlite3-sys", "tikv-jemalloc-sys", "cc"] {
        let component = components.get(name).unwrap_or_else(|| panic!("no {name}"));
        let hash = component["hashes"][0]["content"].as_str().unwrap();
        assert_eq!(hash.len(), 64, "{component}");
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        let purl = component["purl"].as_str().unwrap();
        assert!(purl.starts_with(&format!("pkg:cargo/{name}@")), "{purl}");
    }
    for name in ["proptest", "criterion", "rcgen", "tempfile", "load"] {
        assert!(!components.contains_key(name), "{name} is only for tests");
    }
    // Libraries in C that crates bundle.
    for name in ["sqlite", "zlib-ng", "zstd", "jemalloc"] {
        let component = components.get(name).unwrap_or_else(|| panic!("no {name}"));
        let version = component["version"].as_str().unwrap();
        assert_eq!(component["purl"], format!("pkg:generic/{name}@{version}"));
        assert!(version.contains('.') && component["licenses"][0].is_object(), "{component}");
    }
    let known: Vec<&Value> =
        sbom["components"].as_array().unwrap().iter().map(|c| &c["bom-ref"]).collect();
    for dependency in sbom["dependencies"].as_array().unwrap() {
        for needed in dependency["dependsOn"].as_array().unwrap() {
            assert!(known.contains(&needed), "{needed} is no component");
        }
    }
}

#[test]
fn make_dist_makes_a_program_a_package_and_sums() {
    let has_cargo_deb = Command::new("cargo").args(["deb", "--version"]).output();
    if !has_cargo_deb.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: cargo-deb is not here; `make dist` installs it");
        return;
    }
    let dist = TempDir::new().unwrap();
    let target = Path::new(program()).ancestors().nth(2).unwrap();
    said(
        Command::new("make")
            .args(["dist", "PROFILE=dev"])
            .current_dir(root())
            .env("BIN", program())
            .env("DIST", dist.path())
            .env("CARGO_TARGET_DIR", target),
    );
    let sums = said(Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(&dist));
    assert_eq!(sums.matches(": OK").count(), 3, "{sums}");
    let version = env!("CARGO_PKG_VERSION");
    let stripped = dist.path().join("gatekeeper");
    assert_eq!(
        said(Command::new(&stripped).arg("--version")).trim(),
        format!("gatekeeper {version}")
    );
    let sections = said(Command::new("readelf").args(["-S", "-W"]).arg(&stripped));
    assert!(!sections.contains(".symtab") && !sections.contains(".debug_info"), "{sections}");
    let mut names = fs::read_dir(&dist).unwrap().map(|file| file.unwrap().path());
    let deb = names.find(|path| path.extension().is_some_and(|end| end == "deb")).unwrap();
    let field = |name| said(Command::new("dpkg-deb").arg("--field").arg(&deb).arg(name));
    assert_eq!(field("Package").trim(), "gatekeeper");
    assert!(field("Version").starts_with(version));
    for needed in ["libc6", "ca-certificates", "adduser"] {
        assert!(field("Depends").contains(needed), "{}", field("Depends"));
    }
    let scripts = dist.path().join("control");
    said(Command::new("dpkg-deb").arg("--control").arg(&deb).arg(&scripts));
    for script in ["postinst", "postrm"] {
        said(Command::new("sh").arg("-n").arg(scripts.join(script)));
    }
    assert!(fs::read_to_string(scripts.join("templates")).unwrap().contains("delete-kek"));
    let conffiles = fs::read_to_string(scripts.join("conffiles")).unwrap();
    assert_eq!(conffiles.trim(), "/etc/gatekeeper/gatekeeper.yaml");
    // What is in it works by itself.
    let installed = dist.path().join("installed");
    said(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&installed));
    let inside = installed.join("usr/bin/gatekeeper");
    let file = installed.join("etc/gatekeeper/gatekeeper.yaml");
    said(Command::new(&inside).args(["check", "-c"]).arg(file));
    for path in [
        "usr/share/bash-completion/completions/gatekeeper",
        "usr/share/man/man1/gatekeeper.1.gz",
        "usr/share/man/man1/gatekeeper-check.1.gz",
        "usr/share/zsh/vendor-completions/_gatekeeper",
        "usr/share/fish/vendor_completions.d/gatekeeper.fish",
        "usr/share/doc/gatekeeper/docs/configuration/server.md",
        "usr/share/doc/gatekeeper/docs/operations.md",
        "usr/share/doc/gatekeeper/examples/groq.yaml",
        "usr/share/doc/gatekeeper/gatekeeper.cdx.json",
        "usr/share/gatekeeper/schema.json",
    ] {
        assert!(installed.join(path).exists(), "no {path}");
    }
}

#[test]
fn the_newest_symbol_of_glibc_that_a_program_asks_for_is_found_and_bounded() {
    let ask = |most: &[&str]| {
        let mut command = Command::new(root().join(".ci/glibc"));
        let output = command.arg(program()).args(most).output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
        (output.status.success(), said.concat())
    };
    let (done, highest) = ask(&[]);
    let highest = highest.trim();
    assert!(done && highest.starts_with("2."), "{highest}");
    let minor = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    // The same by another way than the one of the script.
    let table = said(Command::new("objdump").arg("--dynamic-syms").arg(program()));
    let versions = table.split("GLIBC_2.").skip(1);
    let newest = versions.filter_map(|rest| {
        rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|minor| minor.parse::<u32>().ok())
    });
    assert_eq!(newest.max(), Some(minor(highest)));
    assert!(ask(&[highest]).0 && ask(&["2.999"]).0);
    let (done, said) = ask(&["2.4"]);
    assert!(
        !done && said.contains("above 2.4:") && said.contains(&format!("({highest})")),
        "{said}"
    );
    // A build that is given to others is held to it.
    let dist = fs::read_to_string(root().join(".ci/dist")).unwrap();
    assert!(
        dist.contains("glibc=${GLIBC-2.31}") && dist.contains(".ci/glibc \"$program\" \"$glibc\"")
    );
}

/// As in a fresh container: the first answer needs nothing but the program.
#[test]
fn the_demo_runs_where_there_are_no_root_certificates() {
    let ports = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let mut demo = Command::new(program())
        .args(["demo", "--listen", &ports[0], "--admin", &ports[1]])
        .envs([("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let mut served = false;
    while !served && Instant::now() < until {
        served = is_alive(&ports[0]).unwrap_or(false);
        thread::sleep(Duration::from_millis(20));
    }
    demo.kill().unwrap();
    let said = demo.wait_with_output().unwrap().stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(served, "{said}");
    assert!(said.contains("install ca-certificates"), "{said}");
}

fn is_alive(address: &str) -> std::io::Result<bool> {
    let mut connection = TcpStream::connect(address)?;
    connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

/// A maintainer script of the package that works on `dir` in place of the machine's folders; what it said.
fn maintained(script: &str, words: &[&str], dir: &Path, answer: &str) -> String {
    let text = fs::read_to_string(root().join("conf/debian").join(script)).unwrap();
    let text = ["/etc/", "/var/lib/", "/run/", "/usr/share/debconf/"]
        .into_iter()
        .fold(text, |text, place| text.replace(place, &format!("{}{place}", dir.display())));
    let debconf = dir.join("usr/share/debconf");
    for folder in [&debconf, &dir.join("etc/gatekeeper"), &dir.join("var/lib"), &dir.join("bin")] {
        fs::create_dir_all(folder).unwrap();
    }
    // The account is there, and the answer is given.
    let stub = format!(
        "db_input() {{ echo asked; }}\ndb_go() {{ :; }}\ndb_fset() {{ :; }}\ndb_purge() {{ :; }}\n\
         db_get() {{ RET={answer}; }}\n"
    );
    fs::write(debconf.join("confmodule"), stub).unwrap();
    let install = "install() { mkdir -p \"$8\"; }; getent() { :; }; chgrp() { :; }\n";
    let file = dir.join(script);
    fs::write(&file, format!("{install}{text}")).unwrap();
    said(Command::new("sh").arg(&file).args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
}

#[test]
fn the_package_says_how_to_start_it_and_purging_asks_before_it_deletes_the_kek() {
    let dir = TempDir::new().unwrap();
    let (dir, kek) = (dir.path(), dir.path().join("etc/gatekeeper/kek"));
    let first = maintained("postinst", &["configure", ""], dir, "false");
    let lines: Vec<&str> = first.lines().collect();
    let [.., check, start] = lines.as_slice() else { panic!("{first}") };
    assert!(check.trim().starts_with("gatekeeper check "), "{first}");
    assert_eq!(start.trim(), "systemctl enable --now gatekeeper");
    let key = fs::read(&kek).unwrap();
    assert_eq!(fs::metadata(&kek).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(maintained("postinst", &["configure", "0.1.0-1"], dir, "false"), "", "an upgrade");
    assert_eq!(fs::read(&kek).unwrap(), key);
    maintained("postrm", &["remove"], dir, "true");
    assert!(kek.exists() && dir.join("var/lib/gatekeeper").exists());
    assert!(maintained("postrm", &["purge"], dir, "false").contains("asked"));
    assert!(kek.exists() && !dir.join("var/lib/gatekeeper").exists());
    maintained("postrm", &["purge"], dir, "true");
    assert!(!kek.exists());
    assert!(!maintained("postrm", &["purge"], dir, "true").contains("asked"), "there is none");
}

/// The JSON list behind a word of the Dockerfile.
fn words(dockerfile: &str, instruction: &str) -> Vec<String> {
    let joined = dockerfile.replace("\\\n", " ");
    let line = joined.lines().rfind(|line| line.trim_start().starts_with(instruction));
    let line = line.unwrap_or_else(|| panic!("no {instruction}"));
    serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap()
}

fn is_pinned(image: &str) -> bool {
    // The tag is for people, the digest is what is fetched.
    let digest = image.split_once("@sha256:").map(|(_, digest)| digest);
    let is_digest = digest.is_none_or(|digest| {
        digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    // Built here.
    let is_ours = image.starts_with("gatekeeper:");
    let is_tagged = image
        .split_once(':')
        .is_some_and(|(_, tag)| tag.starts_with(|c: char| c.is_ascii_digit() || c == 'v'));
    is_tagged && is_digest && (is_ours || digest.is_some())
}

#[test]
fn the_image_is_made_of_what_is_there_and_runs_as_nobody_special() {
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let lines = || dockerfile.lines().filter_map(|line| line.split_once(' '));
    let mut images = lines().filter(|(word, _)| *word == "FROM").map(|(_, rest)| rest);
    assert!(images.all(|image| is_pinned(image.split(' ').next().unwrap())), "{dockerfile}");
    let mut copied = BTreeMap::new();
    for (_, rest) in lines().filter(|(word, rest)| *word == "COPY" && !rest.starts_with("--from")) {
        let (from, to) = rest.rsplit_once(' ').unwrap();
        assert!(root().join(from).exists(), "no {from}");
        copied.insert(to, from);
    }
    let ignored = fs::read_to_string(root().join(".dockerignore")).unwrap();
    for kept in ["src", "filters", "conf", "benches", "tests", "Cargo.lock", "LICENSE"] {
        assert!(!ignored.lines().any(|line| line == kept), "{kept} would be missing");
    }
    assert!(ignored.contains("conf/secrets") && ignored.contains("**/target"));
    let user = lines().rfind(|(word, _)| *word == "USER").unwrap().1;
    assert!(user.parse::<u32>().is_ok_and(|id| id > 0), "{user}");
    // What it runs is what the program takes, on a file that is in it.
    assert_eq!(words(&dockerfile, "ENTRYPOINT"), ["gatekeeper"]);
    for (command, skipped) in
        [(words(&dockerfile, "CMD"), 0), (words(&dockerfile, "HEALTHCHECK"), 1)]
    {
        let command = &command[skipped..];
        let [name, option, file] = command else { panic!("{command:?}") };
        assert_eq!(option, "-c");
        assert!(run(&[name.as_str(), "--help"], &root()).status.success(), "{name}");
        let file = root().join(copied[file.as_str()]);
        assert!(run(&["check", "-c", file.to_str().unwrap()], &root()).status.success());
    }
}

/// What the image runs by itself is reached from outside of the container, and opens nothing: its provider and its keys are
/// the demo's.
#[test]
fn the_images_own_configuration_is_the_demo() {
    let own = fs::read_to_string(root().join("conf/image/gatekeeper.yaml")).unwrap();
    let own = yaml::parse(&own, &mut Vec::new()).unwrap();
    let demo = fs::read_to_string(root().join("conf/gatekeeper.yaml")).unwrap();
    let demo = yaml::parse(&demo, &mut Vec::new()).unwrap();
    let listen = |section: &str| own.get(section).and_then(|one| one.get("listen")?.text());
    assert_eq!((listen("server"), listen("admin")), (Some("0.0.0.0:8080"), Some("0.0.0.0:9090")));
    let token = own.get("admin").and_then(|admin| admin.get("token")?.text());
    assert_eq!(token, Some("env:GATEKEEPER_ADMIN_TOKEN"), "no token that everybody knows");
    for provider in own.get("providers").unwrap().entries() {
        let base_url = provider.value.get("base_url").and_then(Node::text);
        assert_eq!(base_url, Some("stand-in"), "{}", provider.key);
    }
    let keys = |file: &Node| -> Vec<String> {
        let sources = file.get("licenses").and_then(|licenses| licenses.get("sources")).unwrap();
        assert_eq!(sources.items().len(), 1);
        let listed = sources.items()[0].get("static").and_then(|one| one.get("keys")).unwrap();
        let keys = listed.items().iter().filter_map(|key| key.get("key")?.text());
        keys.map(str::to_owned).collect()
    };
    assert_eq!(keys(&own), keys(&demo));
    for page in ["Dockerfile", "docs/install.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        assert!(
            text.contains("-p 127.0.0.1:8080:8080") && !text.contains("-p 8080:8080"),
            "{page}"
        );
    }
}

/// A service with what its `<<` brings.
fn member<'a>(service: &'a Node, name: &str) -> Option<&'a Node> {
    service.get(name).or_else(|| service.get("<<")?.get(name))
}

fn texts(node: Option<&Node>) -> Vec<&str> {
    node.map(Node::items).unwrap_or_default().iter().filter_map(Node::text).collect()
}

#[test]
fn the_compose_file_names_what_is_there_and_the_gateways_take_their_file() {
    let conf = root().join("conf");
    let compose = fs::read_to_string(conf.join("compose.yaml")).unwrap();
    let mut problems = Vec::new();
    let compose = yaml::parse(&compose, &mut problems).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    let services = compose.get("services").unwrap();
    let names: Vec<&str> = services.entries().iter().map(|entry| &*entry.key).collect();
    assert_eq!(names, ["gateway-1", "gateway-2", "gateway-3", "redis", "prometheus", "grafana"]);
    let volumes = compose.get("volumes").unwrap();
    let mut stores = Vec::new();
    for service in services.entries() {
        let (name, service) = (&service.key, &service.value);
        let image = member(service, "image").and_then(Node::text).unwrap();
        assert!(is_pinned(image), "{name}: {image}");
        for volume in texts(member(service, "volumes")) {
            let (from, to) = volume.split_once(':').unwrap();
            match from.strip_prefix("./") {
                Some(path) => {
                    assert!(conf.join(path).exists(), "{name}: no {path}");
                    let is_config = to.starts_with("/etc/gatekeeper");
                    assert!(
                        !is_config || conf.join(path).is_dir(),
                        "{name}: a save would be missed"
                    );
                    assert!(to.ends_with(":ro"), "{name}: {volume}");
                }
                None => assert!(volumes.entry(from).is_some(), "{name}: no volume {from}"),
            }
            if to == "/var/lib/gatekeeper" {
                stores.push(from);
            }
        }
        for config in member(service, "configs").map(Node::items).unwrap_or_default() {
            let source = config.get("source").and_then(Node::text).unwrap();
            assert!(compose.get("configs").unwrap().get(source).is_some(), "{name}: no {source}");
        }
        for port in texts(member(service, "ports")) {
            assert!(port.starts_with("127.0.0.1:"), "{name} is open to everybody: {port}");
        }
    }
    assert_eq!(stores, ["gateway-1", "gateway-2", "gateway-3"], "each has a store of its own");
    let redis = texts(services.get("redis").unwrap().get("command")).join(" ");
    assert!(redis.contains("--appendonly yes") && redis.contains("noeviction"), "{redis}");
    assert!(redis.contains("--requirepass"), "{redis}");
    let grafana = services.get("grafana").unwrap().get("environment").unwrap();
    let password = grafana.get("GF_SECURITY_ADMIN_PASSWORD").and_then(Node::text).unwrap();
    assert!(password.contains(":?"), "a default password: {password}");
    let file = conf.join("compose/gateway/gatekeeper.yaml");
    let checked = run(&["check", "-c", file.to_str().unwrap()], &root());
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn prometheus_and_grafana_of_the_compose_file_find_what_they_look_for() {
    let conf = root().join("conf");
    let dir = TempDir::new().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "x").unwrap();
    fs::copy(conf.join("prometheus/alerts.yml"), dir.path().join("alerts.yml")).unwrap();
    let yaml = fs::read_to_string(conf.join("compose/prometheus.yml")).unwrap();
    for gateway in 1..=3 {
        assert!(yaml.contains(&format!("\"gateway-{gateway}:9090\"")), "{yaml}");
    }
    let compose = fs::read_to_string(conf.join("compose.yaml")).unwrap();
    assert!(compose.contains("target: /etc/prometheus/gatekeeper-token"));
    let here = yaml.replace("/etc/prometheus/gatekeeper-token", token.to_str().unwrap());
    assert_ne!(here, yaml);
    let file = dir.path().join("prometheus.yml");
    fs::write(&file, here).unwrap();
    said(Command::new("promtool").args(["check", "config"]).arg(file));
    // The folder that Grafana reads boards from is the one the board is mounted into.
    let boards = fs::read_to_string(conf.join("compose/grafana-dashboards.yaml")).unwrap();
    let boards = yaml::parse(&boards, &mut Vec::new()).unwrap();
    let provider = &boards.get("providers").unwrap().items()[0];
    let path = provider.get("options").unwrap().get("path").and_then(Node::text).unwrap();
    assert!(compose.contains(&format!("./grafana/gatekeeper.json:{path}/gatekeeper.json:ro")));
    let source = fs::read_to_string(conf.join("compose/grafana-datasource.yaml")).unwrap();
    assert!(source.contains("url: http://prometheus:9090") && source.contains("type: prometheus"));
}
