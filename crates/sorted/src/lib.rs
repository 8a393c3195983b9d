//! Sorted key buckets on disk and their one-pass merge.
//!
//! What a load wants to be there and what it last knew to be there are both cut into 2^bits buckets
//! by the leading bits of the key's hash, sorted, and walked side by side, bucket by bucket. Memory
//! follows the buckets in work, never the table.
//!
//! * [`hash`]: keys and rows to hashes, column by column.
//! * [`spill`]: rows in any order go in, sorted buckets come out; small data never touches the disk.
//! * [`mod@merge`]: new against old, one [`merge::Step`] for each key.
//! * [`state`]: the last acknowledged rows of a load in immutable files under a [`Manifest`].
//! * [`differ`]: which columns of two rows differ.
//!
//! What is promised: every byte read is checked against a checksum, and damage is an error that
//! names the file; a state file never changes once written, so a manifest is a whole state and a
//! swap of manifests (kept by `flowgate-store`) moves from one to the next.
//!
//! Left out: who decides what a step means, and where rows are sent.

pub mod differ;
mod error;
mod file;
pub mod hash;
mod index;
mod manifest;
pub mod merge;
pub mod spill;
pub mod state;
mod values;

pub use differ::ColumnComparer;
pub use error::SortedError;
pub use hash::{fingerprint, key_hashes, row_hashes};
pub use index::{DEACTIVATED, Entry, Index, TOMBSTONE, UNCERTAIN};
pub use manifest::{BITS_MAX, BucketMeta, ColumnMeta, Manifest, Witness, Witnesses, bits_for};
pub use merge::{Step, groups, merge};
pub use spill::{SortedRows, Spill, SpillWriter};
pub use state::{State, StateBucket, StateWriter, sweep};
