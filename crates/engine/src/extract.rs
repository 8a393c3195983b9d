//! Reading the streams of a flow into images.
//!
//! A whole read replaces the image; a read of changes is merged into the last image by the stream's
//! key. An image of an unfinished run that is still intact is used again instead of reading twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_select::filter::filter_record_batch;
use flowgate_core::project::{Deletes, Stream};
use flowgate_core::source::{Image, MALFORMED_TEXT_MAX, Malformed, ROW_COLUMN, ReadRequest, Reading};
use flowgate_core::{Code, Cursor, StreamRows};
use flowgate_store::{ImageRecord, Letter, LetterStatus, StreamProgress, letter_id};
use futures::StreamExt;

use crate::letters::payload;
use crate::run::FlowRun;
use crate::stage::{ImageWriter, Staged, is_intact};
use crate::transform::{Transforms, quoted};
use crate::{Event, RunError};

/// Malformed rows are saved as letters in groups of this many.
const LETTERS_BATCH: usize = 1_000;

impl FlowRun<'_> {
    /// Brings every stream of the flow to a durable image.
    pub(crate) async fn extract(&mut self) -> Result<(), RunError> {
        let streams: Vec<&Stream> = self.flow.streams.values().collect();
        for stream in streams {
            if !self.options.fresh && self.has_image(stream)? {
                continue;
            }
            self.extract_stream(stream).await?;
        }
        Ok(())
    }

    /// Whether this run already took the stream's image and it is still what was written.
    fn has_image(&self, stream: &Stream) -> Result<bool, RunError> {
        let Some(progress) = self.record.streams.get(&stream.name).filter(|progress| progress.done) else {
            return Ok(false);
        };
        match &progress.image {
            Some(image) => is_intact(&self.engine.staged_path(&image.path), &image.checksum),
            None => Ok(false),
        }
    }

    async fn extract_stream(&mut self, stream: &Stream) -> Result<(), RunError> {
        self.engine.tell(Event::Extracting { stream: &stream.name, rows: 0 });
        let last = self.engine.store.current_image(&self.flow.name, &stream.name)?;
        let cursor = last.as_ref().filter(|_| self.reads_changes(stream)).and_then(|image| image.cursor.clone());
        let reading = self.open_stream(stream, cursor).await?;
        if let Some(last) = &last {
            self.compare_schema(stream, last, &reading.schema);
        }
        let relative = self.image_path(stream);
        let read = self.read_stream(stream, reading, &relative, last.as_ref()).await?;
        let rows = StreamRows {
            extracted: read.extracted,
            staged: read.extracted - read.malformed,
            malformed: read.malformed,
        };
        let image = ImageRecord {
            flow: self.flow.name.clone(),
            stream: stream.name.clone(),
            run: self.record.run,
            path: relative,
            rows: read.staged.rows,
            bytes: read.staged.bytes,
            checksum: read.staged.checksum,
            schema_json: schema_text(&read.schema),
            cursor: read.cursor.clone(),
            taken: self.engine.clock.now(),
            malformed_key_unknown: read.key_unknown,
        };
        self.engine.store.record_image(self.lease, &image)?;
        let progress = StreamProgress { rows, image: Some(image), done: true };
        self.record.streams.insert(stream.name.clone(), progress);
        self.save()?;
        for path in
            self.engine.store.retire_images(self.lease, &stream.name, self.engine.project.staging.keep_images.max(1))?
        {
            remove_if_there(&self.engine.staged_path(&path))?;
        }
        self.engine.tell(Event::Staged { stream: &stream.name, rows });
        Ok(())
    }

    /// Where the image goes, relative to the staging directory. A plan's goes with the plan.
    fn image_path(&self, stream: &Stream) -> String {
        let name = format!("{}/{}/{}.parquet", self.flow.name, stream.name, self.record.run);
        if self.is_plan { self.run_dir().join(name).to_string_lossy().into_owned() } else { name }
    }

    /// Only a keyed stream with a cursor can be read in part, and a reconciling read is whole.
    fn reads_changes(&self, stream: &Stream) -> bool {
        let is_reconciled = self.options.reconcile && stream.deletes == Deletes::ByReconcile;
        stream.is_incremental && !stream.key.is_empty() && !self.options.fresh && !is_reconciled
    }

    async fn source(&self, stream: &Stream) -> Result<Arc<dyn flowgate_core::Source>, RunError> {
        let opened = self.engine.connections.open(stream.from.as_str()).await?;
        opened
            .source
            .ok_or_else(|| RunError::refused(Code::UNKNOWN_REFERENCE, format!("`{}` cannot be read from", stream.from)))
    }

    async fn open_stream(&self, stream: &Stream, cursor: Option<Cursor>) -> Result<Reading, RunError> {
        let source = self.source(stream).await?;
        let request = |cursor| ReadRequest {
            settings: stream.settings.clone(),
            key: stream.key.clone(),
            cursor,
            cancel: self.cancel.clone(),
        };
        match source.read(request(cursor.clone())).await {
            Err(error) if error.code == Code::CURSOR_LOST && cursor.is_some() => {
                self.engine.warn(&format!("stream `{}`: {error}; it is read as a whole", stream.name));
                Ok(source.read(request(None)).await?)
            }
            other => Ok(other?),
        }
    }

    async fn read_stream(
        &mut self,
        stream: &Stream,
        mut reading: Reading,
        relative: &str,
        last: Option<&ImageRecord>,
    ) -> Result<Read, RunError> {
        let types = declared_types(stream, &reading.schema)?;
        let schema = typed_schema(&reading.schema, &types);
        let path = self.engine.staged_path(relative);
        let is_changes = reading.image == Image::Changes && last.is_some();
        let first_path = if is_changes { path.with_extension("changes.parquet") } else { path.clone() };
        let deletes_path = path.with_extension("deletes.parquet");
        let mut writer = ImageWriter::create(first_path.clone(), &schema)?;
        let mut deletes: Option<ImageWriter> = None;
        let mut read = Read::new(Arc::clone(&schema));
        let mut letters = Vec::new();
        while let Some(batch) = reading.batches.next().await {
            if self.cancel.is_cancelled() {
                return Err(RunError::Cancelled);
            }
            let batch = batch?;
            let (rows, faulty) = typed_rows(&batch.upserts, &schema, &types)?;
            read.extracted += batch.upserts.num_rows() as u64 + batch.malformed.len() as u64;
            read.malformed += (faulty.len() + batch.malformed.len()) as u64;
            let started = self.engine.clock.elapsed();
            writer.write(&rows)?;
            read.staging += self.engine.clock.elapsed().since(started);
            for malformed in batch.malformed.into_iter().chain(faulty) {
                read.key_unknown |= malformed.key_unknown;
                letters.push(self.malformed_letter(stream, &malformed));
            }
            if letters.len() >= LETTERS_BATCH {
                self.engine.store.save_letters(self.lease, &std::mem::take(&mut letters))?;
            }
            if let Some(keys) = batch.deletes.filter(|keys| keys.num_rows() > 0) {
                if deletes.is_none() {
                    deletes = Some(ImageWriter::create(deletes_path.clone(), &keys.schema())?);
                }
                if let Some(writer) = &mut deletes {
                    writer.write(&keys)?;
                }
            }
            read.cursor = batch.cursor.or(read.cursor);
            self.engine.tell(Event::Extracting { stream: &stream.name, rows: read.extracted });
        }
        self.engine.store.save_letters(self.lease, &letters)?;
        let started = self.engine.clock.elapsed();
        read.staged = writer.finish()?;
        let has_deletes = deletes.map(ImageWriter::finish).transpose()?.is_some();
        if let Some(last) = last.filter(|_| is_changes) {
            let merge = Merge {
                changes: first_path,
                deletes: has_deletes.then_some(deletes_path),
                last: self.engine.staged_path(&last.path),
                out: path,
            };
            read.staged = self.merge(stream, merge, &schema, last).await?;
            read.cursor = read.cursor.or_else(|| last.cursor.clone());
            read.key_unknown |= last.malformed_key_unknown;
        }
        read.staging += self.engine.clock.elapsed().since(started);
        self.add_seconds("stage", read.staging);
        Ok(read)
    }

    /// The last image with the changed rows replaced, the deleted ones left out and the new ones added.
    async fn merge(
        &self,
        stream: &Stream,
        merge: Merge,
        schema: &SchemaRef,
        last: &ImageRecord,
    ) -> Result<Staged, RunError> {
        if !is_intact(&merge.last, &last.checksum)? {
            return Err(RunError::refused(
                Code::STAGED_IMAGE_DAMAGED,
                format!("the last image of stream `{}` is damaged", stream.name),
            )
            .hint("run again with `--fresh`: the stream is read as a whole"));
        }
        let mut images = vec![("last".to_owned(), merge.last.clone()), ("changes".to_owned(), merge.changes.clone())];
        if let Some(deletes) = &merge.deletes {
            images.push(("deletes".to_owned(), deletes.clone()));
        }
        let transforms = Transforms::open(&self.engine.project, &images).await?;
        let sql = merge_sql(schema, &column_names(&last.schema_json), &stream.key, merge.deletes.is_some());
        let mut rows = transforms.run(&sql).await.map_err(|error| RunError::stage(&error))?;
        let mut writer = ImageWriter::create(merge.out, schema)?;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|error| RunError::stage(&error))?;
            let columns = batch
                .columns()
                .iter()
                .zip(schema.fields())
                .map(|(column, field)| cast_safely(column, field.data_type()));
            writer.write(&RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)?)?;
        }
        let staged = writer.finish()?;
        remove_if_there(&merge.changes)?;
        if let Some(deletes) = &merge.deletes {
            remove_if_there(deletes)?;
        }
        Ok(staged)
    }

    /// Tells which columns came and went; a SELECT that needs a lost one fails when it is planned.
    fn compare_schema(&self, stream: &Stream, last: &ImageRecord, now: &Schema) {
        let before = column_names(&last.schema_json);
        let added: Vec<_> = now
            .fields()
            .iter()
            .filter(|field| !before.contains(field.name()))
            .map(|field| field.name().as_str())
            .collect();
        let removed: Vec<_> =
            before.iter().filter(|name| now.field_with_name(name).is_err()).map(String::as_str).collect();
        if !added.is_empty() {
            self.engine.warn(&format!("stream `{}` has new columns, not used: `{}`", stream.name, added.join("`, `")));
        }
        if !removed.is_empty() {
            self.engine.warn(&format!("stream `{}` no longer has the columns `{}`", stream.name, removed.join("`, `")));
        }
    }

    fn malformed_letter(&self, stream: &Stream, malformed: &Malformed) -> Letter {
        let now = self.engine.clock.now();
        let place = [
            malformed.file.clone(),
            malformed.line.map(|line| format!("line {line}")),
            malformed.offset.map(|offset| format!("byte {offset}")),
        ];
        let key_text = place.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let key_text = if key_text.is_empty() { malformed.text.clone() } else { key_text };
        Letter {
            id: letter_id(&self.flow.name, stream.name.as_str(), None, &key_text),
            flow: self.flow.name.clone(),
            place: stream.name.to_string(),
            key_hash: None,
            key_text,
            row_hash: 0,
            project_version: self.engine.project.version.clone(),
            metadata_version: String::new(),
            attempts: 1,
            first_at: now,
            last_at: now,
            code: Code::ROW_MALFORMED,
            column: None,
            reason: malformed.reason.clone(),
            service_code: None,
            request_id: None,
            file: malformed.file.clone(),
            line: malformed.line,
            offset: malformed.offset,
            payload: serde_json::json!({ "text": malformed.text }).to_string(),
            status: LetterStatus::Quarantined,
        }
    }
}

