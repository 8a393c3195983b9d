//! What a refusal means: one table from the service's codes to a closed set of classes.
//!
//! The code decides first, the HTTP status second (dossier section 25.4): a duplicate may come as a
//! 500, and a 500 may be a passing deadlock. A code that is not in the table falls back to its
//! status.

use flowgate_core::Code;
use flowgate_http::Answer;
use http::StatusCode;
use serde::Deserialize;

/// What to do about a refusal. Closed on purpose: match it without a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultClass {
    /// A service-protection limit. Not run; wait as told.
    Throttled,
    /// The token is missing, expired or foreign.
    Unauthenticated,
    /// Passing: wait and send again.
    Transient,
    /// Perhaps passing: a few tries, then the row is at fault.
    Limited,
    /// The environment is switched off or moving: wait minutes.
    Paused,
    /// Too large or too slow for one request: send less.
    Split,
    /// A front end gave up; what the service did is unknown.
    Gateway,
    /// The row's content.
    Row,
    /// The row's content, or the whole load's configuration if no row gets through.
    RowOrConfiguration,
    /// A key or an id that is taken.
    Duplicate,
    /// A row that is not there: the one addressed, or one it refers to.
    Missing,
    /// The row's version is not the one named.
    Conflict,
    /// The table does not have the message.
    NoMessage,
    /// The delta token is too old.
    ExpiredToken,
    /// Nothing of this load will work until something is changed.
    Configuration,
    /// Signed in, but not allowed.
    Permission,
}

use FaultClass as C;

