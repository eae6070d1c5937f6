//! Reloads a hundred times a second, certificates and KEKs that change under load: no request is the worse for it.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustix::process::Signal;
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};

use crate::support::{
    Config, Gateway, Http, LICENSE, Mock, Noise, Reply, Wire, ca, eventually, gateway::program,
    repeat, run_with_input, yaml::write_private,
};

const SOON: Duration = Duration::from_secs(10);

/// Apps that ask one question after the other, each answered with 200.
struct Load {
    done: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    apps: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(app: &Http, apps: usize) -> Self {
        let (done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let work = |_| {
            let (app, done, served) = (app.clone(), done.clone(), served.clone());
            tokio::spawn(async move {
                while !done.load(Relaxed) {
                    app.chat().await.ok();
                    served.fetch_add(1, Relaxed);
                }
            })
        };
        let apps = (0..apps).map(work).collect();
        Self { done, served, apps }
    }

    /// Waits until so many more were answered.
    async fn goes_on(&self, more: u64) {
        let until = self.served.load(Relaxed) + more;
        eventually("requests are answered", SOON, || async {
            assert!(self.apps.iter().all(|app| !app.is_finished()), "a request failed");
            self.served.load(Relaxed) >= until
        })
        .await;
    }

    /// How many were answered.
    async fn end(self) -> u64 {
        self.done.store(true, Relaxed);
        for app in self.apps {
            app.await.expect("every request is answered");
        }
        self.served.load(Relaxed)
    }
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The certificate that a new connection is shown, DER.
async fn shown(gateway: &Gateway) -> Vec<u8> {
    let socket = TcpStream::connect(gateway.public).await.expect("a connection");
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ca::connector(&[b"http/1.1"]).connect(name, socket).await.expect("a handshake");
    tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn leaf(pair: &ca::Pair) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap().to_vec()
}

/// Waits for it; not one connection on the way is refused.
async fn is_shown(gateway: &Gateway, pair: &ca::Pair) {
    eventually("the new certificate is shown", SOON, || async {
        shown(gateway).await == leaf(pair)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_swapped_under_load() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).over(Wire::Tls)).await;
    let dir = gateway.dir.path();
    let (cert, key) = (dir.join("server.pem"), dir.join("server.key"));
    let names = ["localhost", "127.0.0.1"];
    let load = Load::start(&gateway.app(), 2);
    let old = shown(&gateway).await;
    // Saved alone it is noticed: the configuration that names it did not change.
    let next = ca::issue(&names);
    fs::write(&cert, &next.cert).unwrap();
    write_private(&key, &next.key);
    is_shown(&gateway, &next).await;
    assert_ne!(old, leaf(&next));
    gateway.logged("server: certificate changed").await;
    load.goes_on(20).await;
    // A certificate without its key, and what is no certificate: the old one stays.
    let (stranger, file) = (ca::issue(&names), dir.join("gatekeeper.yaml"));
    for (text, says) in [
        (stranger.cert.as_str(), "do not belong together"),
        ("nothing", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "server.pem"),
    ] {
        fs::write(&cert, text).unwrap();
        assert!(!gateway.read_again().await, "{says}");
        let refused = gateway.status().await["config"]["refused"]["problems"].to_string();
        assert!(refused.contains(says) && refused.contains("server.tls.cert"), "{refused}");
        assert_eq!(shown(&gateway).await, leaf(&next));
    }
    fs::write(&cert, &stranger.cert).unwrap();
    write_private(&key, "no key\n");
    assert!(!gateway.read_again().await);
    gateway.logged("holds no private key").await;
    // Of what is no file, or no certificate by its size, nothing is read.
    fs::File::create(&cert).unwrap().set_len((1 << 20) + 1).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&key).status().unwrap().success());
    assert!(!gateway.read_again().await);
    eventually("both are told", SOON, || async {
        let refused = gateway.status().await["config"]["refused"]["problems"].to_string();
        refused.contains("server.pem: larger than 1 MiB")
            && refused.contains("server.key: not a file")
    })
    .await;
    assert_eq!(shown(&gateway).await, leaf(&next));
    // Other files of that name's place, by the configuration.
    let (moved_cert, moved_key) = (dir.join("moved.pem"), dir.join("moved.key"));
    fs::write(&moved_cert, &stranger.cert).unwrap();
    write_private(&moved_key, &stranger.key);
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("server.pem", "moved.pem").replace("server.key", "moved.key");
    fs::write(&file, text).unwrap();
    is_shown(&gateway, &stranger).await;
    load.goes_on(20).await;
    load.end().await;
    // A listener with TLS and one without are two: that takes a hand-over.
    let text = fs::read_to_string(&file).unwrap();
    let start = text.find(", tls: {").unwrap();
    let end = start + text[start..].find('}').unwrap() + 1;
    fs::write(&file, [&text[..start], &text[end..]].concat()).unwrap();
    eventually("it is named", SOON, || async {
        gateway.status().await["config"]["waits_for_restart"][0] == "server.tls"
    })
    .await;
    assert_eq!(shown(&gateway).await, leaf(&stranger));
}

