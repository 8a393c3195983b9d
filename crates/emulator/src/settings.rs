//! Behaviours that no source confirms, each a setting with a named default.
//!
//! Promise: nothing UNVERIFIED is fixed in code if a client could come to rely on it. They are
//! read and changed through `/__emulator/settings`, and begin with what a file of observations
//! says ([`Observed`]). Left out: limits and costs (`profile`).

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::write::ValueRules;

/// The form of the file that [`Observed`] reads.
const FILE_VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Simulated seconds an alternate key takes from Pending to Active.
    pub(crate) key_delay_s: f64,
    /// Simulated seconds until readers without `Consistency: Strong` see a metadata change.
    pub(crate) metadata_lag_s: f64,
    /// Simulated seconds a bulk deletion takes to finish.
    pub(crate) bulk_delete_delay_s: f64,
    /// Life of an access token in simulated seconds.
    pub(crate) token_life_s: f64,
    /// Whether a token for another audience is refused.
    pub(crate) check_audience: bool,
    /// Whether an unauthenticated answer names the sign-in address.
    pub(crate) challenge: bool,
    /// The name of the cookie that leads back to the same web server.
    pub(crate) affinity_cookie: String,
    /// Whether answers tell what is left of the limits, and the hint for parallel requests.
    pub(crate) limit_headers: bool,
    /// What kind of environment it says it is (`Customer` is a production environment).
    pub(crate) organization_type: String,
    /// Days that delta tokens live; a row of the organisation's, so it counts from the start only.
    pub(crate) change_tracking_days: i64,
    /// Excess decimals are rounded; otherwise refused.
    pub(crate) round_decimals: bool,
    /// Parts of a second are dropped; otherwise refused.
    pub(crate) drop_sub_seconds: bool,
    /// Whether a number of eight bytes may be written as text.
    pub(crate) big_integer_texts: bool,
    /// Whether an explicit null of a create takes the column's default.
    pub(crate) defaults_replace_nulls: bool,
    /// Whether a row with an amount and no currency takes the base currency; otherwise refused.
    pub(crate) default_currency: bool,
    /// Whether the caller may set `overriddencreatedon`.
    pub(crate) overridden_created_on: bool,
    /// HTTP status of a property without a value: 204 or 404.
    pub(crate) null_property_status: u16,
    /// HTTP status of the content of a file column without a file: 204 or 404.
    pub(crate) empty_file_status: u16,
    /// Whether nulls come first in an ascending order.
    pub(crate) nulls_first: bool,
    /// Whether `$count` of a set stops at 5,000.
    pub(crate) count_segment_capped: bool,
    /// HTTP status of an expired delta token: 400 or 410.
    pub(crate) expired_delta_status: u16,
    /// Whether a delta link stands on every page of a tracked read, not only on the last.
    pub(crate) delta_link_on_every_page: bool,
    /// Whether the token of a tracked read is taken at its first page; otherwise at its last.
    pub(crate) delta_token_at_start: bool,
    /// Whether a delta without changes has a new delta link.
    pub(crate) empty_delta_link: bool,
    /// Whether pages of a delta are as long as asked for; otherwise as long as they may be.
    pub(crate) delta_page_size: bool,
    /// HTTP status of an unresolved alternate-key reference: 404 or 400.
    pub(crate) unresolved_bind_status: u16,
    /// HTTP status of an alternate-key violation: 412 or 400.
    pub(crate) key_violation_status: u16,
    /// HTTP status of an id that is taken: 412, 400, 409 or 500.
    pub(crate) duplicate_id_status: u16,
    /// HTTP status of `If-Match: W/"n"` on a missing row: 404 or 412.
    pub(crate) if_match_missing_status: u16,
    /// Whether UpdateMultiple answers 204, or 200 with ids as some environments do.
    pub(crate) update_multiple_no_content: bool,
    /// Whether a target of UpdateMultiple may be named by an alternate key.
    pub(crate) update_multiple_by_key: bool,
    /// Whether rows of bulk messages may be named by key values that an address cannot carry.
    pub(crate) bulk_any_key_text: bool,
    /// Whether a null bind clears a lookup; otherwise refused.
    pub(crate) null_bind_clears: bool,
    /// Whether a failed change set's error part stands inside a changeset response.
    pub(crate) nested_change_set_error: bool,
    /// Whether a row may be created in an inactive state.
    pub(crate) create_inactive: bool,
    /// Whether a target that a lookup names by id must exist.
    pub(crate) check_lookups: bool,
    /// Whether the caller holds the privilege behind the bypass headers.
    pub(crate) bypass_allowed: bool,
    /// HTTP status of those headers without the privilege.
    pub(crate) bypass_refused_status: u16,
    /// Step ids one request may bypass.
    pub(crate) bypass_step_ids_max: usize,
    /// Whether the caller may act as another user.
    pub(crate) impersonation_allowed: bool,
    /// Whether `sql` takes TOP: the documentation says no, the product's own samples use it.
    pub(crate) sql_top_allowed: bool,
    /// Whether seconds left of the limits have a comma between thousands (`1,200.00`), as every recording shows.
    pub(crate) limit_header_commas: bool,
    /// Whether unknown columns and bodies that do not fit have the code `0x0`, as in builds of 2023.
    pub(crate) zero_error_codes: bool,
    /// Whether the error of a missing row begins with `Entity '<name>'`, as since about 2024.
    pub(crate) missing_row_names_entity: bool,
    /// Whether a batch that ends with its closing boundary has parts that cannot be read.
    pub(crate) strict_batch_end: bool,
    /// Whether an operation of a change set without Content-ID is refused; one report says so.
    pub(crate) content_id_required: bool,
    /// HTTP status of `startswith` and its like over definitions: 501 in three recordings, 400 in two.
    pub(crate) definition_text_filter_status: u16,
    /// Simulated seconds that publishing takes, during which another customization is refused.
    pub(crate) publish_s: f64,
    /// Whether `sql` takes OFFSET and FETCH, which the documentation does not name.
    pub(crate) sql_offset_allowed: bool,
    /// While true every data request is refused as if the environment were disabled.
    pub(crate) administration_mode: bool,
    /// Milliseconds of synchronous plug-in time per written row.
    pub(crate) plugin_ms: f64,
    /// Greatest request body.
    pub(crate) body_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            key_delay_s: 2.0,
            metadata_lag_s: 0.0,
            bulk_delete_delay_s: 20.0,
            token_life_s: 3599.0,
            check_audience: true,
            challenge: true,
            affinity_cookie: "ARRAffinity".to_owned(),
            limit_headers: true,
            organization_type: "Developer".to_owned(),
            change_tracking_days: 7,
            round_decimals: true,
            drop_sub_seconds: true,
            big_integer_texts: true,
            defaults_replace_nulls: false,
            default_currency: true,
            overridden_created_on: true,
            null_property_status: 204,
            empty_file_status: 204,
            nulls_first: true,
            count_segment_capped: true,
            expired_delta_status: 400,
            delta_link_on_every_page: false,
            delta_token_at_start: true,
            empty_delta_link: true,
            delta_page_size: true,
            unresolved_bind_status: 404,
            key_violation_status: 412,
            duplicate_id_status: 412,
            if_match_missing_status: 404,
            update_multiple_no_content: true,
            update_multiple_by_key: true,
            bulk_any_key_text: false,
            null_bind_clears: true,
            nested_change_set_error: true,
            create_inactive: true,
            check_lookups: true,
            bypass_allowed: true,
            bypass_refused_status: 403,
            bypass_step_ids_max: 3,
            impersonation_allowed: true,
            sql_top_allowed: true,
            limit_header_commas: true,
            zero_error_codes: false,
            missing_row_names_entity: true,
            strict_batch_end: true,
            content_id_required: true,
            definition_text_filter_status: 501,
            publish_s: 0.0,
            sql_offset_allowed: false,
            administration_mode: false,
            plugin_ms: 0.0,
            body_bytes_max: 128 << 20,
        }
    }
}

