//! Change tracking: initial reads with a delta link, and delta reads.
//!
//! A token is `<version>!<MM/dd/yyyy HH:mm:ss>`. Promise: the token of an initial read is taken
//! at its first page, so later changes show up again; a delta lists each changed row once, by
//! version, then deletions; a row created and deleted in between is listed as deleted. Left out:
//! changes of visibility.

use uuid::Uuid;

use super::json::write_text;
use super::options::QueryOptions;
use super::page::{Cookie, PAGE_ROWS_MAX, encode_query};
use super::read::{Projection, Reader, context_url, next_link, projection, write_row};
use super::view::RowView;
use crate::error::{ApiError, Code};
use crate::schema::Table;
use crate::settings::Settings;
use crate::write::civil_from_days;

/// A position in the change log: database version and simulated second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    version: u64,
    at: i64,
}

impl Token {
    fn text(self) -> String {
        let (year, month, day) = civil_from_days(self.at.div_euclid(86_400));
        let clock = self.at.rem_euclid(86_400);
        format!(
            "{}!{month:02}/{day:02}/{year:04} {:02}:{:02}:{:02}",
            self.version,
            clock / 3600,
            clock / 60 % 60,
            clock % 60
        )
    }

    fn parse(text: &str) -> Option<Token> {
        let (version, time) = text.split_once('!')?;
        let (date, clock) = time.split_once(' ')?;
        let mut parts = date.splitn(3, '/');
        let (month, day, year) = (parts.next()?, parts.next()?, parts.next()?);
        let at = crate::write::parse_time(&format!("{year}-{month}-{day}T{clock}Z")).ok()?;
        Some(Token { version: version.parse().ok()?, at })
    }
}

/// What a tracked read needs besides the query.
pub(crate) struct Tracking<'a> {
    pub(crate) expire_days: i64,
    pub(crate) settings: &'a Settings,
}

fn refuse_options(options: &QueryOptions) -> Result<(), ApiError> {
    let refused = [
        ("$filter", options.filter.is_some()),
        ("$orderby", options.order_by.is_some()),
        ("$expand", options.expand.is_some()),
        ("$top", options.top.is_some()),
    ];
    match refused.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(ApiError::query(format!(
            "The \"{name}\" query parameter isn't supported when Change Tracking is enabled."
        ))),
        None => Ok(()),
    }
}

fn require_tracking(table: &Table) -> Result<(), ApiError> {
    if table.change_tracking {
        return Ok(());
    }
    let message = format!("Entity {} isn't enabled for change tracking.", table.logical);
    Err(ApiError::new(Code::ChangeTrackingNotEnabled, message))
}

/// Runs an initial or a delta read; returns the rows written.
pub(crate) fn read_changes(
    reader: &Reader<'_>,
    tracking: &Tracking<'_>,
    options: &QueryOptions,
    query: &str,
    path: &str,
    out: &mut Vec<u8>,
) -> Result<usize, ApiError> {
    let table = reader.scope.table;
    require_tracking(table)?;
    refuse_options(options)?;
    let shown = projection(table, options.select.as_deref())?;
    match &options.delta_token {
        Some(text) => read_delta(reader, tracking, text, options, &shown, (query, path), out),
        None => read_initial(reader, tracking, options, &shown, (query, path), out),
    }
}

