//! A provider that no request can be made for.

use std::sync::Arc;

/// A provider that no request can be made for.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("the secret of key `{0}` has characters that no header can carry")]
    Secret(Arc<str>),
    #[error("the base URL of provider `{0}` makes no request head")]
    Host(Arc<str>),
}
