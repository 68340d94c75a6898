"""How fast pgflow is, always beside something measured on the same server in the same run; see
`docs/performance.md`.
"""
