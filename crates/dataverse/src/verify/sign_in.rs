//! Probes of sign-in, of the web servers behind the address, and of headers about the caller.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::lab::Lab;
use super::probe::{NoAnswer, Probing, Seen, unobservable};
use super::reply::Reply;
use crate::answer::header_number;
use crate::call::Caller;

/// Servers are drawn without their cookie until this many draws for each one known show no other.
const DRAWS_PER_SERVER: usize = 12;
const DRAWS_MAX: usize = 240;

/// More step ids than anyone is advised to allow.
const STEP_IDS_MAX: usize = 12;

const FIXED_TOKEN: &str = "the connection has a fixed token";

const CANNOT_ACT_FOR: u32 = 0x8004_A110;
const PRIVILEGE_DENIED: u32 = 0x8004_0220;

/// The form of a token request, and the life of its token.
pub(super) fn token_life<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let origin = lab.dataverse.client.service_origin().to_string();
        match lab.dataverse.client.authority().token_for(&origin).await {
            None => unobservable(FIXED_TOKEN),
            Some(Err(error)) => unobservable(format!("no second token was granted ({})", error.code)),
            Some(Ok((_, life))) => Ok(Seen::new(life.as_secs_f64(), format!("{} s", life.as_secs()))),
        }
    }
    .boxed()
}

/// The same environment has two addresses; a token for the one is tried at the other.
pub(super) fn check_audience<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let client = &lab.dataverse.client;
        let Some(other) = other_address(&client.service_origin().to_string()) else {
            return unobservable("the environment's address has no second form");
        };
        let token = match client.authority().token_for(&other).await {
            None => return unobservable(FIXED_TOKEN),
            Some(Err(error)) => {
                return unobservable(format!("no token was granted for the second address ({})", error.code));
            }
            Some(Ok((token, _))) => token,
        };
        let reply = lab.get_as(Caller::Bearer(token), "WhoAmI", &[]).await?;
        Ok(Seen::new(reply.status == 401, reply.words()))
    }
    .boxed()
}

/// `https://org.api.crm.dynamics.com` for `https://org.crm.dynamics.com` and the other way; this
/// machine's name for its number.
fn other_address(origin: &str) -> Option<String> {
    if let Some((head, tail)) = origin.split_once(".api.") {
        return Some(format!("{head}.{tail}"));
    }
    if origin.contains(".dynamics.com") {
        let (head, tail) = origin.split_once('.')?;
        return Some(format!("{head}.api.{tail}"));
    }
    origin.contains("127.0.0.1").then(|| origin.replace("127.0.0.1", "localhost"))
}

pub(super) fn challenge<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let reply = lab.get_as(Caller::Nobody, "WhoAmI", &[]).await?;
        let text = reply.header("www-authenticate").unwrap_or_default();
        let names = text.starts_with("Bearer") && text.contains("authorization_uri");
        if reply.status != 401 || (!names && !text.is_empty()) {
            return Ok(Seen::strange(format!("{}, with another challenge", reply.words())));
        }
        Ok(Seen::new(names, format!("{}, {}", reply.words(), if names { "challenged" } else { "no challenge" })))
    }
    .boxed()
}

pub(super) fn who_am_i_parentheses<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async { Ok(lab.get("WhoAmI()").await?.is_taken()) }.boxed()
}

/// An integer, a decimal number and an integer; all or none.
pub(super) fn limit_headers<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let reply = lab.get("WhoAmI").await?;
        let is_number = [
            reply.header("x-ms-ratelimit-burst-remaining-xrm-requests").map(|text| text.parse::<u64>().is_ok()),
            reply.header("x-ms-ratelimit-time-remaining-xrm-requests").map(|text| header_number(text).is_some()),
            reply.header("x-ms-dop-hint").map(|text| text.parse::<u32>().is_ok()),
        ];
        let words = format!("{} of 3 headers, {} in the form", count(&is_number, None), count(&is_number, Some(true)));
        Ok(match (count(&is_number, None), count(&is_number, Some(true))) {
            (3, 3) => Seen::new(true, words),
            (0, _) => Seen::new(false, words),
            _ => Seen::strange(words),
        })
    }
    .boxed()
}

