-- The record. One writer a region (the active scheduler); gateways read. Applied by `harpoon admin migrate`.
CREATE TABLE regions (
  name VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  epoch BIGINT NOT NULL DEFAULT 0,      -- raised by each takeover; asserted by every transaction
  sequence BIGINT NOT NULL DEFAULT 0,   -- last event sequence committed
  watermark BIGINT NOT NULL DEFAULT 0,  -- last event sequence known to be confirmed in the region's stream
  oldest BIGINT NOT NULL DEFAULT 1,     -- oldest event sequence kept
  holder VARCHAR(128) NOT NULL DEFAULT '',
  revision BIGINT NOT NULL DEFAULT 0    -- raised by each transaction, so that one which changes nothing else still affects a row
) ENGINE=InnoDB;

CREATE TABLE operations (
  id CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, -- the dedupe key, within the region
  region VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  project VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  target VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  stage TINYINT NOT NULL,               -- harpoon.v1.Stage
  active TINYINT NOT NULL,              -- 1 until a terminal stage
  serial BIGINT NOT NULL,               -- sequence of the event that recorded it: the order of listing
  body MEDIUMBLOB NOT NULL,             -- harpoon.internal.v1.OperationRecord
  PRIMARY KEY (region, id),
  KEY by_active (region, active, serial),
  KEY by_serial (region, serial),
  KEY by_project (project, region, serial),
  KEY by_target (target, serial)
) ENGINE=InnoDB;

CREATE TABLE containers (
  name VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY, -- full name; gone when deleted
  uid CHAR(26) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  region VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  project VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  host VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
  generation BIGINT NOT NULL,
  body MEDIUMBLOB NOT NULL,             -- harpoon.internal.v1.ContainerRecord
  UNIQUE KEY by_uid (uid),
  KEY by_region (region, name),
  KEY by_project (project, region, name)
) ENGINE=InnoDB;

CREATE TABLE hosts (
  region VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  name VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  body MEDIUMBLOB NOT NULL,             -- harpoon.v1.Host
  PRIMARY KEY (region, name)
) ENGINE=InnoDB;

CREATE TABLE events (
  region VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  sequence BIGINT NOT NULL,
  time_ns BIGINT NOT NULL,
  body MEDIUMBLOB NOT NULL,             -- harpoon.v1.Event
  PRIMARY KEY (region, sequence),
  KEY by_time (region, time_ns)
) ENGINE=InnoDB;

CREATE TABLE projects (
  name VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  cpu_millis BIGINT NOT NULL DEFAULT 0,    -- quotas; 0 means none
  memory_bytes BIGINT NOT NULL DEFAULT 0,
  disk_bytes BIGINT NOT NULL DEFAULT 0,
  containers BIGINT NOT NULL DEFAULT 0
) ENGINE=InnoDB;
