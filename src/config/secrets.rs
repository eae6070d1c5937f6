//! Secrets of the configuration: `sealed:v1:...`, `env:NAME`, `file:PATH`. The only place that reads them;
//! messages name the field and the cause, never the content.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::Path,
};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{diagnostics::Diagnostics, yaml::Node};
use crate::{
    vault::VaultKeys,
    vault::{self, KekSource, kek::KekError, seal::check_secret},
};

const MAX_FILE: u64 = 64 * 1024;
/// Stands for a secret that is not on this machine, where that is allowed.
pub(super) const ABSENT: &str = "absent";

/// Whether secrets that are not on this machine are a problem.
///
/// `check` runs in places that must not have the secrets (a laptop, a build server); there an unset
/// variable or a missing file is a warning. To start a gateway they are required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    Required,
    MayBeAbsent,
}

/// Reads and opens secrets while the file is compiled.
pub(super) struct SecretLoader<'a> {
    pub secrets: Secrets,
    pub vault: Option<&'a VaultKeys>,
    /// The file has a `vault` section, whether or not its KEK could be read.
    pub has_vault: bool,
}

/// What went wrong with a secret that is not sealed.
enum SecretError {
    Absent(String),
    Wrong(String),
}

impl SecretLoader<'_> {
    /// A secret bound to `place`: provider and key id.
    pub fn open(
        &self,
        node: &Node,
        place: (&str, &str),
        path: &str,
        report: &mut Diagnostics,
    ) -> Option<SecretString> {
        let text = node.text()?;
        if text.starts_with("sealed:") {
            return self.unseal(node, text, place, path, report);
        }
        let Some(source) = KekSource::parse(text) else {
            report.problem(node.at, path, in_clear(text));
            return None;
        };
        self.read(&source, node, path, report)
    }

    /// A secret that can't be sealed: `env:NAME` or `file:PATH`.
    pub fn plain(&self, node: &Node, path: &str, report: &mut Diagnostics) -> Option<SecretString> {
        let Some(source) = KekSource::parse(node.text()?) else {
            let message = node.text().and_then(variable);
            let message = message.unwrap_or_else(|| "expected `env:NAME` or `file:PATH`".into());
            report.problem(node.at, path, message);
            return None;
        };
        self.read(&source, node, path, report)
    }

    fn unseal(
        &self,
        node: &Node,
        text: &str,
        (provider, key_id): (&str, &str),
        path: &str,
        report: &mut Diagnostics,
    ) -> Option<SecretString> {
        let opened = match self.vault {
            Some(vault) => vault::open(vault, provider, key_id, text),
            None if !self.has_vault => {
                let line = "add `vault: { kek: file:conf/secrets/kek }`";
                report.problem(node.at, path, format!("sealed, but there is no vault; {line}"));
                return None;
            }
            None => {
                // The KEK itself is reported at `vault.kek`; here only the form can be looked at.
                let form = vault::seal::Sealed::parse(text).map(|_| SecretString::from(ABSENT));
                if form.is_ok() {
                    report.warn(node.at, path, "not opened: the KEK is not on this machine");
                }
                form
            }
        };
        opened.map_err(|error| report.problem(node.at, path, error.to_string())).ok()
    }

    fn read(
        &self,
        source: &KekSource,
        node: &Node,
        path: &str,
        report: &mut Diagnostics,
    ) -> Option<SecretString> {
        if let KekSource::File(file) = source {
            report.files.note(file);
        }
        match read(source) {
            Ok(secret) => {
                if let KekSource::File(file) = source {
                    warn_readable(file, node, path, report);
                }
                Some(secret)
            }
            Err(SecretError::Absent(message)) if self.secrets == Secrets::MayBeAbsent => {
                report.warn(node.at, path, message);
                Some(SecretString::from(ABSENT))
            }
            Err(SecretError::Absent(message) | SecretError::Wrong(message)) => {
                report.problem(node.at, path, message);
                None
            }
        }
    }

    /// Reports why a KEK was not read.
    pub fn kek_trouble(&self, node: &Node, path: &str, error: &KekError, report: &mut Diagnostics) {
        if error.is_absent() && self.secrets == Secrets::MayBeAbsent {
            report.warn(node.at, path, error.to_string());
        } else {
            report.problem(node.at, path, error.to_string());
        }
    }
}

/// `${X}` and `$X` are how other programs write it.
fn variable(text: &str) -> Option<String> {
    let name = text.strip_prefix('$')?.trim_start_matches('{').trim_end_matches('}');
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    is_name.then(|| format!("variables are written `env:{name}`"))
}

fn in_clear(text: &str) -> String {
    variable(text).unwrap_or_else(|| {
        "a secret must not stand here in clear: seal it with `gatekeeper seal`, or use `env:NAME` or \
         `file:PATH`"
            .into()
    })
}

/// A secret that the command line names.
pub(super) fn read_named(source: &KekSource) -> Result<SecretString, String> {
    read(source).map_err(|error| match error {
        SecretError::Absent(message) | SecretError::Wrong(message) => message,
    })
}

fn read(source: &KekSource) -> Result<SecretString, SecretError> {
    let text = match source {
        KekSource::Env(name) => match std::env::var(name) {
            Ok(text) => Zeroizing::new(text),
            Err(std::env::VarError::NotPresent) => {
                return Err(SecretError::Absent(format!("environment variable {name} is not set")));
            }
            Err(std::env::VarError::NotUnicode(_)) => {
                let message = format!("environment variable {name} is not UTF-8");
                return Err(SecretError::Wrong(message));
            }
        },
        KekSource::File(path) => read_file(path)?,
    };
    let secret = text.trim_end_matches(['\r', '\n']);
    check_secret(secret).map_err(|error| SecretError::Wrong(format!("{source}: {error}")))?;
    Ok(SecretString::from(secret.to_owned()))
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let failed = |error: std::io::Error| {
        let message = format!("{}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => SecretError::Absent(message),
            _ => SecretError::Wrong(message),
        }
    };
    // A pipe would hang, a device would never end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretError::Wrong(format!("{} is not a file", path.display())));
    }
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

pub(super) fn is_readable_by_all(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o007 != 0)
}

fn warn_readable(file: &Path, node: &Node, path: &str, report: &mut Diagnostics) {
    if is_readable_by_all(file) {
        let file = file.display();
        report.warn(
            node.at,
            path,
            format!("{file} can be read by every user of this machine; chmod 600 {file}"),
        );
    }
}
