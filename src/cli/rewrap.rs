//! From one KEK to the next: seals every secret of a configuration file under `vault.kek`, in
//! place. Only the sealed strings change; comments and formatting stay byte for byte.
//!
//! The pepper in use is written into the file in the same step, so licences keep their counts. The new file
//! is checked (it opens to the same secrets) before it replaces the old one by a rename: after a power
//! failure the file is complete, either the old or the new one.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    ops::Range,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};

use crate::{
    config::{
        diagnostics::{Diagnostic, Position},
        yaml::{self, Node},
    },
    vault::{
        kek::{Kek, KekError, KekSource, directory_of},
        pepper::{PLACE, Pepper, PepperError},
        seal::{SealError, Sealed, UnsealError, open_with, seal},
    },
};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrapped {
    /// Secrets now under `kek` that were not before.
    pub secrets: usize,
    /// Secrets that were under `kek` already; left as they are.
    pub kept: usize,
    /// The pepper in use was written into the file.
    pub pepper_written: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RewrapError {
    #[error("{}:{problem}", .path.display())]
    Syntax { path: PathBuf, problem: Box<Diagnostic> },
    #[error("{} has no `vault.kek`, so there is nothing to seal under", .0.display())]
    NoVault(PathBuf),
    #[error("vault.{field}: {error}")]
    Kek { field: &'static str, error: KekError },
    #[error("vault.{0}: expected `env:NAME` or `file:PATH`")]
    Source(&'static str),
    #[error("{}:{line}: {path}: {error}", .file.display())]
    Open { file: PathBuf, line: usize, path: String, error: UnsealError },
    #[error("{}:{line}: {path}: write it on one line, without escapes", .file.display())]
    Form { file: PathBuf, line: usize, path: String },
    #[error("vault.pepper: {0}")]
    Pepper(#[from] PepperError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the rewritten file would not read back to the same secrets; nothing was changed")]
    Verify,
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// One sealed string of a file and the place it is bound to.
struct Spot {
    provider: String,
    key_id: String,
    sealed: String,
    at: Position,
    span: Range<usize>,
    path: String,
}

struct Keks {
    kek: Kek,
    previous: Option<Kek>,
}

impl Keks {
    fn all(&self) -> Vec<&Kek> {
        [Some(&self.kek), self.previous.as_ref()].into_iter().flatten().collect()
    }
}

/// Seals everything in the file under `vault.kek`. A second run changes nothing.
///
/// # Errors
/// See [`RewrapError`]; the file is then as it was.
pub fn rewrap(path: &Path) -> Result<Rewrapped, RewrapError> {
    let failed = |error| RewrapError::Io { path: path.into(), error };
    // The file a link stands for is rewritten, not the link.
    let real = fs::canonicalize(path).map_err(failed)?;
    clear_left_behind(&real);
    let text = fs::read_to_string(&real).map_err(failed)?;
    let root = parse(&text, path)?;
    let keks = keks(&root, path)?;
    let (new, done) = rewrite(&text, &root, &keks, path)?;
    if new != text {
        verify(&root, &new, &keks, path)?;
        replace(&real, &new).map_err(|error| RewrapError::Io { path: real.clone(), error })?;
    }
    Ok(done)
}

fn parse(text: &str, path: &Path) -> Result<Node, RewrapError> {
    let mut problems = Vec::new();
    let parsed = yaml::parse(text, &mut problems);
    let syntax = |problem| RewrapError::Syntax { path: path.into(), problem: Box::new(problem) };
    let root = parsed.map_err(syntax)?;
    // A duplicate key hides one of two values; which is meant is not for us to guess.
    problems.pop().map_or(Ok(root), |problem| Err(syntax(problem)))
}

fn keks(root: &Node, path: &Path) -> Result<Keks, RewrapError> {
    let load = |field: &'static str| -> Result<Option<Kek>, RewrapError> {
        let Some(node) = root.get("vault").and_then(|vault| vault.get(field)) else {
            return Ok(None);
        };
        let source = node.text().and_then(KekSource::parse).ok_or(RewrapError::Source(field))?;
        Kek::load(&source).map(Some).map_err(|error| RewrapError::Kek { field, error })
    };
    let kek = load("kek")?.ok_or_else(|| RewrapError::NoVault(path.into()))?;
    Ok(Keks { kek, previous: load("previous")? })
}

fn rewrite(
    text: &str,
    root: &Node,
    keks: &Keks,
    file: &Path,
) -> Result<(String, Rewrapped), RewrapError> {
    let mut done = Rewrapped { secrets: 0, kept: 0, pepper_written: false };
    // By place in the text: an anchor and its aliases are one spot.
    let mut edits: BTreeMap<usize, (usize, String)> = BTreeMap::new();
    for spot in spots(root) {
        let secret = open_spot(&spot, keks, file)?;
        if Sealed::parse(&spot.sealed).is_ok_and(|sealed| sealed.kek_id == keks.kek.id()) {
            done.kept += 1;
            continue;
        }
        let Some(offset) = text.get(spot.span.clone()).and_then(|t| t.find(&spot.sealed)) else {
            let (file, line) = (file.into(), spot.at.line);
            return Err(RewrapError::Form { file, line, path: spot.path });
        };
        let start = spot.span.start + offset;
        let sealed = seal(&keks.kek, &spot.provider, &spot.key_id, &secret)?;
        if edits.insert(start, (start + spot.sealed.len(), sealed)).is_none() {
            done.secrets += 1;
        }
    }
    if let Some((at, insert)) = pepper_line(text, root, keks)? {
        edits.insert(at, (at, insert));
        done.pepper_written = true;
    }
    let mut new = text.to_owned();
    for (start, (end, replacement)) in edits.into_iter().rev() {
        new.replace_range(start..end, &replacement);
    }
    Ok((new, done))
}

/// Every sealed string of the file: keys of providers, and the pepper.
fn spots(root: &Node) -> Vec<Spot> {
    let mut spots = Vec::new();
    let mut add = |provider: &str, key_id: &str, path: String, node: &Node| {
        let Some(sealed) = node.text().filter(|text| text.starts_with("sealed:")) else { return };
        spots.push(Spot {
            provider: provider.into(),
            key_id: key_id.into(),
            sealed: sealed.into(),
            at: node.at,
            span: node.span.clone(),
            path,
        });
    };
    if let Some(pepper) = root.get("vault").and_then(|vault| vault.get("pepper")) {
        add(PLACE.0, PLACE.1, "vault.pepper".into(), pepper);
    }
    for provider in root.get("providers").map(Node::entries).unwrap_or_default() {
        let keys = provider.value.get("keys").map(Node::items).unwrap_or_default();
        for (index, key) in keys.iter().enumerate() {
            let path = format!("providers.{}.keys[{index}].secret", provider.key);
            let id = key.get("id").and_then(Node::text).unwrap_or_default();
            if let Some(secret) = key.get("secret") {
                add(&provider.key, id, path, secret);
            }
        }
    }
    spots
}

fn open_spot(spot: &Spot, keks: &Keks, file: &Path) -> Result<SecretString, RewrapError> {
    open_with(&keks.all(), &spot.provider, &spot.key_id, &spot.sealed).map_err(|error| {
        RewrapError::Open { file: file.into(), line: spot.at.line, path: spot.path.clone(), error }
    })
}

/// Where and how the pepper in use goes into the file; `None` when it is there.
fn pepper_line(
    text: &str,
    root: &Node,
    keks: &Keks,
) -> Result<Option<(usize, String)>, RewrapError> {
    let Some(vault) = root.get("vault") else { return Ok(None) };
    if vault.get("pepper").is_some() {
        return Ok(None);
    }
    let Some(first) = vault.entries().first() else { return Ok(None) };
    let pepper = Pepper::derived(&keks.kek, keks.previous.as_ref());
    let sealed = seal(&keks.kek, PLACE.0, PLACE.1, &pepper.encode())?;
    let at = first.key_span.start;
    let flow = text.get(vault.span.start..).is_some_and(|rest| rest.starts_with('{'));
    if flow {
        return Ok(Some((at, format!("\"pepper\": \"{sealed}\", "))));
    }
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    Ok(Some((at, format!("pepper: \"{sealed}\"{newline}{}", &text[line..at]))))
}

/// The new text holds the same secrets at the same places, all under `kek`.
fn verify(old: &Node, new: &str, keks: &Keks, file: &Path) -> Result<(), RewrapError> {
    let new = parse(new, file).map_err(|_| RewrapError::Verify)?;
    let opened = |root: &Node, keks: &[&Kek]| -> Option<BTreeMap<String, SecretString>> {
        let open = |spot: Spot| {
            let secret = open_with(keks, &spot.provider, &spot.key_id, &spot.sealed).ok()?;
            Some((spot.path, secret))
        };
        spots(root).into_iter().map(open).collect()
    };
    let before = opened(old, &keks.all());
    let after = opened(&new, &[&keks.kek]);
    let (Some(before), Some(mut after)) = (before, after) else { return Err(RewrapError::Verify) };
    if !before.contains_key("vault.pepper")
        && let Some(pepper) = after.remove("vault.pepper")
    {
        let in_use = Pepper::derived(&keks.kek, keks.previous.as_ref());
        if Pepper::decode(&pepper)?.expose() != in_use.expose() {
            return Err(RewrapError::Verify);
        }
    }
    let same = before.len() == after.len()
        && before.iter().all(|(path, secret)| {
            after.get(path).is_some_and(|new| new.expose_secret() == secret.expose_secret())
        });
    if same { Ok(()) } else { Err(RewrapError::Verify) }
}

/// What a file is written to before it takes the place of another, by the process that writes it.
fn temporary(path: &Path, process: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    directory_of(path).join(format!(".{name}.rewrap-{process}"))
}

/// Removes what runs left that were killed in the middle.
fn clear_left_behind(path: &Path) {
    let Ok(entries) = fs::read_dir(directory_of(path)) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.rsplit_once(".rewrap-")).map(|it| it.1);
        let Some(process) = process.filter(|process| temporary(path, process) == entry.path())
        else {
            continue;
        };
        let number = process.parse::<i32>().ok().and_then(rustix::process::Pid::from_raw);
        let is_gone = number.is_some_and(|number| {
            rustix::process::test_kill_process(number) == Err(rustix::io::Errno::SRCH)
        });
        if is_gone {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes beside the file, then renames over it; mode and owner stay.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = temporary(path, &std::process::id().to_string());
    // Left by a process of the same number that was killed.
    let _ = fs::remove_file(&temporary);
    let written = write(path, &temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(directory_of(path))?.sync_all()
}

fn write(path: &Path, temporary: &Path, text: &str) -> io::Result<()> {
    let old = fs::metadata(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    let new = file.metadata()?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
