-- 0: an ordinary record. 1: loaded from a backup (a dump ends with the statement that sets this): nobody leads the region until `harpoon admin restored`
-- has raised epoch and sequence. 2: it has; the leader compares the record with every host, and sets 0.
ALTER TABLE regions ADD COLUMN restored TINYINT NOT NULL DEFAULT 0;
