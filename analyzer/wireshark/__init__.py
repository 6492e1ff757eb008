"""Wireshark's side: the plugin in Lua, made from the tables of this package, and its way onto this user's machine."""
