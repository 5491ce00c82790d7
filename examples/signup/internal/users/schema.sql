CREATE TABLE IF NOT EXISTS users (
	username      TEXT    NOT NULL PRIMARY KEY COLLATE NOCASE,
	registered_at INTEGER NOT NULL, -- microseconds since 1970
	logged        INTEGER NOT NULL DEFAULT FALSE,
	emailed       INTEGER NOT NULL DEFAULT FALSE,
	crm           INTEGER NOT NULL DEFAULT FALSE
) STRICT;
CREATE INDEX IF NOT EXISTS users_newest ON users (registered_at DESC);

-- Apart from users, so that listing everybody does not read megabytes of pictures.
CREATE TABLE IF NOT EXISTS pictures (
	username  TEXT NOT NULL PRIMARY KEY COLLATE NOCASE REFERENCES users (username) ON DELETE CASCADE,
	upload    BLOB, -- until the thumbnail is made
	thumbnail BLOB
) STRICT;
