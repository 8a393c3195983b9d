//! Reading the streams of a flow into images.
//!
//! A whole read replaces the image; a read of changes is merged into the last image by the stream's
//! key. An image of an unfinished run that is still intact is used again instead of reading twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{Schema, SchemaRef};
use flowgate_core::nearest::nearest;
use flowgate_core::project::{Deletes, Stream};
use flowgate_core::source::{Image, Malformed, Note, ReadRequest, Reading};
use flowgate_core::{Code, Cursor, StreamRows};
use flowgate_store::{ImageRecord, Letter, LetterStatus, StreamProgress, letter_id};
use futures::StreamExt;

use crate::merge::Files;
use crate::odd::warn_of;
use crate::run::{FlowRun, wall_clock};
use crate::stage::{Staged, is_intact};
use crate::typed::Typed;
use crate::{Event, RunError};

/// Malformed rows are saved as letters in groups of this many.
const LETTERS_BATCH: usize = 1_000;

/// Letters of a time to come are taken for ones from so long before the read.
const BEFORE_READ: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

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
        let opened = self.open_stream(stream, last.as_ref()).await?;
        if let Some(last) = &last {
            self.compare_schema(stream, last, &opened.reading.schema);
        }
        let relative = self.image_path(stream);
        let read = self.read_stream(stream, opened, &relative).await?;
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
            missing_parts: self.missing_parts(stream, last.as_ref(), &read.parts),
            parts: read.parts,
            doubt: read.doubt,
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

    /// Opens a read of the changes since the last image where that can be merged into it, otherwise
    /// a read of everything.
    async fn open_stream<'l>(
        &self,
        stream: &Stream,
        last: Option<&'l ImageRecord>,
    ) -> Result<OpenStream<'l>, RunError> {
        let cursor = last.filter(|_| self.reads_changes(stream)).and_then(|image| image.cursor.clone());
        let reading = self.open_reading(stream, cursor).await?;
        let typed = Typed::of(stream, &reading.schema, wall_clock(&self.engine.project)?)?;
        require_key(stream, &typed.schema)?;
        let base = last.filter(|_| reading.image == Image::Changes);
        let Some(reason) = base.and_then(|base| unlike_base(&base.schema_json, &typed.schema)) else {
            return Ok(OpenStream { reading, typed, base });
        };
        // What the rows of the last image hold in such a column, only the source can tell.
        self.engine.warn(&format!("stream `{}`: {reason}; it is read as a whole once", stream.name));
        let reading = self.open_reading(stream, None).await?;
        let typed = Typed::of(stream, &reading.schema, wall_clock(&self.engine.project)?)?;
        Ok(OpenStream { reading, typed, base: None })
    }

    async fn open_reading(&self, stream: &Stream, cursor: Option<Cursor>) -> Result<Reading, RunError> {
        let source = self.source(stream).await?;
        let request = |cursor| ReadRequest {
            settings: stream.settings.clone(),
            key: stream.key.clone(),
            cursor,
            cancel: self.cancel.clone(),
        };
        let reading = match source.read(request(cursor.clone())).await {
            Err(error) if error.code == Code::CURSOR_LOST && cursor.is_some() => {
                self.engine.warn(&format!("stream `{}`: {error}; it is read as a whole", stream.name));
                source.read(request(None)).await?
            }
            other => other?,
        };
        if let Some(warning) = &reading.warning {
            self.engine.warn(&format!("stream `{}`: {warning}", stream.name));
        }
        Ok(reading)
    }

    async fn read_stream(&mut self, stream: &Stream, opened: OpenStream<'_>, relative: &str) -> Result<Read, RunError> {
        let OpenStream { mut reading, mut typed, base } = opened;
        let began = self.engine.clock.now();
        // What is not met again is told by its time, so no letter may be of a time to come.
        let before = began.checked_sub(BEFORE_READ).unwrap_or(began);
        self.engine.store.correct_letters(self.lease, before)?;
        let mut files = Files::create(&self.engine.staged_path(relative), &typed.schema, base.is_some())?;
        let mut read = Read::new(Arc::clone(&typed.schema));
        let mut letters = Vec::new();
        while let Some(batch) = reading.batches.next().await {
            if self.cancel.is_cancelled() {
                return Err(RunError::Cancelled);
            }
            let batch = batch?;
            let (rows, faulty) = typed.rows(&batch.upserts)?;
            read.extracted += batch.upserts.num_rows() as u64 + batch.malformed.len() as u64;
            read.malformed += (faulty.len() + batch.malformed.len()) as u64;
            let started = self.engine.clock.elapsed();
            files.write(&rows, batch.deletes.as_ref())?;
            read.staging += self.engine.clock.elapsed().since(started);
            for malformed in batch.malformed.into_iter().chain(faulty) {
                read.key_unknown |= malformed.key_unknown;
                letters.push(self.malformed_letter(stream, &malformed));
            }
            if letters.len() >= LETTERS_BATCH {
                self.engine.store.save_letters(self.lease, &std::mem::take(&mut letters))?;
            }
            batch.notes.into_iter().for_each(|note| self.note(stream, note, &mut read));
            read.cursor = batch.cursor.or(read.cursor);
            self.engine.tell(Event::Extracting { stream: &stream.name, rows: read.extracted });
        }
        self.engine.store.save_letters(self.lease, &letters)?;
        warn_of(self.engine, &format!("stream `{}`", stream.name), &typed.clock, &typed.notes);
        if base.is_none() {
            // What a whole read did not meet again is mended, or gone.
            self.engine.store.resolve_unmet_letters(self.lease, stream.name.as_str(), Code::ROW_MALFORMED, began)?;
        }
        let started = self.engine.clock.elapsed();
        read.staged = match base {
            None => files.finish()?,
            Some(base) => {
                read.cursor = read.cursor.or_else(|| base.cursor.clone());
                read.key_unknown |= base.malformed_key_unknown;
                read.doubt = read.doubt.or_else(|| base.doubt.clone());
                let spill_dir = self.engine.spill_dir(&self.flow.name);
                files.merge_into(self.engine, spill_dir, stream, &typed.schema, base).await?
            }
        };
        read.staging += self.engine.clock.elapsed().since(started);
        self.add_seconds("stage", read.staging);
        Ok(read)
    }

    fn note(&self, stream: &Stream, note: Note, read: &mut Read) {
        match note {
            Note::Part { name, rows } => *read.parts.entry(name).or_default() += rows,
            Note::RowsMayBeMissing(reason) => {
                self.engine.warn(&format!("stream `{}`: {reason}", stream.name));
                read.doubt.get_or_insert(reason);
            }
        }
    }

    /// The files that gave rows before and give none now, where that would mean that their rows are gone. They are
    /// remembered from image to image until they are back, or a run was complete without them.
    fn missing_parts(&self, stream: &Stream, last: Option<&ImageRecord>, now: &BTreeMap<String, u64>) -> Vec<String> {
        let Some(last) = last.filter(|_| stream.deletes != Deletes::Unseen) else { return Vec::new() };
        let had_rows = last.parts.iter().filter(|(_, rows)| **rows > 0).map(|(name, _)| name);
        let before: BTreeSet<&String> = had_rows.chain(&last.missing_parts).collect();
        let is_missing = |name: &&String| now.get(*name).is_none_or(|rows| *rows == 0);
        let missing: Vec<String> = before.into_iter().filter(is_missing).cloned().collect();
        for name in &missing {
            let what = if now.contains_key(name) { "has no row any more" } else { "is not there any more" };
            self.engine.warn(&format!("stream `{}`: `{name}`, which was read before, {what}", stream.name));
        }
        missing
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
            self.engine.warn(&format!("stream `{}` has new columns: `{}`", stream.name, added.join("`, `")));
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

/// A stream that is being read.
struct OpenStream<'l> {
    reading: Reading,
    typed: Typed,
    /// The image that what is read is merged into; without it, what is read is everything.
    base: Option<&'l ImageRecord>,
}

