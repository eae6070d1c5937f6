//! New licences and their keys. An order is carried out once: asked again it gives the same keys, as long as they are
//! there.

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{
    book::{IssueError, IssuedBook},
    record::{IssuedKind, IssuedLicense},
    seal,
};

/// What is to be made.
#[derive(Debug)]
pub struct IssueRequest {
    /// Hashed: identifies the order.
    pub order: String,
    pub count: usize,
    /// What all of them are.
    pub license: IssuedLicense,
    /// The keys are shown with the answer.
    pub is_shown: bool,
}

/// A licence with its key.
#[derive(Debug)]
pub struct MintedKey {
    pub id: LicenseId,
    pub license: IssuedLicense,
    /// `None`: it was shown too long ago.
    pub key: Option<SecretString>,
}

impl IssuedBook {
    /// Carries an order out; whether that is new.
    ///
    /// # Errors
    /// Nothing was made.
    pub async fn issue(
        &self,
        request: &IssueRequest,
    ) -> Result<(Vec<MintedKey>, bool), IssueError> {
        let order_id = self.order_record(&request.order);
        let _alone = self.alone_order(&order_id).await?;
        self.issue_alone(&order_id, request).await
    }

    /// The same, for a caller that holds the order's lock.
    pub(super) async fn issue_alone(
        &self,
        order_id: &LicenseId,
        request: &IssueRequest,
    ) -> Result<(Vec<MintedKey>, bool), IssueError> {
        if let Some(licenses) = self.made_by(order_id).await? {
            let mut made = Vec::with_capacity(licenses.len());
            for id in licenses {
                made.extend(self.minted(&id, &request.order).await?);
            }
            return Ok((made, false));
        }
        let now = UnixMs::now();
        let mut made = Vec::with_capacity(request.count);
        for _ in 0..request.count {
            let (id, key) = self.new_key()?;
            let mut license =
                IssuedLicense { order: request.order.clone(), ..request.license.clone() };
            let mut sealed = seal::seal(&self.vault, &id, &request.order, &key, now)?;
            sealed.shown = request.is_shown.then_some(now);
            license.sealed = Some(sealed);
            let key = Some(SecretString::from(key.as_str()));
            made.push(MintedKey { id, license, key });
        }
        let licenses = made.iter().map(|minted| minted.id).collect();
        let mut records = vec![(*order_id, IssuedKind::Order { licenses })];
        records.extend(
            made.iter().map(|minted| (minted.id, IssuedKind::License(minted.license.clone()))),
        );
        self.write(records, now).await?;
        Ok((made, true))
    }

    /// What an order made, by the id of its record.
    pub(super) async fn made_by(
        &self,
        order_id: &LicenseId,
    ) -> Result<Option<Vec<LicenseId>>, IssueError> {
        let slot = self.latest(order_id).await?;
        Ok(match slot.as_ref().and_then(|slot| Some(&slot.record.issued.as_ref()?.is)) {
            None => None,
            Some(IssuedKind::Order { licenses }) => Some(licenses.clone()),
            // Forgotten: it is not carried out again.
            Some(_) => Some(Vec::new()),
        })
    }

    /// A licence with its key, where that is there and the order is the one that made it.
    pub(super) async fn minted(
        &self,
        id: &LicenseId,
        order: &str,
    ) -> Result<Option<MintedKey>, IssueError> {
        let license = match self.latest_license(id).await {
            Err(IssueError::NotIssued) => return Ok(None),
            license => license?,
        };
        let sealed = license.sealed.as_ref();
        let key =
            sealed.and_then(|sealed| seal::open(&self.vault, id, sealed, order, UnixMs::now()));
        Ok(Some(MintedKey { id: *id, license, key }))
    }

    /// A key that no licence has.
    pub(super) fn new_key(&self) -> Result<(LicenseId, Zeroizing<String>), IssueError> {
        let key = self.source.format.make().map_err(|_| IssueError::NoRandom)?;
        Ok((self.validator.hasher.id(&key), key))
    }
}

impl MintedKey {
    pub fn expose(&self) -> Option<&str> {
        self.key.as_ref().map(SecretString::expose_secret)
    }
}
