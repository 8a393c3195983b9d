//! Every probe, in the order they run, and every assumption that no probe looks at, with the reason.
//!
//! The emulator's setting has the probe's name. Sections are those of the project's notes on the
//! protocol; `R` marks the notes on reliability.

use super::lab::Lab;
use super::probe::Expected::{self, Flag, Number, Seconds, Text};
use super::probe::Place::{self, Nowhere, Servers, Setting};
use super::probe::{Probe, Probing};
use super::{bulk, content, definitions, keys, other_languages, queries, sign_in, tracking, values};

type Run = for<'a> fn(&'a Lab<'a>) -> Probing<'a>;

const fn probe(
    name: &'static str,
    section: &'static str,
    expected: Expected,
    place: Place,
    run: Run,
    assumption: &'static str,
) -> Probe {
    Probe { name, section, assumption, expected, place, run }
}

#[rustfmt::skip]
pub(super) const PROBES: &[Probe] = &[
    // Sign-in and headers.
    probe("token_life_s", "2.2", Seconds(3599.0), Setting, sign_in::token_life, "a token lives for an hour"),
    probe("check_audience", "2.1", Flag(true), Setting, sign_in::check_audience, "a token for the environment's other address is refused"),
    probe("challenge", "2.4", Flag(true), Setting, sign_in::challenge, "an unauthenticated request is told where to sign in"),
    probe("who_am_i_parentheses", "2.6", Flag(true), Nowhere, sign_in::who_am_i_parentheses, "`WhoAmI()` is the same as `WhoAmI`"),
    probe("limit_headers", "2.6", Flag(true), Setting, sign_in::limit_headers, "answers tell requests left as an integer, seconds left as a decimal, and a hint"),
    probe("affinity_cookie", "3.4", Text("ARRAffinity"), Setting, sign_in::affinity_cookie, "this cookie leads back to the same web server"),
    probe("servers", "21.1", Number(4), Servers, sign_in::servers, "so many web servers stand behind the address"),
    probe("bypass_allowed", "20", Flag(true), Setting, sign_in::bypass_allowed, "the application user may bypass custom logic"),
    probe("bypass_refused_status", "20", Number(403), Setting, sign_in::bypass_refused_status, "without the privilege the bypass headers are refused so"),
    probe("bypass_step_ids_max", "20", Number(3), Setting, sign_in::bypass_step_ids_max, "a request may bypass so many steps by id"),
    probe("impersonation_allowed", "2.5", Flag(true), Setting, sign_in::impersonation_allowed, "the application user may act as another user"),
    probe("legacy_caller_header", "2.5", Flag(true), Nowhere, sign_in::legacy_caller_header, "`MSCRMCallerID` is heard"),
    probe("respond_async_ignored", "3.2", Flag(true), Nowhere, sign_in::respond_async_ignored, "`Prefer: respond-async` changes nothing"),
    probe("repeatability_ignored", "R 10", Flag(true), Nowhere, sign_in::repeatability_ignored, "repeatable-request headers do not keep a request from running twice"),
    // Definitions.
    probe("metadata_lag_s", "6.5", Seconds(0.0), Setting, definitions::metadata_lag, "a new column can be seen after so long"),
    probe("key_delay_s", "6.3", Seconds(2.0), Setting, definitions::key_delay, "a new key of an empty table is active after so long"),
    probe("base_type", "4", Flag(true), Nowhere, definitions::base_type, "tables derive from `crmbaseentity` in `$metadata`"),
    probe("organization_columns", "6.1", Flag(true), Nowhere, definitions::organization_columns, "tables of the organisation have `organizationid` in place of an owner"),
    probe("multi_select_is_virtual", "5", Flag(true), Nowhere, definitions::multi_select_is_virtual, "a column of several choices is `Virtual` and `MultiSelectPicklistType`"),
    probe("selections_max", "7", Flag(true), Nowhere, definitions::selections_max, "150 options may be selected in one column, and no more"),
    probe("pairs_are_linked_once", "12.3", Flag(true), Nowhere, definitions::pairs_are_linked_once, "a pair of a many-to-many relationship that is linked again is a duplicate"),
    probe("options_begin_at_prefix", "5", Flag(true), Nowhere, content::options_begin_at_prefix, "an option without a number gets one of the publisher's"),
    probe("change_tracking_days", "18.4", Number(7), Setting, sign_in::change_tracking_days, "delta tokens live for so many days"),
    // Values.
    probe("round_decimals", "7", Flag(true), Setting, values::round_decimals, "excess decimals are rounded, not refused"),
    probe("drop_sub_seconds", "7.2", Flag(true), Setting, values::drop_sub_seconds, "parts of a second are dropped, not refused"),
    probe("big_integer_texts", "7", Flag(true), Setting, values::big_integer_texts, "a number of eight bytes may be written as text"),
    probe("defaults_replace_nulls", "7", Flag(false), Setting, values::defaults_replace_nulls, "an explicit null of a create takes the column's default"),
    probe("default_currency", "7.1", Flag(true), Setting, values::default_currency, "a row with an amount and no currency takes one, and is not refused"),
    probe("money_companions", "7.1", Flag(true), Nowhere, values::money_companions, "an amount brings the rate and the amount in the base currency"),
    probe("overridden_created_on", "7", Flag(true), Setting, values::overridden_created_on, "`overriddencreatedon` of a create becomes `createdon`"),
    probe("unknown_property_text", "7", Flag(true), Nowhere, values::unknown_property_text, "an undeclared column is refused in the known words"),
    probe("lookup_value_refused", "7", Flag(true), Nowhere, values::lookup_value_refused, "a lookup cannot be written as `_column_value`"),
    probe("create_inactive", "7.3", Flag(true), Setting, values::create_inactive, "a row may be created in an inactive state"),
    probe("null_property_status", "9.2", Number(204), Setting, values::null_property_status, "a column without a value, read alone, is answered so"),
    probe("empty_file_status", "24", Number(204), Setting, content::empty_file_status, "a file that is not there, read, is answered so"),
    probe("file_headers", "24", Flag(true), Nowhere, content::file_headers, "a download tells the file's size and name in `x-ms-file-size` and `x-ms-file-name`"),
    probe("images_left_out", "7", Flag(true), Nowhere, content::images_left_out, "an image is left out of a row unless it is selected"),
    // Ids, keys, lookups.
    probe("key_violation_status", "11", Number(412), Setting, keys::key_violation_status, "a key that is taken is refused so"),
    probe("duplicate_id_status", "9.1, R 10", Number(412), Setting, keys::duplicate_id_status, "an id that is taken is refused so"),
    probe("if_match_missing_status", "10", Number(404), Setting, keys::if_match_missing_status, "an update of a missing row with a version is refused so"),
    probe("null_keys_repeat", "11, R 10", Flag(true), Nowhere, keys::null_keys_repeat, "rows with a null in a key column are not kept unique"),
    probe("keys_ignore_case", "11", Flag(true), Nowhere, keys::keys_ignore_case, "keys that differ in case are the same"),
    probe("keys_ignore_trailing_blanks", "11", Flag(true), Nowhere, keys::keys_ignore_trailing_blanks, "keys that differ in blanks at the end are the same"),
    probe("keys_ignore_accents", "11", Flag(false), Nowhere, keys::keys_ignore_accents, "keys that differ in accents are the same"),
    probe("addresses_refuse_key_characters", "11", Flag(true), Nowhere, keys::addresses_refuse_key_characters, "a key with a slash cannot be read by its address"),
    probe("bulk_any_key_text", "11", Flag(false), Setting, keys::bulk_any_key_text, "rows of bulk messages may be named by a key with a slash"),
    probe("unresolved_bind_status", "12.1", Number(404), Setting, keys::unresolved_bind_status, "a lookup by a key that no row has is refused so"),
    probe("check_lookups", "12.1", Flag(true), Setting, keys::check_lookups, "a lookup by an id that no row has is refused"),
    probe("null_bind_clears", "12.1", Flag(true), Setting, keys::null_bind_clears, "a null bind clears a lookup"),
    probe("reference_sets_lookup", "12.3", Flag(true), Nowhere, keys::reference_sets_lookup, "a lookup can be put through `$ref`"),
    // Reads and batches.
    probe("nulls_first", "13.4", Flag(true), Setting, queries::nulls_first, "nulls come first in an ascending order"),
    probe("choices_order_by_number", "13.4", Flag(true), Nowhere, queries::choices_order_by_number, "an order by a choice is by number, not by label"),
    probe("lookups_order_by_name", "13.4", Flag(true), Nowhere, queries::lookups_order_by_name, "an order by a lookup is by the other row's name, not by its id"),
    probe("sql_top_allowed", "14.2", Flag(true), Setting, other_languages::sql_top_allowed, "`?sql=` takes TOP (sources conflict)"),
    probe("fetch_alias_with_point", "14.1", Flag(true), Nowhere, other_languages::fetch_alias_with_point, "FetchXML names joined columns by alias, point and column"),
    probe("fetch_links_max", "27", Flag(true), Nowhere, other_languages::fetch_links_max, "FetchXML takes 15 joins, and no more"),
    probe("fetch_conditions_max", "27", Flag(true), Nowhere, other_languages::fetch_conditions_max, "FetchXML takes 500 conditions, and no more"),
    probe("other_functions_refused", "13.2", Flag(true), Nowhere, queries::other_functions_refused, "`$filter` has no functions but contains, startswith and endswith"),
    probe("lambdas", "13.2", Flag(true), Nowhere, queries::lambdas, "`any` and `all` work over referring rows"),
    probe("query_fault_code", "25.1", Text("0x80060888"), Nowhere, queries::query_fault_code, "a query that does not parse has this code"),
    probe("nested_change_set_error", "15.2", Flag(true), Setting, queries::nested_change_set_error, "the answer of a failed change set stands inside a changeset response"),
    probe("json_batch_refused", "15.1", Flag(true), Nowhere, queries::json_batch_refused, "`$batch` in JSON is refused"),
    // Change tracking.
    probe("delta_link_on_every_page", "18.2", Flag(false), Setting, tracking::link_on_every_page, "the delta link stands on every page of a tracked read"),
    probe("delta_token_at_start", "18.2", Flag(true), Setting, tracking::token_at_start, "the token is taken when a tracked read begins"),
    probe("empty_delta_link", "18.3", Flag(true), Setting, tracking::empty_delta_link, "a delta without changes has a new link"),
    probe("delta_page_size", "18.3", Flag(true), Setting, tracking::delta_page_size, "a page of a delta is as long as asked for"),
    probe("expired_delta_status", "18.4", Number(400), Setting, tracking::expired_status, "an expired token is refused so"),
    // Bulk.
    probe("ids_in_order", "16.1", Flag(true), Nowhere, bulk::ids_in_order, "the ids of CreateMultiple are in the order of its rows"),
    probe("update_multiple_no_content", "16.1", Flag(true), Setting, bulk::update_multiple_no_content, "UpdateMultiple answers 204"),
    probe("update_multiple_by_key", "16.1", Flag(true), Setting, bulk::update_multiple_by_key, "UpdateMultiple takes rows named by a key"),
    probe("bulk_etags_ignored", "19", Flag(true), Nowhere, bulk::bulk_etags_ignored, "versions in the rows of a bulk message have no effect"),
    probe("bulk_delete_delay_s", "17", Seconds(20.0), Setting, bulk::bulk_delete_delay, "a bulk deletion of one row ends after so long"),
    probe("bulk_delete_status", "17", Number(30), Nowhere, bulk::bulk_delete_status, "a bulk deletion that succeeded has this status"),
    probe("elastic_table", "6.1", Flag(true), Nowhere, bulk::elastic_table, "an elastic table can be made by `TableType`"),
    probe("elastic_partial_failure", "16.6", Flag(true), Nowhere, bulk::elastic_partial_failure, "a partial failure lists the failed rows in its annotation"),
    probe("elastic_keys_refused", "23", Flag(true), Nowhere, bulk::elastic_keys_refused, "an elastic table takes no further alternate keys"),
    // Large: last, since they fill the scratch table.
    probe("body_bytes_max", "27", Number(128 << 20), Setting, bulk::body_bytes_max, "a body of so many bytes is read, and of twice as many is not"),
    probe("count_segment_capped", "13.7", Flag(true), Setting, queries::count_segment_capped, "`$count` of a set stops at 5,000"),
];

