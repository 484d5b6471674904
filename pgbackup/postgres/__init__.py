"""Everything that speaks to a Postgres server or knows its data directory."""