fn read_initial(
    reader: &Reader<'_>,
    tracking: &Tracking<'_>,
    options: &QueryOptions,
    shown: &Projection,
    (query, path): (&str, &str),
    out: &mut Vec<u8>,
) -> Result<usize, ApiError> {
    let table = reader.scope.table;
    let cookie = options.skip_token.as_deref().map(Cookie::decode).transpose()?;
    // The token of the first page travels in the cookie of the later ones.
    let carried =
        cookie.as_ref().and_then(|cookie| cookie.keys.first()).and_then(|(_, text)| Token::parse(text.as_deref()?));
    let now = Token { version: reader.database.version(), at: reader.scope.now };
    let token = carried.filter(|_| tracking.settings.delta_token_at_start).unwrap_or(now);
    let limit = reader.page_size.unwrap_or(PAGE_ROWS_MAX);
    let after = cookie.as_ref().map(|cookie| cookie.last);
    let mut rows = reader.database.store(table.id).rows_after(after);
    out.extend_from_slice(b"{\"@odata.context\":");
    write_text(&context_url(reader.base, table, shown, &[]), out);
    out.extend_from_slice(b",\"value\":[");
    let (mut written, mut first, mut last) = (0, Uuid::nil(), Uuid::nil());
    for (key, row) in rows.by_ref().take(limit) {
        if written > 0 {
            out.push(b',');
        } else {
            first = *key;
        }
        last = *key;
        written += 1;
        write_entry(reader, shown, RowView { table, key: *key, row }, out);
    }
    out.push(b']');
    let next = rows.next().map(|_| Cookie {
        page: cookie.map_or(2, |cookie| cookie.page + 1),
        keys: vec![("token".to_owned(), Some(token.text()))],
        last,
        first,
        is_tracking: true,
    });
    let delta = (next.is_none() || tracking.settings.delta_link_on_every_page).then_some(token);
    write_links(reader, next.as_ref(), delta, (query, path), out);
    Ok(written)
}

fn write_entry(reader: &Reader<'_>, shown: &Projection, view: RowView<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    write_row(reader.database, reader.scope.schema, view, shown, reader.annotations, out);
    out.push(b'}');
}

fn write_links(
    reader: &Reader<'_>,
    next: Option<&Cookie>,
    delta: Option<Token>,
    (query, path): (&str, &str),
    out: &mut Vec<u8>,
) {
    if let Some(cookie) = next {
        out.extend_from_slice(b",\"@odata.nextLink\":");
        let encoded = cookie.encode(reader.scope.table.primary_id());
        write_text(&next_link(reader.base, path, query, &encoded), out);
    }
    if let Some(token) = delta {
        let kept = query.split('&').filter(|pair| {
            let lower = pair.to_ascii_lowercase().replace("%24", "$");
            !pair.is_empty() && !lower.starts_with("$skiptoken=") && !lower.starts_with("$deltatoken=")
        });
        let mut pairs: Vec<String> = kept.map(str::to_owned).collect();
        pairs.push(format!("$deltatoken={}", encode_query(&token.text())));
        out.extend_from_slice(b",\"@odata.deltaLink\":");
        write_text(&format!("{}/{path}?{}", reader.base, pairs.join("&")), out);
    }
    out.push(b'}');
}

enum Change {
    Changed(Uuid),
    Deleted(Uuid),
}

/// Changes after a version, in the order they are told: rows by version, then deletions.
fn changes_since(reader: &Reader<'_>, version: u64) -> Vec<(u64, Change)> {
    let store = reader.database.store(reader.scope.table.id);
    let mut changed: Vec<_> = store
        .rows_after(None)
        .filter(|(_, row)| row.version > version)
        .map(|(key, row)| (row.version, Change::Changed(*key)))
        .collect();
    changed.sort_unstable_by_key(|(version, _)| *version);
    // A row that was deleted and came back is a change, not a deletion.
    let deleted =
        store.deletions.iter().filter(|deletion| deletion.version > version && store.get(&deletion.id).is_none());
    let mut deleted: Vec<_> = deleted.map(|deletion| (deletion.version, deletion.id)).collect();
    deleted.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut seen = std::collections::HashSet::new();
    deleted.retain(|(_, id)| seen.insert(*id));
    deleted.reverse();
    changed.extend(deleted.into_iter().map(|(version, id)| (version, Change::Deleted(id))));
    changed
}

