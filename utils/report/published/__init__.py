"""Numbers and curves that others have published, and how one's own stand to them."""
