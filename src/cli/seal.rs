//! `gatekeeper seal`: seals a secret for the configuration file.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{args::SealArgs, file_args::named_or_default};
use crate::{
    config::{self, scalars, yaml::Node},
    vault::{self, Kek, KekSource, pepper::PLACE},
};

impl SealArgs {
    pub(super) fn place(&self) -> anyhow::Result<SealPlace> {
        let (file, provider, key_id) = match self.words.as_slice() {
            [provider, key_id] => (self.config.clone(), provider, key_id),
            [file, provider, key_id] if self.config.is_none() => {
                (Some(file.into()), provider, key_id)
            }
            _ => bail!("seal: expected [FILE] PROVIDER KEY_ID"),
        };
        let config = named_or_default(file.as_ref())?;
        Ok(SealPlace { config, provider: provider.clone(), key_id: key_id.clone() })
    }
}

/// Which key of which provider in which file.
pub(super) struct SealPlace {
    pub(super) config: PathBuf,
    pub(super) provider: String,
    pub(super) key_id: String,
}

pub(super) fn seal(
    args: &SealPlace,
    input: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<()> {
    for (what, name) in [("provider", &args.provider), ("key id", &args.key_id)] {
        if let Err(message) = scalars::name(name) {
            bail!("seal: {what}: {message}");
        }
    }
    // Only the vault is needed: the file may still lack the very key that is being sealed.
    let root = raw_tree(&args.config)?;
    let source = kek_source(&root, &args.config)?;
    let secret = read_secret(input)?;
    let kek = match Kek::load(&source) {
        Err(error) if error.is_absent() => match &source {
            KekSource::File(path) => {
                let kek = Kek::generate_file(path)?;
                writeln!(err, "made a new KEK: {} (keep a copy somewhere safe)", path.display())?;
                kek
            }
            KekSource::Env(_) => {
                bail!("vault.kek: {error}; make one with: head -c 32 /dev/urandom | base64")
            }
        },
        loaded => loaded.context("vault.kek")?,
    };
    let sealed = vault::seal(&kek, &args.provider, &args.key_id, &secret)?;
    writeln!(out, "{sealed}")?;
    out.flush()?;
    writeln!(err, "{}", advice(&root, args))?;
    Ok(())
}

fn raw_tree(file: &Path) -> anyhow::Result<Node> {
    let text = config::read(file)?;
    let mut problems = Vec::new();
    config::yaml::parse(&text, &mut problems)
        .map_err(|problem| anyhow::anyhow!("{}:{problem}", file.display()))
}

fn kek_source(root: &Node, file: &Path) -> anyhow::Result<KekSource> {
    let kek = root.get("vault").and_then(|vault| vault.get("kek"));
    let Some(kek) = kek else {
        bail!(
            "{} has no vault; add this line: vault: {{ kek: file:conf/secrets/kek }}",
            file.display()
        );
    };
    kek.text().and_then(KekSource::parse).with_context(|| {
        format!("{}:{}: vault.kek: expected `env:NAME` or `file:PATH`", file.display(), kek.at.line)
    })
}

fn read_secret(input: &mut dyn Read) -> anyhow::Result<SecretString> {
    let mut text = Zeroizing::new(String::with_capacity(16 * 1024));
    input.take(16 * 1024).read_to_string(&mut text).context("standard input")?;
    let secret = text.trim_end_matches(['\r', '\n']);
    vault::seal::check_secret(secret).context("standard input")?;
    Ok(SecretString::from(secret))
}

/// Where the sealed string goes.
fn advice(root: &Node, args: &SealPlace) -> String {
    let (file, provider, id) = (args.config.display(), &args.provider, &args.key_id);
    if (provider.as_str(), id.as_str()) == PLACE {
        return format!("paste it into {file} as `vault: {{ pepper: \"...\" }}`");
    }
    let node = root.get("providers").and_then(|providers| providers.get(provider));
    let keys = node.and_then(|node| node.get("keys")).map(Node::items).unwrap_or_default();
    let key = keys.iter().find(|key| key.get("id").and_then(Node::text) == Some(id));
    match (node, key) {
        (_, Some(key)) => {
            format!("paste it into {file}, line {}, as that key's `secret`", key.at.line)
        }
        (Some(_), None) => format!(
            "paste it into {file} as a key of {provider}: - {{ id: {id}, secret: \"sealed:...\" }}"
        ),
        (None, _) => format!(
            "{file} has no provider {provider} yet; sealed for its key {id}, it opens nowhere else"
        ),
    }
}