/// Code, the service's name for it, class. From dossier section 25.3.
const CODES: &[(u32, &str, FaultClass)] = &[
    (0x8007_2322, "ThrottlingBurstRequestLimitExceededError", C::Throttled),
    (0x8007_2321, "ThrottlingTimeExceededError", C::Throttled),
    (0x8007_2326, "ThrottlingConcurrencyLimitExceededError", C::Throttled),
    (0x8005_F103, "Throttling", C::Throttled),
    (0x8007_2324, "AzureSqlMaxConcurrentWorkersLimitExceededError", C::Transient),
    (0x8007_2323, "AzureSqlDatabaseResourceLimitExceededError", C::Transient),
    (0x8007_2325, "AzureSqlDatabaseStorageQuotaExceededError", C::Configuration),
    (0x8004_8544, "DataEngineQueryThrottling", C::Configuration),
    (0x8004_4150, "GenericSqlError", C::Transient),
    (0x8004_4151, "SqlTimeoutExpired", C::Split),
    (0x8004_4339, "CouldNotObtainLockOnResource", C::Transient),
    (0x8004_ED47, "AppLockTimeout", C::Transient),
    (0x8007_1154, "ConcurrentOperationFailure", C::Transient),
    (0x8007_1151, "SolutionConcurrencyFailure", C::Transient),
    (0x8004_0216, "UnExpected", C::Limited),
    (0x8004_0255, "TransactionAborted", C::Transient),
    (0x8004_418D, "SandboxWorkerNotAvailable", C::Transient),
    (0x8004_418E, "SandboxHostNotAvailable", C::Transient),
    (0x8004_4171, "SandboxClientPluginTimeout", C::Split),
    (0x8004_4172, "SandboxHostPluginTimeout", C::Split),
    (0x8004_4173, "SandboxWorkerPluginTimeout", C::Split),
    (0x8008_1111, "SandboxWorkerPluginExecuteTimeout", C::Split),
    (0x8008_1116, "SandboxWorkerThrottleLimit", C::Configuration),
    (0x8004_0265, "IsvAborted", C::Row),
    (0x8004_0224, "IsvUnExpected", C::Limited),
    (0x8004_0237, "DuplicateRecord", C::Duplicate),
    (0x8006_0892, "DuplicateRecordEntityKey", C::Duplicate),
    (0x8004_0333, "DuplicateRecordsFound", C::Row),
    (0x8006_089D, "MultipleRecordsFoundByEntityKey", C::Configuration),
    (0x8006_0882, "ConcurrencyVersionMismatch", C::Conflict),
    (0x8006_0883, "ConcurrencyVersionNotProvided", C::Configuration),
    (0x8006_088D, "OptimisticConcurrencyNotEnabled", C::Configuration),
    (0x8004_0217, "ObjectDoesNotExist", C::Missing),
    (0x8006_0891, "RecordNotFoundByEntityKey", C::Missing),
    (0x8006_0890, "EntityKeyNotDefined", C::Configuration),
    (0x8006_088F, "InvalidEntityKeyOperation", C::RowOrConfiguration),
    (0x8004_4331, "StringLengthTooLong", C::Row),
    (0x8004_4330, "DecimalValueOutOfRange", C::Row),
    (0x8004_432F, "IntegerValueOutOfRange", C::Row),
    (0x8004_0317, "MoneySizeExceeded", C::Row),
    (0x8004_431A, "PicklistValueOutOfRange", C::Row),
    (0x8005_0222, "TooManySelectionsForAttributeType", C::Row),
    (0x8004_8408, "InvalidStateCodeStatusCode", C::Row),
    (0x8004_0233, "InvalidState", C::Row),
    (0x8004_0239, "InvalidDateTime", C::Row),
    (0x8004_0278, "InvalidCharactersInField", C::Row),
    (0x8004_0200, "RequiredFieldMissing", C::Row),
    (0x8004_0203, "InvalidArgument", C::RowOrConfiguration),
    (0x8004_0353, "LookupNotFound", C::Row),
    (0x8004_0229, "InvalidOwnerID", C::Row),
    (0x8004_8CFB, "CurrencyCannotBeNullDueToNonNullMoneyFields", C::Row),
    (0x8004_022E, "CannotUpdateBecauseItIsReadOnly", C::Row),
    (0x8004_0227, "CannotDeleteDueToAssociation", C::Row),
    (0x8004_8103, "CascadeDeleteNotAllowDelete", C::Row),
    (0x8004_1102, "QueryBuilderNoEntity", C::Configuration),
    (0x8004_1103, "QueryBuilderNoAttribute", C::Configuration),
    (0x8007_2493, "InvalidEntityLogicalName", C::Configuration),
    (0x8004_0800, "SdkEntityDoesNotSupportMessage", C::NoMessage),
    (0x8004_E023, "AggregateQueryRecordLimitExceeded", C::Configuration),
    (0x8004_430C, "TooManyConditionsInQuery", C::Configuration),
    (0x8004_430D, "TooManyLinkEntitiesInQuery", C::Configuration),
    (0x8006_0888, "UnsupportedODataForm", C::Configuration),
    (0x8004_8D0B, "LinkEntitiesNotSupported", C::Configuration),
    (0x8004_4352, "ExpiredVersionStamp", C::ExpiredToken),
    (0x8007_2491, "ChangeTrackingNotEnabledForEntity", C::Configuration),
    (0x8004_0220, "PrivilegeDenied", C::Permission),
    (0x8004_0231, "PrincipalPrivilegeDenied", C::Permission),
    (0x8004_020D, "InvalidAccessRights", C::Permission),
    (0x8004_8405, "AccessDenied", C::Permission),
    (0x8004_0256, "CrmSecurityError", C::Permission),
    (0x8004_F507, "AttributePermissionUpdateIsMissingDuringUpdate", C::Permission),
    (0x8004_F502, "AttributePrivilegeCreateIsMissing", C::Permission),
    (0x8004_A110, "CannotActOnBehalfOfAnotherUser", C::Permission),
    (0x8007_2560, "UserNotMemberOfOrg", C::Permission),
    (0x8004_2F09, "UserNotAssignedRoles", C::Permission),
    (0x8004_0225, "UserDisabledOrWithoutBusinessUnit", C::Permission),
    (0x8004_A101, "ExpiredAuthTicket", C::Unauthenticated),
    (0x8004_4302, "RequestIsNotAuthenticated", C::Unauthenticated),
    (0x8004_0277, "UnauthorizedAccess", C::Unauthenticated),
    (0x8005_F101, "AccessTokenExpired", C::Unauthenticated),
    (0x8004_A104, "OrganizationDisabled", C::Paused),
    (0x8004_B044, "OrganizationMigrationUnderway", C::Paused),
    (0x8004_418A, "RequestLengthTooLarge", C::Split),
    (0x8004_3E09, "AttachmentBlocked", C::Row),
    (PAYLOAD_ERROR, "PayloadError", C::RowOrConfiguration),
    (0x8004_1129, "PagingCookieMismatch", C::Configuration),
    (0x8004_7013, "NameExists", C::Configuration),
    (0x8006_0893, "EntityKeyNameExists", C::Configuration),
    (0x8006_0894, "EntityKeyWithSelectedAttributesExists", C::Configuration),
    (0x8006_0897, "EntityKeyNotFailed", C::Configuration),
    (0x8006_0887, "NoResource", C::Configuration),
    (0x8006_088A, "ResourceNotFound", C::Configuration),
    (0x8006_0889, "MethodNotAllowed", C::Configuration),
    (0x8004_0223, "NotImplemented", C::Configuration),
    // Of queries, metadata, files and webhooks, which loads meet rarely.
    (0x8004_0201, "InvalidXml", C::Configuration),
    (0x8004_1107, "QueryBuilderAttribute_With_Aggregate", C::Configuration),
    (0x8004_1108, "QueryBuilderInvalid_Value", C::Configuration),
    (0x8004_1109, "QueryBuilderInvalid_Alias", C::Configuration),
    (0x8004_110A, "QueryBuilderAlias_Does_Not_Exist", C::Configuration),
    (0x8004_110B, "QueryBuilderNoAlias", C::Configuration),
    (0x8004_1117, "QueryBuilderDeserializeInvalidLinkType", C::Configuration),
    (0x8004_111A, "QueryBuilderDeserializeInvalidAggregate", C::Configuration),
    (0x8004_111C, "QueryBuilderDeserializeInvalidNode", C::Configuration),
    (0x8004_1120, "QueryBuilderInvalidConditionOperator", C::Configuration),
    (0x8004_1122, "QueryBuilderInvalidFilterType", C::Configuration),
    (0x8004_1124, "QueryBuilderDeserializeEmptyXml", C::Configuration),
    (0x8004_1126, "QueryBuilderLinkNodeForOrderNotFound", C::Configuration),
    (0x8004_1128, "QueryBuilderEntitiesDontMatch", C::Configuration),
    (0x8004_112A, "QueryBuilderInvalidPagingCookie", C::Configuration),
    (0x8004_112F, "QueryBuilderInvalidAggregateAttribute", C::Configuration),
    (0x8004_1130, "QueryBuilderDuplicateAlias", C::Configuration),
    (0x8004_1131, "QueryBuilderAttributeNotAllowedForAggregateOrderBy", C::Configuration),
    (0x8004_1132, "QueryBuilderAliasNotAllowedForNonAggregateOrderBy", C::Configuration),
    (0x8004_1135, "QueryBuilderInvalidDateGrouping", C::Configuration),
    (0x8004_430A, "OverRetrievalUpperLimitWithoutPagingCookie", C::Configuration),
    (0x8004_7020, "MissingHierarchicalRelationshipForOperator", C::Configuration),
    (0x8004_F01F, "CannotDeleteInUseComponent", C::Configuration),
    (0x8004_5304, "MergeEntityNotActiveError", C::Row),
    (0x8004_5305, "MergeEntitiesIdenticalError", C::Row),
    (0x8007_1026, "FileSizeExceeded", C::Row),
    (0x8005_0201, "WebhooksNonSuccessHttpResponse", C::Row),
    (0x8005_0202, "WebhooksHttpRequestTimedOut", C::Limited),
    (0x8005_0203, "WebhooksInvalidHttpHeaders", C::Configuration),
    (0x8005_0204, "WebhooksInvalidHttpQueryParams", C::Configuration),
    (0x8005_0205, "WebhooksPostRequestFailed", C::Limited),
    (0x8005_0207, "WebhooksMaxSizeExceeded", C::Row),
    (0x8005_0208, "ServiceBusMaxSizeExceeded", C::Row),
    (0x8004_4175, "ServiceBusPostFailed", C::Limited),
];

