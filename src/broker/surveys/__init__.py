"""How each survey writes an alert: schemas, maps, codec."""
