"""Exports of snapshots for other trainers, and the changes of copies."""
