//! How a shop is asked: one request, a bounded answer, no redirects, no private addresses that the
//! configuration did not allow.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use reqwest::{
    ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ACCEPT, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};

use crate::{
    config::{base_url::is_private, settings::BaseUrl},
    shops::{
        ShopError, ShopRequest, ShopResponse,
        wire::{Body, Method},
    },
};

const CONNECT_TIME: Duration = Duration::from_secs(3);
/// From the question to the end of the answer.
const CALL_TIME: Duration = Duration::from_secs(10);
/// A licence answer has about 1 KiB.
const LONGEST_ANSWER: usize = 256 * 1024;
/// Upper bound for Retry-After; longer values are clamped.
const LONGEST_PATIENCE: Duration = Duration::from_secs(600);

/// One client for all shops; connections are kept.
pub struct ShopClient {
    public: reqwest::Client,
    /// For addresses that are private and meant.
    any: reqwest::Client,
}

impl ShopClient {
    /// Without root certificates on this machine no https server is trusted, and everything else works: the
    /// demo, keys of the file, local servers.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new() -> reqwest::Result<Self> {
        Self::with(|builder| builder).or_else(|error| {
            log::warn!(
                "Root certificates can't be loaded, so nothing that speaks https can be asked (install \
                 ca-certificates): {error}."
            );
            Self::with(|builder| builder.tls_certs_only([]))
        })
    }

    fn with(tls: fn(ClientBuilder) -> ClientBuilder) -> reqwest::Result<Self> {
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("gatekeeper/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .connect_timeout(CONNECT_TIME)
                .timeout(CALL_TIME)
                .pool_max_idle_per_host(4)
                .no_proxy();
            tls(builder)
        };
        let public = builder().dns_resolver(Arc::new(PublicAddressResolver)).build()?;
        Ok(Self { public, any: builder().build()? })
    }

    /// # Errors
    /// No whole answer came.
    pub async fn send(
        &self,
        base: &BaseUrl,
        request: &ShopRequest,
    ) -> Result<ShopResponse, ShopError> {
        self.send_for(base, request, LONGEST_ANSWER).await
    }

    /// The same, with another bound on the answer, in bytes.
    ///
    /// # Errors
    /// As [`ShopClient::send`].
    pub async fn send_for(
        &self,
        base: &BaseUrl,
        request: &ShopRequest,
        longest: usize,
    ) -> Result<ShopResponse, ShopError> {
        // A literal address was looked at when the configuration was read.
        let meant = base.allow_private || base.host == "localhost";
        let client = if meant { &self.any } else { &self.public };
        let address = base.at(&request.path);
        let mut call = match request.method {
            Method::Get => client.get(address),
            Method::Post => client.post(address),
            Method::Delete => client.delete(address),
        };
        if let Some(query) = &request.query {
            call = call.query(std::slice::from_ref(query));
        }
        call = call.header(ACCEPT, request.accept);
        if let Some((name, value)) = &request.credential {
            call = call.header(*name, secret_value(value)?);
        }
        if let Some((name, value)) = request.extra {
            call = call.header(name, value);
        }
        call = match &request.body {
            Body::None => call,
            Body::Form(form) => call.form(form),
            Body::Json(body) => call
                .header(CONTENT_TYPE, request.content_type.unwrap_or("application/json"))
                .body(body.to_string()),
        };
        let mut response = call.send().await.map_err(|error| down(&error))?;
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(LONGEST_PATIENCE));
        let status = response.status().as_u16();
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| down(&error))? {
            if body.len() + chunk.len() > longest {
                return Err(ShopError::Down("its answer has no end".into()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(ShopResponse { status, retry_after, body: body.freeze() })
    }
}

/// A credential, which is never shown.
fn secret_value(text: &str) -> Result<HeaderValue, ShopError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        ShopError::Misconfigured("our own credential holds what no header may hold".into())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Describes the failure; never the request.
fn down(error: &reqwest::Error) -> ShopError {
    let what = if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        format!("no connection{}", cause(error))
    } else {
        format!("the answer broke off{}", cause(error))
    };
    ShopError::Down(what)
}

/// The innermost reason: the outer ones repeat the address.
fn cause(error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    cause.map(|cause| format!(" ({cause})")).unwrap_or_default()
}

/// Looks names up and leaves private addresses out: a name must not lead into the seller's network.
struct PublicAddressResolver;

impl Resolve for PublicAddressResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|at| !is_private(at.ip())).collect();
            if public.is_empty() {
                return Err("the name has no public address".into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}
