"""Sixty JSON schemas: nested, enumerated, numbers, unicode, references, alternatives."""

from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string", "maxLength": 6}
NAMES: tuple[Schema, ...] = ({"type": "integer"}, {"type": "boolean"}, {"type": "null"})


def closed(properties: Schema, *required: str) -> Schema:
    """An object with these properties and no others; all are required unless some are named."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required or properties),
        "additionalProperties": False,
    }


def several(items: Schema, least: int = 0, most: int = 3) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


TREE: Schema = {
    "$defs": {
        "node": closed({"v": {"type": "integer", "maximum": 9, "minimum": 0}, "kids": {}}),
        "leaf": {"type": "null"},
    },
    "$ref": "#/$defs/node",
}
TREE["$defs"]["node"]["properties"]["kids"] = several(
    {"anyOf": [{"$ref": "#/$defs/leaf"}, {"$ref": "#/$defs/node"}]}, most=1
)
LIST: Schema = closed({"value": {"enum": ["a", "b"]}, "next": {}})
LIST["properties"]["next"] = {"anyOf": [{"type": "null"}, {"$ref": "#"}]}

SCALARS: list[Schema] = [
    {"type": "integer", "minimum": 0, "maximum": 9},
    {"type": "integer", "minimum": -120, "maximum": 7},
    {"type": "integer", "exclusiveMinimum": 99, "exclusiveMaximum": 1001},
    {"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 500},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": -2.5, "maximum": 2.25},
    {"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 40},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "null"},
    STRING,
    {"type": "string", "minLength": 3, "maxLength": 3},
    {"type": "string", "pattern": "^[a-z]{2}-[0-9]{3}$"},
    {"type": "string", "pattern": "^(ja|nein|vielleicht)$"},
    {"type": "string", "pattern": "^[äöüß]{1,4}$"},
    {"type": "string", "pattern": "^[\u4e00-\u4fff]{2,3}$"},
    {"type": "string", "pattern": '^"[^"]{0,4}"$'},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "uuid"},
    {"type": ["integer", "null"], "minimum": 3, "maximum": 88},
    {"enum": ["red", "green", "blue"]},
    {"enum": [1, "one", None, True, [1], {"one": 1}]},
    {"enum": ["Köln", "東京", "🙂", 'a"b', "tab\there", "back\\slash"]},
    {"const": {"a": [1, {"b": None}]}},
    {"const": "constant"},
]
OBJECTS: list[Schema] = [
    closed({"name": STRING}),
    closed({"name": STRING, "age": {"type": "integer", "minimum": 0, "maximum": 150}}),
    closed({"a": STRING, "b": {"type": "boolean"}}, "b"),
    closed({"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}, "c"),
    closed({"ключ": {"type": "boolean"}, "鍵": {"enum": [1, 2]}, "🙂": {"type": "null"}}),
    closed({"with space": {"type": "null"}, 'with "quotes"': {"type": "null"}, "": {"const": 1}}),
    closed({"deep": closed({"deeper": closed({"deepest": {"enum": ["x", "y"]}})})}),
    closed({"point": closed({"x": {"enum": [0, 1]}, "y": {"enum": [0, 1]}}), "label": STRING}),
    closed({"when": {"type": "string", "format": "date"}, "who": {"enum": ["me", "you"]}}),
    closed({"maybe": {"anyOf": [{"type": "null"}, closed({"k": {"const": 1}})]}}),
    {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 0},
    {
        "type": "object",
        "patternProperties": {"^x[0-9]$": {"enum": [1, 2]}},
        "additionalProperties": False,
    },
    {
        "title": "T",
        "description": "d",
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    },
    closed({"tags": several({"enum": ["a", "b", "c"]}), "count": {"enum": [0, 1, 2]}}),
    closed(
        {"rows": several(closed({"n": {"type": "integer", "minimum": 0, "maximum": 99}}), 1, 2)}
    ),
]
ARRAYS: list[Schema] = [
    several({"type": "boolean"}, 2, 2),
    several({"type": "integer", "minimum": 0, "maximum": 9}, 1),
    several(STRING, 0, 2),
    several(several({"type": "null"}, 1, 2), 1, 2),
    several({"anyOf": list(NAMES)}),
    several(closed({"id": {"type": "integer", "minimum": 1, "maximum": 3}}), 1, 2),
    {
        "type": "array",
        "prefixItems": [{"const": "a"}, {"type": "boolean"}],
        "items": False,
        "minItems": 2,
    },
    {"type": "array", "prefixItems": [{"enum": [1, 2]}], "items": {"type": "null"}, "maxItems": 3},
    several({}, 0, 0),
]
COMBINED: list[Schema] = [
    {"anyOf": [{"type": "boolean"}, closed({"a": {"const": 1}})]},
    {"anyOf": [STRING, several({"type": "boolean"}, 0, 2)]},
    {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 5}, {"type": "null"}]},
    {
        "oneOf": [
            closed({"kind": {"const": "a"}, "x": {"type": "boolean"}}),
            closed({"kind": {"const": "b"}, "y": {"type": "null"}}),
        ]
    },
    {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 30}]},
    {"allOf": [closed({"a": {"type": "integer"}}), {"properties": {"a": {"enum": [4, 5]}}}]},
    TREE,
    LIST,
    {
        "$defs": {"x": {"enum": ["p", "q"]}},
        **closed({"a": {"$ref": "#/$defs/x"}, "b": {"$ref": "#/$defs/x"}}),
    },
]

SCHEMAS: list[Schema] = [*SCALARS, *OBJECTS, *ARRAYS, *COMBINED]
