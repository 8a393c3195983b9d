//! The files of one read, and the merge of changes into the last image.
//!
//! What a source gives comes in order: of two changes of a key the later one counts, and a deletion
//! counts against the rows of its own batch and of those before it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowgate_core::Code;
use flowgate_core::project::Stream;
use flowgate_core::source::ROW_COLUMN;
use flowgate_store::ImageRecord;
use futures::StreamExt;

use crate::extract::{column_names, remove_if_there};
use crate::stage::{ImageWriter, Staged, is_intact};
use crate::transform::{Transforms, quoted};
use crate::{Engine, RunError};

/// The column of deleted keys that counts the changed rows that came before the deletion.
const AFTER_COLUMN: &str = "_after";

/// What is read of a stream, on its way to an image.
pub(crate) struct Files {
    image: PathBuf,
    first: PathBuf,
    rows: ImageWriter,
    deletes: Option<ImageWriter>,
}

impl Files {
    /// Starts to write rows of `schema`: the image itself, or the changes that become a part of it.
    pub(crate) fn create(image: &Path, schema: &Schema, is_changes: bool) -> Result<Self, RunError> {
        let first = if is_changes { image.with_extension("changes.parquet") } else { image.to_owned() };
        let rows = ImageWriter::create(first.clone(), schema)?;
        Ok(Self { image: image.to_owned(), first, rows, deletes: None })
    }

    /// Adds the rows of a batch, and then the keys that were deleted.
    pub(crate) fn write(&mut self, rows: &RecordBatch, deletes: Option<&RecordBatch>) -> Result<(), RunError> {
        self.rows.write(rows)?;
        let Some(keys) = deletes.filter(|keys| keys.num_rows() > 0) else { return Ok(()) };
        let keys = with_position(keys, self.rows.rows())?;
        let path = self.deletes_path();
        let writer = match &mut self.deletes {
            Some(writer) => writer,
            none => none.insert(ImageWriter::create(path, &keys.schema())?),
        };
        writer.write(&keys)
    }

    /// Makes the whole image durable.
    pub(crate) fn finish(self) -> Result<Staged, RunError> {
        self.rows.finish()
    }

    /// Makes a durable image of the last one and the changes: changed rows are replaced, deleted ones
    /// left out, new ones added.
    pub(crate) async fn merge_into(
        self,
        engine: &Engine,
        spill_dir: PathBuf,
        stream: &Stream,
        schema: &SchemaRef,
        last: &ImageRecord,
    ) -> Result<Staged, RunError> {
        let deletes_path = self.deletes_path();
        self.rows.finish()?;
        let has_deletes = self.deletes.map(ImageWriter::finish).transpose()?.is_some();
        let last_path = engine.staged_path(&last.path);
        if !is_intact(&last_path, &last.checksum)? {
            return Err(RunError::refused(
                Code::STAGED_IMAGE_DAMAGED,
                format!("the last image of stream `{}` is damaged", stream.name),
            )
            .hint("run again with `--fresh`: the stream is read as a whole"));
        }
        let mut images = vec![("last".to_owned(), last_path), ("changes".to_owned(), self.first.clone())];
        if has_deletes {
            images.push(("deletes".to_owned(), deletes_path.clone()));
        }
        let transforms = Transforms::open(&engine.project, spill_dir, &images).await?;
        let sql = merge_sql(schema, &column_names(&last.schema_json), &stream.key, has_deletes);
        let mut rows = transforms.run(&sql).await.map_err(|error| RunError::stage(&error))?;
        let mut writer = ImageWriter::create(self.image, schema)?;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|error| RunError::stage(&error))?;
            writer.write(&of_schema(&batch, schema)?)?;
        }
        let staged = writer.finish()?;
        remove_if_there(&self.first)?;
        remove_if_there(&deletes_path)?;
        Ok(staged)
    }

    fn deletes_path(&self) -> PathBuf {
        self.image.with_extension("deletes.parquet")
    }
}

fn with_position(keys: &RecordBatch, rows_before: u64) -> Result<RecordBatch, RunError> {
    let mut fields: Vec<_> = keys.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(AFTER_COLUMN, DataType::Int64, false)));
    let mut columns = keys.columns().to_vec();
    columns.push(Arc::new(Int64Array::from(vec![rows_before as i64; keys.num_rows()])));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Merged rows under the schema of the image. Their types are the same, but for how text is laid out.
fn of_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, RunError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(cast_with_options(column, field.data_type(), &options)?);
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Newest change of each key, then every old row, without those that were changed or deleted after.
fn merge_sql(schema: &Schema, old_columns: &[String], key: &[String], has_deletes: bool) -> String {
    let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    let list = names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let old = |name: &&String| {
        if old_columns.contains(name) { format!("l.{}", quoted(name)) } else { format!("NULL AS {}", quoted(name)) }
    };
    let old_list = names.iter().map(old).collect::<Vec<_>>().join(", ");
    let keys = key.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let same = |one: &str, other: &str| {
        let parts = key.iter().map(|name| format!("{one}.{0} = {other}.{0}", quoted(name)));
        parts.collect::<Vec<_>>().join(" AND ")
    };
    let (row, after) = (quoted(ROW_COLUMN), quoted(AFTER_COLUMN));
    let (mut deleted_later, mut deleted) = (String::new(), String::new());
    if has_deletes {
        deleted_later =
            format!(" AND NOT EXISTS (SELECT 1 FROM deletes d WHERE {} AND d.{after} > n.{row})", same("d", "n"));
        deleted = format!(" AND NOT EXISTS (SELECT 1 FROM deletes d WHERE {})", same("d", "l"));
    }
    format!(
        "SELECT {list} FROM (SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY {row} DESC) AS \"_newest\" \
         FROM changes) n WHERE \"_newest\" = 1{deleted_later} \
         UNION ALL SELECT {old_list} FROM last l WHERE NOT EXISTS (SELECT 1 FROM changes c WHERE {}){deleted}",
        same("c", "l"),
    )
}
