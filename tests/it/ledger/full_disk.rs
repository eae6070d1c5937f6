//! Disks without room, and disks that take nothing: answers go on or are refused, nothing is lost, and
//! the log says it once.
//!
//! The disk is a small file system in memory. Where none may be mounted, these tests say so and end.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    support::{
        Answer, Config, Gateway, LICENSE, Mock, Reply, client, eventually, run, yaml::write_private,
    },
    vault::canary::seal,
};

const SOON: Duration = Duration::from_secs(10);
/// Lines that came earlier are not written with those that come later.
const GATHERED: Duration = Duration::from_millis(120);

/// A file system of this size.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn mount(options: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            println!("SKIPPED: nothing can be mounted here");
        }
        mounted.then_some(Self { dir })
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.dir.path()).status();
        assert!(done.unwrap().success());
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Uses up what is left.
    fn fill(&self) -> PathBuf {
        let path = self.at("filler");
        let mut file = File::create(&path).unwrap();
        for size in [64 * 1024, 4096] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

fn count(gateway: &Gateway, words: &str) -> usize {
    gateway.logs().matches(words).count()
}

async fn store_is_up(gateway: &Gateway, up: f64) {
    eventually("gatekeeper_store_up", SOON, || async {
        gateway.metrics().await.sum("gatekeeper_store_up", &[]) == up
    })
    .await;
}

/// There is room for one segment of the journal and for little of SQLite.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_the_store_refuses_when_the_journal_is_full_and_forgets_nothing() {
    let Some(disk) = Disk::mount("size=5m") else { return };
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).store_at(&disk.at("gatekeeper.db"));
    let mut gateway = Gateway::start(config).await;
    let filler = disk.fill();
    store_is_up(&gateway, 0.0).await;
    let mut served = 0;
    let refused = loop {
        let asked: Vec<_> = (0..8)
            .map(|_| {
                let app = gateway.app();
                tokio::spawn(async move {
                    let body = client::chat(&json!({})).to_string();
                    let mut served = 0;
                    for _ in 0..200 {
                        let answer = app.post("/chat", body.clone()).send().await.unwrap();
                        match answer.status().as_u16() {
                            200 => served += 1,
                            _ => return (served, Some(Answer::read(answer).await)),
                        }
                    }
                    (served, None)
                })
            })
            .collect();
        let mut refused = None;
        for asked in asked {
            let (some, answer) = asked.await.unwrap();
            served += some;
            refused = answer.or(refused);
        }
        assert!(served < 60_000, "the journal has no end");
        if let Some(refused) = refused {
            break refused;
        }
    };
    refused.is(503, "store_unavailable");
    assert!(refused.number("retry-after") <= 60);
    assert!(served > 500, "it refused after {served}: there was room in the journal");
    // The counters in memory are whole: no request is free, none is charged twice.
    assert_eq!(gateway.messages(LICENSE).await, served);
    assert_eq!(gateway.readyz().await, Some(200), "the balancer need not know");
    for words in ["SQLite fails", "journal", "No space left on device"] {
        assert!(count(&gateway, words) >= 1, "no {words} in {}", gateway.logs());
    }
    let told = count(&gateway, "ERROR");
    assert!(told <= 3, "{told} errors: {}", gateway.logs());
    assert!(!gateway.logs().contains("panicked"), "{}", gateway.logs());
    // As it would be after a power cut, with the disk still full: it says why it does not start.
    gateway.kill();
    let output = run(&["run", "-c", "gatekeeper.yaml"], gateway.dir.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("full") || said.contains("No space left"), "{said}");
    let told = said.lines().filter(|line| line.starts_with("gatekeeper: ")).count();
    assert_eq!(told, 1, "{said}");
    // Room again, and everything is there.
    fs::remove_file(filler).unwrap();
    disk.remount("size=64m");
    gateway.restart().await;
    store_is_up(&gateway, 1.0).await;
    assert_eq!(gateway.messages(LICENSE).await, served);
    gateway.app().chat().await.ok();
    assert_eq!(gateway.messages(LICENSE).await, served + 1);
    println!("{served} answers on a full disk, all of them counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_there_is_room_again_the_running_gateway_goes_on() {
    let Some(disk) = Disk::mount("size=5m") else { return };
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).store_at(&disk.at("gatekeeper.db"));
    let gateway = Gateway::start(config).await;
    let filler = disk.fill();
    store_is_up(&gateway, 0.0).await;
    for _ in 0..20 {
        gateway.app().chat().await.ok();
    }
    fs::remove_file(filler).unwrap();
    disk.remount("size=64m");
    store_is_up(&gateway, 1.0).await;
    gateway.app().chat().await.ok();
    assert_eq!(gateway.messages(LICENSE).await, 21);
    eventually("SQLite has them", SOON, || async {
        let open = rusqlite::Connection::open(disk.at("gatekeeper.db")).unwrap();
        let rows = "SELECT count(*) FROM requests WHERE status = 200";
        open.query_row(rows, [], |row| row.get::<_, i64>(0)).is_ok_and(|count| count == 21)
    })
    .await;
    assert!(count(&gateway, "works again") >= 1, "{}", gateway.logs());
}

