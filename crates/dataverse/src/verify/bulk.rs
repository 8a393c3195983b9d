//! Probes of the bulk messages, of bulk deletion, and of elastic tables.

use futures::FutureExt;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::lab::{BulkDeleted, LOOK_INTERVAL, Lab, ScratchTable};
use super::probe::{NoAnswer, Probing, Seen, unobservable};
use super::reply::Reply;
use crate::call::CallError;
use crate::provision::definition;

/// Bodies of 1 MiB and then twice as much each time, up to this.
const BODY_BYTES_MIN: usize = 1 << 20;
const BODY_BYTES_MAX: usize = 256 << 20;

const BULK_DELETE_MAX_SECONDS: f64 = 1_800.0;

/// The state of a finished system job.
const COMPLETED: i64 = 3;

pub(super) fn ids_in_order<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let name = lab.column("name");
        let targets: Vec<Value> = (0..20).map(|number| json!({ name.as_str(): format!("ordered {number}") })).collect();
        let reply = lab.bulk("CreateMultiple", targets).await?.required("creating rows in bulk")?;
        let ids: Vec<Uuid> = reply.json["Ids"].as_array().into_iter().flatten().filter_map(as_id).collect();
        if ids.len() != 20 {
            return Ok(Seen::strange(format!("{} ids for 20 rows", ids.len())));
        }
        for (number, id) in ids.iter().enumerate() {
            if lab.row(*id).await?[&name] != json!(format!("ordered {number}")) {
                return Ok(Seen::new(false, "the ids are in another order than the rows"));
            }
        }
        Ok(Seen::new(true, "20 ids in the order of their rows"))
    }
    .boxed()
}

fn as_id(value: &Value) -> Option<Uuid> {
    value.as_str().and_then(|text| Uuid::parse_str(text).ok())
}

/// Updates one scratch row in bulk, with members besides the id and the name.
async fn update_one(lab: &Lab<'_>, members: Value) -> Result<(Reply, bool), NoAnswer> {
    let id = lab.create(&json!({ lab.column("name"): "before" })).await?;
    let mut target = json!({ lab.id_column(): id.to_string(), lab.column("name"): "after" });
    if let (Some(target), Value::Object(members)) = (target.as_object_mut(), members) {
        target.extend(members);
    }
    let reply = lab.bulk("UpdateMultiple", vec![target]).await?;
    let is_applied = lab.row(id).await?[lab.column("name")] == json!("after");
    Ok((reply, is_applied))
}

pub(super) fn update_multiple_no_content<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let reply = update_one(lab, json!({})).await?.0.required("updating rows in bulk")?;
        Ok(Seen::new(reply.status == 204, reply.words()))
    }
    .boxed()
}

pub(super) fn bulk_etags_ignored<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let (reply, is_applied) = update_one(lab, json!({ "@odata.etag": "W/\"1\"" })).await?;
        Ok(Seen::new(reply.is_success() && is_applied, reply.words()))
    }
    .boxed()
}

pub(super) fn update_multiple_by_key<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let (key, name) = (Uuid::new_v4().simple().to_string(), lab.column("name"));
        let id = lab.create(&json!({ name.as_str(): "before", lab.column("key"): key })).await?;
        let address = format!("{}({}='{key}')", lab.set, lab.column("key"));
        let target = json!({ "@odata.id": address, name.as_str(): "after" });
        let reply = lab.bulk("UpdateMultiple", vec![target]).await?;
        if !reply.is_success() {
            return Ok(Seen::new(false, reply.words()));
        }
        let is_applied = lab.row(id).await?[&name] == json!("after");
        Ok(if is_applied { Seen::new(true, reply.words()) } else { Seen::strange("taken, and nothing is changed") })
    }
    .boxed()
}

/// The job that deletes one scratch row: how long it took, and the status it ended with.
async fn delete_in_bulk(lab: &Lab<'_>) -> Result<BulkDeleted, NoAnswer> {
    let id = lab.create(&json!({ lab.column("name"): "to be deleted" })).await?;
    let condition = json!({
        "@odata.type": "Microsoft.Dynamics.CRM.ConditionExpression",
        "AttributeName": lab.id_column(), "Operator": "In",
        "Values": [{"Value": id.to_string(), "Type": "System.Guid"}],
    });
    let query = json!({
        "@odata.type": "Microsoft.Dynamics.CRM.QueryExpression",
        "EntityName": lab.table,
        "ColumnSet": {"@odata.type": "Microsoft.Dynamics.CRM.ColumnSet", "AllColumns": false, "Columns": []},
        "Criteria": {"@odata.type": "Microsoft.Dynamics.CRM.FilterExpression", "FilterOperator": "And", "Conditions": [condition]},
    });
    let body = json!({
        "JobName": "flowgate scratch", "StartDateTime": "2026-01-01T00:00:00Z", "RecurrencePattern": "",
        "SendEmailNotification": false, "ToRecipients": [], "CCRecipients": [], "QuerySet": [query],
    });
    let started = lab.now();
    let reply = lab.post("BulkDelete", &body).await?.required("starting a bulk deletion")?;
    let Some(job) = as_id(&reply.json["JobId"]) else { return unobservable("a bulk deletion did not tell its job") };
    let path = format!("asyncoperations({job})?$select=statecode,statuscode");
    loop {
        let asked = lab.now();
        let state = lab.get(&path).await?.required("reading a system job")?.json;
        if state["statecode"].as_i64() == Some(COMPLETED) {
            return Ok(BulkDeleted { seconds: asked - started, status: state["statuscode"].as_i64().unwrap_or(0) });
        }
        if asked - started > BULK_DELETE_MAX_SECONDS {
            return unobservable("the bulk deletion did not end within half an hour");
        }
        lab.sleep(LOOK_INTERVAL).await?;
    }
}

