//! The only place an HTTP client is built: TLS, time-outs, egress, redaction.
