-- SPDX-License-Identifier: LGPL-2.1-or-later
-- The first four bytes of a handle, mostly the low ones of an inode number, most significant first: files that were
-- made side by side stand side by side then. By the lowest byte first each batch of a tree's files would change every
-- page of the table.
ALTER TABLE tag RENAME TO tag_1;

-- The column has another name: a process of an earlier version that has the database open meets an error, and writes no
-- keys of the old kind. The check calls no function: with one, which could fail, SQLite would copy more before a
-- statement of several rows changes anything.
CREATE TABLE tag (
  filesystem INTEGER NOT NULL REFERENCES filesystem (id),
  stored_key BLOB NOT NULL CHECK (stored_key <> x''),
  space INTEGER NOT NULL CHECK (space IN (0, 1)),      -- 0 system, 1 user
  carrier INTEGER NOT NULL CHECK (carrier IN (0, 1)),  -- 0 xattr: this row is its catalogue entry; 1 database
  policy TEXT NOT NULL,
  path BLOB NOT NULL,
  directory INTEGER NOT NULL CHECK (directory IN (0, 1)),
  birth_ns INTEGER NOT NULL,                           -- 0 where the filesystem keeps none, or the handle suffices
  uid INTEGER NOT NULL,
  changed_ns INTEGER NOT NULL,
  PRIMARY KEY (filesystem, stored_key, space)
) STRICT, WITHOUT ROWID;

INSERT INTO tag
  SELECT filesystem,
         iif(substr(key, 1, 1) = x'68' AND length(key) >= 9,
             CAST(substr(key, 1, 5) || substr(key, 9, 1) || substr(key, 8, 1) || substr(key, 7, 1) ||
                  substr(key, 6, 1) || substr(key, 10) AS BLOB),
             key),
         space, carrier, policy, path, directory, birth_ns, uid, changed_ns
    FROM tag_1;

-- With its indexes, whose names are free then.
DROP TABLE tag_1;

CREATE UNIQUE INDEX tag_by_path ON tag (path, filesystem, stored_key, space);

CREATE INDEX tag_carried ON tag (filesystem) WHERE carrier = 1;
