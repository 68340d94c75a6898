"""The arguments of a workflow as a JSON Schema, for whoever starts it without its code; and what does not fit one.

A schema says what is known of the annotations. Where JSON Schema cannot say what a conversion accepts (validators of
the application, aliases), it says nothing, so that nothing is refused that the workflow would take.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pgflow.codec.decoding import adapter
from pgflow.definitions.descriptors import Registry, Workflow

LONGEST = 100_000
"""Characters that the schema of one workflow may have; of a longer one the names of the arguments are left."""

_UNSAID = frozenset({"function-before", "function-wrap", "function-plain", "custom-error", "lax-or-strict-custom"})
"""Parts of a conversion of which a JSON Schema tells nothing."""


def schema_of(workflow: Workflow[Any, Any]) -> dict[str, Any]:
    """The JSON Schema of a workflow's input, an object of its arguments by name.

    Example:
        schema_of(checkout)["required"]
    """
    parameters = workflow.parameters
    properties: dict[str, Any] = {}
    required: list[str] = []
    definitions: dict[str, Any] = {}
    for name, annotation, needed in parameters.described():
        properties[name] = _of_annotation(annotation, definitions)
        if needed:
            required.append(name)
    found: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    if not parameters.takes_any_name:
        found["additionalProperties"] = False
    if definitions:
        found["$defs"] = definitions
    return found if _can_be_stored(found) else {**found, "properties": dict.fromkeys(properties, {}), "$defs": {}}


def schemas_of(registry: Registry) -> str:
    """Those of all workflows of a worker by name, as JSON."""
    return json.dumps({name: schema_of(registry.get(name)) for name in registry.names})


def misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Why a JSON value certainly does not fit a schema that `schema_of` has made; None: it may fit.

    Example:
        >>> misfit({"order": []}, {"properties": {"order": {"type": "integer"}}})
        'order: expected integer, found []'
    """
    return _misfit(value, schema, schema.get("$defs", {}), "")


def _can_be_stored(schema: dict[str, Any]) -> bool:
    try:
        return len(json.dumps(schema, allow_nan=False)) <= LONGEST
    except (ValueError, TypeError, RecursionError):
        return False


def _of_annotation(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if annotation is Any or annotation is None or annotation is type(None):  # what is stored there is read as it is
        return {}
    try:
        found = adapter(annotation, "an argument")
        if _says_too_little(found.core_schema):
            return {}
        made = found.json_schema(mode="validation", ref_template="#/$defs/{model}")
    except Exception:  # whatever an application's classes raise: then nothing is said of them
        return {}
    for name, definition in made.pop("$defs", {}).items():
        if definitions.setdefault(name, definition) != definition:
            return {}  # another class of this name
    return made


def _says_too_little(core: Any) -> bool:
    if isinstance(core, dict):
        if core.get("type") in _UNSAID or "validation_alias" in core:
            return True
        return any(_says_too_little(part) for part in core.values())
    return isinstance(core, list | tuple) and any(_says_too_little(part) for part in core)


def _misfit(value: Any, schema: Any, definitions: Mapping[str, Any], where: str) -> str | None:
    if not isinstance(schema, Mapping):
        return None
    if "$ref" in schema:
        return _misfit(value, definitions.get(str(schema["$ref"]).rpartition("/")[2], {}), definitions, where)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            problems = [_misfit(value, each, definitions, where) for each in schema[choice]]
            return None if None in problems else problems[0]
    for part in schema.get("allOf", ()):
        if (problem := _misfit(value, part, definitions, where)) is not None:
            return problem
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if allowed and all(type(each) is type(value) for each in allowed) and value not in allowed:
        return _said(where, "one of " + ", ".join(json.dumps(each) for each in allowed), value)
    kind = schema.get("type")
    if isinstance(kind, str) and not _may_be(kind, value, schema):
        return _said(where, kind, value)
    if isinstance(value, dict):
        return _in_object(value, schema, definitions, where)
    if isinstance(value, list):
        return _in_array(value, schema, definitions, where)
    return None


def _may_be(kind: str, value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is of a kind, or may be converted to it."""
    if kind == "object":
        return isinstance(value, dict)
    if kind == "array":
        return isinstance(value, list) or (isinstance(value, dict) and "prefixItems" in schema)
    if kind == "null":
        return value is None
    if value is None or isinstance(value, dict | list):
        return False
    if kind == "string":
        return isinstance(value, str) or "format" in schema
    if kind in ("integer", "number") and isinstance(value, str):
        try:
            return not math.isnan(float(value))
        except ValueError:
            return value.strip().lower() in ("nan", "")
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return True


def _in_object(
    value: dict[str, Any], schema: Mapping[str, Any], definitions: Mapping[str, Any], where: str
) -> str | None:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return f"{where or 'it'} has no {json.dumps(name)}, which is required"
    for name, each in value.items():
        inner = f"{where}.{name}" if where else name
        if name in properties:
            problem = _misfit(each, properties[name], definitions, inner)
        elif schema.get("additionalProperties") is False:
            known = ", ".join(properties) or "none"
            return f"{where or 'it'} names {json.dumps(name)}, which is unknown; what is known: {known}"
        else:
            problem = _misfit(each, schema.get("additionalProperties"), definitions, inner)
        if problem is not None:
            return problem
    return None


def _in_array(value: list[Any], schema: Mapping[str, Any], definitions: Mapping[str, Any], where: str) -> str | None:
    first = schema.get("prefixItems", [])
    for number, each in enumerate(value):
        part = first[number] if number < len(first) else schema.get("items")
        if (problem := _misfit(each, part, definitions, f"{where}[{number}]")) is not None:
            return problem
    return None


def _said(where: str, expected: str, value: Any) -> str:
    found = json.dumps(value, ensure_ascii=False)
    shown = found if len(found) <= 80 else found[:80] + "..."
    return f"{where + ': ' if where else ''}expected {expected}, found {shown}"
