"""What users register and send: workflows, activities, signals, messages, and how their functions are read.

    a function --decorated--> looked at (`functions.py`) --> a frozen descriptor (`descriptors.py`) of its name,
    options and signature --registered with a worker--> found by the name that a row holds

A signature (`signature.py`) turns arguments into one JSON object by name, and back by annotations, which are looked up
where they were written and only when they are first needed. Nothing here knows how workflows are executed.
"""
