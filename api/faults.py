"""How the parts that run beside the requests tell the log what went wrong."""

import structlog

from ledger.errors import Fault, Overloaded


def fault_text(error: BaseException) -> str:
    """What *error* says, or its name when it says nothing."""
    return str(error) or type(error).__name__


def log_fault(event: str, error: BaseException, **fields: str) -> None:
    """Log *error* as *event*, with its traceback when it is a bug: neither something broken nor a full queue."""
    bug = None if isinstance(error, Fault | Overloaded) else error
    structlog.get_logger().warning(event, **fields, fault=fault_text(error), exc_info=bug)
