//! Probes of reads and of `$batch`.

use bytes::Bytes;
use futures::FutureExt;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ask::add_header;
use super::lab::Lab;
use super::probe::{NoAnswer, Probing, Seen, unobservable};
use super::reply::Reply;
use crate::budget::Cost;
use crate::call::Call;
use crate::query::encode;

/// One more than a count that is capped would tell.
const COUNTED_ROWS: usize = 5_001;
const ROWS_PER_REQUEST: usize = 500;
const COUNT_CAP: u64 = 5_000;

const JSON_BATCH: &str = r#"{"requests":[{"id":"1","method":"GET","url":"WhoAmI"}]}"#;

pub(super) fn nulls_first<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let (mark, big) = (Uuid::new_v4().to_string(), lab.column("big"));
        lab.create(&json!({ lab.column("name"): mark, big.as_str(): 1 })).await?;
        lab.create(&json!({ lab.column("name"): mark })).await?;
        let filter = encode(&format!("{} eq '{mark}'", lab.column("name")));
        let path = format!("{}?$select={big}&$filter={filter}&$orderby={big}%20asc", lab.set);
        let reply = lab.get(&path).await?.required("reading scratch rows in order")?;
        match reply.rows() {
            [first, last] if first[&big].is_null() != last[&big].is_null() => {
                let is_first = first[&big].is_null();
                Ok(Seen::new(is_first, if is_first { "nulls first" } else { "nulls last" }))
            }
            rows => unobservable(format!("{} rows came back in place of 2", rows.len())),
        }
    }
    .boxed()
}

/// Two rows in the order of one of their columns; whether the first one made comes first.
async fn is_first(lab: &Lab<'_>, first: Value, second: Value, order: &str) -> Result<bool, NoAnswer> {
    let (mark, name) = (Uuid::new_v4().to_string(), lab.column("late"));
    let mut ids = Vec::new();
    for mut row in [first, second] {
        row[&name] = json!(mark);
        ids.push(lab.create(&row).await?);
    }
    let filter = encode(&format!("{name} eq '{mark}'"));
    let path = format!("{}?$select={name}&$filter={filter}&$orderby={order}%20asc", lab.set);
    let reply = lab.get(&path).await?.required("reading scratch rows in order")?;
    match reply.rows() {
        [first, _] => Ok(first[lab.id_column()] == json!(ids[0].to_string())),
        rows => unobservable(format!("{} rows came back in place of 2", rows.len())),
    }
}

pub(super) fn choices_order_by_number<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let column = lab.column("choice");
        let row = |number: i32| json!({ column.as_str(): lab.first_option() + number });
        // The first option has the last label.
        let by_number = is_first(lab, row(0), row(1), &column).await?;
        Ok(Seen::new(by_number, if by_number { "by number" } else { "by label" }))
    }
    .boxed()
}

pub(super) fn lookups_order_by_name<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let (name, column) = (lab.column("name"), lab.column("parent"));
        // The row with the lesser id has the greater name.
        let ids =
            [Uuid::from_u128(Uuid::new_v4().as_u128() >> 8), Uuid::from_u128(Uuid::new_v4().as_u128() | (0xf << 124))];
        let mut rows = Vec::new();
        for (id, text) in ids.iter().zip(["Zulu", "Alpha"]) {
            lab.create(&json!({ lab.id_column(): id.to_string(), name.as_str(): text })).await?;
            rows.push(json!({ format!("{column}@odata.bind"): format!("/{}", lab.row_path(*id)) }));
        }
        let (first, second) = (rows.remove(0), rows.remove(0));
        let by_id = is_first(lab, first, second, &format!("_{column}_value")).await?;
        Ok(Seen::new(!by_id, if by_id { "by id" } else { "by name" }))
    }
    .boxed()
}

async fn filtered(lab: &Lab<'_>, filter: &str) -> Result<Reply, NoAnswer> {
    lab.get(&format!("{}?$select={}&$top=1&$filter={}", lab.set, lab.id_column(), encode(filter))).await
}

/// Functions of OData beyond contains, startswith and endswith.
pub(super) fn other_functions_refused<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let name = lab.column("name");
        let filters = [
            ("tolower", format!("tolower({name}) eq 'x'")),
            ("length", format!("length({name}) eq 1")),
            ("year", "year(createdon) eq 2026".to_owned()),
            ("substring", format!("substring({name},1) eq 'x'")),
            ("in", format!("{name} in ('x','y')")),
        ];
        let mut taken = Vec::new();
        for (function, filter) in &filters {
            if filtered(lab, filter).await?.is_success() {
                taken.push(*function);
            }
        }
        let words = if taken.is_empty() { "all refused".to_owned() } else { format!("taken: {}", taken.join(", ")) };
        Ok(Seen::new(taken.is_empty(), words))
    }
    .boxed()
}