impl Settings {
    /// The rules for single values that a write follows.
    pub(crate) fn value_rules(&self) -> ValueRules {
        ValueRules {
            is_query: false,
            round_decimals: self.round_decimals,
            drop_sub_seconds: self.drop_sub_seconds,
            big_integer_texts: self.big_integer_texts,
            any_key_text: self.bulk_any_key_text,
        }
    }
}

/// What was observed of an environment: the file that a verification of it writes.
///
/// Settings that are absent keep their defaults. What the observer says of single probes is for
/// people and is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Observed {
    version: u32,
    #[serde(default)]
    pub(crate) settings: Settings,
    /// Web servers that were seen.
    #[serde(default)]
    pub(crate) servers: Option<u16>,
    #[serde(default, rename = "probes")]
    _probes: serde::de::IgnoredAny,
}

impl Observed {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let said = |error: &dyn std::fmt::Display| format!("settings `{}` cannot be used: {error}", path.display());
        let text = fs_err::read_to_string(path).map_err(|error| said(&error))?;
        let observed: Observed = serde_saphyr::from_str(&text).map_err(|error| said(&error))?;
        if observed.version != FILE_VERSION {
            return Err(said(&format!("it is of version {}, and this program reads {FILE_VERSION}", observed.version)));
        }
        Ok(observed)
    }
}
