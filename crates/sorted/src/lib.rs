//! Sorted key buckets on disk and their one-pass merge.
//!
//! What a load wants to be there and what it last knew to be there are both cut into 2^bits buckets
//! by the leading bits of the key's hash, sorted, and walked side by side, bucket by bucket. Memory
//! follows the buckets in work, never the table.
//!
//! * [`hash`]: keys and rows to hashes, column by column.
//! * [`Known`]: the state in memory, as far as it goes in; rows that did not change are settled by it.
//! * [`Arrivals`]: the others go in, in any order; their digests come out in sorted buckets.
//! * [`fn@sift`]: digests against state; more rows are settled by it.
//! * [`Spill`]: the rows that are not, in sorted buckets; small data never touches the disk.
//! * [`mod@merge`]: new against old, one [`merge::Step`] for each key.
//! * [`State`]: the last acknowledged rows of a load in immutable files under a [`Manifest`];
//!   [`StateWriter`] writes the next version.
//! * [`differ`]: which columns of two rows differ.
//!
//! What is promised: every byte read is checked against a checksum, and damage is an error that
//! names the file; a state file never changes once written, so a manifest is a whole state and a
//! swap of manifests (kept by `flowgate-store`) moves from one to the next.
//!
//! Left out: who decides what a step means, and where rows are sent.

mod arrivals;
mod cells;
mod chunk;
pub mod differ;
mod digest;
mod error;
mod file;
pub mod hash;
mod index;
mod known;
mod layers;
mod manifest;
pub mod merge;
mod row_set;
mod sift;
mod spill;
mod state;
mod values;
mod writer;

pub use arrivals::{Arrivals, ArrivalsWriter};
pub use differ::ColumnComparer;
pub use digest::Digest;
pub use error::SortedError;
pub use hash::{fingerprint, key_hashes, row_hashes};
pub use index::{AMBIGUOUS, DEACTIVATED, Entry, Heads, Index, TOMBSTONE, UNCERTAIN};
pub use known::Known;
pub use manifest::{BITS_MAX, BucketMeta, ColumnMeta, Manifest, Witness, Witnesses, bits_for};
pub use merge::{Step, groups, merge};
pub use row_set::RowSet;
pub use sift::{Sifted, sift};
pub use spill::{SortedRows, Spill, SpillWriter};
pub use state::{State, StateBucket};
pub use writer::{RowChanges, StateWriter, Totals, sweep};
