"""TLS: whose ports show a certificate, from which Secret, and what follows for those who ask there."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy.kubernetes.fleet import Component, Fleet, Object

CERT, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"  # as kubernetes.io/tls and cert-manager have them
FOLDER, AUTHORITY_FOLDER = "/etc/hyperpd-tls", "/etc/hyperpd-workers-ca"
_FRONTS = ("gateway", "node")  # with one in their pod, workers show nothing of their own


def secret(fleet: Fleet, component: Component) -> str | None:
    """The Secret with what pods of `component` show; None where they speak plain HTTP."""
    return fleet.options.tls_secret if component in _FRONTS else fleet.options.workers_tls_secret


def files(fleet: Fleet, component: Component) -> Iterator[tuple[str, str, list[str], str]]:
    """What pods mount: (volume, Secret, its keys, folder). Whole folders: what is mounted alone is never replaced."""
    if shown := secret(fleet, component):
        yield "tls", shown, [CERT, KEY], FOLDER
    if component == "gateway" and (authority := fleet.options.workers_tls_secret):
        yield "workers-ca", authority, [AUTHORITY], AUTHORITY_FOLDER


def variables(fleet: Fleet, component: Component) -> Iterator[Object]:
    """Where those files are."""
    if secret(fleet, component):
        yield {"name": "HYPERPD_TLS_CERT_FILE", "value": f"{FOLDER}/{CERT}"}
        yield {"name": "HYPERPD_TLS_KEY_FILE", "value": f"{FOLDER}/{KEY}"}
    if component == "gateway" and fleet.options.workers_tls_secret:
        yield {"name": "HYPERPD_WORKERS_CA_FILE", "value": f"{AUTHORITY_FOLDER}/{AUTHORITY}"}


def port(fleet: Fleet, component: Component) -> Object:
    """What the port of a Service says of itself."""
    return {"name": "https", "appProtocol": "https"} if secret(fleet, component) else {}


def probed(fleet: Fleet, component: Component) -> Object:
    """What an httpGet needs; the kubelet verifies nothing."""
    return {"scheme": "HTTPS"} if secret(fleet, component) else {}


def scraped(fleet: Fleet, component: Component) -> Object:
    """What an endpoint of a PodMonitor needs: Prometheus asks addresses, where the Service's name is certified."""
    if not (shown := secret(fleet, component)):
        return {}
    service = "gateway" if component in _FRONTS else component
    namespace = fleet.namespace("gateway" if component == "gateway" else "engines")
    authority = {"secret": {"name": shown, "key": AUTHORITY}}
    return {
        "scheme": "https",
        "tlsConfig": {"ca": authority, "serverName": f"{service}.{namespace}.svc.cluster.local"},
    }