fn checked_token(reader: &Reader<'_>, tracking: &Tracking<'_>, text: &str) -> Result<Token, ApiError> {
    let token =
        Token::parse(text).ok_or_else(|| ApiError::bad_request(format!("The delta token '{text}' is not valid.")))?;
    let horizon = reader.scope.now - tracking.expire_days * 86_400;
    let deletions = &reader.database.store(reader.scope.table.id).deletions;
    let unprocessed = deletions.iter().any(|deletion| deletion.version > token.version && deletion.at < horizon);
    let from_the_future = token.version > reader.database.version();
    if (token.at < horizon && unprocessed) || from_the_future || tracking.expire_days < 0 {
        let message = "Version stamp associated with the client has expired. Please perform a full sync.";
        let error = ApiError::new(Code::ExpiredVersionStamp, message);
        let status = http::StatusCode::from_u16(tracking.settings.expired_delta_status).unwrap_or(error.status);
        return Err(error.with_status(status));
    }
    Ok(token)
}

fn read_delta(
    reader: &Reader<'_>,
    tracking: &Tracking<'_>,
    text: &str,
    options: &QueryOptions,
    shown: &Projection,
    (query, path): (&str, &str),
    out: &mut Vec<u8>,
) -> Result<usize, ApiError> {
    let table = reader.scope.table;
    let token = checked_token(reader, tracking, text)?;
    let cookie = options.skip_token.as_deref().map(Cookie::decode).transpose()?;
    let carried =
        cookie.as_ref().and_then(|cookie| cookie.keys.first()).and_then(|(_, text)| Token::parse(text.as_deref()?));
    let end = carried.unwrap_or(Token { version: reader.database.version(), at: reader.scope.now });
    let page = cookie.as_ref().map_or(1, |cookie| cookie.page);
    let limit = reader.page_size.filter(|_| tracking.settings.delta_page_size).unwrap_or(PAGE_ROWS_MAX);
    let changes = changes_since(reader, token.version);
    let skipped = (page as usize - 1).saturating_mul(limit);
    out.extend_from_slice(b"{\"@odata.context\":");
    write_text(&format!("{}/$delta", context_url(reader.base, table, shown, &[])), out);
    out.extend_from_slice(b",\"value\":[");
    let mut written = 0;
    for (_, change) in changes.iter().skip(skipped).take(limit) {
        if written > 0 {
            out.push(b',');
        }
        written += 1;
        write_change(reader, shown, change, out);
    }
    out.push(b']');
    let more = changes.len() > skipped.saturating_add(limit);
    let next = more.then(|| Cookie {
        page: page + 1,
        keys: vec![("token".to_owned(), Some(end.text()))],
        last: Uuid::nil(),
        first: Uuid::nil(),
        is_tracking: true,
    });
    let is_told = next.is_none() && (!changes.is_empty() || tracking.settings.empty_delta_link);
    write_links(reader, next.as_ref(), is_told.then_some(end), (query, path), out);
    Ok(written)
}

fn write_change(reader: &Reader<'_>, shown: &Projection, change: &Change, out: &mut Vec<u8>) {
    let table = reader.scope.table;
    match change {
        Change::Changed(key) => {
            if let Some(row) = reader.database.get(table.id, key) {
                write_entry(reader, shown, RowView { table, key: *key, row }, out);
            }
        }
        Change::Deleted(id) => {
            out.extend_from_slice(b"{\"@odata.context\":");
            write_text(&format!("{}/$metadata#{}/$deletedEntity", reader.base, table.set_name), out);
            out.extend_from_slice(format!(",\"id\":\"{id}\",\"reason\":\"deleted\"}}").as_bytes());
        }
    }
}

/// The number of changes since a token.
pub(crate) fn read_delta_count(reader: &Reader<'_>, tracking: &Tracking<'_>, text: &str) -> Result<usize, ApiError> {
    require_tracking(reader.scope.table)?;
    let token = checked_token(reader, tracking, text)?;
    Ok(changes_since(reader, token.version).len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_the_product_writes_it() {
        let token = Token { version: 919_042, at: crate::write::parse_time("2026-08-22T08:10:44Z").unwrap() };
        assert_eq!(token.text(), "919042!08/22/2026 08:10:44");
        assert_eq!(Token::parse(&token.text()), Some(token));
        assert_eq!(Token::parse("x"), None);
    }
}
