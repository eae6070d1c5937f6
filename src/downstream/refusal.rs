//! What is answered where no session has seen a request: the parser below, or the look at a head before it,
//! refused it.

use std::{net::IpAddr, time::Duration};

use pingora_core::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::head::Bad;

/// How long bytes are taken in after a refusal, so that closing does not reset the connection before the client
/// has read the answer.
pub const LINGER: Duration = Duration::from_millis(500);
/// How many.
pub const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// A request that no session has seen.
pub struct RefusedHead<'a> {
    pub why: Bad,
    /// What came of it; not to be trusted, nor to be whole.
    pub head: &'a [u8],
    /// Of the peer.
    pub address: Option<IpAddr>,
}

impl RefusedHead<'_> {
    pub fn status(&self) -> u16 {
        match self.why {
            Bad::TooLong => 431,
            Bad::TooMany => 503,
            Bad::Malformed(_) => 400,
            Bad::Unparsed(status) => status,
        }
    }

    /// For the client.
    pub fn message(&self) -> String {
        let why = match self.why {
            Bad::TooLong => return "The headers of this request are larger than 64 KiB.".into(),
            Bad::TooMany => {
                return "The service is very busy. Please try again in a moment.".into();
            }
            Bad::Malformed(why) => why,
            Bad::Unparsed(405) => "a method that is not served",
            Bad::Unparsed(_) => "its head can't be parsed",
        };
        format!("This request is not well-formed: {why}.")
    }

    /// The second word of the first line.
    pub fn target(&self) -> &[u8] {
        let line = self.head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        line.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
    }
}

/// Composes, counts and logs a refusal.
pub trait Refuser: Send + Sync + 'static {
    /// The body of the answer, and the request's id.
    fn refuse(&self, unseen: &RefusedHead<'_>) -> (Vec<u8>, String);
}

/// Answers, then reads what is still arriving for a short time.
pub async fn answer(mut stream: Stream, refuser: &dyn Refuser, unseen: RefusedHead<'_>) {
    let (body, id) = refuser.refuse(&unseen);
    let status = http::StatusCode::from_u16(unseen.status()).unwrap_or_default();
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\nx-request-id: {id}\r\n\
         x-should-retry: {}\r\n{}connection: close\r\n\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
        status.is_server_error(),
        if status.is_server_error() { "retry-after: 1\r\n" } else { "" },
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    let ends = async {
        if stream.write_all(&answer).await.is_ok() && stream.flush().await.is_ok() {
            let mut buffer = [0; 4096];
            let mut taken = 0;
            while let Ok(1..) = stream.read(&mut buffer).await.inspect(|count| taken += count) {
                if taken > LINGER_BYTES {
                    break;
                }
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, ends).await;
    let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
}