fn count(found: &[Option<bool>], wanted: Option<bool>) -> usize {
    found.iter().flatten().filter(|is_number| wanted.is_none_or(|wanted| **is_number == wanted)).count()
}

/// The cookies of an answer, by name.
fn cookies(reply: &Reply) -> BTreeMap<String, String> {
    let lines = reply.headers.get_all("set-cookie").iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.filter_map(|line| line.split(';').next()?.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

fn affinity_of(cookies: &BTreeMap<String, String>) -> Option<(&str, &str)> {
    let found = cookies.iter().find(|(name, _)| name.to_ascii_lowercase().contains("affinity"));
    found.map(|(name, value)| (name.as_str(), value.as_str()))
}

/// The cookie with affinity in its name that, sent back, is answered with the same value.
pub(super) fn affinity_cookie<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let found = cookies(&lab.get("WhoAmI").await?);
        let Some((name, value)) = affinity_of(&found) else {
            return Ok(Seen::strange(format!("{} cookies, none of affinity", found.len())));
        };
        let pair = format!("{name}={value}");
        for _ in 0..4 {
            let again = cookies(&lab.get_with("WhoAmI", &[("cookie", &pair)]).await?);
            if again.get(name).is_some_and(|again| again != value) {
                return Ok(Seen::strange(format!("`{name}` does not lead back to its server")));
            }
        }
        Ok(Seen::new(name, format!("`{name}` leads back to its server")))
    }
    .boxed()
}

pub(super) fn servers<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let mut known = BTreeSet::new();
        let mut without_news = 0;
        for _ in 0..DRAWS_MAX {
            let found = cookies(&lab.get("WhoAmI").await?);
            let Some((_, value)) = affinity_of(&found) else {
                return unobservable("no cookie of affinity tells the web servers apart");
            };
            without_news = if known.insert(value.to_owned()) { 0 } else { without_news + 1 };
            if without_news >= DRAWS_PER_SERVER * (known.len() + 1) {
                break;
            }
        }
        Ok(Seen::new(known.len(), format!("{} web servers answered", known.len())))
    }
    .boxed()
}

async fn bypass(lab: &Lab<'_>) -> Result<Reply, NoAnswer> {
    let body = json!({ lab.column("name"): "bypass" });
    lab.send(Method::POST, &lab.set, &[("mscrm.bypassbusinesslogicexecution", "CustomSync")], &body).await
}

pub(super) fn bypass_allowed<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let reply = bypass(lab).await?;
        Ok(match reply.code {
            Some(PRIVILEGE_DENIED) => Seen::new(false, reply.words()),
            _ if reply.is_success() => Seen::new(true, reply.words()),
            _ => Seen::strange(reply.words()),
        })
    }
    .boxed()
}

pub(super) fn bypass_refused_status<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let reply = bypass(lab).await?;
        if reply.is_success() {
            return unobservable("the application user holds the privilege");
        }
        Ok(reply.refused_with(&[PRIVILEGE_DENIED]))
    }
    .boxed()
}

/// One id more each time, none of them a step's, until there are too many.
pub(super) fn bypass_step_ids_max<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let body = json!({ lab.column("name"): "bypass" });
        let mut ids: Vec<String> = Vec::new();
        while ids.len() < STEP_IDS_MAX {
            ids.push(Uuid::new_v4().to_string());
            let header = [("mscrm.bypassbusinesslogicexecutionstepids", ids.join(","))];
            let header = header.each_ref().map(|(name, value)| (*name, value.as_str()));
            let reply = lab.send(Method::POST, &lab.set, &header, &body).await?;
            if !reply.is_success() && ids.len() == 1 {
                return reply.required("bypassing one step").map(|reply| Seen::strange(reply.words()));
            }
            if !reply.is_success() {
                return Ok(Seen::new(ids.len() - 1, format!("{} ids: {}", ids.len(), reply.words())));
            }
        }
        Ok(Seen::new(ids.len(), format!("at least {} ids are taken", ids.len())))
    }
    .boxed()
}

