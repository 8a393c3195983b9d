//! From a Parquet image to what changed and the next state.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use arrow_array::{BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow_schema::SchemaRef;
use arrow_select::take::take;
use flowgate_core::KeyHash;
use flowgate_sorted::{
    Arrivals, ArrivalsWriter, BucketMeta, ColumnComparer, Entry, Index, Known, Manifest, RowChanges, RowSet, Sifted,
    SortedRows, Spill, State, StateBucket, StateWriter, Step, bits_for, key_hashes, merge, row_hashes, sift,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use serde::Serialize;
use uuid::Uuid;

use crate::data::{self, Day};
use crate::{Error, Options, cpu_seconds};

const BATCH_ROWS: usize = 8_192;

/// As much as the engine gives.
const KNOWN_BYTES_MAX: usize = 192 << 20;

/// The columns that make the key.
const KEY: [usize; 1] = [0];

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    rows: u64,
    threads: usize,
    created: u64,
    updated: u64,
    columns_changed: u64,
    gone: u64,
    unchanged: u64,
    seconds: f64,
    /// Of the processor, all threads together: what a core that nobody else used would have needed.
    cpu_seconds: f64,
    /// Of `cpu_seconds`: reading and hashing; sifting; deciding and writing the next state.
    cpu_seconds_of_steps: [f64; 3],
    rows_per_cpu_second: f64,
    image_bytes_per_row: u64,
    state_bytes_per_row: u64,
    bytes_written_by_the_change: u64,
}

pub(crate) fn run(options: &Options) -> Result<Figures, Error> {
    let compression =
        if options.is_compressed { Compression::ZSTD(ZstdLevel::try_new(1)?) } else { Compression::UNCOMPRESSED };
    let images = [Day::First, Day::Second].map(|day| options.dir.join(format!("{day:?}.parquet").to_lowercase()));
    for (image, day) in images.iter().zip([Day::First, Day::Second]) {
        if !image.try_exists()? {
            data::write(image, options.rows, day, compression)?;
        }
    }
    let dir = options.dir.join("state");
    let first = day(options, &images[0], &State::open(&dir, Manifest::empty()))?;
    let state_bytes = first.manifest.bytes();
    let second = day(options, &images[1], &State::open(&dir, first.manifest))?;
    let cpu_seconds: f64 = second.steps.iter().sum();
    let rows = second.counts.created + second.counts.updated + second.counts.unchanged;
    Ok(Figures {
        rows,
        threads: options.threads,
        created: second.counts.created,
        updated: second.counts.updated,
        columns_changed: second.counts.columns_changed,
        gone: second.counts.gone,
        unchanged: second.counts.unchanged,
        seconds: second.seconds,
        cpu_seconds,
        cpu_seconds_of_steps: second.steps,
        rows_per_cpu_second: rows as f64 / cpu_seconds,
        image_bytes_per_row: fs_err::metadata(&images[1])?.len() / rows,
        state_bytes_per_row: state_bytes / options.rows,
        bytes_written_by_the_change: second.manifest.bytes().saturating_sub(state_bytes),
    })
}

/// A day that is over.
struct Done {
    manifest: Manifest,
    counts: Counts,
    seconds: f64,
    steps: [f64; 3],
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    created: u64,
    updated: u64,
    columns_changed: u64,
    gone: u64,
    unchanged: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.created += other.created;
        self.updated += other.updated;
        self.columns_changed += other.columns_changed;
        self.gone += other.gone;
        self.unchanged += other.unchanged;
    }
}

fn day(options: &Options, image: &std::path::Path, last: &State) -> Result<Done, Error> {
    let (started, begun) = (Instant::now(), cpu_seconds());
    let mut arrivals = arrive(options, image, last)?;
    let arrived = cpu_seconds();
    let known = arrivals.take_known();
    let (sifted, spill) = sift_all(options, &arrivals, &known, last)?;
    let settled = cpu_seconds();
    let writer = StateWriter::create(&options.dir.join("state"), last.manifest().version + 1, arrivals.bits())?;
    let folded = in_threads(options.threads, arrivals.buckets(), |bucket| {
        fold(&spill, &sifted[bucket], last, &writer, arrivals.bits(), bucket)
    })?;
    let mut counts = Counts::default();
    let mut metas = Vec::with_capacity(folded.len());
    for (meta, of_bucket) in folded {
        metas.push(meta);
        counts.add(of_bucket);
    }
    let manifest = writer.finish(spill.schema(), metas, last.manifest().sequence + 1)?;
    let steps = [arrived - begun, settled - arrived, cpu_seconds() - settled];
    Ok(Done { manifest, counts, seconds: started.elapsed().as_secs_f64(), steps })
}

