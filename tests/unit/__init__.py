"""Pure decisions, mirrored by package: no server, no socket, no clock."""