/// What reading a stream gave.
struct Read {
    schema: SchemaRef,
    extracted: u64,
    malformed: u64,
    key_unknown: bool,
    parts: BTreeMap<String, u64>,
    doubt: Option<String>,
    cursor: Option<Cursor>,
    staged: Staged,
    /// Time spent on writing and merging images.
    staging: Duration,
}

impl Read {
    fn new(schema: SchemaRef) -> Self {
        let staged = Staged { rows: 0, bytes: 0, checksum: String::new() };
        Self {
            schema,
            extracted: 0,
            malformed: 0,
            key_unknown: false,
            parts: BTreeMap::new(),
            doubt: None,
            cursor: None,
            staged,
            staging: Duration::ZERO,
        }
    }
}

/// Name and type of each column, as a JSON object in column order.
fn schema_text(schema: &Schema) -> String {
    let fields = schema.fields().iter().map(|field| serde_json::json!([field.name(), field.data_type().to_string()]));
    serde_json::Value::Array(fields.collect()).to_string()
}

/// Name and type of each column of an image.
fn columns_of(schema_json: &str) -> Vec<(String, String)> {
    serde_json::from_str(schema_json).unwrap_or_default()
}

pub(crate) fn column_names(schema_json: &str) -> Vec<String> {
    columns_of(schema_json).into_iter().map(|(name, _)| name).collect()
}

/// Why changes cannot be merged into an image of other columns: one is new, or of another type.
fn unlike_base(schema_json: &str, now: &Schema) -> Option<String> {
    let before = columns_of(schema_json);
    for field in now.fields() {
        match before.iter().find(|(name, _)| name == field.name()) {
            None => return Some(format!("the column `{}` is new", field.name())),
            Some((name, kind)) if *kind != field.data_type().to_string() => {
                return Some(format!("the type of `{name}` has changed"));
            }
            Some(_) => {}
        }
    }
    None
}

/// The columns of `key:` tell rows apart, so they must be there.
fn require_key(stream: &Stream, schema: &Schema) -> Result<(), RunError> {
    let Some(absent) = stream.key.iter().find(|name| schema.field_with_name(name).is_err()) else { return Ok(()) };
    let message = format!("stream `{}` has the key `{absent}`, which is no column of it", stream.name);
    let error = RunError::refused(Code::KEY_NOT_IN_STREAM, message);
    let names = schema.fields().iter().map(|field| field.name().as_str());
    Err(match nearest(absent, names) {
        Some(known) => error.hint(format!("did you mean `{known}`?")),
        None => error,
    })
}

pub(crate) fn remove_if_there(path: &Path) -> Result<(), RunError> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
