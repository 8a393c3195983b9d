//! What the `files` connector makes of CSV: the reader that `bench/csv_strict.py` drives and measures.
//!
//! `csv_rows` answers cases from standard input, a line each; `csv_rows FILE` reads a whole file and counts.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the tests")]

mod answer;

use std::io::BufRead;
use std::path::Path;

use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if let Some(file) = std::env::args().nth(1) {
        return count(Path::new(&file)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    for case in std::io::stdin().lock().lines() {
        println!("{}", answer::answer(&case.unwrap(), dir.path()).await);
    }
}

async fn count(file: &Path) {
    let (mut rows, mut malformed) = (0, 0);
    let settings = json!({ "path": file.file_name().unwrap().to_str().unwrap(), "format": "csv" });
    let dir = file.parent().unwrap();
    answer::for_each_batch(&settings, dir, |batch| {
        rows += batch.upserts.num_rows();
        malformed += batch.malformed.len();
    })
    .await
    .unwrap();
    println!("{}", json!({ "rows": rows, "malformed": malformed }));
}
