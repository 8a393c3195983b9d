//! The errors of the service: Dataverse's codes, statuses and wording.
//!
//! Promise: every answer that is not a success is made from an [`ApiError`], so every one has a
//! lower-case hexadecimal code. This catalogue is the stand-in's own; no client shares it.
//! Left out: errors of starting up, which are `StartError`.

use crate::profile::Work;
use http::StatusCode;

/// A failure as the caller sees it.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: u32,
    /// How the code is written, where it is not the number.
    pub(crate) shown: ShownCode,
    pub(crate) message: String,
    /// Whole simulated seconds, sent as `Retry-After`.
    pub(crate) retry_after: Option<u64>,
    /// Further members of the error object, by annotation name.
    pub(crate) details: Vec<(&'static str, String)>,
    /// What was done until then, which is charged.
    pub(crate) work: Work,
}

/// How an answer writes the code of its error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ShownCode {
    #[default]
    Number,
    /// The number today; `0x0` in builds of 2023, which a setting brings back.
    ZeroOnce,
    /// `0x0`.
    Zero,
    /// An empty text, as the front end has it that finds no operation for a method.
    Empty,
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        ApiError {
            status: code.status(),
            code: code as u32,
            shown: ShownCode::default(),
            message: message.into(),
            retry_after: None,
            details: Vec::new(),
            work: Work::default(),
        }
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// A malformed request: bad JSON, a bad property, a bad query option.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(Code::InvalidArgument, message).with_status(StatusCode::BAD_REQUEST)
    }

    /// A form of query the service does not take.
    pub(crate) fn query(message: impl Into<String>) -> Self {
        ApiError::new(Code::UnsupportedQuery, message)
    }

    /// A body that does not fit its type, in the words of the service's reader. What names the fault
    /// stands behind `InnerException`.
    pub(crate) fn payload(set: &str, inner: impl std::fmt::Display) -> Self {
        let message = format!(
            "Error identified in Payload provided by the user for Entity :'{set}', For more information on this error please \
             follow this help link https://go.microsoft.com/fwlink/?linkid=2195293  ---->  InnerException : {inner}"
        );
        ApiError { shown: ShownCode::ZeroOnce, ..ApiError::new(Code::PayloadError, message) }
    }

    /// A property that a query names and its type does not have.
    pub(crate) fn no_property(odata_type: &str, name: &str) -> Self {
        let message = format!("Could not find a property named '{name}' on type '{odata_type}'.");
        ApiError { shown: ShownCode::ZeroOnce, ..ApiError::new(Code::UnsupportedQuery, message) }
    }

    /// An operation that exists, and not for this method.
    pub(crate) fn no_operation(address: &str) -> Self {
        let message = format!("No HTTP resource was found that matches the request URI '{address}'.");
        ApiError { shown: ShownCode::Empty, ..ApiError::new(Code::NoResource, message) }
    }

    /// Whether it tells of some rows of a message, the others being done.
    pub(crate) fn is_partial(&self) -> bool {
        self.details.iter().any(|(name, _)| *name == ROWS_FAILED)
    }

    /// A resource path nothing answers to.
    pub(crate) fn no_resource(segment: &str) -> Self {
        ApiError::new(Code::NoResource, format!("Resource not found for the segment '{segment}'."))
    }

    /// Something real Dataverse has and this stand-in does not: said by name.
    pub(crate) fn not_here(what: &str) -> Self {
        ApiError::new(Code::NotImplemented, format!("{what} is not implemented by the Flowgate emulator."))
    }

    pub(crate) fn is(&self, code: Code) -> bool {
        self.code == code as u32
    }

    /// The error object, whole.
    pub(crate) fn body(&self, with_annotations: bool) -> Vec<u8> {
        let mut error = serde_json::Map::new();
        let code = match self.shown {
            ShownCode::Number | ShownCode::ZeroOnce => format!("0x{:08x}", self.code),
            ShownCode::Zero => "0x0".to_owned(),
            ShownCode::Empty => String::new(),
        };
        error.insert("code".into(), code.into());
        error.insert("message".into(), self.message.clone().into());
        if with_annotations {
            for (name, text) in &self.details {
                error.insert(format!("@Microsoft.PowerApps.CDS.{name}"), text.clone().into());
            }
            error.insert("@Microsoft.PowerApps.CDS.ErrorDetails.OperationStatus".into(), "0".into());
            let help = format!(
                "http://go.microsoft.com/fwlink/?LinkID=398563&error=Microsoft.Crm.CrmException%3a{:08x}",
                self.code
            );
            error.insert("@Microsoft.PowerApps.CDS.HelpLink".into(), help.into());
            error.insert("@Microsoft.PowerApps.CDS.InnerError.Message".into(), self.message.clone().into());
        }
        serde_json::json!({ "error": error }).to_string().into_bytes()
    }
}