/// Codes that say which of our own row codes fits; all others are `ROW_REFUSED`.
const ROW_CODES: &[(u32, Code)] = &[
    (0x8004_4331, Code::ROW_TOO_LONG),
    (0x8004_4330, Code::ROW_OUT_OF_RANGE),
    (0x8004_432F, Code::ROW_OUT_OF_RANGE),
    (0x8004_0317, Code::ROW_OUT_OF_RANGE),
    (0x8004_431A, Code::ROW_UNKNOWN_CHOICE),
    (0x8005_0222, Code::ROW_UNKNOWN_CHOICE),
    (0x8004_0239, Code::ROW_BAD_DATE),
    (0x8004_0278, Code::ROW_BAD_TEXT),
    (0x8004_0200, Code::ROW_REQUIRED),
    (0x8004_0353, Code::ROW_ORPHAN),
    (0x8004_0217, Code::ROW_ORPHAN),
    (0x8006_0891, Code::ROW_ORPHAN),
    (0x8004_8CFB, Code::ROW_NO_CURRENCY),
    (0x8004_0237, Code::ROW_DUPLICATE_AT_DESTINATION),
    (0x8006_0892, Code::ROW_DUPLICATE_AT_DESTINATION),
    (0x8004_0333, Code::ROW_DUPLICATE_AT_DESTINATION),
];

