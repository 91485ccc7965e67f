"""From that value to what people read: sections make blocks of it; page, terminal, Markdown print them."""
