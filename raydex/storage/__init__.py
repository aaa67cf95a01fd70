"""Indexes whose data folder is a URI: a local mirror for all other code, and what carries it to and fro.

storage = open_storage(config.uri, config.folder)
storage.pull("docs") → Path        the head of an index, mirrored; then storage.pull_objects, pull_stores
storage.push("docs")               what is new, in an order that leaves a whole index at every moment

docs/storage.md says what lies where, and what it costs.
"""