/// The annotation that lists the failed rows of a message.
pub(crate) const ROWS_FAILED: &str = "ErrorDetails.Plugin.BulkApiErrorDetails";

/// Declares the catalogue: name, code, HTTP status.
macro_rules! codes {
    ($($name:ident = $code:literal, $status:ident;)*) => {
        /// A platform error code with the HTTP status it travels under.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        #[expect(clippy::enum_variant_names, reason = "names are the platform's own")]
        pub(crate) enum Code { $($name = $code),* }

        impl Code {
            /// Every code the stand-in can answer.
            pub(crate) const ALL: &[Code] = &[$(Code::$name),*];

            pub(crate) fn status(self) -> StatusCode {
                match self { $(Code::$name => StatusCode::$status),* }
            }

            pub(crate) fn name(self) -> &'static str {
                match self { $(Code::$name => stringify!($name)),* }
            }
        }
    };
}

// Statuses marked `?` in the protocol notes are UNVERIFIED; the ones here are the defaults.
codes! {
    RequestsExceeded = 0x8007_2322, TOO_MANY_REQUESTS;
    TimeExceeded = 0x8007_2321, TOO_MANY_REQUESTS;
    ConcurrencyExceeded = 0x8007_2326, TOO_MANY_REQUESTS;
    Throttling = 0x8005_F103, TOO_MANY_REQUESTS;
    GenericSqlError = 0x8004_4150, INTERNAL_SERVER_ERROR;
    SqlTimeout = 0x8004_4151, INTERNAL_SERVER_ERROR;
    DataEngineQueryThrottling = 0x8004_8544, BAD_REQUEST;
    UnExpected = 0x8004_0216, BAD_REQUEST;
    IsvAborted = 0x8004_0265, BAD_REQUEST;
    DuplicateRecord = 0x8004_0237, PRECONDITION_FAILED;
    DuplicateRecordEntityKey = 0x8006_0892, PRECONDITION_FAILED;
    DuplicateRecordsFound = 0x8004_0333, PRECONDITION_FAILED;
    MultipleRecordsFoundByEntityKey = 0x8006_089D, BAD_REQUEST;
    ConcurrencyVersionMismatch = 0x8006_0882, PRECONDITION_FAILED;
    OptimisticConcurrencyNotEnabled = 0x8006_088D, BAD_REQUEST;
    ObjectDoesNotExist = 0x8004_0217, NOT_FOUND;
    RecordNotFoundByEntityKey = 0x8006_0891, NOT_FOUND;
    EntityKeyNotDefined = 0x8006_0890, BAD_REQUEST;
    EntityKeyNameExists = 0x8006_0893, BAD_REQUEST;
    EntityKeyWithSelectedAttributesExists = 0x8006_0894, BAD_REQUEST;
    EntityKeyNotFailed = 0x8006_0897, BAD_REQUEST;
    NameExists = 0x8004_7013, BAD_REQUEST;
    InvalidEntityKeyOperation = 0x8006_088F, BAD_REQUEST;
    StringLengthTooLong = 0x8004_4331, BAD_REQUEST;
    DecimalValueOutOfRange = 0x8004_4330, BAD_REQUEST;
    IntegerValueOutOfRange = 0x8004_432F, BAD_REQUEST;
    MoneySizeExceeded = 0x8004_0317, BAD_REQUEST;
    PicklistValueOutOfRange = 0x8004_431A, BAD_REQUEST;
    TooManySelections = 0x8005_0222, BAD_REQUEST;
    InvalidStateCodeStatusCode = 0x8004_8408, BAD_REQUEST;
    InvalidState = 0x8004_0233, BAD_REQUEST;
    InvalidDateTime = 0x8004_0239, BAD_REQUEST;
    InvalidCharactersInField = 0x8004_0278, BAD_REQUEST;
    RequiredFieldMissing = 0x8004_0200, BAD_REQUEST;
    InvalidArgument = 0x8004_0203, BAD_REQUEST;
    CookieMismatch = 0x8004_1129, BAD_REQUEST;
    CurrencyCannotBeNull = 0x8004_8CFB, BAD_REQUEST;
    LookupNotFound = 0x8004_0353, BAD_REQUEST;
    InvalidOwner = 0x8004_0229, BAD_REQUEST;
    CannotUpdateReadOnly = 0x8004_022E, BAD_REQUEST;
    CannotDeleteDueToAssociation = 0x8004_0227, METHOD_NOT_ALLOWED;
    NoSuchTable = 0x8004_1102, NOT_FOUND;
    NoSuchColumn = 0x8004_1103, BAD_REQUEST;
    InvalidEntityLogicalName = 0x8007_2493, BAD_REQUEST;
    MessageNotSupported = 0x8004_0800, BAD_REQUEST;
    InvalidXml = 0x8004_0201, BAD_REQUEST;
    InvalidAlias = 0x8004_1109, BAD_REQUEST;
    InvalidConditionValue = 0x8004_1108, BAD_REQUEST;
    AttributeWithAggregate = 0x8004_1107, BAD_REQUEST;
    AliasDoesNotExist = 0x8004_110A, BAD_REQUEST;
    OrderLinkNotFound = 0x8004_1126, BAD_REQUEST;
    InvalidAggregateAttribute = 0x8004_112F, BAD_REQUEST;
    OrderNeedsAlias = 0x8004_1131, BAD_REQUEST;
    OrderTakesNoAlias = 0x8004_1132, BAD_REQUEST;
    NoAlias = 0x8004_110B, BAD_REQUEST;
    InvalidLinkType = 0x8004_1117, BAD_REQUEST;
    InvalidAggregate = 0x8004_111A, BAD_REQUEST;
    InvalidFetchNode = 0x8004_111C, BAD_REQUEST;
    InvalidConditionOperator = 0x8004_1120, BAD_REQUEST;
    InvalidFilterType = 0x8004_1122, BAD_REQUEST;
    EmptyFetch = 0x8004_1124, BAD_REQUEST;
    EntitiesDontMatch = 0x8004_1128, BAD_REQUEST;
    InvalidPagingCookie = 0x8004_112A, BAD_REQUEST;
    DuplicateAlias = 0x8004_1130, BAD_REQUEST;
    InvalidDateGrouping = 0x8004_1135, BAD_REQUEST;
    PageWithoutCookie = 0x8004_430A, BAD_REQUEST;
    MissingHierarchicalRelationship = 0x8004_7020, BAD_REQUEST;
    MergeIdentical = 0x8004_5305, BAD_REQUEST;
    MergeNotActive = 0x8004_5304, BAD_REQUEST;
    FileTooLarge = 0x8007_1026, BAD_REQUEST;
    WebhookRefused = 0x8005_0201, BAD_REQUEST;
    WebhookTimedOut = 0x8005_0202, BAD_REQUEST;
    WebhookHeaders = 0x8005_0203, BAD_REQUEST;
    WebhookQuery = 0x8005_0204, BAD_REQUEST;
    WebhookFailed = 0x8005_0205, BAD_REQUEST;
    WebhookTooLarge = 0x8005_0207, BAD_REQUEST;
    ServiceBusTooLarge = 0x8005_0208, BAD_REQUEST;
    ServiceBusPostFailed = 0x8004_4175, BAD_REQUEST;
    AggregateLimit = 0x8004_E023, BAD_REQUEST;
    TooManyConditions = 0x8004_430C, BAD_REQUEST;
    TooManyLinks = 0x8004_430D, BAD_REQUEST;
    UnsupportedQuery = 0x8006_0888, BAD_REQUEST;
    LinksNotSupported = 0x8004_8D0B, BAD_REQUEST;
    ExpiredVersionStamp = 0x8004_4352, BAD_REQUEST;
    ChangeTrackingNotEnabled = 0x8007_2491, BAD_REQUEST;
    PrivilegeDenied = 0x8004_0220, FORBIDDEN;
    CannotActOnBehalf = 0x8004_A110, FORBIDDEN;
    UserNotMemberOfOrg = 0x8007_2560, FORBIDDEN;
    ExpiredAuthTicket = 0x8004_A101, UNAUTHORIZED;
    RequestIsNotAuthenticated = 0x8004_4302, UNAUTHORIZED;
    UnauthorizedAccess = 0x8004_0277, UNAUTHORIZED;
    OrganizationDisabled = 0x8004_A104, SERVICE_UNAVAILABLE;
    RequestTooLarge = 0x8004_418A, PAYLOAD_TOO_LARGE;
    AttachmentBlocked = 0x8004_3E09, BAD_REQUEST;
    // Also, UNVERIFIED, the outer code of a partial failure.
    PayloadError = 0x8004_8D19, BAD_REQUEST;
    NoResource = 0x8006_088A, NOT_FOUND;
    SolutionConcurrencyFailure = 0x8007_1151, TOO_MANY_REQUESTS;
    MethodNotAllowed = 0x8006_0889, METHOD_NOT_ALLOWED;
    DependencyExists = 0x8004_F01F, BAD_REQUEST;
    NotImplemented = 0x8004_0223, NOT_IMPLEMENTED;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_a_lower_case_hexadecimal_string() {
        let body = ApiError::new(Code::Throttling, "x").body(false);
        assert_eq!(String::from_utf8(body).unwrap(), r#"{"error":{"code":"0x8005f103","message":"x"}}"#);
    }
}
