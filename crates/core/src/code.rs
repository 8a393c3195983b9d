//! The stable codes of errors: `FG0007`. Each has a page under `docs/errors`, made from [`ALL`].
//!
//! A code is never reused. Ranges: 0001–0099 configuration, 0100–0199 connections and sources,
//! 0200–0299 SQL and staging, 0300–0399 destination and load, 0400–0499 state and runs,
//! 0500–0599 reasons a row becomes a letter.

use std::fmt;

/// One stable error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

impl Code {
    /// What the code means, in one line; empty for a code that no version of this program knew.
    pub fn title(self) -> &'static str {
        ALL.iter().find(|entry| entry.code == self).map_or("", |entry| entry.title)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FG{:04}", self.0)
    }
}

/// A code, its constant's meaning in one line, and what usually helps.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub code: Code,
    pub title: &'static str,
    pub help: &'static str,
}

macro_rules! codes {
    ($($name:ident = $number:literal, $title:literal, $help:literal;)*) => {
        impl Code {
            $(#[doc = $title] pub const $name: Code = Code($number);)*
        }

        /// Every code there is, in order.
        pub const ALL: &[Entry] = &[$(Entry { code: Code($number), title: $title, help: $help }),*];
    };
}

codes! {
    // Configuration.
    USAGE = 1, "the command line was not understood", "Run `flowgate help`, or `flowgate help COMMAND`.";
    PROJECT_NOT_FOUND = 2, "no project in this directory", "Run `flowgate init DIR`, or name the directory with `-C DIR`.";
    YAML_SYNTAX = 3, "a file is not YAML", "The message names the line and column where reading stopped.";
    UNKNOWN_KEY = 4, "a key that does not exist", "The nearest valid key is named; `flowgate schema` gives editors the whole list.";
    WRONG_TYPE = 5, "a value of the wrong type or outside its range", "The message says what is expected there.";
    MISSING_KEY = 6, "a required key is missing", "Add the key that the message names.";
    DUPLICATE_NAME = 7, "two things share one name", "Names are unique within their kind.";
    UNKNOWN_REFERENCE = 8, "a name that nothing has", "Check the spelling of the connection, flow, stream or load.";
    CYCLE = 9, "flows wait for each other in a circle", "Remove one of the `after:` entries that the message lists.";
    UNKNOWN_VARIABLE = 10, "a variable without a value", "Add it under `vars:` in the environment's file.";
    ABSENT_SECRET = 11, "a secret that cannot be read", "Set the environment variable, or create the file, that the reference names.";
    NOT_SUPPORTED = 12, "something this version does not have", "It is refused rather than ignored; see the reference for what exists.";
    MISSING_FILE = 13, "a file that is not there", "Paths are relative to the project directory.";
    BAD_PATTERN = 14, "a file pattern that is not a glob", "See the reference of the `files` connector.";
    UNSAFE_COMBINATION = 15, "settings that together could destroy data", "The message says which of the two must change.";
    NEWER_VERSION = 16, "the project is written for a newer Flowgate", "Update Flowgate, or lower `flowgate:` if nothing new is used.";
    RESERVED_COLUMN = 17, "a column with the name of one that every table has", "Give the column another name: the primary id of a custom table is its name and `id`.";
    OVERLAPPING_LOADS = 20, "two loads into one table, and one of them deletes", "What one load keeps, another may not remove: make it one load, let both keep what is missing, or set `shares_table: true` on those that delete.";
    // Connections and sources.
    CONNECTION_FAILED = 100, "a system cannot be reached", "Check address, network and certificate; `flowgate doctor` tries every connection.";
    SIGN_IN_FAILED = 101, "sign-in was refused", "Check client id and secret, and that the application user exists in the environment.";
    NOT_ALLOWED = 102, "signed in, but not allowed", "Give the user the privilege that the message names.";
    WRONG_ORGANIZATION = 103, "the environment is not the pinned one", "Nothing was sent. Compare `organization:` with the address.";
    THROTTLED = 104, "the service limits could not be kept within the deadline", "Run later, or lower the share of other users of this identity.";
    SERVICE_FAILED = 105, "the service failed again and again", "Run again: the run continues where it stopped.";
    UNEXPECTED_ANSWER = 106, "an answer that is not of the expected form", "Often a proxy or a sign-in page: check the address.";
    STREAM_NOT_FOUND = 110, "a stream's table or files are not there", "Check `table:` or `path:`.";
    NO_FILES = 111, "no file matches the pattern", "An empty match is an error because it would look like an empty source; set `optional: true` to allow it.";
    SOURCE_SCHEMA_CHANGED = 112, "a source column in use was removed or retyped", "Nothing was sent. Change the SELECT, or restore the column.";
    FILES_DISAGREE = 113, "files of one stream have different columns", "Columns may be added, not removed or renamed, between files.";
    BAD_ENCODING = 114, "bytes that are not of the declared encoding", "Set `encoding:` to what the file really uses.";
    FIELD_TOO_LARGE = 115, "a field beyond the size limit", "A quote that never closes is the usual cause; the message names the line.";
    MALFORMED_FILE = 116, "a file that cannot be read at all", "The file is damaged or of another format.";
    CURSOR_LOST = 117, "the source no longer knows the cursor", "The next run reads the whole stream again.";
    SOURCE_FAILED = 118, "reading a source failed", "The cause follows; run again when it is removed.";
    SOURCE_CHANGED = 119, "a source changed while it was read", "Nothing of it was used. Run again when its writer is done; a writer that renames finished files into place is never met in the middle.";
    KEY_NOT_IN_STREAM = 125, "a column of `key:` that the stream does not have", "Name columns of the source; the nearest one is named.";
    UNEARNED_ANSWER = 130, "a success that is not the service's answer to the request", "A proxy, gateway or cache answered in its place; nothing it said was believed. Run again: the run continues where it stopped.";
    // SQL and staging.
    SQL_SYNTAX = 200, "SQL that does not parse", "The message names line and column in the file.";
    SQL_UNKNOWN_TABLE = 201, "SQL names a table that is not a stream", "Tables are the flow's streams; the nearest one is named.";
    SQL_UNKNOWN_COLUMN = 202, "SQL names a column that is not there", "The message lists the nearest columns.";
    SQL_NOT_A_SELECT = 203, "a transform that is not one SELECT", "A transform is a single SELECT without side effects.";
    SQL_DUPLICATE_COLUMN = 204, "SQL returns a column twice", "Name each output column once, with AS.";
    SQL_MISSING_KEY = 205, "SQL does not return a match column", "Add the column to the SELECT.";
    SQL_FAILED = 206, "SQL failed while running", "Often a cast: use TRY_CAST, or `checks:` to set rows aside.";
    SQL_FORBIDDEN = 207, "SQL uses something the sandbox does not allow", "Files, URLs, DDL and settings are out of reach of a transform.";
    SQL_OUT_OF_MEMORY = 208, "SQL needed more memory than allowed", "Raise `staging.embedded.memory`, or simplify the joins.";
    SQL_TOO_LARGE = 209, "a SELECT too large or too deep to be planned", "The message says what there is too much of, and the bound. Write a chain of OR as IN, and join with a stream in place of a long list.";
    STAGED_IMAGE_DAMAGED = 210, "a staged image does not match its checksum", "Run again with `--fresh`: the stream is read anew.";
    MISSING_DRIVER_ROW = 211, "a load with a driver does not select `_row`", "Add `<driver>._row` to the SELECT, so that every driver row can be accounted for.";
    LATEST_UNORDERED = 212, "the values of `latest_by` have no order", "Text is ordered if it is whole numbers, numbers with equally many decimals, or ISO times. Give the column a type in the stream's `columns:`, or cast it in the SELECT.";
    // Destination and load.
    TABLE_NOT_FOUND = 300, "the destination has no such table", "Check `table:`, or run `flowgate provision`.";
    COLUMN_NOT_FOUND = 301, "the destination table has no such column", "Check the SELECT's column names, or run `flowgate provision`.";
    KEY_NOT_FOUND = 302, "the match columns are not a key of the table", "Create an alternate key (`flowgate provision`), or match on the primary id.";
    KEY_NOT_ACTIVE = 303, "an alternate key is not active yet", "Its index is still being built, or failed: see the key in the environment.";
    COLUMN_READ_ONLY = 304, "a column that cannot be written", "Remove it from the SELECT.";
    REQUIRED_COLUMN = 305, "a column that the system requires is not selected", "Add it to the SELECT.";
    LOOKUP_RULE_MISSING = 306, "a lookup column without a rule", "Add it under `lookups:`, naming the target table and its columns.";
    LOOKUP_NOT_UNIQUE = 307, "lookup columns that do not identify one row", "Use an alternate key, or columns that are unique in the target.";
    LOAD_REFUSED = 308, "the destination refused the whole load", "Every row failed the same way; the cause follows.";
    PROVISION_REFUSED = 309, "this environment does not allow provisioning", "Set `provision: allow` in the environment's file, and name a `solution:` in the connection.";
    TYPE_MISMATCH = 310, "a column's SQL type cannot become the destination's type", "Cast it in the SELECT.";
    STATE_RULE = 311, "a state rule that the table cannot follow", "Use the labels of the table's status column.";
    OWNER_NOT_MAPPED = 312, "several application users, and a load that leaves the owner open", "Each row would belong to whichever user sent it: add a rule for `ownerid` under `lookups:`.";
    // State and runs.
    FLOW_IS_RUNNING = 400, "this flow is running already", "Wait for it, or stop that process first.";
    STATE_DAMAGED = 401, "a state file does not match its checksum", "`flowgate run FLOW --adopt` rebuilds it from the destination.";
    STATE_NEWER = 402, "state written by a newer Flowgate", "Update Flowgate: newer state is never touched.";
    NETWORK_STORAGE = 403, "state on network storage", "Keep `.flowgate` on a local disk: its locks are not reliable elsewhere.";
    DISK_FULL = 404, "no space left on the disk", "Free space and run again: the run continues where it stopped.";
    GUARD = 405, "a guard stopped the load", "Look at `flowgate plan`; raise the guard if the change is meant.";
    NO_SUCH_RUN = 406, "no such run", "`flowgate runs` lists them.";
    NO_SUCH_LETTER = 407, "no such letter", "`flowgate letters list` lists them.";
    CANCELLED = 408, "stopped on request", "Run again: the run continues where it stopped.";
    IMBALANCE = 409, "the accounting equations do not hold", "A defect of Flowgate: please report it with `flowgate runs --json`.";
    STORAGE_FAILED = 410, "reading or writing local state failed", "The cause follows.";
    WENT_BACK_IN_TIME = 411, "the destination is older than our state", "It was restored or copied: `flowgate run FLOW --adopt` reads it again.";
    STATE_OF_OTHER_ROWS = 412, "the state is of another table, or of other match columns", "`flowgate run FLOW --adopt` reads the rows that the new keys find.";
    STATE_OLDER = 413, "state of an older format", "`flowgate run FLOW --adopt` makes it anew from the destination.";
    STATE_WENT_BACK = 414, "our state is older than the destination", "A backup of it was put back: `flowgate run FLOW --adopt` reads the destination again.";
    STATE_NOT_PRIVATE = 415, "others may change the state", "Keep the state in a directory that belongs to the user who runs Flowgate, and that nobody else may write to: `chmod go-w`, `chown`.";
    OUTPUT_NOT_WRITTEN = 420, "the answer could not be written", "What the command did stands; only its answer is lost. `flowgate runs --json` gives it again.";
    STATE_REMOVED = 421, "the state was removed while a run works", "The run stopped. Put the state directory back from a backup, or run again: what the destination holds is then read and taken as state.";
    INTERNAL = 499, "a defect of Flowgate", "Please report it.";
    // Reasons a row becomes a letter.
    ROW_TOO_LONG = 500, "a text longer than the column", "";
    ROW_OUT_OF_RANGE = 501, "a number outside the column's range", "";
    ROW_UNKNOWN_CHOICE = 502, "a label or value the choice does not have", "";
    ROW_BAD_DATE = 503, "not a date the column can hold", "";
    ROW_NOT_A_NUMBER = 504, "not a number", "";
    ROW_NOT_A_BOOLEAN = 505, "not a yes or no", "";
    ROW_NOT_A_GUID = 506, "not a GUID", "";
    ROW_REQUIRED = 507, "a required column is empty", "";
    ROW_NULL_KEY = 508, "a match column is empty", "";
    ROW_ORPHAN = 509, "the row it refers to is not there yet", "It is tried again when the parent arrives.";
    ROW_CHECK = 510, "a check of the load failed", "";
    ROW_REFUSED = 511, "the destination refused the row", "";
    ROW_DELETED_THERE = 512, "the row was deleted at the destination", "";
    ROW_MALFORMED = 513, "the source line is not of the stream's form", "";
    ROW_AMBIGUOUS_LOOKUP = 514, "the lookup matches more than one row", "";
    ROW_BAD_TEXT = 515, "characters that the destination refuses", "";
    ROW_NO_CURRENCY = 516, "money without a currency", "";
    ROW_DUPLICATE_AT_DESTINATION = 517, "another row there already has this key", "";
    ROW_NO_ZONE = 518, "a time without an offset and no zone to read it in", "";
    ROW_SERVICE_FAILED = 519, "the service failed each time the row was sent", "It is tried again at the next run.";
    ROW_AMBIGUOUS_KEY = 520, "more than one row at the destination has the key", "None of them is touched; when one is left, `flowgate run FLOW --adopt` goes on with it.";
    ROW_ODD_TIME = 524, "a local time that does not exist, or comes twice", "Such times are set aside because the project says so: `nonexistent_times:` and `repeated_times:`.";
    ROW_TOO_FINE = 525, "a number with more decimals than the column holds", "Numbers are never rounded in silence. `round()` in the SELECT rounds them, or the column gets more places.";
    ROW_AMBIGUOUS_CHOICE = 528, "a text that two options of the column may be meant by", "Write the number that is meant, or give the options different labels.";
    ROW_NO_STATUS = 531, "a value that `state:` has no entry for", "Add the entry, or let `else: leave` leave the status alone.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
    }
}
