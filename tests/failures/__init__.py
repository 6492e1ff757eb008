"""What the command does when the machine fails it: no room, no right, no memory, no terminal, and no time left."""
