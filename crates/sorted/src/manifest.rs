//! The manifest of a load's state: the files that together are its last acknowledged rows.
//!
//! JSON, kept by `flowgate-store` and swapped there in one transaction. Files that the current
//! manifest does not name mean nothing.

use std::collections::BTreeMap;
use std::path::Path;

use arrow_schema::Schema;
use flowgate_core::KeyHash;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::writer::Totals;
use crate::{Digest, SortedError, fingerprint};

/// The form of a manifest, and the only one since the first release.
const FORMAT: u32 = 3;

/// Buckets are at most 2^12: at the goal below that is half a thousand million rows.
pub const BITS_MAX: u8 = 12;

/// Rows that a bucket should hold: small enough that a few in work stay under 100 MB, large enough
/// that opening a file is nothing beside reading it.
const BUCKET_ROWS_GOAL: u64 = 131_072;

/// How many bits cut `rows` into buckets of about the right size.
pub fn bits_for(rows: u64) -> u8 {
    let buckets = rows.div_ceil(BUCKET_ROWS_GOAL).max(1).next_power_of_two();
    (buckets.trailing_zeros() as u8).min(BITS_MAX)
}

/// One version of a load's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The version it is stored as; 0 means that nothing is known yet.
    pub version: u64,
    pub bits: u8,
    /// The columns of the values, as the last writer had them.
    pub columns: Vec<ColumnMeta>,
    /// 2^bits of them; `None` holds no rows.
    pub buckets: Vec<Option<BucketMeta>>,
    /// The highest sequence of any row.
    pub sequence: u64,
    /// What tells whether the destination is still the one this state describes.
    #[serde(default)]
    pub witnesses: Option<Witnesses>,
    /// When a write of these rows was last given up without an answer: it may take effect after the next one.
    #[serde(default)]
    pub unanswered: Option<Timestamp>,
    /// How many rows each stream behind these rows had when it last had any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, u64>,
}

/// Who the destination was, and a few of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witnesses {
    pub identity: String,
    /// The table, and by which of its columns a key is found.
    pub table: String,
    pub match_columns: Vec<String>,
    pub rows: Vec<Witness>,
    /// Rows that were deleted last.
    #[serde(default)]
    pub removed: Vec<Uuid>,
    /// The highest version that was seen there. 0 in a table without versions.
    #[serde(default)]
    pub newest: u64,
    /// What tells this directory from a copy of it; empty in states that did not keep it.
    #[serde(default)]
    pub place: String,
}

/// A row and the version it had when the state was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    pub id: Uuid,
    pub version: u64,
    /// The hash of its key, as an id is written: JSON's numbers are too short for it.
    #[serde(default)]
    pub key: Option<Uuid>,
    /// The `sequence` of the state that it was written for.
    #[serde(default)]
    pub sequence: u64,
}

impl Witness {
    pub fn key(&self) -> Option<KeyHash> {
        self.key.map(|key| KeyHash(key.as_u128()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnMeta {
    pub name: String,
    /// As Arrow writes it: `Decimal128(38, 2)`.
    pub data_type: String,
}

/// The files of one bucket, and what they hold together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketMeta {
    /// The lowest first; there is at least one.
    pub(crate) layers: Vec<LayerMeta>,
    pub totals: Totals,
}

/// The two files of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerMeta {
    /// What the names of both files begin with.
    pub(crate) name: String,
    pub(crate) rows: u64,
    pub(crate) index_checksum: u32,
    pub(crate) values_checksum: u32,
    /// Of both files.
    pub(crate) bytes: u64,
}

impl LayerMeta {
    pub(crate) fn index(&self) -> String {
        format!("{}.index", self.name)
    }

    pub(crate) fn values(&self) -> String {
        format!("{}.values", self.name)
    }
}

impl BucketMeta {
    /// Whether the living rows are exactly these and sound, or all `settled`; then there is nothing to merge, and the
    /// bucket's files can stay as they are.
    pub fn holds_exactly(&self, digests: &[Digest], settled: u64) -> bool {
        let Totals { rows, tombstones, uncertain, fingerprint: known } = self.totals;
        let is_all = uncertain == 0 && rows - tombstones == digests.len() as u64 + settled;
        let sum = |sum: u64, row: &Digest| sum.wrapping_add(fingerprint(&[row.key], &[row.row_hash]));
        is_all
            && (digests.is_empty()
                || (settled == 0
                    && digests.iter().all(|digest| !digest.is_faulty())
                    && digests.iter().fold(0, sum) == known))
    }

    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }
}

impl Manifest {
    /// The state of a load that has never run.
    pub fn empty() -> Self {
        Self {
            format: FORMAT,
            version: 0,
            bits: 0,
            columns: Vec::new(),
            buckets: vec![None],
            sequence: 0,
            witnesses: None,
            unanswered: None,
            streams: BTreeMap::new(),
        }
    }

