//! The certificate that apps are shown: read with the configuration, swapped while connections come in.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use rustls::{
    InconsistentKeys,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// A certificate, its chain and the key that belongs to it.
#[derive(Clone)]
pub struct Certificate(Arc<CertifiedKey>);

/// Why a pair of files can't be used. Holds no part of a key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{path}: {error}", path = .path.display())]
    Unreadable { path: PathBuf, error: pem::Error },
    #[error("{} holds no certificate (PEM)", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} holds no private key (PEM)", .0.display())]
    NoKey(PathBuf),
    #[error("{cert} and {key} do not belong together", cert = .cert.display(), key = .key.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("{cert} and {key}: {error}", cert = .cert.display(), key = .key.display())]
    Unusable { cert: PathBuf, key: PathBuf, error: rustls::Error },
}

impl Certificate {
    /// Reads a pair of PEM files.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn load(cert: &Path, key: &Path) -> Result<Self, CertificateError> {
        let unreadable =
            |path: &Path, error| CertificateError::Unreadable { path: path.into(), error };
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable(cert, error))?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate(cert.into()));
        }
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
            pem::Error::NoItemsFound => CertificateError::NoKey(key.into()),
            error => unreadable(key, error),
        })?;
        let provider = rustls::crypto::ring::default_provider();
        let pair = CertifiedKey::from_der(chain, secret, &provider);
        pair.map(|pair| Self(Arc::new(pair))).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                CertificateError::Mismatch { cert: cert.into(), key: key.into() }
            }
            error => CertificateError::Unusable { cert: cert.into(), key: key.into(), error },
        })
    }
}

impl Certificate {
    /// The certificate itself, without its chain.
    pub fn leaf(&self) -> &[u8] {
        self.0.cert.first().map(|leaf| leaf.as_ref()).unwrap_or_default()
    }
}

/// The same certificates in the same order.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

/// What a listener shows. Handshakes that have begun end with the certificate they began with.
#[derive(Debug, Default)]
pub struct CertificateResolver(ArcSwapOption<CertifiedKey>);

impl CertificateResolver {
    /// From the next handshake on.
    pub fn set(&self, certificate: &Certificate) {
        self.0.store(Some(certificate.0.clone()));
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}
