"""A stand-in for a Kubernetes API server, over HTTP: real paths only, objects held to their schemas.

It answers as a server does where a client can tell: 404 for paths no server has (a malformed group, a kind under
the wrong version, a namespaced kind without its namespace) and for namespaces that are not there, 400 for a body
that is not what its path says, 409 for a second object of one name and for a stale resourceVersion, 422 for what the
schemas and bounds refuse. Server-side apply keeps managedFields as a server does. By itself it changes nothing:
Controllers play the cluster, by steps. A test scripts a Store: access (tokens, rights), admission.webhooks, faults,
absent (kinds that are not installed), backends (what answers for a Service), compact (versions that are too old).
"""

from tests.fakes.kubernetes.controllers import Controllers
from tests.fakes.kubernetes.faults import WRITES, Effect, Fault
from tests.fakes.kubernetes.refusal import Object, Refused
from tests.fakes.kubernetes.resources import RESOURCES, SERVED, Place, Resource, place
from tests.fakes.kubernetes.server import kubeconfig, serve
from tests.fakes.kubernetes.state import place_of
from tests.fakes.kubernetes.store import Store

__all__ = [
    "RESOURCES",
    "SERVED",
    "WRITES",
    "Controllers",
    "Effect",
    "Fault",
    "Object",
    "Place",
    "Refused",
    "Resource",
    "Store",
    "kubeconfig",
    "place",
    "place_of",
    "serve",
]
