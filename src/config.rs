//! The configuration: YAML to plain values, with every problem reported at once.
//!
//! `yaml` (a tree that knows its lines) → `validate` (against the one description in `definition`) →
//! `compile` (names resolved, secrets opened, the chain tried) → [`settings::Settings`].

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use gatekeeper_filters::kernel::{Chain, ChainProblem, Registry, Services};

pub mod base_url;
mod compile;
mod definition;
pub mod diagnostics;
mod encoding;
pub mod excerpt;
mod field_type;
pub mod json_schema;
pub mod mask;
mod null_ports;
#[cfg(test)]
mod reference;
pub mod scalars;
mod secrets;
pub mod settings;
pub mod source_files;
mod syntax;
mod validate;
mod wrong_kind;
pub mod yaml;

use self::settings::LicenseSource;
pub use self::{
    diagnostics::{Diagnostic, Diagnostics, Problems, Warning, in_file},
    json_schema::schema,
    secrets::Secrets,
    settings::Settings,
    source_files::SourceFiles,
};

/// Larger files are refused: hand-written ones are smaller.
pub const MAX_FILE: u64 = 1024 * 1024;

/// Reads a file for `run` and reload: secrets are required.
///
/// # Errors
/// Every problem of the file.
pub fn load(path: &Path, registry: &Registry) -> Result<(Settings, Vec<Warning>), Problems> {
    load_with(path, registry, Secrets::Required)
}

/// # Errors
/// Every problem of the file.
pub fn load_with(
    path: &Path,
    registry: &Registry,
    secrets: Secrets,
) -> Result<(Settings, Vec<Warning>), Problems> {
    let mut files = SourceFiles::default();
    files.note(path);
    // A pipe would hang a gateway that runs; `check` may be fed by one.
    if secrets == Secrets::Required && path.metadata().is_ok_and(|meta| !meta.is_file()) {
        return Err(Problems { files, ..Problems::one(path, "can't be read: not a file") });
    }
    let text = match read(path) {
        Ok(text) => text,
        Err(problems) => return Err(Problems { files, ..problems }),
    };
    let mut loaded = parse_from(&text, files, registry, secrets).map_err(|report| Problems {
        file: path.into(),
        list: report.problems,
        warnings: report.warnings,
        files: report.files,
    })?;
    loaded.1.extend(warn_readable_keys(path, &loaded.0));
    Ok(loaded)
}

/// Licence keys stand in the file in clear.
fn warn_readable_keys(path: &Path, settings: &Settings) -> Option<Warning> {
    let has_keys =
        |source: &LicenseSource| matches!(source, LicenseSource::Static(keys) if !keys.is_empty());
    let is_demo = settings.providers.iter().all(|provider| provider.base.stand_in);
    let is_readable = secrets::is_readable_by_all(path);
    (is_readable && !is_demo && settings.licenses.sources.iter().any(has_keys)).then(|| {
        let message = format!(
            "the file holds licence keys, and every user of this machine may read it; chmod 640 {}",
            path.display()
        );
        Warning::new(diagnostics::START, "licenses.sources", message)
    })
}

/// A secret that is named as `env:NAME` or `file:PATH`.
///
/// # Errors
/// It is not here, or named otherwise.
pub fn read_secret(text: &str) -> anyhow::Result<secrecy::SecretString> {
    let source = crate::vault::KekSource::parse(text)
        .ok_or_else(|| anyhow::anyhow!("expected `env:NAME` or `file:PATH`"))?;
    secrets::read_named(&source).map_err(anyhow::Error::msg)
}

/// The text of a configuration file.
///
/// # Errors
/// When it can't be read, is larger than [`MAX_FILE`] or is not UTF-8.
pub fn read(path: &Path) -> Result<String, Problems> {
    let failed = |message: String| Problems::one(PathBuf::from(path), message);
    let file = File::open(path).map_err(|error| failed(format!("can't be read: {error}")))?;
    let mut bytes = Vec::new();
    // One byte more than allowed, as the size reported for the file may be wrong.
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(format!("can't be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed("larger than 1 MiB".into()));
    }
    let failed_at = |(at, message)| Problems::at(path, at, message);
    if let Some(nul) = encoding::nul(&bytes) {
        return Err(failed_at(nul));
    }
    String::from_utf8(bytes).map_err(|error| {
        failed_at(encoding::wrong(error.as_bytes(), error.utf8_error().valid_up_to()))
    })
}

/// Compiles the text of a configuration file.
///
/// # Errors
/// A report with at least one problem.
pub fn parse(
    text: &str,
    registry: &Registry,
    secrets: Secrets,
) -> Result<(Settings, Vec<Warning>), Diagnostics> {
    parse_from(text, SourceFiles::default(), registry, secrets)
}

/// Compiles a text that was read from these files.
fn parse_from(
    text: &str,
    files: SourceFiles,
    registry: &Registry,
    secrets: Secrets,
) -> Result<(Settings, Vec<Warning>), Diagnostics> {
    let mut report = Diagnostics { files, ..Diagnostics::default() };
    let settings = match yaml::parse(text, &mut report.problems) {
        Err(problem) => {
            report.problems.push(problem);
            None
        }
        Ok(root) if root.is_nothing() || root.span.is_empty() && root.entries().is_empty() => {
            let message = "the file is empty; start from conf/examples/groq.yaml";
            report.problem(diagnostics::START, "", message);
            None
        }
        Ok(root) => {
            validate::check(&root, &definition::FILE, "", &mut report);
            compile::compile(&root, registry, secrets, &mut report)
        }
    };
    report.tidy();
    match settings {
        Some(mut settings) if report.problems.is_empty() => {
            settings.files = report.files;
            Ok((settings, report.warnings))
        }
        _ => {
            if report.problems.is_empty() {
                report.problem(diagnostics::START, "", "can't be compiled");
            }
            Err(report)
        }
    }
}

/// Builds the chain on ports that do nothing: for `check` and `explain`, which open no store.
///
/// # Errors
/// As [`Registry::chain`].
pub fn inert_chain(settings: &Settings, registry: &Registry) -> Result<Chain, Vec<ChainProblem>> {
    registry.chain(&settings.filters, &inert_services(settings))
}

/// Ports that do nothing, beside the models of these settings.
pub fn inert_services(settings: &Settings) -> Services {
    null_ports::services(settings.models.clone(), settings.licenses.buy_url.clone())
}

#[cfg(test)]
pub(crate) mod tests;
