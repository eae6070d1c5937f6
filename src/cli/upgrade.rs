//! `gatekeeper upgrade`: asks the running gateway to start its successor and to hand over to it. That
//! process starts it, so that it has the same environment, directory, rights and log, and stays within
//! the same service.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{
    config::Settings,
    upgrade::{
        protocol::{self, Hello, UpgradeProgress},
        runtime_dir::{self, RuntimeDir},
    },
};

/// How long the program may take to check the configuration.
const CHECK: Duration = Duration::from_secs(10);
/// How long the upgrade may go without a report.
const SILENCE: Duration = Duration::from_secs(60);

/// # Errors
/// Why the gateway that ran before still serves.
pub fn upgrade(
    config: &Path,
    settings: &Settings,
    program: Option<PathBuf>,
    err: &mut dyn Write,
) -> anyhow::Result<()> {
    let program = match program {
        Some(program) => program,
        None => std::env::current_exe().context("this program's own path")?,
    };
    let program = std::path::absolute(&program)?;
    check(&program, config)?;
    let places = RuntimeDir::candidates(config, &settings.store.path);
    let Some(stream) = places.iter().find_map(|place| place.connect().ok()) else {
        bail!(
            "upgrade: no gateway runs on {}: nothing answers beside its store {} (relative paths count \
             from the directory the gateway was started in; under systemd set RUNTIME_DIRECTORY as its \
             unit does)",
            config.display(),
            settings.store.path.display()
        );
    };
    let peer = runtime_dir::peer(&stream)?;
    anyhow::ensure!(peer.is_same || peer.is_root, "upgrade: that is another user's process");
    writeln!(err, "process {} serves", peer.pid.as_raw_nonzero())?;
    stream.set_read_timeout(Some(SILENCE))?;
    protocol::send(&stream, &Hello::Upgrade { program })?;
    loop {
        match protocol::receive(&stream)
            .context("upgrade: the gateway closed the connection; see its log")?
        {
            UpgradeProgress::Step(what) => writeln!(err, "{what}")?,
            UpgradeProgress::Done(what) => {
                writeln!(err, "{what}")?;
                return Ok(());
            }
            UpgradeProgress::Failed(why) => {
                bail!("upgrade: {why}. The gateway that ran before serves on, unchanged")
            }
        }
    }
}

/// Runs the new program's `check` on the configuration: its problems are shown here, not in the gateway's
/// log.
fn check(program: &Path, config: &Path) -> anyhow::Result<()> {
    let unchanged = "nothing was changed";
    let mut child = Command::new(program)
        .arg("check")
        .arg("-c")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("upgrade: {}; {unchanged}", program.display()))?;
    let deadline = Instant::now() + CHECK;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            bail!(
                "upgrade: {} does not take {} ({status}); {unchanged}",
                program.display(),
                config.display()
            );
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!(
                "upgrade: {} did not finish checking {} within {} s; {unchanged}",
                program.display(),
                config.display(),
                CHECK.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
