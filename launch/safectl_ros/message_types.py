"""Message classes by the names that the graph and bags use, such as `std_msgs/msg/Bool`."""

import importlib
from typing import Any

from safectl.errors import ConfigError


def message_class(name: str) -> type[Any]:
    """Return the class of a message type.

    Raises:
        ConfigError: If the name is malformed or its package is not installed here.
    """
    parts = name.split("/")
    if len(parts) != 3 or parts[1] != "msg":
        raise ConfigError(name, "is no message type; write it like std_msgs/msg/Bool")
    try:
        found: type[Any] = getattr(importlib.import_module(f"{parts[0]}.msg"), parts[2])
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(name, f"is not installed here ({error})") from error
    return found


def message_name(kind: type[Any]) -> str:
    """Return the name of a message class."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
