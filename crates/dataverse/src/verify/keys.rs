//! Probes of ids and alternate keys.

use futures::FutureExt;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::lab::Lab;
use super::probe::{NoAnswer, Probing, Seen};
use super::reply::Reply;

const DUPLICATE_RECORD: u32 = 0x8004_0237;
const DUPLICATE_KEY: u32 = 0x8006_0892;
const DOES_NOT_EXIST: u32 = 0x8004_0217;
const VERSION_MISMATCH: u32 = 0x8006_0882;
const NO_SUCH_KEY_VALUE: u32 = 0x8006_0891;

/// Every probe has key values of its own.
fn fresh() -> String {
    Uuid::new_v4().simple().to_string()
}

fn keyed(lab: &Lab<'_>, key: &str) -> Value {
    json!({ lab.column("name"): "keyed", lab.column("key"): key })
}

/// Two rows, one after the other; the answer to the second.
async fn second_of(lab: &Lab<'_>, first: &str, second: &str) -> Result<Reply, NoAnswer> {
    lab.create(&keyed(lab, first)).await?;
    lab.post(&lab.set, &keyed(lab, second)).await
}

pub(super) fn key_violation_status<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let key = fresh();
        Ok(second_of(lab, &key, &key).await?.refused_with(&[DUPLICATE_KEY]))
    }
    .boxed()
}

pub(super) fn duplicate_id_status<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let body = json!({ lab.column("name"): "twice", lab.id_column(): Uuid::new_v4().to_string() });
        lab.create(&body).await?;
        Ok(lab.post(&lab.set, &body).await?.refused_with(&[DUPLICATE_RECORD]))
    }
    .boxed()
}

pub(super) fn if_match_missing_status<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let path = lab.row_path(Uuid::new_v4());
        let body = json!({ lab.column("name"): "missing" });
        let reply = lab.send(Method::PATCH, &path, &[("if-match", "W/\"1\"")], &body).await?;
        Ok(reply.refused_with(&[DOES_NOT_EXIST, VERSION_MISMATCH]))
    }
    .boxed()
}

pub(super) fn null_keys_repeat<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let body = json!({ lab.column("name"): "null key", lab.column("key"): null });
        lab.create(&body).await?;
        Ok(lab.post(&lab.set, &body).await?.is_taken())
    }
    .boxed()
}

/// Whether a second key, written another way, is the first one to the service.
async fn is_same(lab: &Lab<'_>, first: &str, second: &str) -> Result<Seen, NoAnswer> {
    let reply = second_of(lab, first, second).await?;
    Ok(match reply.code {
        Some(DUPLICATE_KEY) => Seen::new(true, reply.words()),
        _ if reply.is_success() => Seen::new(false, reply.words()),
        _ => Seen::strange(reply.words()),
    })
}

pub(super) fn keys_ignore_case<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let key = fresh();
        is_same(lab, &format!("{key}a"), &format!("{key}A")).await
    }
    .boxed()
}

pub(super) fn keys_ignore_trailing_blanks<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let key = fresh();
        is_same(lab, &key, &format!("{key}  ")).await
    }
    .boxed()
}

pub(super) fn keys_ignore_accents<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let key = fresh();
        is_same(lab, &format!("{key}e"), &format!("{key}é")).await
    }
    .boxed()
}

/// A key with a slash, named by its address: the row is there, and a read cannot reach it.
pub(super) fn addresses_refuse_key_characters<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let key = fresh();
        lab.create(&keyed(lab, &format!("{key}/1"))).await?;
        let path = format!("{}({}=%27{key}%2F1%27)?$select={}", lab.set, lab.column("key"), lab.id_column());
        let reply = lab.get(&path).await?;
        Ok(Seen::new(!reply.is_success(), reply.words()))
    }
    .boxed()
}

pub(super) fn bulk_any_key_text<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let address = format!("{}({}='{}%2F1')", lab.set, lab.column("key"), fresh());
        let target = json!({ "@odata.id": address, lab.column("name"): "any key" });
        Ok(lab.bulk("UpsertMultiple", vec![target]).await?.is_taken())
    }
    .boxed()
}

pub(super) fn unresolved_bind_status<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let bind = format!("/{}({}='{}')", lab.set, lab.column("key"), fresh());
        let body = json!({ lab.column("name"): "orphan", format!("{}@odata.bind", lab.column("parent")): bind });
        Ok(lab.post(&lab.set, &body).await?.refused_with(&[NO_SUCH_KEY_VALUE]))
    }
    .boxed()
}

pub(super) fn check_lookups<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let bind = format!("/{}", lab.row_path(Uuid::new_v4()));
        let body = json!({ lab.column("name"): "orphan", format!("{}@odata.bind", lab.column("parent")): bind });
        let reply = lab.post(&lab.set, &body).await?;
        Ok(Seen::new(!reply.is_success(), reply.words()))
    }
    .boxed()
}

/// A row that refers to another.
async fn child(lab: &Lab<'_>) -> Result<Uuid, NoAnswer> {
    let parent = lab.create(&json!({ lab.column("name"): "parent" })).await?;
    let bind = format!("/{}", lab.row_path(parent));
    lab.create(&json!({ lab.column("name"): "child", format!("{}@odata.bind", lab.column("parent")): bind })).await
}

pub(super) fn null_bind_clears<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let child = child(lab).await?;
        let body = json!({ format!("{}@odata.bind", lab.column("parent")): null });
        let reply = lab.send(Method::PATCH, &lab.row_path(child), &[("if-match", "*")], &body).await?;
        if !reply.is_success() {
            return Ok(Seen::new(false, reply.words()));
        }
        let is_clear = lab.row(child).await?[format!("_{}_value", lab.column("parent"))].is_null();
        Ok(if is_clear { Seen::new(true, reply.words()) } else { Seen::strange("taken, and nothing is cleared") })
    }
    .boxed()
}

/// A link put by its own address.
pub(super) fn reference_sets_lookup<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let row = lab.create(&json!({ lab.column("name"): "linked" })).await?;
        let parent = lab.create(&json!({ lab.column("name"): "parent" })).await?;
        let origin = lab.dataverse.client.service_origin();
        let link = format!("{origin}{}", lab.dataverse.client.part_address(&lab.row_path(parent)));
        let path = format!("{}/{}/$ref", lab.row_path(row), lab.column("parent"));
        let reply = lab.send(Method::PUT, &path, &[], &json!({ "@odata.id": link })).await?;
        let is_set = lab.row(row).await?[format!("_{}_value", lab.column("parent"))] == json!(parent.to_string());
        Ok(Seen::new(reply.is_success() && is_set, reply.words()))
    }
    .boxed()
}
