//! Probes of single values: what is stored, what is refused.

use futures::FutureExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::lab::Lab;
use super::probe::{NoAnswer, Probing, Seen, unobservable};
use super::reply::Reply;

const DECIMAL_OUT_OF_RANGE: u32 = 0x8004_4330;
const INVALID_DATE: u32 = 0x8004_0239;
const NO_CURRENCY: u32 = 0x8004_8CFB;
const INVALID_STATE: u32 = 0x8004_0233;
const PRIVILEGE_DENIED: u32 = 0x8004_0220;

/// Writes one column of a new row, and reads the row if that was taken.
async fn written(lab: &Lab<'_>, column: &str, value: Value) -> Result<(Reply, Value), NoAnswer> {
    let reply = lab.post(&lab.set, &json!({ lab.column("name"): "value", column: value })).await?;
    let row = match reply.entity_id().filter(|_| reply.is_success()) {
        Some(id) => lab.row(id).await?,
        None => Value::Null,
    };
    Ok((reply, row))
}

pub(super) fn round_decimals<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let column = lab.column("decimal");
        let (reply, row) = written(lab, &column, json!(1.239)).await?;
        Ok(match row[&column].as_f64() {
            Some(stored) if (stored - 1.24).abs() < 1e-9 => Seen::new(true, "1.239 is stored as 1.24"),
            Some(stored) => Seen::strange(format!("1.239 is stored as {stored}")),
            None if reply.code == Some(DECIMAL_OUT_OF_RANGE) => Seen::new(false, reply.words()),
            None => Seen::strange(reply.words()),
        })
    }
    .boxed()
}

pub(super) fn drop_sub_seconds<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let column = lab.column("when");
        let (reply, row) = written(lab, &column, json!("2026-01-02T03:04:05.678Z")).await?;
        Ok(match row[&column].as_str() {
            Some("2026-01-02T03:04:05Z") => Seen::new(true, "05.678 s are stored as 05 s"),
            Some("2026-01-02T03:04:06Z") => Seen::strange("05.678 s are stored as 06 s"),
            Some(_) => Seen::strange("05.678 s keep their parts"),
            None if reply.code == Some(INVALID_DATE) => Seen::new(false, reply.words()),
            None => Seen::strange(reply.words()),
        })
    }
    .boxed()
}

pub(super) fn big_integer_texts<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async { Ok(written(lab, &lab.column("big"), json!("9007199254740993")).await?.0.is_taken()) }.boxed()
}

pub(super) fn defaults_replace_nulls<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let column = lab.column("choice");
        let row = lab.row(lab.create(&json!({ lab.column("name"): "omitted" })).await?).await?;
        if row[&column] != json!(lab.first_option()) {
            return unobservable("a column that was left out did not take its default");
        }
        let (reply, row) = written(lab, &column, Value::Null).await?;
        let reply = reply.required("creating a row with a null")?;
        Ok(Seen::new(!row[&column].is_null(), format!("{}, then {}", reply.words(), null_words(&row[&column]))))
    }
    .boxed()
}

fn null_words(value: &Value) -> &'static str {
    if value.is_null() { "null" } else { "a value" }
}

pub(super) fn default_currency<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let (reply, row) = written(lab, &lab.column("money"), json!(12.5)).await?;
        Ok(match reply.code {
            Some(NO_CURRENCY) => Seen::new(false, reply.words()),
            _ if !reply.is_success() => Seen::strange(reply.words()),
            _ if row["_transactioncurrencyid_value"].is_null() => Seen::strange("an amount without a currency"),
            _ => Seen::new(true, "the row has a currency"),
        })
    }
    .boxed()
}

/// The rate and the amount in the base currency beside an amount.
pub(super) fn money_companions<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let column = lab.column("money");
        let (reply, row) = written(lab, &column, json!(12.5)).await?;
        if !reply.is_success() {
            return unobservable(format!("an amount was refused: {}", reply.words()));
        }
        let (rate, base) = (row["exchangerate"].as_f64(), row[format!("{column}_base")].as_f64());
        let (Some(rate), Some(base)) = (rate, base) else {
            return Ok(Seen::new(false, "the rate or the base amount is missing"));
        };
        Ok(Seen::new((base - 12.5 / rate).abs() < 0.01, "base amount against amount divided by rate"))
    }
    .boxed()
}

pub(super) fn overridden_created_on<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let (reply, row) = written(lab, "overriddencreatedon", json!("2019-05-06T07:08:09Z")).await?;
        Ok(match row["createdon"].as_str() {
            Some("2019-05-06T07:08:09Z") => Seen::new(true, "createdon takes the given time"),
            Some(_) => Seen::strange("taken, but createdon is another time"),
            None if reply.code == Some(PRIVILEGE_DENIED) => Seen::new(false, reply.words()),
            None => Seen::strange(reply.words()),
        })
    }
    .boxed()
}

/// The loader knows an undeclared column by these words.
pub(super) fn unknown_property_text<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let reply = written(lab, &lab.column("nosuchcolumn"), json!("x")).await?.0;
        let is_told = reply.status == 400 && reply.message.contains("does not exist on type");
        Ok(Seen::new(is_told, reply.words()))
    }
    .boxed()
}

pub(super) fn lookup_value_refused<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let parent = lab.create(&json!({ lab.column("name"): "parent" })).await?;
        let column = format!("_{}_value", lab.column("parent"));
        let reply = written(lab, &column, json!(parent.to_string())).await?.0;
        Ok(Seen::new(reply.status == 400, reply.words()))
    }
    .boxed()
}

pub(super) fn create_inactive<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let body = json!({ lab.column("name"): "inactive", "statecode": 1, "statuscode": 2 });
        let reply = lab.post(&lab.set, &body).await?;
        if let Some(id) = reply.entity_id().filter(|_| reply.is_success()) {
            let is_inactive = lab.row(id).await?["statecode"] == json!(1);
            return Ok(if is_inactive {
                Seen::new(true, reply.words())
            } else {
                Seen::strange("taken, and the row is active all the same")
            });
        }
        Ok(match reply.code {
            Some(INVALID_STATE) => Seen::new(false, reply.words()),
            _ => Seen::new(false, format!("{}, another code", reply.words())),
        })
    }
    .boxed()
}

pub(super) fn null_property_status<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let id: Uuid = lab.create(&json!({ lab.column("name"): "null property" })).await?;
        let reply = lab.get(&format!("{}/{}", lab.row_path(id), lab.column("late"))).await?;
        Ok(Seen::new(reply.status, reply.words()))
    }
    .boxed()
}
