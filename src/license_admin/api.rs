//! Answers and errors of operator actions.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    ledger::{AdjustError, JournalFull},
    licenses::revocation::NotFound,
};

/// The JSON answer for an operator.
#[derive(Debug)]
pub struct ApiResponse {
    pub status: StatusCode,
    pub body: Value,
}

/// Why nothing was done.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// Seconds.
    pub retry_after: Option<u64>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub fn answer(self) -> ApiResponse {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        ApiResponse { status: self.status, body }
    }
}

impl From<JournalFull> for ApiError {
    fn from(JournalFull: JournalFull) -> Self {
        let message =
            "The store cannot be written now (its disk may be full); nothing was changed.";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message)
    }
}

impl From<AdjustError> for ApiError {
    fn from(why: AdjustError) -> Self {
        match why {
            AdjustError::Full => JournalFull.into(),
            AdjustError::StoreDown => ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "The shared store does not answer, and it alone knows what all gateways have \
                 counted; nothing was changed. Try again when it is back.",
            ),
        }
    }
}

impl From<NotFound> for ApiError {
    fn from(why: NotFound) -> Self {
        match why {
            NotFound::Key(code) => ApiError::new(
                StatusCode::NOT_FOUND,
                "license_not_found",
                format!("No source knows this licence key ({}).", code.wire().1),
            ),
            NotFound::Id => ApiError::new(
                StatusCode::NOT_FOUND,
                "license_not_found",
                "No licence of this id is known here; name it by its key.",
            ),
            NotFound::Unknown => ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "license_check_unavailable",
                "This key is new here, and its shop can't be asked about it now. Try again soon.",
            ),
        }
    }
}
