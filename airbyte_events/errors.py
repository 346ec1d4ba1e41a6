"""The errors of this package, one tree::

    AirbyteEventsError
    ├── SettingsError              a setting is wrong: names it, its fault, an example
    ├── NotificationError          a webhook body that is not a notification
    ├── AirbyteError               a request to Airbyte's API failed
    │   ├── AirbyteUnreachable     no response: refused, reset, timed out
    │   │   └── NotSent            no connection was made: Airbyte never saw the request
    │   ├── MaybeStarted           a job may have been started
    │   ├── UnknownConnection      no connection, or several, have the name
    │   ├── UnknownStream          the connection has no such stream, or several
    │   ├── Unsupported            this Airbyte offers that to nobody, or not to this client
    │   ├── AirbyteProtocolError   a response that is not the public API's (HTML, wrong shape, a redirect)
    │   └── AirbyteStatusError     a response with an error status
    │       ├── Unauthorized       401, after the token was renewed once
    │       ├── Forbidden          403
    │       ├── NotFound           404
    │       ├── Conflict           409: ``try-again-later`` or ``state-conflict``
    │       ├── Unprocessable      422
    │       ├── RateLimited        429
    │       └── ServerError        5xx
    ├── StoreError                 an operation of the event store failed
    │   ├── StoreLocked            another process holds it
    │   ├── StoreFull              it has no room, or no connection, left
    │   ├── LeaseLost              the lease to write with has passed to another
    │   └── CursorExpired          the cursor is of another log, or its events are no longer kept
    ├── FeedError                  a request to a listener failed
    │   ├── FeedUnreachable        no response, or the stream broke or went silent
    │   └── FeedRefused            the listener refused: token, instance, request
    └── WaitError                  a wait ended before the job completed
        ├── HubClosed              the hub has ended, or failed: wait with another
        ├── UnknownJob             Airbyte has no such job
        ├── JobStalled             the job runs and makes no progress
        └── WaitTimeout            the time was up

No message holds a secret: URLs appear without query, user information or webhook token.
"""

from __future__ import annotations


class AirbyteEventsError(Exception):
    """Everything this package raises on purpose."""


class SettingsError(AirbyteEventsError):
    """A setting is missing or wrong. The message is one line: the variable, the fault, an example."""


class NotificationError(AirbyteEventsError):
    """A webhook body that is empty or not a JSON object."""


class AirbyteError(AirbyteEventsError):
    """A request to Airbyte's API failed."""


class AirbyteUnreachable(AirbyteError):
    """No response: connection refused or reset, or a time-out."""


class NotSent(AirbyteUnreachable):
    """The request never left this machine: it is safe to send again."""


class MaybeStarted(AirbyteError):
    """Airbyte may have started a job, and did not confirm it: start no other before it does."""


class UnknownConnection(AirbyteError):
    """No connection has the name, or several have it; the message lists candidates."""


class Unsupported(AirbyteError):
    """This Airbyte does not have the call, or not for this client; nothing was done."""


class UnknownStream(AirbyteError):
    """The connection has no such stream, or several of that name; nothing was sent. The message lists candidates."""


class AirbyteProtocolError(AirbyteError):
    """A response that is not the public API's: HTML, a redirect, a body of another shape.

    :param redirect: whether it is a redirect: Airbyte never saw the request.
    """

    def __init__(self, message: str, *, redirect: bool = False) -> None:
        super().__init__(message)
        self.redirect = redirect


class AirbyteStatusError(AirbyteError):
    """A response with an error status.

    :param message: Airbyte's reason, shortened, or the status phrase.
    :param type: the tail of the problem document's ``type``, such as ``try-again-later``.
    :param retry_after: seconds to wait, where the response has them.
    :param page: whether the body is a web page: then something in front of Airbyte sent it.
    """

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        type: str | None = None,
        retry_after: float | None = None,
        page: bool = False,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.type = type
        self.retry_after = retry_after
        self.page = page


class Unauthorized(AirbyteStatusError):
    """401 with a fresh token, or no token for these credentials (401 or 400): they are wrong, or have no access."""


class Forbidden(AirbyteStatusError):
    """403: no permission. Airbyte Cloud responds so for ids that do not exist, too."""


class NotFound(AirbyteStatusError):
    """404: no such thing, or not on this path."""


class Conflict(AirbyteStatusError):
    """409. ``type`` is ``try-again-later`` (a job of the connection runs) or ``state-conflict``."""


class Unprocessable(AirbyteStatusError):
    """422: the request's values are refused."""


class RateLimited(AirbyteStatusError):
    """429: Airbyte sheds the load of this user."""


class ServerError(AirbyteStatusError):
    """5xx."""


class StoreError(AirbyteEventsError):
    """An operation of the event store failed: disk full, read-only, gone."""


class StoreLocked(StoreError):
    """Another process holds the store."""


class StoreFull(StoreError):
    """The store has no space, or the database no connection, left: make room."""


class LeaseLost(StoreError):
    """The lease has passed to another process, and nothing was written."""


class CursorExpired(StoreError):
    """The cursor belongs to another log, or what followed it is no longer kept: read the states again."""


class FeedError(AirbyteEventsError):
    """A request to a listener failed."""


class FeedUnreachable(FeedError):
    """The listener did not respond, or its stream broke or went silent."""


class FeedRefused(FeedError):
    """The listener refused the request."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code


class WaitError(AirbyteEventsError):
    """A wait for a job ended before the job completed."""


class HubClosed(WaitError):
    """The hub has ended, or failed: wait with another one."""


class UnknownJob(WaitError):
    """Airbyte has no such job."""


class JobStalled(WaitError):
    """The job runs, and Airbyte has reported no progress for longer than allowed.

    :param cancel: whether the job shall be cancelled.
    """

    def __init__(self, message: str, *, cancel: bool) -> None:
        super().__init__(message)
        self.cancel = cancel


class WaitTimeout(WaitError):
    """The job had not completed when the time was up, or Airbyte did not respond."""
