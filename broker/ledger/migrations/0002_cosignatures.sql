-- Signatures of others, and of our second key, beside those of the checkpoints.

CREATE TABLE cosignature (
    size bigint NOT NULL,
    line text COLLATE "C" NOT NULL
);

-- A line may be longer than an index takes.
CREATE UNIQUE INDEX cosignature_line ON cosignature (size, md5(line));