/// A configuration whose two provider keys are sealed under `kek-0`.
fn sealed(dir: &Path, mock: &Mock) -> Config {
    make_kek(&dir.join("kek-0"), 0);
    let config = Config::new(mock).more("vault: { kek: \"file:kek-0\" }");
    let file = config.file(dir);
    let seal = |id: &str, secret: &str| {
        let args = ["seal", "-c", file.to_str().unwrap(), "p", id];
        let output = run_with_input(&args, dir, secret);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (one, two) = (seal("p-1", "sk-one"), seal("p-2", "sk-two"));
    config.secret("p", 0, &one).secret("p", 1, &two)
}

fn make_kek(path: &Path, seed: u64) {
    let mut noise = Noise::new(seed + 11);
    let bytes: Vec<u8> = (0..32).map(|_| noise.below(256) as u8).collect();
    write_private(path, &STANDARD.encode(bytes));
}

/// The KEK that all sealed strings of a file name.
fn only_kek(text: &str) -> String {
    let mut ids: Vec<String> = text
        .split("sealed:v1:")
        .skip(1)
        .map(|rest| rest.split(':').next().unwrap().to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1, "the old KEK or the new one, no mixture: {text}");
    ids.remove(0)
}

/// From KEK to KEK under load, with `rewrap` killed at random moments: the file is sealed under the old one or the new
/// one, never a mixture, and the gateway serves all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kek_is_rotated_under_load_with_rewrap_killed_at_any_moment() {
    let kills: u64 = repeat::times("GATEKEEPER_REWRAP_KILLS", 30);
    let mock = Mock::start(Reply::chat()).await;
    let dir = Arc::new(tempfile::TempDir::new().unwrap());
    let config = sealed(dir.path(), &mock);
    let gateway = Gateway::start_in(dir, config).await;
    let dir = gateway.dir.path();
    let file = dir.join("gatekeeper.yaml");
    let load = Load::start(&gateway.app(), 2);
    let rewrap = || {
        let mut command = std::process::Command::new(program());
        command.args(["rewrap", "-c", "gatekeeper.yaml"]).current_dir(dir);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    };
    let mut noise = Noise::new(23);
    let (mut rotation, mut unfinished, mut finished) = (0, 0, 0);
    let mut longest = Duration::from_millis(30);
    for _ in 0..kills {
        let text = fs::read_to_string(&file).unwrap();
        let old = only_kek(&text);
        if !text.contains("previous:") {
            // The recipe: the old KEK becomes `previous`, a new one `kek`.
            rotation += 1;
            make_kek(&dir.join(format!("kek-{rotation}")), rotation);
            let (was, is) = (format!("file:kek-{}", rotation - 1), format!("file:kek-{rotation}"));
            let line = format!("kek: \"{is}\", previous: \"{was}\"");
            let next = text.replace(&format!("kek: \"{was}\""), &line);
            assert_ne!(next, text);
            save(&file, &next);
        }
        let began = Instant::now();
        let mut child = rewrap().spawn().unwrap();
        let wait = Duration::from_micros(noise.below(longest.as_micros() as u64));
        while began.elapsed() < wait && child.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        // As many kills before its end as after, whether the machine is slow or fast.
        longest = match child.try_wait().unwrap() {
            Some(_) => longest * 4 / 5,
            None => longest * 5 / 4,
        };
        let _ = child.kill();
        child.wait().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let now = only_kek(&text);
        let opens = crate::support::run(&["check", "-c", "gatekeeper.yaml"], dir);
        assert_eq!(opens.status.code(), Some(0), "{}", String::from_utf8_lossy(&opens.stderr));
        if now == old {
            unfinished += 1;
            continue;
        }
        finished += 1;
        // It opens with the new KEK alone.
        let start = text.find(", previous:").unwrap();
        let end = start + text[start..].find('}').unwrap();
        save(&file, &[&text[..start], " ", &text[end..]].concat());
        let opens = crate::support::run(&["check", "-c", "gatekeeper.yaml"], dir);
        assert_eq!(opens.status.code(), Some(0), "{}", String::from_utf8_lossy(&opens.stderr));
    }
    load.goes_on(10).await;
    assert!(gateway.read_again().await, "{}", gateway.logs());
    let served = load.end().await;
    println!(
        "{kills} kills of rewrap: {finished} after the new file was there, {unfinished} before; \
         {served} requests, none failed"
    );
    assert!(finished > 0 && unfinished > 0, "{finished} {unfinished}");
    assert_eq!(gateway.messages(LICENSE).await, served);
    assert!(rewrap().status().unwrap().success());
    let left = fs::read_dir(dir).unwrap().filter_map(Result::ok);
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().contains(".rewrap-")),
        "what killed ones left behind is cleared: {left:?}"
    );
}

