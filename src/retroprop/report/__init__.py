"""The report of a study: one HTML file, tables, and a summary on the console.

This package imports nothing, so that it is free to import. Start at `retroprop.report.write` or
`retroprop.report.summary`.
"""
