//! Speed of the hot loops on this machine: `cargo run --release -p flowgate-sorted --example speed`.

use std::error::Error;
use std::hint::black_box;
use std::io::{Write, stdout};
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, Decimal128Array, Int32Array, RecordBatch, StringArray};
use flowgate_core::KeyHash;
use flowgate_sorted::{SpillWriter, Step, fingerprint, key_hashes, merge, row_hashes};

const MERGED_ROWS: usize = 8_000_000;
const BATCH_ROWS: usize = 8_192;
const BATCHES: usize = 122;

fn main() -> Result<(), Box<dyn Error>> {
    let mut old: Vec<KeyHash> =
        (0..MERGED_ROWS as u128).map(|number| KeyHash(number * (u128::MAX / 9_000_000))).collect();
    let hashes: Vec<u64> = (0..MERGED_ROWS as u64).collect();
    let new = old.clone();
    old.remove(MERGED_ROWS / 2);
    report("merge index against index", MERGED_ROWS, || {
        let both = merge(&new, &old).filter(|step| match step {
            Step::Both { new, old } => hashes[*new] == hashes[*old],
            Step::New(_) | Step::Gone(_) => true,
        });
        black_box(both.count());
    })?;
    report("fingerprint", MERGED_ROWS, || {
        black_box(fingerprint(&new, &hashes));
    })?;

    let batches: Vec<RecordBatch> = (0..BATCHES).map(sample).collect::<Result<_, _>>()?;
    let rows = BATCHES * BATCH_ROWS;
    let mut keys = Vec::new();
    report("key hashes, one text column", rows, || {
        keys = batches.iter().map(|batch| batch.project(&[0]).map(|key| key_hashes(&key))).collect();
    })?;
    report("row hashes, ten columns", rows, || {
        for batch in &batches {
            black_box(row_hashes(batch, 0).is_ok());
        }
    })?;
    let keys: Vec<Vec<KeyHash>> = keys
        .into_iter()
        .map(|keys| Ok(keys??.into_iter().flatten().collect()))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let dir = std::env::temp_dir().join(format!("flowgate-speed-{}", std::process::id()));
    let start = Instant::now();
    let mut writer = SpillWriter::create(&dir, batches[0].schema(), 3)?;
    for (batch, keys) in batches.iter().zip(&keys) {
        writer.push(batch, keys, &row_hashes(batch, 0)?)?;
    }
    let spill = writer.finish()?;
    let mut sorted = 0;
    for bucket in 0..8 {
        sorted += spill.bucket(bucket)?.len();
    }
    let megabytes = spill.file_bytes()? >> 20;
    let seconds = start.elapsed().as_secs_f64();
    writeln!(stdout(), "hash, spill ({megabytes} MiB) and sort: {:.2} M rows/s", sorted as f64 / seconds / 1e6)?;
    drop(spill);
    fs_err::remove_dir(dir)?;
    Ok(())
}

fn report(what: &str, rows: usize, mut work: impl FnMut()) -> std::io::Result<()> {
    let start = Instant::now();
    work();
    let seconds = start.elapsed().as_secs_f64();
    writeln!(stdout(), "{what}: {:.1} M rows/s", rows as f64 / seconds / 1e6)
}

/// Ten columns, about 150 bytes a row.
fn sample(number: usize) -> Result<RecordBatch, Box<dyn Error>> {
    let numbers = || (0..BATCH_ROWS).map(move |row| (row * 7_919 + number * BATCH_ROWS) as i32);
    let text = |prefix: &str| -> ArrayRef {
        Arc::new(numbers().map(|number| Some(format!("{prefix} {number}"))).collect::<StringArray>())
    };
    let amounts = numbers().map(|number| Some(i128::from(number) * 25)).collect::<Decimal128Array>();
    let amounts: ArrayRef = Arc::new(amounts.with_precision_and_scale(38, 2)?);
    let whole: ArrayRef = Arc::new(numbers().collect::<Int32Array>());
    let columns = [
        ("key", text("WR")),
        ("title", text("pothole on the carriageway near junction")),
        ("street", text("street")),
        ("town", text("town")),
        ("status", text("s")),
        ("amount", Arc::clone(&amounts)),
        ("tax", amounts),
        ("a", Arc::clone(&whole)),
        ("b", Arc::clone(&whole)),
        ("c", whole),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
