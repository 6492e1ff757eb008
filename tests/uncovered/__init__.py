"""Which lines of the analyzer no test runs, and why not."""
