"""Describe the type of a key in words, for messages and for the reference.

The type is given as JSON Schema. A phrase is "an integer of at least 1".
"""

from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]
WORDS = {"string": "text", "null": "null", "integer": "an integer", "number": "a number"}

# What a text is whose characters are restricted, by its regular expression.
PATTERNS = {
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$": "at most 100 letters, digits, '.', '_' and '-', no spaces",
    "^[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}$": "at most 40 letters, digits, spaces, '.', '_', '-'",
    "^[0-9a-f]{12,64}$": "12 to 64 digits of a SHA-256 (0 to 9, a to f)",
    "^[a-z0-9][a-z0-9.+-]{0,60}$": "the id of a license, in lower case",
    "^[a-z]{2,3}$": "a code of two or three lower-case letters",
    "^https?://": "a URL that begins with http:// or https://",
}


def wanted(schema: Schema, root: Schema) -> str:
    """Return the phrase for `schema`, whose references are resolved in `root`."""
    return join_or(_alternatives(schema, root))


def required_keys(schema: Schema, root: Schema) -> list[str]:
    """Return the keys that a section cannot do without, empty if the key has no section."""
    for option in options(schema, root):
        if "properties" in option:
            return list(option.get("required", ()))
    return []


def resolve(schema: Schema, root: Schema) -> Schema:
    """Return the schema that a `$ref` names, or the schema itself."""
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def options(schema: Schema, root: Schema) -> list[Schema]:
    """Return the schemas of the types that a key may have."""
    schema = resolve(schema, root)
    return [resolve(option, root) for option in schema.get("anyOf", [schema])]


def is_section(schema: Schema, root: Schema) -> bool:
    """Return True if the key may have a section of named keys."""
    return any("properties" in option for option in options(schema, root))


def join_or(words: Sequence[str]) -> str:
    """Return `a, b or c`."""
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _alternatives(schema: Schema, root: Schema) -> list[str]:
    schema = resolve(schema, root)
    if "anyOf" in schema:
        return [phrase for option in schema["anyOf"] for phrase in _alternatives(option, root)]
    if "const" in schema or "enum" in schema:
        return [str(value) for value in schema.get("enum", [schema.get("const")])]
    kind = schema.get("type")
    if kind == "array":
        return [f"a list of {_grouped(schema['items'], root)}"]
    if kind == "object":
        return [_object(schema, root)]
    if kind == "boolean":
        return ["true", "false"]
    if kind == "string" and "pattern" in schema:
        return [PATTERNS[schema["pattern"]]]
    return [" ".join([WORDS.get(str(kind), "a value"), *_bounds(schema)])]


def _object(schema: Schema, root: Schema) -> str:
    if "properties" in schema:
        return f"a section with {', '.join(schema['properties'])}"
    names = schema.get("propertyNames", {}).get("enum", ["names"])
    return (
        f"a mapping of {join_or(names)} to {_grouped(schema.get('additionalProperties', {}), root)}"
    )


def _grouped(schema: Schema, root: Schema) -> str:
    words = _alternatives(schema, root)
    return words[0] if len(words) == 1 else f"({join_or(words)})"


def _bounds(schema: Schema) -> list[str]:
    lower = [f"of at least {schema['minimum']}"] if "minimum" in schema else []
    lower += [f"above {schema['exclusiveMinimum']}"] if "exclusiveMinimum" in schema else []
    upper = [f"at most {schema['maximum']}"] if "maximum" in schema else []
    upper += [f"below {schema['exclusiveMaximum']}"] if "exclusiveMaximum" in schema else []
    return [" and ".join(lower + upper)] if lower or upper else []
