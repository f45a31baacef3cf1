"""Shared by all evaluations: flags, jobs, launches, results, tables, the contact sheet, and the main loop."""