    pub(crate) fn new(
        version: u64,
        bits: u8,
        schema: &Schema,
        buckets: Vec<Option<BucketMeta>>,
        sequence: u64,
    ) -> Self {
        Self { version, bits, columns: columns_of(schema), buckets, sequence, ..Self::empty() }
    }

    /// Reads what [`Manifest::to_json`] wrote. `path` is the state directory, for messages.
    pub fn from_json(path: &Path, json: &str) -> Result<Self, SortedError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |error: serde_json::Error| SortedError::damaged(path, format!("its manifest: {error}"));
        let Format { format } = serde_json::from_str(json).map_err(damaged)?;
        if format < FORMAT {
            return Err(SortedError::Older { path: path.to_owned(), found: format, known: FORMAT });
        }
        if format > FORMAT {
            return Err(SortedError::Newer { path: path.to_owned(), found: format, known: FORMAT });
        }
        let manifest: Self = serde_json::from_str(json).map_err(damaged)?;
        if manifest.bits > BITS_MAX || manifest.buckets.len() != 1 << manifest.bits {
            return Err(SortedError::damaged(path, "its manifest has the wrong number of buckets"));
        }
        Ok(manifest)
    }

    pub fn to_json(&self) -> Result<String, SortedError> {
        serde_json::to_string(self).map_err(|_| SortedError::Misused("a manifest that is no JSON"))
    }

    /// Whether the values have exactly these columns, in this order.
    pub fn has_columns(&self, schema: &Schema) -> bool {
        self.columns == columns_of(schema)
    }

    /// All rows, tombstones among them.
    pub fn rows(&self) -> u64 {
        self.buckets.iter().flatten().map(|bucket| bucket.totals.rows).sum()
    }

    pub fn tombstones(&self) -> u64 {
        self.buckets.iter().flatten().map(|bucket| bucket.totals.tombstones).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.buckets.iter().flatten().map(BucketMeta::bytes).sum()
    }

    /// The names of all files that make up the state.
    pub(crate) fn files(&self) -> impl Iterator<Item = String> + '_ {
        let layers = self.buckets.iter().flatten().flat_map(|bucket| &bucket.layers);
        layers.flat_map(|layer| [layer.index(), layer.values()])
    }
}

fn columns_of(schema: &Schema) -> Vec<ColumnMeta> {
    let fields = schema.fields().iter();
    fields.map(|field| ColumnMeta { name: field.name().clone(), data_type: field.data_type().to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_grow_with_the_rows() {
        let bits: Vec<u8> = [0, 1, 131_072, 131_073, 1_000_000, u64::MAX / 2].map(bits_for).to_vec();
        assert_eq!(bits, [0, 0, 0, 1, 3, BITS_MAX]);
    }

    #[test]
    fn a_manifest_comes_back_and_one_of_another_format_is_refused() {
        let json = Manifest::empty().to_json().unwrap();
        assert_eq!(Manifest::from_json(Path::new("s"), &json).unwrap(), Manifest::empty());
        let newer = json.replace("\"format\":3", "\"format\":4");
        let error = Manifest::from_json(Path::new("s"), &newer).unwrap_err();
        assert_eq!(error.to_string(), "`s` has format version 4; this Flowgate knows 3");
        let older = json.replace("\"format\":3", "\"format\":2");
        let error = Manifest::from_json(Path::new("s"), &older).unwrap_err();
        assert_eq!(error.to_string(), "`s` has the old format version 2; this Flowgate knows 3");
        let odd = json.replace("\"bits\":0", "\"bits\":1");
        assert!(matches!(Manifest::from_json(Path::new("s"), &odd), Err(SortedError::Damaged { .. })));
    }
}
