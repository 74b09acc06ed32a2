"""The statistics of a study: contrasts, intervals, tests, claims and flags.

Pure functions on arrays; whatever is random takes a `numpy.random.Generator`. Import the file that
holds the idea: `retroprop.analysis.effects` assembles the table of effects from the other files.
This package itself imports nothing, so that it is free to import. docs/methods.md says it in words.
"""
