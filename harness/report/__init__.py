"""From figures to what people read: an HTML page, a table on the terminal, JSON."""
