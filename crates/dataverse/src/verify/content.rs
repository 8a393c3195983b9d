//! Probes of file and image columns, and of numbers that the service gives to options.

use futures::FutureExt;
use http::Method;
use serde_json::{Value, json};

use super::ask::add_header;
use super::lab::Lab;
use super::probe::{NoAnswer, Probing, Seen};
use crate::budget::Cost;
use crate::call::Call;
use crate::provision::definition;

/// One pixel.
const IMAGE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";

const FILE_TEXT: &str = "flowgate scratch";

async fn add_column(lab: &Lab<'_>, name: &str, kind: &str) -> Result<(), NoAnswer> {
    let body = json!({
        "@odata.type": format!("Microsoft.Dynamics.CRM.{kind}AttributeMetadata"),
        "SchemaName": lab.column(name),
        "DisplayName": definition::label(name),
        "RequiredLevel": {"Value": "None"},
        "MaxSizeInKB": 10_240,
    });
    let path = format!("EntityDefinitions(LogicalName='{}')/Attributes", lab.table);
    lab.try_define(&path, &body).await?.required("adding a column for content").map(|_| ())
}

/// Makes the file column, and reads it where nothing is.
pub(super) fn empty_file_status<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        add_column(lab, "file", "File").await?;
        let id = lab.create(&json!({ lab.column("name"): "no file" })).await?;
        let reply = lab.get(&format!("{}/{}/$value", lab.row_path(id), lab.column("file"))).await?;
        Ok(Seen::new(reply.status, reply.words()))
    }
    .boxed()
}

/// A small file, whole, and a part of it.
pub(super) fn file_headers<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let id = lab.create(&json!({ lab.column("name"): "a file" })).await?;
        let path = format!("{}/{}", lab.row_path(id), lab.column("file"));
        let cost = Cost { busy: std::time::Duration::from_millis(100), entitlement: 1 };
        let class = flowgate_core::destination::Class::Interactive;
        let mut upload = Call::write(Method::PATCH, path.clone(), FILE_TEXT.into(), class, cost);
        add_header(&mut upload, "content-type", "application/octet-stream");
        add_header(&mut upload, "x-ms-file-name", "scratch.txt");
        lab.observe(upload).await?.required("uploading a file")?;
        let reply = lab.get_with(&format!("{path}/$value"), &[("range", "bytes=0-3")]).await?;
        let is_told =
            reply.header("x-ms-file-size") == Some("16") && reply.header("x-ms-file-name") == Some("scratch.txt");
        Ok(Seen::new(reply.status == 206 && is_told, reply.words()))
    }
    .boxed()
}

/// An image is there, and comes only when it is asked for.
pub(super) fn images_left_out<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        add_column(lab, "image", "Image").await?;
        let column = lab.column("image");
        let id = lab.create(&json!({ lab.column("name"): "an image", column.as_str(): IMAGE })).await?;
        let selected = lab.get(&format!("{}?$select={column}", lab.row_path(id))).await?;
        let has = |row: &Value| row.get(&column).is_some_and(Value::is_string);
        if !has(&selected.required("reading an image")?.json) {
            return Ok(Seen::strange("an image that was written is not there"));
        }
        let is_left_out = !has(&lab.row(id).await?);
        Ok(Seen::new(is_left_out, if is_left_out { "left out" } else { "in every row" }))
    }
    .boxed()
}

/// An option that names no number.
pub(super) fn options_begin_at_prefix<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let body = json!({
            "EntityLogicalName": lab.table, "AttributeLogicalName": lab.column("choice"),
            "Label": definition::label("Third"),
        });
        let reply = lab.post("InsertOptionValue", &body).await?.required("adding an option")?;
        let Some(number) = reply.json["NewOptionValue"].as_i64() else {
            return Ok(Seen::strange("the answer does not tell the number"));
        };
        let first = i64::from(lab.first_option());
        let numbers = first..first + i64::from(definition::OPTIONS_PER_PREFIX);
        Ok(Seen::new(numbers.contains(&number), if number == first + 2 { "the next number" } else { "another number" }))
    }
    .boxed()
}
