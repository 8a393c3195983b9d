//! One request to the Web API as the rest of the crate describes it, and how it can end.

use bytes::Bytes;
use flowgate_core::destination::Class;
use flowgate_core::{CancellationToken, Code, ConnectorError, Elapsed, ErrorKind, Secret};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::time::Duration;
use url::Url;

use crate::budget::Cost;
use crate::cost::Work;
use crate::earned::Expected;
use crate::fault::{FaultClass, Refusal};

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    /// Relative to the API's address: `accounts?$select=name`, already encoded.
    Path(String),
    /// A link from an answer, sent back as it is.
    Link(Url),
}

/// A request, without token and common headers.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) address: Address,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) class: Class,
    pub(crate) cost: Cost,
    /// Sending it twice has the effect of sending it once, so an unknown end is no obstacle.
    pub(crate) is_repeatable: bool,
    /// What it does, so that the answer teaches what such requests cost.
    pub(crate) work: Option<Work>,
    pub(crate) caller: Caller,
    /// What a success looks like.
    pub(crate) expected: Expected,
    /// The budget chooses the web server. Otherwise the service does, and what it answers is studied.
    pub(crate) is_bound: bool,
}

/// Whose token goes with a call. All but the first are for those who study the service.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// The connection's own user.
    Ourselves,
    Nobody,
    Bearer(Secret),
}

/// What a read is expected to take of the service's time.
const READ_BUSY: Duration = Duration::from_millis(50);

impl Call {
    pub(crate) fn get(path: impl Into<String>, class: Class) -> Self {
        Self::read(Address::Path(path.into()), class)
    }

    pub(crate) fn follow(link: Url, class: Class) -> Self {
        Self::read(Address::Link(link), class)
    }

    fn read(address: Address, class: Class) -> Self {
        Self {
            method: Method::GET,
            address,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            class,
            cost: Cost { busy: READ_BUSY, entitlement: 1 },
            is_repeatable: true,
            work: None,
            caller: Caller::Ourselves,
            expected: Expected::Anything,
            is_bound: true,
        }
    }

    pub(crate) fn write(method: Method, path: impl Into<String>, body: Bytes, class: Class, cost: Cost) -> Self {
        Self {
            method,
            address: Address::Path(path.into()),
            headers: HeaderMap::new(),
            body,
            class,
            cost,
            is_repeatable: false,
            work: None,
            caller: Caller::Ourselves,
            expected: Expected::Anything,
            is_bound: true,
        }
    }

    #[must_use]
    pub(crate) fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    #[must_use]
    pub(crate) fn doing(mut self, work: Work) -> Self {
        self.work = Some(work);
        self
    }

    #[must_use]
    pub(crate) fn expecting(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    #[must_use]
    pub(crate) fn called_by(mut self, caller: Caller) -> Self {
        self.caller = caller;
        self
    }

    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }
}

/// How long a call may take, and what stops it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<'a> {
    pub(crate) until: Elapsed,
    pub(crate) cancel: &'a CancellationToken,
}

/// How a call ended without success.
#[derive(Debug)]
pub(crate) enum CallError {
    /// Answered: the service will not do it.
    Refused(Refusal),
    /// Sent; what the service did is not known.
    Unknown(ConnectorError),
    /// Nothing happened there: the deadline came first.
    TooLate(ConnectorError),
    /// Nothing happened there: a person stopped it.
    Cancelled,
    /// No call on this connection will do better.
    Fatal(ConnectorError),
}

impl CallError {
    /// The error of a call that had to succeed. `what` begins the message: "reading `account`".
    pub(crate) fn into_error(self, what: &str) -> ConnectorError {
        match self {
            Self::Refused(refusal) => refused(what, &refusal),
            Self::Unknown(error) | Self::TooLate(error) | Self::Fatal(error) => error,
            Self::Cancelled => ConnectorError::cancelled(),
        }
    }
}

/// A refusal as an error that a person reads.
pub(crate) fn refused(what: &str, refusal: &Refusal) -> ConnectorError {
    let code = refusal.service_code().map(|code| format!(" ({code})")).unwrap_or_default();
    let message = format!("{what} was refused with status {}{code}: {}", refusal.status.as_u16(), refusal.message);
    let (kind, our_code, hint) = match refusal.class {
        FaultClass::Throttled => {
            (ErrorKind::Throttled, Code::THROTTLED, "other programs may use the same application user")
        }
        FaultClass::Unauthenticated => (ErrorKind::Authentication, Code::SIGN_IN_FAILED, "check the credential"),
        FaultClass::Permission => (
            ErrorKind::Permission,
            Code::NOT_ALLOWED,
            "give the application user a security role with this privilege; it must exist as an application user in the environment",
        ),
        FaultClass::Missing => (
            ErrorKind::NotFound,
            Code::UNEXPECTED_ANSWER,
            "check the table, and that `url` is the environment's address",
        ),
        FaultClass::ExpiredToken => (ErrorKind::NotFound, Code::CURSOR_LOST, "the next run reads the whole table"),
        FaultClass::Configuration | FaultClass::NoMessage => (
            ErrorKind::Schema,
            Code::LOAD_REFUSED,
            "the table or column in the environment is not what the load expects",
        ),
        FaultClass::Transient | FaultClass::Limited | FaultClass::Paused | FaultClass::Gateway | FaultClass::Split => {
            (ErrorKind::Transient, Code::SERVICE_FAILED, "run again later: the run continues where it stopped")
        }
        FaultClass::Row | FaultClass::RowOrConfiguration | FaultClass::Duplicate | FaultClass::Conflict => {
            (ErrorKind::Data, Code::LOAD_REFUSED, "the service's own message says which value it means")
        }
    };
    let mut error = ConnectorError::new(kind, our_code, message).hint(hint);
    if let Some(id) = &refusal.request_id {
        error = error.hint(format!("the service's request id is `{id}`"));
    }
    error
}
