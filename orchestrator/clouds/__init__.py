"""The clouds, each behind the same ports."""

from threading import RLock
from typing import Final

# SDKs are imported when they are first needed, on the threads that need them, and share modules whose imports go in
# circles (urllib3). Two threads that come from two ends wait for each other, which Python ends with a _DeadlockError for
# one of them, so one imports at a time.
IMPORTING: Final = RLock()
