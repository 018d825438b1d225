"""What is wrong with options that became a model of the API."""

import sys
from collections.abc import Mapping
from types import MappingProxyType

from pydantic import ValidationError

from tradingbot.core.problems import validation_details


def print_invalid(error: ValidationError, options: Mapping[str, str] = MappingProxyType({})) -> int:
    """Print it option by option; return the exit code.

    An option is named as its field is, unless `options` has another name of the field.
    """
    for detail in validation_details(error.errors()):
        field = detail["field"].split(".")[0]
        option = options.get(field, field).replace("_", "-")
        print(f"--{option}: {detail['message']}" if option else detail["message"], file=sys.stderr)
    return 2