/// The files of a merge of changes into an image.
struct Merge {
    changes: PathBuf,
    deletes: Option<PathBuf>,
    last: PathBuf,
    out: PathBuf,
}

/// What reading a stream gave.
struct Read {
    schema: SchemaRef,
    extracted: u64,
    malformed: u64,
    key_unknown: bool,
    cursor: Option<Cursor>,
    staged: Staged,
    /// Time spent on writing and merging images.
    staging: Duration,
}

impl Read {
    fn new(schema: SchemaRef) -> Self {
        let staged = Staged { rows: 0, bytes: 0, checksum: String::new() };
        Self { schema, extracted: 0, malformed: 0, key_unknown: false, cursor: None, staged, staging: Duration::ZERO }
    }
}

/// Newest change of each key, then every old row that was neither changed nor deleted.
fn merge_sql(schema: &Schema, old_columns: &[String], key: &[String], has_deletes: bool) -> String {
    let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    let list = names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let old = |name: &&String| {
        if old_columns.contains(name) { format!("l.{}", quoted(name)) } else { format!("NULL AS {}", quoted(name)) }
    };
    let old_list = names.iter().map(old).collect::<Vec<_>>().join(", ");
    let keys = key.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let same = |alias: &str| {
        key.iter().map(|name| format!("{alias}.{0} = l.{0}", quoted(name))).collect::<Vec<_>>().join(" AND ")
    };
    let not_deleted = if has_deletes {
        format!(" AND NOT EXISTS (SELECT 1 FROM deletes d WHERE {})", same("d"))
    } else {
        String::new()
    };
    format!(
        "SELECT {list} FROM (SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY {row} DESC) AS \"_newest\" FROM changes) WHERE \"_newest\" = 1 \
         UNION ALL SELECT {old_list} FROM last l WHERE NOT EXISTS (SELECT 1 FROM changes c WHERE {}){not_deleted}",
        same("c"),
        row = quoted(ROW_COLUMN),
    )
}