/// Reads and hashes the image, row groups shared out to the threads.
fn arrive(options: &Options, image: &std::path::Path, last: &State) -> Result<Arrivals, Error> {
    let open = || -> Result<_, Error> {
        Ok(ParquetRecordBatchReaderBuilder::try_new(fs_err::File::open(image)?.into_parts().0)?)
    };
    let builder = open()?;
    let schema = SchemaRef::clone(builder.schema());
    let groups = builder.metadata().num_row_groups();
    let rows = builder.metadata().file_metadata().num_rows() as u64;
    let bits = if last.manifest().rows() > 0 { last.manifest().bits } else { bits_for(rows) };
    let known = Known::read(last, bits, KNOWN_BYTES_MAX)?;
    let writer = Mutex::new(ArrivalsWriter::create(&options.dir.join("state").join("arrivals"), schema, bits, known)?);
    in_threads(options.threads, groups, |group| {
        for batch in open()?.with_row_groups(vec![group]).with_batch_size(BATCH_ROWS).build()? {
            let batch = batch?;
            let keys: Vec<KeyHash> = key_hashes(&batch.project(&KEY)?)?.into_iter().flatten().collect();
            let hashes = row_hashes(&batch, 0)?;
            let sound = BooleanArray::from(vec![false; batch.num_rows()]);
            writer.lock().unwrap_or_else(PoisonError::into_inner).push(&batch, &keys, &hashes, &sound)?;
        }
        Ok(())
    })?;
    Ok(writer.into_inner().unwrap_or_else(PoisonError::into_inner).finish()?)
}

fn sift_all(
    options: &Options,
    arrivals: &Arrivals,
    known: &Known,
    last: &State,
) -> Result<(Vec<Sifted>, Spill), Error> {
    let rows = arrivals.rows() as usize;
    let sifted = in_threads(options.threads, arrivals.buckets(), |bucket| {
        let mut wanted = RowSet::none(rows);
        let sifted = sift((arrivals, known), last, bucket, None, &mut wanted)?;
        Ok((sifted, wanted))
    })?;
    // No key comes twice here, so nothing is recalled.
    let mut wanted = RowSet::none(rows);
    for (_, of_bucket) in &sifted {
        of_bucket.iter().for_each(|row| wanted.insert(row));
    }
    Ok((sifted.into_iter().map(|(sifted, _)| sifted).collect(), arrivals.keep(&wanted)?.finish()?))
}

/// Decides the rows that are not settled, and writes the bucket's next state as if all were acknowledged.
fn fold(
    spill: &Spill,
    sifted: &Sifted,
    last: &State,
    writer: &StateWriter,
    bits: u8,
    bucket: usize,
) -> Result<(Option<BucketMeta>, Counts), Error> {
    let new = spill.bucket(bucket)?;
    let old = if sifted.touched.count() > 0 {
        last.bucket(bits, bucket)?.subset(&sifted.touched)
    } else {
        StateBucket::default()
    };
    let mut counts = Counts { unchanged: sifted.settled, ..Counts::default() };
    let comparer = ColumnComparer::new(&new.rows, &old.values(spill.schema())?)?;
    let mut index = Index::default();
    let mut rows = Vec::new();
    for step in merge(&new.keys, &old.index.keys) {
        match step {
            Step::New(at) => {
                counts.created += 1;
                index.push(entry(&new, at, Uuid::from_u128(new.keys[at].0)));
                rows.push(at);
            }
            Step::Both { new: at, old: before } => {
                counts.updated += 1;
                counts.columns_changed += comparer.differing(at, before).iter().count() as u64;
                index.push(entry(&new, at, old.index.ids[before]));
                rows.push(at);
            }
            Step::Gone(before) => {
                counts.gone += 1;
                index.push(RowChanges::remove(old.entry(before)));
                // Any row will do: nobody reads the values of a row that is gone.
                rows.push(0);
            }
        }
    }
    let changes = RowChanges { index, values: values(&new, &rows)? };
    Ok((writer.change(last, bucket, &old.index, &changes)?, counts))
}

fn entry(new: &SortedRows, at: usize, id: Uuid) -> Entry {
    Entry { key: new.keys[at], row_hash: new.row_hashes[at], id, sequence: 1, flags: 0 }
}

fn values(new: &SortedRows, rows: &[usize]) -> Result<RecordBatch, Error> {
    if rows.iter().copied().eq(0..new.len()) {
        return Ok(new.rows.clone());
    }
    let indices: UInt32Array = rows.iter().map(|row| Some(*row as u32)).collect();
    let columns = new.rows.columns().iter().map(|column| take(column, &indices, None));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(new.rows.schema(), columns.collect::<Result<_, _>>()?, &options)?)
}

/// Does `work` for each number below `count`, shared out to `threads`; the results in their order.
fn in_threads<T: Send>(
    threads: usize,
    count: usize,
    work: impl Fn(usize) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let next = AtomicUsize::new(0);
    let one_thread = || -> Result<Vec<(usize, T)>, Error> {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(done);
            }
            done.push((number, work(number)?));
        }
    };
    let mut done = Vec::with_capacity(count);
    std::thread::scope(|scope| -> Result<(), Error> {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(one_thread)).collect();
        done.extend(one_thread()?);
        for other in others {
            done.extend(other.join().map_err(|_| Error::Thread)??);
        }
        Ok(())
    })?;
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