/// A body that does not fit its type; also the outer code of a bulk message of which some rows failed.
const PAYLOAD_ERROR: u32 = 0x8004_8D19;

/// The three limits of the service, each with its own meaning.
pub(crate) const REQUEST_LIMIT: u32 = 0x8007_2322;
pub(crate) const EXECUTION_TIME_LIMIT: u32 = 0x8007_2321;
pub(crate) const CONCURRENCY_LIMIT: u32 = 0x8007_2326;

/// Every service code this crate knows, with the service's name, for the test that compares it with
/// the emulator's own catalogue.
pub fn known_codes() -> impl Iterator<Item = (u32, &'static str)> {
    CODES.iter().map(|(code, name, _)| (*code, *name))
}

/// The longest text of a refusal that is kept, in characters.
const MESSAGE_TEXT_MAX: usize = 600;

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) class: FaultClass,
    pub(crate) code: Option<u32>,
    pub(crate) message: String,
    pub(crate) request_id: Option<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    pub(crate) fn of(answer: &Answer) -> Self {
        let request_id = ["x-ms-service-request-id", "REQ_ID", "x-ms-request-id"]
            .iter()
            .find_map(|name| answer.header(name))
            .map(str::to_owned);
        let (code, message) = match serde_json::from_slice::<ErrorBody>(&answer.body) {
            Ok(body) => (parse_code(&body.error.code), clean(&body.error.message)),
            Err(_) => (None, describe_body(answer)),
        };
        let class = classify(answer.status, code, &message);
        Self { status: answer.status, class, code, message, request_id }
    }

    /// The code as the service writes it, with its name.
    pub(crate) fn service_code(&self) -> Option<String> {
        let code = self.code?;
        Some(match CODES.iter().find(|(known, ..)| *known == code) {
            Some((_, name, _)) => format!("0x{code:08x} {name}"),
            None => format!("0x{code:08x}"),
        })
    }

    /// Our code for a row that was refused this way.
    pub(crate) fn row_code(&self) -> Code {
        if self.class == FaultClass::Limited {
            return Code::ROW_SERVICE_FAILED;
        }
        let known = ROW_CODES.iter().find(|(code, _)| Some(*code) == self.code);
        known.map_or(Code::ROW_REFUSED, |(_, row_code)| *row_code)
    }
}

fn classify(status: StatusCode, code: Option<u32>, message: &str) -> FaultClass {
    let known = CODES.iter().find(|(known, ..)| Some(*known) == code).map(|(.., class)| *class);
    if status == StatusCode::TOO_MANY_REQUESTS {
        // A customization that waits for another has this status, too, and says nothing of the limits.
        return known.filter(|class| *class == FaultClass::Transient).unwrap_or(FaultClass::Throttled);
    }
    // The reader of bodies has one code for whatever does not fit. A column or a navigation property that the
    // type does not have is no fault of the row.
    let is_undeclared = message.contains("does not exist on type") || message.contains("undeclared property");
    match known {
        Some(_) if is_undeclared && code == Some(PAYLOAD_ERROR) => return FaultClass::Configuration,
        // Who gave up waiting does not know what became of the request, whatever code it puts on that.
        Some(FaultClass::Limited) if is_front_end(status) => return FaultClass::Gateway,
        Some(class) => return class,
        None => {}
    }
    // An undeclared column is no fault of the row, whatever code the OData parser gives it.
    if is_undeclared {
        return FaultClass::Configuration;
    }
    match status.as_u16() {
        401 => FaultClass::Unauthenticated,
        403 => FaultClass::Permission,
        404 => FaultClass::Missing,
        405 | 415 | 501 => FaultClass::Configuration,
        _ if is_front_end(status) => FaultClass::Gateway,
        412 => FaultClass::Conflict,
        413 => FaultClass::Split,
        400..=499 => FaultClass::RowOrConfiguration,
        _ => FaultClass::Limited,
    }
}

/// Whether a front end gave up waiting, whatever it says of the request behind it.
pub(crate) fn is_front_end(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 502..=504)
}

fn parse_code(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    u32::from_str_radix(digits, 16).ok().filter(|code| *code != 0)
}

fn describe_body(answer: &Answer) -> String {
    if answer.body.is_empty() {
        return "the answer was empty".to_owned();
    }
    if is_html(answer) {
        return "the answer was a web page".to_owned();
    }
    clean(&String::from_utf8_lossy(&answer.body))
}

/// Whether an answer is a page for people instead of data.
pub(crate) fn is_html(answer: &Answer) -> bool {
    answer.header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
}

