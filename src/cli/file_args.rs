//! The configuration file that a command is about.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

/// Where the configuration is looked for when the command line names none, in this order.
const DEFAULT_FILES: [&str; 2] = ["gatekeeper.yaml", "/etc/gatekeeper/gatekeeper.yaml"];

#[derive(Debug, Clone, Args)]
pub struct FileArgs {
    /// The configuration file; default: ./gatekeeper.yaml, then /etc/gatekeeper/gatekeeper.yaml
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// The configuration file, as an option
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl FileArgs {
    /// # Errors
    /// No file is named, and there is none where it is looked for.
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        named_or_default(self.file.as_ref().or(self.config.as_ref()))
    }
}

pub fn named_or_default(named: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(file) = named {
        return Ok(file.clone());
    }
    let found = DEFAULT_FILES.iter().map(PathBuf::from).find(|file| file.exists());
    found.with_context(|| {
        format!(
            "no configuration file is named, and there is no ./{} and no {}",
            DEFAULT_FILES[0], DEFAULT_FILES[1]
        )
    })
}
