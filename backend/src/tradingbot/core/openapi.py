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
            for path in super().openapi()["paths"].values():
                for operation in path.values():
                    if "requestBody" in operation:
                        for status, answer in _UNREADABLE.items():
                            operation["responses"].setdefault(str(status), answer)
        return super().openapi()
