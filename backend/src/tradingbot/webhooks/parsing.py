"""From the bytes of a request to an alert."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from tradingbot.core import strict_json
from tradingbot.core.errors import UnprocessableError
from tradingbot.core.problems import validation_details
from tradingbot.webhooks.instructions import unsupported
from tradingbot.webhooks.schemas import Alert
from tradingbot.webhooks.tidying import tidy


class ParsedAlert(NamedTuple):
    """The fields that we know, the whole document without its secret, and what of it is cut or not done."""

    alert: Alert
    payload: dict[str, Any]
    notes: Sequence[str] = ()


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
    fields, notes = tidy(document)
    try:
        alert = Alert.model_validate(fields)
    except ValidationError as error:
        errors = validation_details(
            error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise UnprocessableError("The alert is not valid.", errors=errors) from None
    refused = unsupported(document)
    if refused and not alert.is_exit:
        raise UnprocessableError(
            "The alert asks for what is not supported.",
            errors=[{"field": field, "message": why} for field, why in refused],
        )
    document.pop("secret", None)
    return ParsedAlert(alert, document, (*notes, *(f"{field}: {why}" for field, why in refused)))
