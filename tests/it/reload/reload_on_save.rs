//! A saved file goes live by itself, whatever way editors and tools have of saving.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::support::{Config, Gateway, LICENSE, Mock, Reply, eventually};

const SOON: Duration = Duration::from_secs(5);

struct Scene {
    _mock: Mock,
    gateway: Gateway,
    text: String,
}

impl Scene {
    async fn start() -> Self {
        let mock = Mock::start(Reply::chat()).await;
        let gateway = Gateway::start(Config::new(&mock)).await;
        let text = fs::read_to_string(gateway.dir.path().join("gatekeeper.yaml")).unwrap();
        Self { _mock: mock, gateway, text }
    }

    fn file(&self) -> PathBuf {
        self.gateway.dir.path().join("gatekeeper.yaml")
    }

    /// The configuration with another licence in place of the usual one.
    fn with(&self, license: &str) -> String {
        self.text.replace(LICENSE, license)
    }

    async fn serves(&self, license: &str) {
        eventually(&format!("{license} is live"), SOON, || async {
            self.gateway.app().chat_as(license).await.status == 200
        })
        .await;
    }

    /// How often the thread that watches the file was woken: twice a second, for a look.
    fn looks(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.gateway.pid())).unwrap();
        let status = tasks.filter_map(|task| {
            let folder = task.unwrap().path();
            let name = fs::read_to_string(folder.join("comm")).ok()?;
            (name.trim() == "config-watch")
                .then(|| fs::read_to_string(folder.join("status")).ok())?
        });
        let status = status.last().expect("the thread runs");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    async fn reloads(&self, result: &str) -> f64 {
        let metrics = self.gateway.metrics().await;
        metrics.sum("gatekeeper_config_reload_total", &[("result", result)])
    }
}

/// Puts a link in the place of another in one step, as `ln -sfn` and Kubernetes do.
fn relink(to: &Path, link: &Path) {
    let beside = link.with_file_name("beside");
    symlink(to, &beside).unwrap();
    fs::rename(beside, link).unwrap();
}

#[tokio::test]
async fn every_way_of_saving_goes_live_once() {
    let scene = Scene::start().await;
    let (file, dir) = (scene.file(), scene.gateway.dir.path().to_owned());
    // In place, as VS Code and `cat >` do.
    fs::write(&file, scene.with("JSTAR-IN-PLACE-01")).unwrap();
    scene.serves("JSTAR-IN-PLACE-01").await;
    // Renamed over, as `mv` does, and vim with a copy kept beside it.
    fs::rename(&file, dir.join("gatekeeper.yaml~")).unwrap();
    fs::write(dir.join("4913"), scene.with("JSTAR-RENAMED-01")).unwrap();
    fs::rename(dir.join("4913"), &file).unwrap();
    scene.serves("JSTAR-RENAMED-01").await;
    let sed =
        Command::new("sed").args(["-i", "s/JSTAR-RENAMED-01/JSTAR-SED-0001/"]).arg(&file).status();
    assert!(sed.unwrap().success());
    scene.serves("JSTAR-SED-0001").await;
    // A link that is turned to another file.
    for name in ["JSTAR-LINK-0001", "JSTAR-LINK-0002"] {
        let target = dir.join(name);
        fs::write(&target, scene.with(name)).unwrap();
        relink(&target, &file);
        scene.serves(name).await;
    }
    // A mount of Kubernetes: the file is a link through a folder that is a link.
    for version in ["JSTAR-MOUNT-001", "JSTAR-MOUNT-002"] {
        let folder = dir.join(format!("..{version}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("gatekeeper.yaml"), scene.with(version)).unwrap();
        relink(&folder, &dir.join("..data"));
        relink(Path::new("..data/gatekeeper.yaml"), &file);
        scene.serves(version).await;
    }
    // The start, and one for each.
    assert_eq!(scene.reloads("success").await, 8.0, "{}", scene.gateway.logs());
    assert_eq!(scene.reloads("failure").await, 0.0, "{}", scene.gateway.logs());
}

#[tokio::test]
async fn a_file_that_can_not_be_used_is_told_once_and_the_next_good_one_is_live() {
    let scene = Scene::start().await;
    let file = scene.file();
    let refused = async |times: f64| {
        eventually("it is refused", SOON, || async { scene.reloads("failure").await == times })
            .await;
        // Nothing more comes of it, however often it is looked at.
        let seen = scene.looks();
        eventually("it is looked at twice more", SOON, || async { scene.looks() >= seen + 2 })
            .await;
        assert_eq!(scene.reloads("failure").await, times, "{}", scene.gateway.logs());
        scene.gateway.app().chat().await.ok();
    };
    let half = &scene.text[..scene.text.len() / 2];
    fs::write(&file, half).unwrap();
    refused(1.0).await;
    fs::remove_file(&file).unwrap();
    refused(2.0).await;
    fs::write(&file, scene.with("JSTAR-LATER-0001")).unwrap();
    scene.serves("JSTAR-LATER-0001").await;
    assert!(scene.gateway.status().await["config"]["refused"].is_null());
}

/// Whoever writes slowly is waited for.
#[tokio::test]
async fn a_file_that_grows_is_read_when_it_is_whole() {
    let scene = Scene::start().await;
    let whole = scene.with("JSTAR-SLOWLY-001");
    let step = whole.len().div_ceil(8);
    for end in (step..whole.len() + step).step_by(step) {
        fs::write(scene.file(), &whole[..end.min(whole.len())]).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    scene.serves("JSTAR-SLOWLY-001").await;
    assert_eq!(scene.reloads("failure").await, 0.0, "{}", scene.gateway.logs());
    assert_eq!(scene.reloads("success").await, 2.0, "{}", scene.gateway.logs());
}

/// What a reload can't read because of its permissions is live when they are mended.
#[tokio::test]
async fn mended_permissions_count_as_saved() {
    let scene = Scene::start().await;
    let before = scene.reloads("success").await;
    fs::set_permissions(scene.file(), fs::Permissions::from_mode(0o600)).unwrap();
    eventually("it is read again", SOON, || async {
        scene.reloads("success").await == before + 1.0
    })
    .await;
}
