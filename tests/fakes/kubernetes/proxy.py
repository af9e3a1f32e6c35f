"""forward(…) → what a Service's backend answers to a request through …/services/http:NAME:PORT/proxy/….

Backends are real HTTP servers that a test names; a Service that has none answers as one without endpoints does.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from tests.fakes.kubernetes.refusal import Refused
from tests.fakes.kubernetes.resources import Place
from tests.fakes.kubernetes.store import Store

# A server uses up its own login: a backend's key does not come through in Authorization.
_KEPT_BACK = ("authorization", "connection", "content-length", "host", "transfer-encoding", "accept-encoding")
_TIMEOUT_S = 60


def forward(
    store: Store, at: Place, method: str, query: str, headers: Mapping[str, str], content: bytes
) -> tuple[int, str, bytes]:
    """(status, content type, content). Raises Refused: 404 for a Service that is not there, 503 without the
    port or a backend."""
    parts = at.name.split(":")  # NAME, NAME:PORT or SCHEME:NAME:PORT
    name, port = (parts[-2], parts[-1]) if len(parts) > 1 else (parts[0], "")
    service = store.get(Place(at.resource, at.namespace, name))
    ports = service["spec"].get("ports", ())
    if port and port not in {str(one["port"]) for one in ports} | {str(one.get("name")) for one in ports}:
        why = f'no service port "{port}" found for service "{name}"'
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable", why)
    backend = store.backends.get((at.namespace, name))
    if backend is None:
        why = f'no endpoints available for service "{at.name}"'
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable", why)
    target = urlsplit(backend)
    host = target.hostname or ""
    if at.name.startswith("https:"):  # a server verifies nothing there
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, target.port, timeout=_TIMEOUT_S, context=ssl._create_unverified_context()
        )
    else:
        connection = http.client.HTTPConnection(host, target.port, timeout=_TIMEOUT_S)
    try:
        kept = {key: value for key, value in headers.items() if key.lower() not in _KEPT_BACK}
        connection.request(method, (at.rest or "/") + (f"?{query}" if query else ""), content or None, kept)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read()
    except (OSError, http.client.HTTPException) as error:
        why = f"error trying to reach service: {error}"
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable", why) from error
    finally:
        connection.close()
