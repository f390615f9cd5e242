"""Whether an answer answers what was asked, and as which error it counts where it does not."""

from dataclasses import replace
from typing import Final

from vendor_assets.errors import (
    VendorError,
    VendorExpiredError,
    VendorIncompleteError,
    VendorProtocolError,
    VendorRejectedError,
    VendorThrottledError,
    VendorTooLargeError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.vendors.base import (
    Asset,
    Failure,
    Means,
    Parsed,
    PlannedRequest,
    Request,
    Response,
    Vendor,
)

_ERRORS: Final[dict[Means, type[VendorError]]] = {
    "failed": VendorUnavailableError,
    "throttled": VendorThrottledError,
    "too_large": VendorTooLargeError,
    "refused": VendorRejectedError,
    "key_refused": VendorUnauthorizedError,
    "expired": VendorExpiredError,
}


def verdict(
    vendor: Vendor, asset: Asset, planned: PlannedRequest, request: Request, response: Response
) -> Parsed:
    """Judge an answer to a planned request, or to a later page of it; it answers at least a part of its leaves.

    Raises:
        VendorProtocolError: It cannot be understood.
        VendorIncompleteError: It is not all that was asked for.
        VendorThrottledError: It says that we were too fast, whatever else is in it.
        VendorError: It answers nothing; the subclass says why.
    """
    if request != planned.request:
        response = replace(response, asked=request)
    try:
        parsed = vendor.judge(asset, planned, response)
    except VendorProtocolError as error:
        if vendor.throttled(response.status, response.headers, response.body):
            raise _throttled(response.status) from error
        raise
    if not parsed.failures and vendor.throttled(response.status, response.headers, response.body):
        raise _throttled(response.status)
    if parsed.incomplete:
        message = f"the vendor calls it a success, but it is not all that was asked for: {parsed.incomplete}"
        raise VendorIncompleteError(message, status=response.status)
    if parsed.failures:
        failed = {key for failure in parsed.failures for key in failure.leaves}
        if failed >= {leaf.key for leaf in planned.leaves}:
            raise error_of(parsed.failures[0], response.status)
    return parsed


def _throttled(status: int) -> VendorThrottledError:
    error = VendorThrottledError("the vendor answers that we were too fast", status=status)
    error.what = str(error)
    return error


def error_of(failure: Failure, status: int) -> VendorError:
    """A failure that an accepted answer tells of, as the error that it is."""
    kind = _ERRORS[failure.means]
    error = kind(f"the vendor answers with an error: {failure.reason}", status=status)
    error.what = str(error)
    if isinstance(error, VendorUnauthorizedError):
        error.key_refused = True
    if isinstance(error, VendorTooLargeError):
        error.told = True
    return error