/// Section, assumption, and why no probe looks at it.
pub(super) const NOT_PROBED: &[(&str, &str, &str)] = &[
    ("2.2", "certificates, federated credentials and managed identity", "Flowgate does not sign in with them"),
    ("2.3", "a principal that is no user of the environment is refused with 403", "takes a second principal"),
    ("2.5", "which user's limits an impersonated request is charged to", "other users' traffic cannot be told apart"),
    ("3.4", "`Retry-After` on 503", "an outage cannot be asked for"),
    ("6.2", "greatest lengths and bounds of column types", "definitions are read live, never assumed"),
    ("6.4", "cascades named Active and UserOwned", "Flowgate makes no such relationship"),
    ("7.1", "a changed rate rewrites no row", "rates of currencies are not changed for a test"),
    ("10", "which of two racing upserts loses, and how", "a race cannot be repeated at will"),
    ("13.6", "an empty page that is not the last", "needs rows that another role hides"),
    ("13.1, 14.1", "saved queries, and further attributes of FetchXML", "Flowgate reads by neither"),
    ("15.2", "a part of a batch that is throttled alone", "the limits are not provoked: others share them"),
    ("16.6", "row statuses 429 and 449 of elastic tables", "cannot be asked for"),
    ("18.3", "rows that become invisible", "tracked reads need the right to see all rows"),
    ("18.4", "version numbers go back after a restore", "an environment is not restored for a test; runs look for it"),
    (
        "21.2",
        "a throttled request was not run; the law of `Retry-After`; lazy evaluation",
        "the limits are not provoked: others share them",
    ),
    ("22", "whether a page counts as one request of the entitlement", "the count cannot be read through the Web API"),
    ("24", "full images by `size=full`", "takes an image larger than a thumbnail"),
    ("25.2", "400 or 500 for unexpected errors", "cannot be asked for; codes decide before statuses"),
    ("26", "events out", "takes a receiver that the service can reach"),
    ("27", "depth of plug-in chains", "takes a plug-in"),
    (
        "28",
        "single requests at high parallelism, or bulk messages first (conflicting sources)",
        "a matter of measuring a load, not of one request",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_once_and_say_what_they_assume() {
        for (index, probe) in PROBES.iter().enumerate() {
            assert!(PROBES[index + 1..].iter().all(|other| other.name != probe.name), "{}", probe.name);
            assert!(!probe.assumption.is_empty() && !probe.section.is_empty());
        }
    }
}
