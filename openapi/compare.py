"""Says what of a released OpenAPI 3.1 document another one breaks: whatever a client of the old could rely on.

Usage: compare.py RELEASED.json CURRENT.json

A request that was right must stay right, an answer must keep what it had: operations, parameters, fields, types, and the bounds of
requests. What only grows passes: new operations, optional parameters and fields, wider bounds, new fields and values in answers.
Of rules that cannot be compared (`pattern`, `format`, `not`), every change in requests counts. No tool of the registries that runs
without a toolchain of its own knows OpenAPI 3.1.
"""

import json
import sys

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
TYPES = {"null", "boolean", "object", "array", "number", "string"}
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
INCOMPARABLE = ("pattern", "format", "not", "multipleOf", "const", "prefixItems", "if", "then", "else")


class Comparison:
    def __init__(self, old, new):
        self.old, self.new = old, new
        self.found = []
        # Pairs of schemas that are being compared: types may contain themselves.
        self.open = set()

    def breaks(self, place, what):
        self.found.append(f"{place}: {what}")

    def documents(self):
        for path, item in self.old["paths"].items():
            for method in METHODS:
                if method in item:
                    place = f"{method.upper()} {path}"
                    operation = self.new["paths"].get(path, {}).get(method)
                    if operation is None:
                        self.breaks(place, "is gone")
                    else:
                        self.operation(place, item[method], operation)
        return self.found

    def operation(self, place, old, new):
        if old.get("operationId") != new.get("operationId"):
            self.breaks(place, f"operationId {old.get('operationId')} has become {new.get('operationId')}")
        self.security(place, old.get("security", [{}]), new.get("security", [{}]))
        self.parameters(place, by_name(old), by_name(new))
        self.body(f"{place} body", old.get("requestBody"), new.get("requestBody"))
        for status, answer in old["responses"].items():
            # How it fails may change: clients know the classes.
            if status.startswith(("2", "3")):
                if status not in new["responses"]:
                    self.breaks(place, f"the answer {status} is gone")
                else:
                    self.answer(f"{place} {status}", answer, new["responses"][status])

    def security(self, place, old, new):
        def covers(asked, held):
            return all(name in held and set(scopes) <= set(held[name]) for name, scopes in asked.items())

        for way in old:
            if not any(covers(asked, way) for asked in new):
                self.breaks(place, f"no longer answers to {json.dumps(way)}")

    def parameters(self, place, old, new):
        for key, parameter in old.items():
            if key not in new:
                self.breaks(place, f"the {key[0]} parameter {key[1]} is gone")
                continue
            if new[key].get("required") and not parameter.get("required"):
                self.breaks(place, f"the {key[0]} parameter {key[1]} is now required")
            self.request(f"{place} {key[0]} {key[1]}", parameter.get("schema", {}), new[key].get("schema", {}))
        for key in new.keys() - old.keys():
            if new[key].get("required"):
                self.breaks(place, f"the {key[0]} parameter {key[1]} is new, and required")

    def body(self, place, old, new):
        if old is None:
            if new and new.get("required"):
                self.breaks(place, "is new, and required")
            return
        if new is None:
            return self.breaks(place, "is gone")
        if new.get("required") and not old.get("required"):
            self.breaks(place, "is now required")
        for media_type, content in old["content"].items():
            if media_type not in new["content"]:
                self.breaks(place, f"{media_type} is no longer taken")
            else:
                self.request(place, content.get("schema", {}), new["content"][media_type].get("schema", {}))

    def answer(self, place, old, new):
        for name in old.get("headers", {}).keys() - new.get("headers", {}).keys():
            self.breaks(place, f"the header {name} is gone")
        for media_type, content in old.get("content", {}).items():
            if media_type not in new.get("content", {}):
                self.breaks(place, f"{media_type} is no longer answered")
            else:
                self.response(place, content.get("schema", {}), new["content"][media_type].get("schema", {}))

    def request(self, place, old, new):
        """Whatever the old schema let through, the new one must."""
        old, new = flat(self.old, old), flat(self.new, new)
        if not self.enter("request", old, new):
            return
        for type_ in sorted(types(old) - types(new)):
            self.breaks(place, f"takes no {type_} any more")
        if values(new) is not None:
            gone = values(old) is None or [value for value in values(old) if value not in values(new)]
            if gone:
                self.breaks(place, f"takes only some values now, not {'any' if gone is True else gone}")
        self.bounds(place, old, new)
        for key in INCOMPARABLE:
            if key in new and key != "const" and old.get(key) != new[key]:
                self.breaks(place, f"{key} was {old.get(key)}, and is {new[key]}")
        if new.get("uniqueItems") and not old.get("uniqueItems"):
            self.breaks(place, "takes no repetitions any more")
        self.fields_of_request(place, old, new)
        self.parts(place, old, new, self.request)
        for key in ("oneOf", "anyOf"):
            for i, branch in enumerate(old.get(key, [])):
                if key in new and not any(self.fits(self.request, branch, other) for other in new[key]):
                    self.breaks(place, f"takes no more what {key} {i} let through")
            if key in new and key not in old:
                self.breaks(place, f"{key} is new")

    def fields_of_request(self, place, old, new):
        for name in set(new.get("required", [])) - set(old.get("required", [])):
            self.breaks(f"{place}.{name}", "is now required")
        closed = new.get("additionalProperties") is False
        if closed and old.get("additionalProperties", True) is not False:
            self.breaks(place, "takes no further fields any more")
        for name, property_ in old.get("properties", {}).items():
            if name in new.get("properties", {}):
                self.request(f"{place}.{name}", property_, new["properties"][name])
            else:
                self.breaks(f"{place}.{name}", "is gone")

    def bounds(self, place, old, new):
        for keys, narrower in ((LOWER, lambda was, now: now > was), (UPPER, lambda was, now: now < was)):
            for key in keys:
                # Nothing is shorter than 0.
                was = old.get(key, 0 if key in LOWER[2:] else None)
                if key in new and (was is None or narrower(was, new[key])):
                    self.breaks(place, f"{key} was {was}, and is {new[key]}")

    def response(self, place, old, new):
        """Whatever the old schema promised, the new one must."""
        old, new = flat(self.old, old), flat(self.new, new)
        if not self.enter("response", old, new):
            return
        for type_ in sorted(types(new) - types(old)):
            self.breaks(place, f"may be {type_} now")
        if values(old) is not None and values(new) is None:
            self.breaks(place, "is no longer one of a list of values")
        for name, property_ in old.get("properties", {}).items():
            if name not in new.get("properties", {}):
                self.breaks(f"{place}.{name}", "is gone")
                continue
            if name in old.get("required", []) and name not in new.get("required", []):
                self.breaks(f"{place}.{name}", "may be missing now")
            self.response(f"{place}.{name}", property_, new["properties"][name])
        self.parts(place, old, new, self.response)
        for key in ("oneOf", "anyOf"):
            for i, branch in enumerate(new.get(key, [])):
                if key in old and not any(self.fits(self.response, other, branch) for other in old[key]):
                    self.breaks(place, f"{key} {i} is new")
            if key in old and key not in new:
                self.breaks(place, f"{key} is gone")

    def parts(self, place, old, new, compare):
        for key in ("items", "additionalProperties", "propertyNames"):
            was, now = old.get(key), new.get(key)
            if isinstance(now, dict) and (isinstance(was, dict) or compare == self.request and was is not False):
                compare(f"{place} {key}", was if isinstance(was, dict) else {}, now)

    def enter(self, direction, old, new):
        pair = (direction, json.dumps(old, sort_keys=True), json.dumps(new, sort_keys=True))
        if pair in self.open:
            return False
        self.open.add(pair)
        return True

    def fits(self, compare, old, new):
        """Whether two branches go together: tried apart, so that nothing is noted."""
        trial = Comparison(self.old, self.new)
        trial.open = set(self.open)
        getattr(trial, compare.__name__)("", old, new)
        return not trial.found