/// The Arrow type each declared column gets, by position.
fn declared_types(stream: &Stream, schema: &Schema) -> Result<Vec<Option<DataType>>, RunError> {
    if let Some(unknown) = stream.columns.keys().find(|name| schema.field_with_name(name).is_err()) {
        return Err(RunError::refused(
            Code::SOURCE_SCHEMA_CHANGED,
            format!("stream `{}` declares the column `{unknown}`, which the source does not have", stream.name),
        ));
    }
    let kind = |field: &Arc<Field>| stream.columns.get(field.name()).map(|text| arrow_type(text)).transpose();
    schema.fields().iter().map(kind).collect()
}

fn arrow_type(text: &str) -> Result<DataType, RunError> {
    let (name, arguments) = text.trim_end_matches(')').split_once('(').unwrap_or((text, ""));
    Ok(match name {
        "text" => DataType::Utf8,
        "integer" | "bigint" => DataType::Int64,
        "double" => DataType::Float64,
        "boolean" => DataType::Boolean,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "decimal" => {
            let (precision, scale) = arguments.split_once(',').unwrap_or((arguments, "0"));
            let precision = precision.trim().parse().unwrap_or(38);
            DataType::Decimal128(precision, scale.trim().parse().unwrap_or(0))
        }
        _ => return Err(RunError::refused(Code::WRONG_TYPE, format!("`{text}` is not a column type"))),
    })
}

