//! What others get: the files of `make dist`, the image and the compose file.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gatekeeper::config::yaml::{self, Node};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{gateway::program, run};

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
