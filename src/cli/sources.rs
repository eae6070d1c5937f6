//! The sources of licences, for people: which are asked about a key, and whether they take our questions.

use std::io::Write;

use crate::{
    config::{
        Settings,
        settings::{LicenseSource, ShopAccount},
    },
    licenses::{issued::stripe::try_permissions, online},
    shops::{ShopError, ShopReply, signed::Format},
};

/// Which source a key of which shape is asked of, in their order.
pub fn explain(settings: &Settings, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "\nLicences, a key is looked up in this order:")?;
    for source in &settings.licenses.sources {
        let (name, shape) = match source {
            LicenseSource::Static(keys) => {
                ("static".to_owned(), format!("{} keys of this file", keys.len()))
            }
            LicenseSource::Signed(signed) => {
                let shape = match signed.format {
                    Format::Jwt => "three parts with dots between them (JWT)",
                    Format::Keygen => "`key/`, and two parts with a dot between them",
                };
                (format!("signed {}", signed.audience), shape.to_owned())
            }
            LicenseSource::Shop(account) => {
                (name_of(account), account.source.shop.constants().shape.into())
            }
            LicenseSource::Issued(issued) => {
                let prefix = issued.source.format.prefix();
                let shape = format!("{prefix}-XXXXX-XXXXX-XXXXX-XXXXX, and imported keys");
                (format!("issued {prefix}"), shape)
            }
        };
        writeln!(out, "  {name:<14} {shape}")?;
    }
    Ok(())
}

fn name_of(account: &ShopAccount) -> String {
    format!("{} {}", account.source.shop.name(), account.source.seller()).trim_end().to_owned()
}

/// Asks each shop once about a made-up key; whether all of them took the question.
pub fn check_online(settings: &Settings, out: &mut dyn Write) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut is_good = true;
    for source in &settings.licenses.sources {
        if let LicenseSource::Issued(account) = source {
            for (what, trouble) in runtime.block_on(try_permissions(account))? {
                let said = match &trouble {
                    None => "good: the key may read it".to_owned(),
                    Some(why) => format!("wrong: {why}"),
                };
                is_good &= trouble.is_none();
                writeln!(out, "issued, Stripe {what}: {said}")?;
            }
        }
        let LicenseSource::Shop(account) = source else { continue };
        let reply = runtime.block_on(online::ask_once(account))?;
        let (is_fine, said) = match reply {
            ShopReply::Unknown(ShopError::Misconfigured(why)) => (false, format!("wrong: {why}")),
            ShopReply::Unknown(why) => (false, format!("no answer: {why}")),
            _ => (true, "good: it took the question, and does not know a made-up key".into()),
        };
        is_good &= is_fine;
        writeln!(out, "{}: {said}", name_of(account))?;
    }
    Ok(is_good)
}
