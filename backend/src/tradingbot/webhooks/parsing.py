"""From the bytes of a request to an alert."""

from typing import Any, NamedTuple

from pydantic import ValidationError

from tradingbot.core import strict_json
from tradingbot.core.errors import UnprocessableError
from tradingbot.core.problems import validation_details
from tradingbot.webhooks.schemas import Alert


class ParsedAlert(NamedTuple):
    """The fields that we know, and the whole document without its secret."""

    alert: Alert
    payload: dict[str, Any]


def parse_alert(body: bytes) -> ParsedAlert:
    """Reads an alert, whatever content type it was sent with.

    Raises:
        UnprocessableError: saying which field is wrong, never its value.
    """
    try:
        document = strict_json.parse(body)
    except strict_json.InvalidJSONError as error:
        raise UnprocessableError(str(error)) from None
    if not isinstance(document, dict):
        raise UnprocessableError("The body must be a JSON object.")
    try:
        alert = Alert.model_validate(document)
    except ValidationError as error:
        errors = validation_details(
            error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise UnprocessableError("The alert is not valid.", errors=errors) from None
    document.pop("secret", None)
    return ParsedAlert(alert, document)