/// Another user's object id, or our own where there is no other.
async fn object_id(lab: &Lab<'_>) -> Result<String, NoAnswer> {
    let path = "systemusers?$select=systemuserid,azureactivedirectoryobjectid\
                &$filter=azureactivedirectoryobjectid%20ne%20null&$top=5";
    let reply = lab.get(path).await?.required("reading users")?;
    let own = lab.who.user_id.to_string();
    let others = reply.rows().iter().filter(|row| row["systemuserid"] != json!(own));
    let ours = reply.rows().iter().filter(|row| row["systemuserid"] == json!(own));
    match others.chain(ours).find_map(|row| row["azureactivedirectoryobjectid"].as_str()) {
        Some(id) => Ok(id.to_owned()),
        None => unobservable("no user has an object id"),
    }
}

/// Asks who it is in another's name, and nothing more.
pub(super) fn impersonation_allowed<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let object = object_id(lab).await?;
        let reply = lab.get_with("WhoAmI", &[("callerobjectid", &object)]).await?;
        Ok(match reply.code {
            Some(CANNOT_ACT_FOR) => Seen::new(false, reply.words()),
            _ if reply.is_success() => Seen::new(true, reply.words()),
            _ => Seen::strange(reply.words()),
        })
    }
    .boxed()
}

/// An id that is no user's: ignored, or refused, or believed.
pub(super) fn legacy_caller_header<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let stranger = Uuid::new_v4().to_string();
        let reply = lab.get_with("WhoAmI", &[("mscrmcallerid", &stranger)]).await?;
        let is_us = reply.json["UserId"] == json!(lab.who.user_id.to_string());
        Ok(Seen::new(!is_us, format!("{}, the header is {}", reply.words(), if is_us { "ignored" } else { "heard" })))
    }
    .boxed()
}

pub(super) fn respond_async_ignored<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let body = json!({ lab.column("name"): "async" });
        let reply = lab.send(Method::POST, &lab.set, &[("prefer", "respond-async")], &body).await?;
        Ok(Seen::new(reply.status == 204, reply.words()))
    }
    .boxed()
}

/// The same request with the same repeatability headers, twice.
pub(super) fn repeatability_ignored<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let name = Uuid::new_v4().to_string();
        let body = json!({ lab.column("name"): name });
        let id = Uuid::new_v4().to_string();
        let headers =
            [("repeatability-request-id", id.as_str()), ("repeatability-first-sent", "Mon, 02 Mar 2026 09:00:00 GMT")];
        for _ in 0..2 {
            lab.send(Method::POST, &lab.set, &headers, &body).await?.required("creating a scratch row")?;
        }
        let path = format!(
            "{}?$select={id}&$filter={column}%20eq%20%27{name}%27",
            lab.set,
            id = lab.id_column(),
            column = lab.column("name")
        );
        let rows = lab.get(&path).await?.required("reading scratch rows")?.rows().len();
        Ok(Seen::new(rows == 2, format!("{rows} rows after two requests")))
    }
    .boxed()
}

/// Days a delta token lives, as the organisation says.
pub(super) fn change_tracking_days<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let reply =
            lab.get("organizations?$select=expirechangetrackingindays").await?.required("reading the organisation")?;
        match reply.rows().first().map(|row| &row["expirechangetrackingindays"]) {
            Some(Value::Number(days)) => Ok(Seen::new(days.clone(), format!("{days} days"))),
            _ => unobservable("the organisation does not tell"),
        }
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_has_two_addresses() {
        let other = |text: &str| other_address(text);
        assert_eq!(other("https://a.crm4.dynamics.com").as_deref(), Some("https://a.api.crm4.dynamics.com"));
        assert_eq!(other("https://a.api.crm4.dynamics.com").as_deref(), Some("https://a.crm4.dynamics.com"));
        assert_eq!(other("http://127.0.0.1:80").as_deref(), Some("http://localhost:80"));
        assert_eq!(other("https://crm.example"), None);
    }
}
