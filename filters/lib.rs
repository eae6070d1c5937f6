//! The filters of Gatekeeper. `ls` of this folder is the list; [`builtin`] is the registry.
//!
//! A filter decides; the machine in `src/` does. Nothing here names a socket, a store or Pingora.
//! `README.md` beside this file shows how to write one.

pub mod kernel;
pub mod license;
pub mod meter;
pub mod quota;
pub mod rate_limit;
pub mod route;

use kernel::Registry;

/// The default chain, in the recommended order.
pub const DEFAULT_CHAIN: [&str; 5] = ["license", "rate_limit", "route", "quota", "meter"];

/// Every filter that ships with Gatekeeper, in the recommended order.
pub fn builtin() -> Registry {
    Registry::default()
        .with::<license::LicenseSpec>()
        .with::<rate_limit::RateLimit>()
        .with::<route::RouteSpec>()
        .with::<quota::Quota>()
        .with::<meter::Meter>()
}
