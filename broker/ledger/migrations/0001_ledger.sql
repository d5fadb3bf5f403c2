-- Events, the units they came in, the tree over them and its signed heads.

CREATE TABLE stored_events (
    notification_id bigint PRIMARY KEY,
    originator_id text COLLATE "C" NOT NULL,
    originator_version bigint NOT NULL,
    topic text COLLATE "C" NOT NULL,
    state bytea NOT NULL,
    leaf bytea NOT NULL CHECK (length(leaf) = 32),
    UNIQUE (originator_id, originator_version)
);

-- Sealed bytes do not get smaller: no time is spent on trying.
ALTER TABLE stored_events ALTER COLUMN state SET STORAGE EXTERNAL;

CREATE TABLE unit (
    message_id text COLLATE "C" PRIMARY KEY,
    first bigint NOT NULL,
    last bigint NOT NULL
);

CREATE TABLE node (
    level integer,
    idx bigint,
    hash bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, idx)
);

CREATE TABLE checkpoint (
    size bigint PRIMARY KEY,
    at text COLLATE "C" NOT NULL,
    frontier bytea NOT NULL,
    note text NOT NULL
);
