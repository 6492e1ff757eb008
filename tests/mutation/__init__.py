"""Mutation testing: the code with one small fault put in at a time, and which of these faults no test notices."""