fn clean(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().filter(|character| !character.is_control()).take(MESSAGE_TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        Refusal::of(&Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        })
    }

    fn error(code: &str, message: &str) -> String {
        serde_json::json!({"error": {"code": code, "message": message}}).to_string()
    }

    #[test]
    fn each_code_stands_once_in_the_table() {
        for (index, (code, ..)) in CODES.iter().enumerate() {
            assert!(CODES[index + 1..].iter().all(|(other, ..)| other != code), "0x{code:08x}");
        }
    }

    #[test]
    fn the_code_decides_before_the_status() {
        assert_eq!(refusal(500, &error("0x80040333", "duplicate")).class, FaultClass::Row);
        assert_eq!(refusal(400, &error("0x80044150", "Generic SQL error")).class, FaultClass::Transient);
        assert_eq!(refusal(429, "").class, FaultClass::Throttled);
    }

    #[test]
    fn only_a_limit_throttles() {
        for code in ["0x80072321", "0x80072322", "0x80072326", "0x8005f103", "0x80040203", "0x80099999", ""] {
            assert_eq!(refusal(429, &error(code, "x")).class, FaultClass::Throttled, "{code}");
        }
        let lock = error("0x80071151", "Cannot start the requested operation [Publish] because there is another");
        assert_eq!(refusal(429, &lock).class, FaultClass::Transient);
    }

    #[test]
    fn a_mistyped_set_is_configuration_and_a_missing_row_is_not() {
        let set = error("0x8006088a", "Resource not found for the segment 'accounts1'.");
        assert_eq!(refusal(404, &set).class, FaultClass::Configuration);
        let row = error("0x80040217", "Entity 'account' With Id = 1 Does Not Exist");
        assert_eq!(refusal(404, &row).class, FaultClass::Missing);
    }

    #[test]
    fn a_payload_that_names_what_is_not_there_is_configuration_and_one_with_a_bad_value_may_be_the_row() {
        let inner = |text: &str| {
            error(
                "0x80048d19",
                &format!(
                    "Error identified in Payload provided by the user for Entity :'accounts' ----> InnerException : {text}"
                ),
            )
        };
        let unknown = "The property 'foo' does not exist on type 'Microsoft.Dynamics.CRM.account'.";
        let undeclared = "An undeclared property 'parentcustomerid' which only has property annotations";
        for text in [unknown, undeclared] {
            assert_eq!(refusal(400, &inner(text)).class, FaultClass::Configuration, "{text}");
        }
        let value = "Cannot convert the literal 'Charity' to the expected type 'Edm.Int32'.";
        assert_eq!(refusal(400, &inner(value)).class, FaultClass::RowOrConfiguration);
    }

    #[test]
    fn a_front_end_that_gave_up_knows_no_end_whatever_code_it_names() {
        for status in [408, 502, 503, 504] {
            assert_eq!(refusal(status, &error("0x80040216", "x")).class, FaultClass::Gateway, "{status}");
            assert_eq!(refusal(status, &error("0x80040237", "x")).class, FaultClass::Duplicate, "{status}");
        }
        assert_eq!(refusal(500, &error("0x80040216", "x")).class, FaultClass::Limited);
    }

    #[test]
    fn codes_are_read_whatever_their_case() {
        let refusal = refusal(412, &error("0X8006089D", "x"));
        assert_eq!(refusal.service_code().as_deref(), Some("0x8006089d MultipleRecordsFoundByEntityKey"));
    }

    #[test]
    fn a_status_without_a_code_still_has_a_class() {
        for (status, class) in [
            (400, FaultClass::RowOrConfiguration),
            (401, FaultClass::Unauthenticated),
            (403, FaultClass::Permission),
            (404, FaultClass::Missing),
            (412, FaultClass::Conflict),
            (413, FaultClass::Split),
            (500, FaultClass::Limited),
            (503, FaultClass::Gateway),
        ] {
            assert_eq!(refusal(status, "<html>").class, class, "{status}");
        }
    }

    #[test]
    fn an_unknown_column_is_configuration() {
        let text = "The property 'x' does not exist on type 'Microsoft.Dynamics.CRM.account'.";
        assert_eq!(refusal(400, &error("0x0", text)).class, FaultClass::Configuration);
    }

    #[test]
    fn messages_are_one_line_without_control_characters() {
        assert_eq!(refusal(400, &error("", "a\r\n b\u{7}")).message, "a b");
        assert_eq!(refusal(502, "").message, "the answer was empty");
    }
}
