//! The machine as far as it decides what ratios come out, and the figures that are kept of machines
//! like it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Points by which the kernel's share of two runs on one machine may differ.
const SAME_SHARE: f64 = 0.1;

#[derive(Serialize, Deserialize, Clone)]
pub struct Machine {
    pub cpu: String,
    pub cores: u32,
    /// Of the bare proxy's processor time for a JSON request. What a proxy does in user space weighs the
    /// less the larger it is, so it decides the ratios.
    pub kernel_share: f64,
}

impl Machine {
    pub fn new(cores: u32, kernel_share: f64) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name"));
        let cpu = model.and_then(|rest| rest.split_once(':')).map_or("unknown", |(_, name)| name);
        let kernel_share = (kernel_share * 100.0).round() / 100.0;
        Self { cpu: cpu.trim().to_owned(), cores, kernel_share }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.cpu == other.cpu
            && self.cores == other.cores
            && (self.kernel_share - other.kernel_share).abs() <= SAME_SHARE
    }
}

/// What was measured on one machine: ratios to the bare proxy, KiB a stream.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    #[serde(flatten)]
    pub machine: Machine,
    pub commit: String,
    pub figures: BTreeMap<String, f64>,
}

/// The figures of the machine most like this one.
///
/// # Errors
/// The file is there and can't be read.
pub fn kept(path: &Path, machine: &Machine) -> Result<Option<Kept>> {
    let away = |kept: &Kept| (kept.machine.kernel_share - machine.kernel_share).abs();
    let alike = all(path)?.into_iter().filter(|kept| kept.machine.is_like(machine));
    Ok(alike.min_by(|a, b| away(a).total_cmp(&away(b))))
}

/// Keeps figures in place of those of a machine like this one.
///
/// # Errors
/// The file can't be read or written.
pub fn keep(path: &Path, new: Kept) -> Result<()> {
    let mut all = all(path)?;
    all.retain(|kept| !kept.machine.is_like(&new.machine));
    all.push(new);
    let text = serde_json::to_string_pretty(&all)? + "\n";
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// The commit that is checked out.
pub fn checked_out() -> String {
    let described = ["describe", "--always", "--abbrev=7", "--dirty=, changed"];
    let output = Command::new("git").args(described).output().ok();
    let output = output.filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().trim().to_owned()
}

fn all(path: &Path) -> Result<Vec<Kept>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn on(cores: u32, kernel_share: f64, json: f64) -> Kept {
        Kept {
            machine: Machine { cpu: "one".into(), cores, kernel_share },
            commit: "c".into(),
            figures: BTreeMap::from([("JSON".into(), json)]),
        }
    }

    #[test]
    fn figures_of_machines_alike_replace_each_other_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timings.json");
        assert!(kept(&path, &on(2, 0.5, 1.0).machine).unwrap().is_none());
        for new in [on(2, 0.5, 1.0), on(4, 0.5, 2.0), on(2, 0.75, 3.0), on(2, 0.52, 4.0)] {
            keep(&path, new).unwrap();
        }
        let json = |cores, share| {
            let found = kept(&path, &on(cores, share, 0.0).machine).unwrap();
            found.map(|kept| kept.figures["JSON"])
        };
        assert_eq!(json(2, 0.48), Some(4.0));
        assert_eq!(json(4, 0.5), Some(2.0));
        assert_eq!(json(2, 0.7), Some(3.0));
        assert_eq!(json(8, 0.5), None);
        assert_eq!(json(2, 0.9), None);
    }
}
