//! The only place an HTTP client is built: TLS, time-outs, egress, redaction.
//!
//! A [`HttpClient`] reaches the origins it was built for and no other, never follows a redirect,
//! keeps no cookies and reads no answer beyond its bound. A bearer token is tied to one origin and
//! is refused anywhere else, whatever link an answer contained. Its errors say whether a request
//! was *not sent*, *sent with an unknown end* or answered in an unusable way, because that decides
//! whether a write may be repeated.
//!
//! Also here: [`SystemClock`], the one reader of the machine's clock.
//!
//! Left out: retries, pacing and the meaning of answers. They belong to the service's own crate.

mod client;
mod clock;
mod error;
mod origin;
mod redact;

pub use client::{Answer, HttpClient, HttpOptions, Request};
pub use clock::{ScaledClock, SystemClock};
pub use error::HttpError;
pub use origin::Origin;
pub use redact::redact_url;
