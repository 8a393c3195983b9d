//! Sorted key buckets on disk and their one-pass merge.
