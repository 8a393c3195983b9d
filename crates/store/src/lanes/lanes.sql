-- The first form of lanes.db. Times are milliseconds since 1970.

CREATE TABLE seats (
    owner      TEXT    NOT NULL PRIMARY KEY,
    connection TEXT    NOT NULL,
    pid        INTEGER NOT NULL,
    beat_at    INTEGER NOT NULL,
    until      INTEGER NOT NULL,
    is_taken   INTEGER NOT NULL,
    snapshot   TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE askers (
    identity TEXT NOT NULL,
    owner    TEXT NOT NULL,
    PRIMARY KEY (identity, owner)
) STRICT, WITHOUT ROWID;

CREATE TABLE lanes (
    identity   TEXT    NOT NULL,
    server     TEXT    NOT NULL,
    epoch      INTEGER NOT NULL,
    owner      TEXT,
    seen_at    INTEGER NOT NULL,
    checkpoint TEXT,
    at         INTEGER NOT NULL,
    open_until INTEGER NOT NULL,
    PRIMARY KEY (identity, server)
) STRICT, WITHOUT ROWID;

CREATE TABLE guests (
    number   INTEGER PRIMARY KEY,
    identity TEXT    NOT NULL,
    server   TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    used     TEXT    NOT NULL
) STRICT;
CREATE INDEX guests_of_lane ON guests (identity, server);

CREATE TABLE row_counts (
    pool TEXT    NOT NULL,
    at   INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (pool, at)
) STRICT, WITHOUT ROWID;