def by_name(operation):
    return {(one["in"], one["name"]): one for one in operation.get("parameters", [])}


def types(schema):
    """The types that are let through, all of them where nothing is said. An integer is a number."""
    given = schema.get("type", sorted(TYPES | {"integer"}))
    given = {given} if isinstance(given, str) else set(given)
    return given | {"integer"} if "number" in given else given


def values(schema):
    return [schema["const"]] if "const" in schema else schema.get("enum")


def flat(document, schema):
    """The schema without references: with what its parts (`allOf`) say, and `null` among its types instead of beside them."""
    if schema is True:
        return {}
    seen = 0
    while "$ref" in schema and seen < 100:
        target = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema, seen = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}, seen + 1
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema.get("allOf", []):
        for key, value in flat(document, part).items():
            if key == "properties":
                merged[key] = {**value, **merged.get(key, {})}
            elif key == "required":
                merged[key] = sorted(set(value) | set(merged.get(key, [])))
            else:
                merged.setdefault(key, value)
    return nullable(document, merged)


def nullable(document, schema):
    for key in ("oneOf", "anyOf"):
        branches = schema.get(key, [])
        others = [branch for branch in branches if branch != {"type": "null"}]
        if len(others) == 1 and len(branches) == 2:
            rest = {name: value for name, value in schema.items() if name != key}
            inner = flat(document, others[0])
            return {**inner, **rest, "type": sorted(types(inner) | {"null"})}
    return schema


def main():
    released, current = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:])
    found = Comparison(released, current).documents()
    for line in found:
        print(line)
    if found:
        sys.exit(f"{len(found)} changes break clients of {sys.argv[1]}: a contract only grows (CONTRIBUTING.md)")


if __name__ == "__main__":
    main()
