"""pgflow beside other engines, each by a runner of one shape, on one server in one run.

The runners of the others and what drives them live outside of this repository, in a folder with a `run.py`; here is
pgflow's own runner (`pgflow_peer.py`), and the command that brings them together.
"""
