//! What other users of the machine, and other processes of this one, can read of a gateway.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::support::{
    Config, Mock, Raw, Reply, eventually,
    gateway::{free_port, program},
    run,
};

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kernel gives the memory and the environment of a process that is not dumpable to root, whosever process it is.
#[tokio::test]
async fn another_process_of_the_same_user_can_not_read_its_memory() {
    const NOBODY: u32 = 65_534;
    let is_root = rustix::process::getuid().is_root();
    // Where that user can reach it, wherever the project lies.
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("gatekeeper");
    fs::copy(program(), &copy).unwrap();
    for (dumpable, owner) in [("0", 0), ("1", NOBODY)] {
        let (public, admin) = (free_port(), free_port());
        let child = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&copy)
            .arg("demo")
            .args(["--listen", &format!("127.0.0.1:{public}")])
            .args(["--admin", &format!("127.0.0.1:{admin}")])
            .current_dir("/")
            .env("GATEKEEPER_DUMPABLE", dumpable)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Some(child) = child.ok().filter(|_| is_root) else {
            println!("SKIPPED: no program can be run as another user here");
            return;
        };
        let running = Running(child);
        eventually("it listens", Duration::from_secs(20), || async {
            Raw::to(([127, 0, 0, 1], admin).into()).await.is_ok()
        })
        .await;
        let process = format!("/proc/{}", running.0.id());
        let told = fs::read_to_string(format!("{process}/status")).unwrap();
        assert!(told.contains(&format!("Uid:\t{NOBODY}\t")), "{told}");
        for file in ["environ", "mem"] {
            let found = fs::metadata(format!("{process}/{file}")).unwrap().uid();
            assert_eq!(found, owner, "{file}, GATEKEEPER_DUMPABLE={dumpable}");
        }
    }
}

#[tokio::test]
async fn check_warns_of_files_with_secrets_that_everybody_may_read() {
    let dir = TempDir::new().unwrap();
    let mock = Mock::start(Reply::chat()).await;
    let file = Config::new(&mock).file(dir.path());
    let key = dir.path().join("p-1.key");
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let said = || {
        let output = run(&["check", "-c", file.to_str().unwrap()], dir.path());
        assert!(output.status.success());
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let words = ["every user of this machine may read it", "can be read by every user"];
    assert!(words.iter().all(|words| !said().contains(words)), "{}", said());
    for (path, words) in [(&file, words[0]), (&key, words[1])] {
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        assert!(said().contains(words), "{}", said());
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
}
