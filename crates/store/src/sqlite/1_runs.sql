-- The first form of runs.db. Times are UTC text of fixed width, 64-bit hashes are signed integers of
-- the same bits, key hashes are 16 bytes, most significant first, so that their order is the keys' order.

CREATE TABLE flows (
    flow  TEXT    NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,
    pid   INTEGER NOT NULL,
    since TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    number             INTEGER PRIMARY KEY AUTOINCREMENT,
    run                TEXT    NOT NULL UNIQUE,
    flow               TEXT    NOT NULL,
    state              TEXT    NOT NULL,
    project_version    TEXT    NOT NULL,
    started            TEXT    NOT NULL,
    finished           TEXT,
    error              TEXT,
    error_code         INTEGER,
    streams            TEXT    NOT NULL,
    loads              TEXT    NOT NULL,
    seconds            TEXT    NOT NULL,
    requests_sent      INTEGER NOT NULL,
    requests_throttled INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_of_flow ON runs (flow, number);

CREATE TABLE images (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    flow   TEXT NOT NULL,
    stream TEXT NOT NULL,
    path   TEXT NOT NULL,
    record TEXT NOT NULL,
    UNIQUE (flow, stream, path)
) STRICT;
CREATE INDEX images_of_stream ON images (flow, stream, number);

CREATE TABLE manifests (
    flow    TEXT    NOT NULL,
    load    TEXT    NOT NULL,
    version INTEGER NOT NULL,
    json    TEXT    NOT NULL,
    PRIMARY KEY (flow, load)
) STRICT, WITHOUT ROWID;

CREATE TABLE letters (
    number           INTEGER PRIMARY KEY AUTOINCREMENT,
    id               TEXT    NOT NULL UNIQUE,
    flow             TEXT    NOT NULL,
    place            TEXT    NOT NULL,
    key_hash         BLOB,
    key_text         TEXT    NOT NULL,
    row_hash         INTEGER NOT NULL,
    project_version  TEXT    NOT NULL,
    metadata_version TEXT    NOT NULL,
    attempts         INTEGER NOT NULL,
    first_at         TEXT    NOT NULL,
    last_at          TEXT    NOT NULL,
    code             INTEGER NOT NULL,
    "column"         TEXT,
    reason           TEXT    NOT NULL,
    service_code     TEXT,
    request_id       TEXT,
    file             TEXT,
    line             INTEGER,
    "offset"         INTEGER,
    payload          TEXT    NOT NULL,
    status           TEXT    NOT NULL
) STRICT;
CREATE INDEX letters_of_place ON letters (flow, place, key_hash);
CREATE INDEX letters_by_age ON letters (last_at);