pub(super) fn query_fault_code<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let reply = filtered(lab, "((").await?;
        if reply.is_success() {
            return Ok(Seen::strange(reply.words()));
        }
        Ok(Seen::new(format!("0x{:08x}", reply.code.unwrap_or(0)), reply.words()))
    }
    .boxed()
}

/// `any` and `all` over the rows that refer to a row.
pub(super) fn lambdas<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let path = format!(
            "EntityDefinitions(LogicalName='{}')/OneToManyRelationships\
             ?$select=SchemaName,ReferencingAttribute,ReferencedEntityNavigationPropertyName",
            lab.table
        );
        let reply = lab.get(&path).await?.required("reading relationships")?;
        let column = lab.column("parent");
        let found = reply.rows().iter().find(|row| row["ReferencingAttribute"] == json!(column));
        let Some(name) = found.and_then(|row| row["ReferencedEntityNavigationPropertyName"].as_str()) else {
            return unobservable("the scratch table's relationship is not told");
        };
        let mut words = Vec::new();
        for function in ["any", "all"] {
            let filter = format!("{name}/{function}(o:o/{} eq 'child')", lab.column("name"));
            let reply = filtered(lab, &filter).await?;
            if !reply.is_success() {
                words.push(format!("{function}: {}", reply.words()));
            }
        }
        Ok(Seen::new(words.is_empty(), if words.is_empty() { "both taken".to_owned() } else { words.join("; ") }))
    }
    .boxed()
}

pub(super) fn count_segment_capped<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        if !lab.with_large {
            return unobservable("it takes 5,001 rows; only done on request");
        }
        let mut left = COUNTED_ROWS;
        while left > 0 {
            let rows = left.min(ROWS_PER_REQUEST);
            let targets: Vec<Value> = (0..rows).map(|_| json!({ lab.column("name"): "counted" })).collect();
            lab.bulk("CreateMultiple", targets).await?.required("creating rows to count")?;
            left -= rows;
        }
        let reply = lab.get(&format!("{}/$count", lab.set)).await?.required("counting rows")?;
        let count = reply.text.trim_start_matches('\u{feff}').trim().parse::<u64>();
        Ok(match count {
            Ok(COUNT_CAP) => Seen::new(true, "5000 of more rows"),
            Ok(count) if count >= COUNTED_ROWS as u64 => Seen::new(false, "more than 5000 rows"),
            _ => Seen::strange("no count, or one that is too small"),
        })
    }
    .boxed()
}

pub(super) async fn batch(lab: &Lab<'_>, kind: &str, body: impl Into<Bytes>) -> Result<Reply, NoAnswer> {
    let cost = Cost { busy: std::time::Duration::from_millis(100), entitlement: 1 };
    let mut call =
        Call::write(Method::POST, "$batch", body.into(), flowgate_core::destination::Class::Interactive, cost);
    add_header(&mut call, "content-type", kind);
    lab.observe(call).await
}

/// A change set of one create that is refused, and where its answer stands.
pub(super) fn nested_change_set_error<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let row = json!({ lab.column("nosuchcolumn"): 1 });
        let body = format!(
            "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\nContent-Type: application/http\r\n\
             Content-Transfer-Encoding: binary\r\nContent-ID: 1\r\n\r\nPOST {} HTTP/1.1\r\n\
             Content-Type: application/json; type=entry\r\n\r\n{row}\r\n--c--\r\n--b--\r\n",
            lab.dataverse.client.part_address(&lab.set)
        );
        let reply = batch(lab, "multipart/mixed; boundary=b", body).await?;
        if !reply.text.contains("HTTP/1.1 4") {
            return Ok(Seen::strange(format!("{}, without an answer to the part", reply.words())));
        }
        let is_nested = reply.text.contains("boundary=changesetresponse");
        Ok(Seen::new(is_nested, if is_nested { "inside a changeset response" } else { "alone" }))
    }
    .boxed()
}

pub(super) fn json_batch_refused<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let reply = batch(lab, "application/json", JSON_BATCH.to_owned()).await?;
        Ok(Seen::new(!reply.is_success(), reply.words()))
    }
    .boxed()
}