/// What a value of a stream's `columns:` should have been, in the words of the configuration.
fn type_text(kind: &DataType) -> String {
    match kind {
        DataType::Int64 => "a whole number".to_owned(),
        DataType::Float64 => "a number".to_owned(),
        DataType::Boolean => "true or false".to_owned(),
        DataType::Date32 => "a date".to_owned(),
        DataType::Timestamp(..) => "a date and time".to_owned(),
        DataType::Decimal128(precision, scale) => format!("a decimal({precision},{scale})"),
        other => format!("of the type {other}"),
    }
}

fn typed_schema(schema: &SchemaRef, types: &[Option<DataType>]) -> SchemaRef {
    if types.iter().all(Option::is_none) {
        return Arc::clone(schema);
    }
    let field = |(field, kind): (&Arc<Field>, &Option<DataType>)| match kind {
        Some(kind) => Arc::new(Field::new(field.name(), kind.clone(), true)),
        None => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().zip(types).map(field).collect::<Vec<_>>()))
}

/// Rows with their declared types, and the rows whose text is not of the declared type.
fn typed_rows(
    batch: &RecordBatch,
    schema: &SchemaRef,
    types: &[Option<DataType>],
) -> Result<(RecordBatch, Vec<Malformed>), RunError> {
    if types.iter().all(Option::is_none) {
        return Ok((batch.clone(), Vec::new()));
    }
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut malformed = Vec::new();
    let mut sound = vec![true; batch.num_rows()];
    for ((column, kind), field) in batch.columns().iter().zip(types).zip(schema.fields()) {
        let Some(kind) = kind else {
            columns.push(Arc::clone(column));
            continue;
        };
        let typed = cast_safely(column, kind)?;
        for row in (0..batch.num_rows()).filter(|row| column.is_valid(*row) && typed.is_null(*row)) {
            if std::mem::replace(&mut sound[row], false) {
                malformed.push(not_of_type(batch, row, field)?);
            }
        }
        columns.push(typed);
    }
    let rows = RecordBatch::try_new(Arc::clone(schema), columns)?;
    if malformed.is_empty() {
        return Ok((rows, malformed));
    }
    Ok((filter_record_batch(&rows, &BooleanArray::from(sound))?, malformed))
}

fn not_of_type(batch: &RecordBatch, row: usize, field: &Field) -> Result<Malformed, RunError> {
    let column = batch.column_by_name(field.name()).ok_or(RunError::Defect("a typed column that is not there"))?;
    let value = arrow_cast::display::array_value_to_string(column, row)?;
    let text: String = payload(batch, row)?.chars().take(MALFORMED_TEXT_MAX).collect();
    let number = |name: &str| {
        let column = batch.column_by_name(name).filter(|column| column.is_valid(row))?;
        arrow_cast::display::array_value_to_string(column, row).ok()
    };
    Ok(Malformed {
        file: number(flowgate_core::source::FILE_COLUMN),
        line: number(flowgate_core::source::LINE_COLUMN).and_then(|line| line.parse().ok()),
        offset: None,
        reason: format!("`{value}` in `{}` is not {}", field.name(), type_text(field.data_type())),
        text,
        // The key may be the very column that cannot be read.
        key_unknown: true,
    })
}

fn cast_safely(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef, RunError> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    Ok(cast_with_options(column, kind, &options)?)
}

/// Name and type of each column, as a JSON object in column order.
fn schema_text(schema: &Schema) -> String {
    let fields = schema.fields().iter().map(|field| serde_json::json!([field.name(), field.data_type().to_string()]));
    serde_json::Value::Array(fields.collect()).to_string()
}

fn column_names(schema_json: &str) -> Vec<String> {
    let fields: Vec<(String, String)> = serde_json::from_str(schema_json).unwrap_or_default();
    fields.into_iter().map(|(name, _)| name).collect()
}

fn remove_if_there(path: &Path) -> Result<(), RunError> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