async fn bulk_deleted<'a>(lab: &'a Lab<'_>) -> Result<&'a BulkDeleted, NoAnswer> {
    lab.bulk_deleted.get_or_try_init(|| delete_in_bulk(lab)).await
}

pub(super) fn bulk_delete_delay<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let seconds = bulk_deleted(lab).await?.seconds;
        Ok(Seen::new(seconds, format!("one row after {seconds:.1} s")))
    }
    .boxed()
}

pub(super) fn bulk_delete_status<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let status = bulk_deleted(lab).await?.status;
        Ok(Seen::new(status, format!("statuscode {status}")))
    }
    .boxed()
}

/// The largest body of 1, 2, 4 … MiB that is read. It is a row and blanks.
pub(super) fn body_bytes_max<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        if !lab.with_large {
            return unobservable("it sends up to 512 MiB; only done on request");
        }
        let mut taken = 0;
        let mut bytes = BODY_BYTES_MIN;
        while bytes <= BODY_BYTES_MAX {
            let mut body = json!({ lab.column("name"): "large" }).to_string().into_bytes();
            body.resize(bytes, b' ');
            match lab.send_bytes(Method::POST, &lab.set, body).await {
                Ok(reply) if reply.is_success() => taken = bytes,
                Ok(reply) => return Ok(Seen::new(taken, format!("{} MiB: {}", bytes >> 20, reply.words()))),
                // Who will not read on may hang up before answering.
                Err(NoAnswer::Failed(CallError::Unknown(_))) if taken > 0 => {
                    return Ok(Seen::new(taken, format!("{} MiB: the connection was cut", bytes >> 20)));
                }
                Err(error) => return Err(error),
            }
            bytes *= 2;
        }
        Ok(Seen::new(taken, format!("{} MiB were taken", taken >> 20)))
    }
    .boxed()
}

/// A second scratch table, of the elastic kind.
async fn elastic(lab: &Lab<'_>) -> Result<ScratchTable, NoAnswer> {
    let mut made = lab.elastic.lock().await;
    if let Some(table) = made.as_ref().filter(|table| !table.set.is_empty()) {
        return Ok(table.clone());
    }
    if made.is_some() {
        return unobservable("the elastic scratch table could not be made");
    }
    let table = format!("{}e", lab.table);
    let mut body = definition::table_body(&table, ["Flowgate scratch"; 2], (&lab.column("name"), 100), false);
    body["TableType"] = json!("Elastic");
    // Remembered first, so that it is removed whatever the answer was.
    *made = Some(ScratchTable { table: table.clone(), set: String::new() });
    lab.try_define("EntityDefinitions", &body).await?.required("making an elastic table")?;
    let path = format!("EntityDefinitions(LogicalName='{table}')?$select=LogicalName");
    lab.wait_until_visible(&path).await?;
    let found = ScratchTable { set: lab.set_of(&table).await?, table };
    *made = Some(found.clone());
    Ok(found)
}

pub(super) fn elastic_table<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let table = elastic(lab).await?.table;
        let path = format!("EntityDefinitions(LogicalName='{table}')?$select=TableType");
        let kind = lab.get(&path).await?.required("reading the elastic table's definition")?.json["TableType"].clone();
        Ok(Seen::new(kind == "Elastic", format!("its type is {kind}")))
    }
    .boxed()
}

/// Two rows, of which one is there: the other is kept, and the answer says which one failed.
pub(super) fn elastic_partial_failure<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let ScratchTable { table, set } = elastic(lab).await?;
        let (name, id) = (lab.column("name"), format!("{table}id"));
        let row = |number: Uuid| json!({ id.as_str(): number.to_string(), name.as_str(): "partial" });
        let (old, new) = (Uuid::new_v4(), Uuid::new_v4());
        lab.post(&set, &row(old)).await?.required("creating an elastic row")?;
        let prefer = [("prefer", "odata.include-annotations=\"*\"")];
        let reply = lab.bulk_on(&set, &table, "CreateMultiple", vec![row(old), row(new)], &prefer).await?;
        if reply.is_success() {
            return Ok(Seen::strange(format!("{} for a row that was there", reply.words())));
        }
        let details = &reply.json["error"]["@Microsoft.PowerApps.CDS.ErrorDetails.Plugin.BulkApiErrorDetails"];
        let listed: Vec<Value> = details.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let is_named = listed.iter().any(|row| row["RequestIndex"] == 0 && row["StatusCode"].is_number());
        Ok(Seen::new(is_named, format!("{}, {} rows listed", reply.words(), listed.len())))
    }
    .boxed()
}

pub(super) fn elastic_keys_refused<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let table = elastic(lab).await?.table;
        let key = definition::key(&lab.column("elastickey"), &[lab.column("name")]);
        let reply = lab.try_define(&format!("EntityDefinitions(LogicalName='{table}')/Keys"), &key).await?;
        Ok(Seen::new(!reply.is_success(), reply.words()))
    }
    .boxed()
}
