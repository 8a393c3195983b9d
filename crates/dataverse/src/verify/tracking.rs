//! Probes of change tracking.

use futures::FutureExt;
use http::Method;
use serde_json::{Value, json};

use super::lab::Lab;
use super::probe::{NoAnswer, Probing, Seen, unobservable};
use super::reply::Reply;

/// Pages are followed no further than this: a scratch table is small.
const PAGES_MAX: usize = 200;

/// Page size of reads that have to have several pages.
const PAGE_ROWS: usize = 5;
const PREFER_PAGES: (&str, &str) = ("prefer", "odata.track-changes,odata.maxpagesize=5");

const EXPIRED: u32 = 0x8004_4352;

/// Tokens that ended long ago, and one of a later database: each is expired to some service.
const OLD_TOKENS: [&str; 3] = [
    "1%2101%2F01%2F2020%2000%3A00%3A00",
    "999999999999%2101%2F01%2F2020%2000%3A00%3A00",
    "0%2101%2F01%2F2001%2000%3A00%3A00",
];

fn link<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.json[name].as_str()
}

/// The first page of a tracked read with further pages behind it.
async fn first_page(lab: &Lab<'_>) -> Result<Reply, NoAnswer> {
    for _ in 0..=PAGE_ROWS {
        lab.create(&json!({ lab.column("name"): "tracked" })).await?;
    }
    let path = format!("{}?$select={}", lab.set, lab.column("name"));
    lab.get_with(&path, &[PREFER_PAGES]).await?.required("a read that tracks changes")
}

/// Follows the pages after one to the delta link of the last.
async fn delta_link(lab: &Lab<'_>, mut page: Reply) -> Result<String, NoAnswer> {
    for _ in 0..PAGES_MAX {
        match link(&page, "@odata.nextLink") {
            Some(next) => page = lab.follow(next, &[PREFER_PAGES]).await?.required("reading the next page")?,
            None => break,
        }
    }
    match link(&page, "@odata.deltaLink") {
        Some(delta) => Ok(delta.to_owned()),
        None => unobservable("the last page has no delta link"),
    }
}

/// A delta link that is as new as now.
async fn fresh_link(lab: &Lab<'_>) -> Result<String, NoAnswer> {
    let path = format!("{}?$select={}", lab.set, lab.column("name"));
    let page = lab.get_with(&path, &[("prefer", "odata.track-changes")]).await?;
    delta_link(lab, page.required("a read that tracks changes")?).await
}

pub(super) fn link_on_every_page<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let page = first_page(lab).await?;
        if link(&page, "@odata.nextLink").is_none() {
            return unobservable("a tracked read of several pages came as one");
        }
        let has_link = link(&page, "@odata.deltaLink").is_some();
        Ok(Seen::new(has_link, if has_link { "also on the first of several" } else { "not on the first of several" }))
    }
    .boxed()
}

/// A row that changes while pages are read is told again, or lost to who relies on the delta.
pub(super) fn token_at_start<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let page = first_page(lab).await?;
        let id_column = lab.id_column();
        let Some(id) = page.rows().first().and_then(|row| row[&id_column].as_str()).map(str::to_owned) else {
            return unobservable("a tracked read has no rows");
        };
        if link(&page, "@odata.nextLink").is_none() {
            return unobservable("a tracked read of several pages came as one");
        }
        let body = json!({ lab.column("name"): "changed" });
        let path = format!("{}({id})", lab.set);
        lab.send(Method::PATCH, &path, &[("if-match", "*")], &body).await?.required("changing a scratch row")?;
        let delta = delta_link(lab, page).await?;
        let is_told = follow_all(lab, &delta).await?.iter().any(|row| row[&id_column] == json!(id));
        Ok(Seen::new(is_told, if is_told { "the change is told again" } else { "the change is not told again" }))
    }
    .boxed()
}

/// The rows of a delta, all pages.
async fn follow_all(lab: &Lab<'_>, delta: &str) -> Result<Vec<Value>, NoAnswer> {
    let mut rows = Vec::new();
    let mut next = delta.to_owned();
    for _ in 0..PAGES_MAX {
        let page = lab.follow(&next, &[]).await?.required("reading changes")?;
        rows.extend(page.rows().iter().cloned());
        match link(&page, "@odata.nextLink") {
            Some(link) => link.clone_into(&mut next),
            None => break,
        }
    }
    Ok(rows)
}

pub(super) fn empty_delta_link<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let delta = fresh_link(lab).await?;
        let page = lab.follow(&delta, &[]).await?.required("reading changes")?;
        if !page.rows().is_empty() || !page.json["value"].is_array() {
            return Ok(Seen::strange(format!("{} rows where nothing changed", page.rows().len())));
        }
        let has_link = link(&page, "@odata.deltaLink").is_some();
        Ok(Seen::new(has_link, if has_link { "no rows and a new link" } else { "no rows and no link" }))
    }
    .boxed()
}

pub(super) fn delta_page_size<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let delta = fresh_link(lab).await?;
        for _ in 0..=PAGE_ROWS {
            lab.create(&json!({ lab.column("name"): "changed" })).await?;
        }
        let prefer = [("prefer", "odata.maxpagesize=5")];
        let rows = lab.follow(&delta, &prefer).await?.required("reading changes")?.rows().len();
        Ok(match rows {
            PAGE_ROWS => Seen::new(true, format!("{rows} rows to a page")),
            rows if rows > PAGE_ROWS => Seen::new(false, format!("{rows} rows to a page")),
            rows => Seen::strange(format!("{rows} rows to a page")),
        })
    }
    .boxed()
}

/// A link whose token was made old by hand: nobody can wait until one is.
pub(super) fn expired_status<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let delta = fresh_link(lab).await?;
        let Some((head, token)) = delta.split_once("deltatoken=") else {
            return unobservable("a delta link has no token");
        };
        let tail = token.split_once('&').map(|(_, tail)| format!("&{tail}")).unwrap_or_default();
        for token in OLD_TOKENS {
            let reply = lab.follow(&format!("{head}deltatoken={token}{tail}"), &[]).await?;
            if reply.code == Some(EXPIRED) {
                return Ok(Seen::new(reply.status, reply.words()));
            }
        }
        unobservable("no token that was made old counted as expired")
    }
    .boxed()
}