#[tokio::test]
async fn an_access_log_on_a_full_disk_hurts_no_request() {
    let Some(disk) = Disk::mount("size=256k") else { return };
    let mock = Mock::start(Reply::chat()).await;
    let log = disk.at("access.log");
    let more = format!("log: {{ access: \"file:{}\" }}", log.display());
    let gateway = Gateway::start(Config::new(&mock).more(&more)).await;
    gateway.app().chat().await.ok();
    eventually("the first line is written", SOON, || async {
        fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 1)
    })
    .await;
    let filler = disk.fill();
    // Together they do not fit; a single line fits into what is left of the file's last page, which is no
    // recovery.
    for _ in 0..4 {
        let together = (0..80).map(|_| {
            let app = gateway.app();
            tokio::spawn(async move { app.chat().await })
        });
        for answer in together.collect::<Vec<_>>() {
            answer.await.unwrap().ok();
        }
        tokio::time::sleep(GATHERED).await;
        gateway.app().chat().await.ok();
        tokio::time::sleep(GATHERED).await;
    }
    eventually("it says so", SOON, || async {
        count(&gateway, "The access log can't be written") == 1
    })
    .await;
    fs::remove_file(filler).unwrap();
    eventually("it is written again", SOON, || async {
        gateway.app().chat().await.ok();
        count(&gateway, "The access log can be written again") == 1
    })
    .await;
    assert_eq!(count(&gateway, "The access log can't be written"), 1);
    eventually("each line is whole", SOON, || async {
        let text = fs::read_to_string(&log).unwrap();
        let is_json = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
        text.ends_with('\n') && text.lines().all(is_json)
    })
    .await;
}

/// Everything the gateway says goes to a disk that is full.
#[tokio::test]
async fn a_full_disk_under_the_log_hurts_nobody() {
    let Some(disk) = Disk::mount("size=128k") else { return };
    let mock = Mock::start(Reply::chat()).await;
    let inside = disk.at("run");
    fs::create_dir(&inside).unwrap();
    let place = TempDir::new().unwrap();
    let config = Config::new(&mock)
        .store_at(&place.path().join("gatekeeper.db"))
        .env("RUST_LOG", "debug")
        .under(&["sh", "-c", "exec \"$0\" \"$@\" >\"$LOG\" 2>&1"])
        .env("LOG", inside.join("log").to_str().unwrap());
    let gateway = Gateway::start(config).await;
    disk.fill();
    for _ in 0..50 {
        gateway.app().chat().await.ok();
        gateway.app().post("/chat", "no JSON").send().await.unwrap();
    }
    assert_eq!(gateway.messages(LICENSE).await, 50);
    assert_eq!(gateway.readyz().await, Some(200));
}

#[test]
fn a_disk_that_takes_nothing_is_named_at_the_start() {
    let Some(disk) = Disk::mount("size=64m") else { return };
    let dir = Arc::new(TempDir::new().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mock = runtime.block_on(Mock::start(Reply::chat()));
    let store = disk.at("data/gatekeeper.db");
    Config::new(&mock).store_at(&store).file(dir.path());
    disk.remount("ro");
    let output = run(&["run", "-c", "gatekeeper.yaml"], dir.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Read-only file system") && said.contains("gatekeeper.db"), "{said}");
}

/// The file with the sealed keys is the old one or the new one, whole.
#[test]
fn rewrap_on_a_full_disk_leaves_the_file_as_it_was() {
    let Some(disk) = Disk::mount("size=256k") else { return };
    let keks = TempDir::new().unwrap();
    for name in ["old", "new"] {
        let kek = STANDARD.encode([name.as_bytes()[0]; 32]);
        write_private(&keks.path().join(name), &kek);
    }
    let file = disk.at("gatekeeper.yaml");
    let vault = |kek: &str| format!("kek: \"file:{}\"", keks.path().join(kek).display());
    let config = Config::empty().more(&format!("vault: {{ {} }}", vault("old")));
    let sealed = seal(keks.path(), &config, "p", "p-1", "sk-one");
    let yaml = format!(
        "vault: {{ {}, previous: \"file:{}\" }}\nproviders:\n  p: {{ base_url: \
         https://api.example.com/v1, keys: [ {{ id: p-1, secret: \"{sealed}\" }} ] }}\n",
        vault("new"),
        keks.path().join("old").display()
    );
    fs::write(&file, &yaml).unwrap();
    let filler = disk.fill();
    let rewrap = || run(&["rewrap", "-c", file.to_str().unwrap()], Path::new("/"));
    let output = rewrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), yaml);
    fs::remove_file(filler).unwrap();
    assert!(rewrap().status.success());
    assert_ne!(fs::read_to_string(&file).unwrap(), yaml);
    let left: Vec<_> = fs::read_dir(disk.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing is left behind: {left:?}");
}
