//! Behaviours that no source confirms, each a setting with a named default.
//!
//! Promise: nothing UNVERIFIED is fixed in code if a client could come to rely on it. They are
//! read and changed through `/__emulator/settings`. Left out: limits and costs (`profile`).

use serde::{Deserialize, Serialize};

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
    /// Excess decimals are rounded; otherwise refused.
    pub(crate) round_decimals: bool,
    /// Whether `$count` of a set stops at 5,000.
    pub(crate) count_segment_capped: bool,
    /// HTTP status of an expired delta token: 400 or 410.
    pub(crate) expired_delta_status: u16,
    /// HTTP status of an unresolved alternate-key reference: 404 or 400.
    pub(crate) unresolved_bind_status: u16,
    /// HTTP status of an alternate-key violation: 412 or 400.
    pub(crate) key_violation_status: u16,
    /// HTTP status of `If-Match: W/"n"` on a missing row: 404 or 412.
    pub(crate) if_match_missing_status: u16,
    /// Whether UpdateMultiple answers 204, or 200 with ids as some environments do.
    pub(crate) update_multiple_no_content: bool,
    /// Whether a failed change set's error part stands inside a changeset response.
    pub(crate) nested_change_set_error: bool,
    /// Whether a row may be created in an inactive state.
    pub(crate) create_inactive: bool,
    /// Whether a target that a lookup names by id must exist.
    pub(crate) check_lookups: bool,
    /// Whether the caller holds the privilege behind the bypass headers.
    pub(crate) bypass_allowed: bool,
    /// Whether the caller may act as another user.
    pub(crate) impersonation_allowed: bool,
    /// Whether `sql` takes TOP: the documentation says no, the product's own samples use it.
    pub(crate) sql_top_allowed: bool,
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
            round_decimals: true,
            count_segment_capped: true,
            expired_delta_status: 400,
            unresolved_bind_status: 404,
            key_violation_status: 412,
            if_match_missing_status: 404,
            update_multiple_no_content: true,
            nested_change_set_error: true,
            create_inactive: true,
            check_lookups: true,
            bypass_allowed: true,
            impersonation_allowed: true,
            sql_top_allowed: true,
            administration_mode: false,
            plugin_ms: 0.0,
            body_bytes_max: 128 << 20,
        }
    }
}
