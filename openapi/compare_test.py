"""Run by `.ci/contracts`: `python3 openapi/compare_test.py`."""

import copy
import json
import pathlib
import unittest

from compare import Comparison

V1 = pathlib.Path(__file__).parent / "v1"
DOCUMENTS = {name: json.loads((V1 / f"{name}.json").read_text("utf-8")) for name in ("gateway", "coordinator", "worker")}


def found(change, name="gateway"):
    """What is said of a document in which something was changed."""
    changed = copy.deepcopy(DOCUMENTS[name])
    change(changed)
    return Comparison(DOCUMENTS[name], changed).documents()


def schema(document, name):
    return document["components"]["schemas"][name]


def field(document, name, property_):
    return schema(document, name)["properties"][property_]


def create(document):
    return document["paths"]["/v1/tasks"]["post"]


def required(name, schema_):
    return lambda document: schema(document, schema_).setdefault("required", []).append(name)


def optional(name, schema_):
    return lambda document: schema(document, schema_)["required"].remove(name)


def put(name, property_, key, value):
    return lambda document: field(document, name, property_).__setitem__(key, value)


PARAMETER = {"in": "query", "name": "colour", "schema": {"type": "string", "maxLength": 9}}
TEXT = {"type": "string", "maxLength": 9}

BREAKING = {
    "an operation is removed": lambda d: d["paths"]["/v1/stats"].pop("get"),
    "a path is removed": lambda d: d["paths"].pop("/v1/stats"),
    "an operation is renamed": lambda d: create(d).update(operationId="newTask"),
    "a key is wanted where none was": lambda d: create(d).update(security=[{"api_key": ["tasks:write"]}]),
    "another scope is wanted": lambda d: create(d).update(security=[{}, {"api_key": ["admin"]}]) or create(d)["security"].pop(0),
    "a parameter is removed": lambda d: d["paths"]["/v1/tasks"]["get"]["parameters"].pop(),
    "a parameter is required": lambda d: d["paths"]["/v1/tasks"]["get"]["parameters"][0].update(required=True),
    "a new parameter is required": lambda d: create(d)["parameters"].append({**PARAMETER, "required": True}),
    "a body is wanted where none was": lambda d: d["paths"]["/v1/tasks/{id}/cancel"]["post"].update(
        requestBody={"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
    ),
    "a media type is no longer taken": lambda d: create(d)["requestBody"]["content"].pop("application/json"),
    "a field of a request is removed": lambda d: schema(d, "NewTask")["properties"].pop("tags"),
    "a field of a request is required": required("queue", "NewTask"),
    "a field of a request changes its type": put("NewTask", "priority", "type", ["string", "null"]),
    "a field of a request is no longer nullable": put("NewTask", "priority", "type", "integer"),
    "a nested field is bounded more": put("HttpWork", "url", "maxLength", 100),
    "a number's maximum is lowered": put("NewTask", "max_attempts", "maximum", 10),
    "a number's minimum is raised": put("NewTask", "timeout_seconds", "minimum", 5),
    "a list's length is bounded more": put("NewTaskBatch", "tasks", "maxItems", 100),
    "a pattern changes": put("NewTask", "queue", "pattern", "^[a-z]+$"),
    "a new bound": put("NewTask", "http", "maxProperties", 3),
    "a value of a request's enumeration is removed": lambda d: schema(d, "HttpMethod")["enum"].remove("PATCH"),
    "further fields are refused": lambda d: schema(d, "Problem").update(additionalProperties=False)
    or create(d)["requestBody"]["content"]["application/json"].update(schema={"$ref": "#/components/schemas/Problem"}),
    "an alternative of a request is removed": lambda d: schema(d, "NewTask")["allOf"][0]["oneOf"].pop(),
    "a success is removed": lambda d: create(d)["responses"].pop("201"),
    "a header of an answer is removed": lambda d: create(d)["responses"]["201"]["headers"].pop("Location"),
    "an answer's media type is removed": lambda d: create(d)["responses"]["201"].pop("content"),
    "a field of an answer is removed": lambda d: schema(d, "Task")["properties"].pop("run_at"),
    "a field of an answer may be missing": optional("run_at", "Task"),
    "a field of an answer changes its type": put("Task", "attempt", "type", "string"),
    "a field of an answer may be null": put("Task", "queue", "type", ["string", "null"]),
    "a nested field of an answer is removed": lambda d: schema(d, "StatusCounts")["properties"].pop("failed"),
    "a part of an answer loses a field": lambda d: schema(d, "Key")["properties"].pop("scopes"),
}

ADDITIVE = {
    "nothing": lambda d: None,
    "an operation": lambda d: d["paths"].update({"/v1/new": {"get": create(d)}}),
    "an optional parameter": lambda d: create(d)["parameters"].append(PARAMETER),
    "an optional field of a request": lambda d: schema(d, "NewTask")["properties"].update(colour=TEXT),
    "a field of an answer": lambda d: schema(d, "Task")["properties"].update(colour=TEXT)
    or schema(d, "Task")["required"].append("colour"),
    "a header of an answer": lambda d: create(d)["responses"]["201"]["headers"].update(Colour={"schema": TEXT}),
    "a wider bound": put("NewTask", "max_attempts", "maximum", 1000),
    "no bound": lambda d: field(d, "NewTask", "max_attempts").pop("maximum"),
    "no pattern": lambda d: field(d, "NewTask", "queue").pop("pattern"),
    "another method": lambda d: schema(d, "HttpMethod")["enum"].append("QUERY"),
    "another code": lambda d: schema(d, "Code")["enum"].append("too_hot"),
    "another kind of work": lambda d: schema(d, "NewTask")["allOf"][0]["oneOf"].append({"required": ["sql"]}),
    "a failure": lambda d: create(d)["responses"].update({"418": create(d)["responses"]["422"]}),
    "a narrower bound of an answer": put("Backlog", "due", "maximum", 5000),
    "a scope that is no longer wanted": lambda d: create(d).update(security=[{}, {"api_key": []}]),
    "other words": lambda d: create(d).update(summary="Something to do"),
}


class Compare(unittest.TestCase):
    def test_what_breaks_clients_is_found(self):
        for what, change in BREAKING.items():
            with self.subTest(what):
                self.assertTrue(found(change))

    def test_what_only_grows_passes(self):
        for what, change in ADDITIVE.items():
            with self.subTest(what):
                self.assertEqual(found(change), [])

    def test_the_other_documents_are_understood_too(self):
        for name in ("coordinator", "worker"):
            self.assertEqual(found(lambda d: None, name), [])
        self.assertTrue(found(put("HeartbeatRequest", "slots", "maximum", 5), "coordinator"))
        self.assertTrue(found(lambda d: schema(d, "Work")["oneOf"].pop(), "worker"))

    def test_the_place_and_the_change_are_named(self):
        told = found(put("HttpWork", "url", "maxLength", 100))
        self.assertIn("POST /v1/tasks body.http.url: maxLength was 8192, and is 100", told)


if __name__ == "__main__":
    unittest.main()
