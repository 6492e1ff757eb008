"""How often the verdict is right: see `confusion.command`."""
