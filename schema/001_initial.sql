-- SPDX-License-Identifier: LGPL-2.1-or-later
-- Runs in one transaction with the setting of user_version. Never edited once released: a change is a new file.

-- The id of a filesystem, as long as a mount source can be, is kept once.
CREATE TABLE filesystem (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

-- One row for each tag. Keys and paths are bytes, not text: a file name need not be UTF-8.
CREATE TABLE tag (
  filesystem INTEGER NOT NULL REFERENCES filesystem (id),
  key BLOB NOT NULL CHECK (length(key) > 0),
  space INTEGER NOT NULL CHECK (space IN (0, 1)),      -- 0 system, 1 user
  carrier INTEGER NOT NULL CHECK (carrier IN (0, 1)),  -- 0 xattr: this row is its catalogue entry; 1 database
  policy TEXT NOT NULL,
  path BLOB NOT NULL,
  directory INTEGER NOT NULL CHECK (directory IN (0, 1)),
  birth_ns INTEGER NOT NULL,                           -- 0 where the filesystem keeps none
  uid INTEGER NOT NULL,
  changed_ns INTEGER NOT NULL,
  PRIMARY KEY (filesystem, key, space)
) STRICT, WITHOUT ROWID;

-- For audits, which go through the catalogue by path.
CREATE UNIQUE INDEX tag_by_path ON tag (path, filesystem, key, space);

-- Which filesystems have tags that only the database holds; empty on most machines.
CREATE INDEX tag_carried ON tag (filesystem) WHERE carrier = 1;
