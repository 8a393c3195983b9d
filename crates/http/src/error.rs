//! What can go wrong before an answer is complete, told apart by what the service may have done.

use flowgate_core::{Code, ConnectorError, ErrorKind};

use crate::Origin;

/// An error of one HTTP exchange. URLs in it are redacted.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("`{url}` is not an http or https address")]
    BadUrl { url: String },

    #[error("the certificate file `{path}` cannot be used")]
    CaFile { path: String, source: Box<dyn std::error::Error + Send + Sync> },

    #[error("the http client cannot be built")]
    Build { source: Box<dyn std::error::Error + Send + Sync> },

    /// The egress gate: nothing was sent.
    #[error("a request to `{origin}` was refused: it is not an address of this connection")]
    ForeignOrigin { origin: String },

    /// A token for one origin and a URL of another: nothing was sent.
    #[error("a token for `{expected}` was kept from `{origin}`")]
    ForeignToken { expected: Origin, origin: Origin },

    /// A secret over plain text: nothing was sent.
    #[error("`{origin}` would receive a secret without encryption")]
    PlainText { origin: Origin },

    #[error("`{url}` cannot be reached: {reason}")]
    NotSent { url: String, reason: String },

    /// At least one byte may have left, and no complete answer came back.
    #[error("the connection to `{url}` broke before the answer was complete: {reason}")]
    Unknown { url: String, reason: String },

    #[error("`{url}` did not answer in time")]
    TimedOut { url: String },

    /// Answered, and the answer is of no use: for a write the end is as unknown as without it.
    #[error("the answer of `{url}` is larger than {bytes_max} bytes")]
    TooLarge { url: String, bytes_max: usize },
}

impl HttpError {
    /// Whether the service certainly never saw the request.
    pub fn is_unsent(&self) -> bool {
        !matches!(self, Self::Unknown { .. } | Self::TimedOut { .. } | Self::TooLarge { .. })
    }

    /// Whether the same request may go through later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::NotSent { .. } | Self::Unknown { .. } | Self::TimedOut { .. })
    }
}

impl From<HttpError> for ConnectorError {
    fn from(error: HttpError) -> Self {
        let message = error.to_string();
        match &error {
            HttpError::BadUrl { .. } | HttpError::Build { .. } => {
                Self::new(ErrorKind::Configuration, Code::CONNECTION_FAILED, message)
            }
            HttpError::CaFile { .. } => Self::new(ErrorKind::Configuration, Code::CONNECTION_FAILED, message)
                .hint("`ca_file` is one or more certificates in PEM form"),
            HttpError::PlainText { .. } => {
                Self::new(ErrorKind::Configuration, Code::CONNECTION_FAILED, message).hint("use an `https://` address")
            }
            HttpError::ForeignOrigin { .. } | HttpError::ForeignToken { .. } => {
                Self::new(ErrorKind::Permission, Code::UNEXPECTED_ANSWER, message)
                    .hint("an answer named a link outside this connection; a proxy that rewrites answers does that")
            }
            HttpError::NotSent { .. } => Self::new(ErrorKind::Transient, Code::CONNECTION_FAILED, message)
                .hint("check the address, the network and the proxy"),
            HttpError::Unknown { .. } | HttpError::TimedOut { .. } => {
                Self::new(ErrorKind::Transient, Code::CONNECTION_FAILED, message)
            }
            HttpError::TooLarge { .. } => Self::new(ErrorKind::Resource, Code::UNEXPECTED_ANSWER, message),
        }
        .caused_by(error)
    }
}
