"""The OpenAPI document, with what FastAPI does not see for itself."""

from typing import Any

from fastapi import FastAPI

from tradingbot.core.problems import Problem, documented

# What comes of a body that is not UTF-8, and of one that is too large, before there is any validation.
_UNREADABLE = documented(400, 413)


class Application(FastAPI):
    """FastAPI, but the documented errors are the problem documents that are really sent."""

    def openapi(self) -> dict[str, Any]:
        """Gives the document; made once."""
        if self.openapi_schema is None:
            schemas = super().openapi().setdefault("components", {}).setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            for schema in schemas.values():
                _put_nulls_back(schema.get("example"), schema, schemas)
            for path in super().openapi()["paths"].values():
                for operation in path.values():
                    if "requestBody" in operation:
                        for status, answer in _UNREADABLE.items():
                            operation["responses"].setdefault(str(status), answer)
        return super().openapi()


def _put_nulls_back(example: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """FastAPI takes all that is null out of examples, also what has to be there."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    for one in schema.get("anyOf", ()):
        _put_nulls_back(example, one, schemas)
    if isinstance(example, list) and "items" in schema:
        for item in example:
            _put_nulls_back(item, schema["items"], schemas)
    if isinstance(example, dict):
        for name, member in schema.get("properties", {}).items():
            if name in example:
                _put_nulls_back(example[name], member, schemas)
            elif name in schema.get("required", ()):
                example[name] = None