fn save(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, file).unwrap();
}

/// They measure the machine, or keep all of it busy: `make test` runs them with nothing beside them.
mod alone {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_storm_of_sighup_fails_no_request_and_takes_no_memory() {
        let seconds: u64 = repeat::times("GATEKEEPER_RELOAD_SECONDS", 6);
        let mock = Mock::start(Reply::chat()).await;
        // A minute of load is more than a plan usually has.
        let plenty = "messages: 1000000000/month, models: [\"*\"]";
        let gateway = Gateway::start(Config::new(&mock).plan("free", plenty)).await;
        let file = gateway.dir.path().join("gatekeeper.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let load = Load::start(&gateway.app(), 4);
        let began = Instant::now();
        let (mut sent, mut settled) = (0_u32, None);
        while began.elapsed() < Duration::from_secs(seconds) {
            gateway.signal(Signal::HUP);
            sent += 1;
            if sent.is_multiple_of(25) {
                // Another configuration each time, and now and then a broken one.
                let other = match sent / 25 % 3 {
                    0 => format!("{text}  extra-{sent}: [p/m2]\n"),
                    1 => text.clone(),
                    _ => text.replace("models:", "modles:"),
                };
                let beside = file.with_extension("new");
                fs::write(&beside, other).unwrap();
                fs::rename(&beside, &file).unwrap();
            }
            if settled.is_none() && began.elapsed() > Duration::from_secs(seconds) / 2 {
                settled = Some(resident(gateway.pid()));
            }
            let next = began + Duration::from_millis(10) * sent;
            tokio::time::sleep(next.saturating_duration_since(Instant::now())).await;
        }
        load.goes_on(10).await;
        let (before, after) = (settled.unwrap(), resident(gateway.pid()));
        let served = load.end().await;
        let metrics = gateway.metrics().await;
        let reloads = metrics.sum("gatekeeper_config_reload_total", &[]);
        println!(
            "{sent} SIGHUP in {seconds} s: {reloads} reloads, {served} requests, none failed; \
         {before} KiB half-way, {after} KiB at the end"
        );
        assert!(reloads >= 2.0 * seconds as f64, "{reloads} reloads: is anything read?");
        assert!(reloads <= 4.0 * seconds as f64 + 3.0, "{reloads} reloads are too many");
        assert!(metrics.sum("gatekeeper_config_reload_total", &[("result", "failure")]) > 0.0);
        assert!(after < before + 8 * 1024, "{before} KiB, then {after} KiB");
        assert_eq!(gateway.messages(LICENSE).await, served);
    }
}
