"""Failures in Dagster: written with a structured reason, and read back from a run's events."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from vendor_assets import errors
from vendor_assets.errors import LONGEST_MESSAGE, UNKNOWN, Reason, VendorAssetsError
from vendor_assets.orchestration.dagster_private import ToldFailure
from vendor_assets.orchestration.metadata import NOT_COMPLETE, REASON
from vendor_assets.presentable import presentable


def failure_from(error: VendorAssetsError) -> dg.Failure:
    """An error of ours as a Dagster failure with a structured reason, retried if that may help."""
    reason = dg.MetadataValue.json(error.reason.to_json())
    return ToldFailure(str(error), {REASON: reason}, allow_retries=error.retryable)


def reason_of_info(error: Any) -> tuple[Reason, str]:
    """Reason and message of a stored error: in its chain of causes the first error of ours, else the innermost."""
    chain = [error]
    while chain[-1].cause is not None:
        chain.append(chain[-1].cause)
    named = [(each, vars(errors).get(each.cls_name or "")) for each in chain]
    ours = [
        (each, kind) for each, kind in named if isinstance(kind, type) and issubclass(kind, VendorAssetsError)
    ]
    shown, found = (ours or named[-1:])[0]
    # Dagster stores an error as Python prints it, the class before the message.
    _, _, said = str(shown.message).partition(": ")
    said = presentable(said if found and said else shown.message, LONGEST_MESSAGE)
    kind = found.kind if isinstance(found, type) and issubclass(found, VendorAssetsError) else shown.cls_name
    return Reason(presentable(kind or UNKNOWN), what=presentable(said)), said


def reason_of_steps(events: Sequence[dg.DagsterEvent]) -> tuple[Reason, str]:
    """Reason and message of a failed run: of a failed step, else of the run itself."""
    for event in events:
        if event.is_step_failure:
            failure = event.step_failure_data
            ours = failure.user_failure_data
            if ours is not None and ours.description:
                kept = ours.metadata.get(REASON)
                document = kept.value if isinstance(kept, dg.JsonMetadataValue) else {}
                said = presentable(ours.description, LONGEST_MESSAGE)
                return Reason.from_json(document, what=said), said
            if failure.error is not None:
                return reason_of_info(failure.error)
    for event in events:
        if event.event_type == dg.DagsterEventType.RUN_FAILURE:
            # It failed before the first step, for example in a resource, or was marked as failed.
            data = event.event_specific_data
            error = getattr(data, "error", None)
            if error is not None:
                return reason_of_info(error)
            said = presentable(event.message or "the run failed", LONGEST_MESSAGE)
            return Reason(UNKNOWN, what=said), said
    return Reason(UNKNOWN, what="the run failed"), "the run failed"


def not_complete(events: Sequence[dg.DagsterEvent]) -> list[Mapping[str, Any]] | None:
    """The partitions that a failed run lists as not complete; None if there is no list."""
    for event in events:
        failure = event.step_failure_data.user_failure_data if event.is_step_failure else None
        listed = failure.metadata.get(NOT_COMPLETE) if failure else None
        if isinstance(listed, dg.TableMetadataValue):
            return [record.data for record in listed.records]
    return None
