"""Renderings of a `Trace`: text for people, Markdown for a forum, JSON for programs. None of them decides anything."""
