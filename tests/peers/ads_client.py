"""An ADS client that shares no code with the mesh: gRPC's own Python, Envoy's own messages.

    ads_client.py ADDRESS CERTIFICATES MANIFESTS

MANIFESTS is a folder that declares the Workload shop/envoy already.
Asks the control plane at ADDRESS over TLS with the certificates of shop/envoy, changes MANIFESTS as
a user would, and holds what comes against the xDS protocol's rules, delta and state of the world.
Ends with status 1 at the first that is broken.
"""

import os
import pathlib
import queue
import sys
import threading

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.rpc import status_pb2

TYPE = "type.googleapis.com/envoy.config."
CLUSTER = TYPE + "cluster.v3.Cluster"
ENDPOINT = TYPE + "endpoint.v3.ClusterLoadAssignment"
CART = "outbound|8080||cart.shop.svc.cluster.local"
# What takes longer is broken.
PATIENCE = 20
# google.rpc.Code.
INVALID_ARGUMENT = 3


def manifests(cart: bool, ready: bool) -> str:
    """The mesh beside the caller: a cart that may be there and may have a replica."""
    workload = lambda name, address, app: f"""---
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: {{ name: {name}, namespace: shop, labels: {{ app: {app} }} }}
spec: {{ addresses: [{address}], serviceAccount: {name} }}
"""
    service = lambda name, vip: f"""---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  clusterIP: {vip}
  selector: {{ app: {name} }}
  ports: [{{ name: http, port: 8080, appProtocol: http }}]
"""
    parts = [service("other", "240.240.9.2")]
    if cart:
        parts.append(service("cart", "240.240.9.1"))
    if ready:
        parts.append(workload("cart-1", "10.77.2.2", "cart"))
    return "".join(parts)


def write(folder: pathlib.Path, **what: bool) -> None:
    """Replaces the manifests in one step."""
    part = folder / "mesh.yaml.part"
    part.write_text(manifests(**what))
    os.replace(part, folder / "mesh.yaml")


class Stream:
    """One ADS stream: requests in, responses out, the end as an exception."""

    def __init__(self, call, node):
        self.requests = queue.Queue()
        self.responses = queue.Queue()
        self.node = node
        answers = call(iter(self.requests.get, None))
        self.call = answers
        threading.Thread(target=self._read, args=[answers], daemon=True).start()

    def _read(self, answers):
        try:
            for answer in answers:
                self.responses.put(answer)
            self.responses.put(EOFError("the control plane ended the stream"))
        except grpc.RpcError as error:
            self.responses.put(error)

    def send(self, request):
        request.node.CopyFrom(self.node)
        self.requests.put(request)

    def next(self, type_url):
        answer = self.responses.get(timeout=PATIENCE)
        if isinstance(answer, Exception):
            raise answer
        assert answer.type_url == type_url, f"{answer.type_url} in place of {type_url}"
        return answer

    def close(self):
        self.requests.put(None)
        self.call.cancel()


class Delta(Stream):
    def __init__(self, stub, node):
        super().__init__(stub.DeltaAggregatedResources, node)
        # name → version, by type: what this client holds.
        self.held = {CLUSTER: {}, ENDPOINT: {}}

    def subscribe(self, type_url, names, initial=None):
        self.send(discovery_pb2.DeltaDiscoveryRequest(
            type_url=type_url, resource_names_subscribe=names, initial_resource_versions=initial or {}))

    def take(self, type_url, refuse=None):
        """The next response, acknowledged, or refused with a reason."""
        answer = self.next(type_url)
        reply = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=answer.nonce)
        if refuse:
            reply.error_detail.CopyFrom(status_pb2.Status(code=INVALID_ARGUMENT, message=refuse))
        else:
            held = self.held[type_url]
            held.update({resource.name: resource.version for resource in answer.resources})
            for name in answer.removed_resources:
                held.pop(name, None)
        self.send(reply)
        return answer


def addresses(resource):
    """Of an assignment of endpoints."""
    assignment = endpoint_pb2.ClusterLoadAssignment()
    assert resource.Unpack(assignment)
    return [
        endpoint.endpoint.address.socket_address.address
        for locality in assignment.endpoints
        for endpoint in locality.lb_endpoints
    ]


def delta(stub, node, folder):
    write(folder, cart=True, ready=True)
    stream = Delta(stub, node)
    stream.subscribe(CLUSTER, ["*"])
    # The control plane may not have read the manifests yet: then they come as a change. All of it
    # is refused, and what was refused is not sent again until it changes.
    clusters = {}
    while CART not in clusters:
        for resource in stream.take(CLUSTER, refuse="this client likes no clusters").resources:
            cluster = cluster_pb2.Cluster()
            assert resource.resource.Unpack(cluster) and cluster.name == resource.name
            assert cluster.name not in clusters, f"{cluster.name} was refused and came again"
            clusters[cluster.name] = cluster
    assert clusters[CART].type == cluster_pb2.Cluster.EDS, clusters[CART]
    assert clusters[CART].transport_socket_matches, "an endpoint with a sidecar is dialled with mTLS"

    stream.subscribe(ENDPOINT, [CART])
    endpoints = stream.take(ENDPOINT)
    assert [addresses(r.resource) for r in endpoints.resources] == [["10.77.2.2"]], endpoints

    write(folder, cart=True, ready=False)
    while True:
        answer = stream.responses.get(timeout=PATIENCE)
        assert not isinstance(answer, Exception), answer
        stream.send(discovery_pb2.DeltaDiscoveryRequest(type_url=answer.type_url, response_nonce=answer.nonce))
        if answer.type_url == ENDPOINT:
            break
        # Only what the change touches: the other service's cluster is as it was.
        names = {resource.name for resource in answer.resources}
        assert all("cart" in name or "envoy" in name for name in names), names
    assert [addresses(r.resource) for r in answer.resources] == [[]], answer

    write(folder, cart=False, ready=False)
    while True:
        answer = stream.responses.get(timeout=PATIENCE)
        assert not isinstance(answer, Exception), answer
        stream.send(discovery_pb2.DeltaDiscoveryRequest(type_url=answer.type_url, response_nonce=answer.nonce))
        if answer.type_url == CLUSTER and CART in answer.removed_resources:
            break
    stream.close()

    # Reconnected with what it holds, a client is sent what it lacks and no more.
    stream = Delta(stub, node)
    stream.subscribe(CLUSTER, ["*"])
    stream.take(CLUSTER)
    held = dict(stream.held[CLUSTER])
    stream.close()
    stale = {**held, CART: "gone"}
    lacking = next(iter(held))
    del stale[lacking]
    stream = Delta(stub, node)
    stream.subscribe(CLUSTER, ["*"], initial=stale)
    answer = stream.take(CLUSTER)
    assert [resource.name for resource in answer.resources] == [lacking], answer
    assert list(answer.removed_resources) == [CART], answer
    stream.close()


def state_of_the_world(stub, node, folder):
    write(folder, cart=False, ready=False)
    stream = Stream(stub.StreamAggregatedResources, node)
    ask = lambda **more: stream.send(discovery_pb2.DiscoveryRequest(type_url=CLUSTER, **more))
    ask()
    seen = set()

    def until(present):
        """Acknowledges whole states until one has the cart or lacks it."""
        while True:
            answer = stream.next(CLUSTER)
            assert (answer.version_info, answer.nonce) not in seen, "the same state twice"
            seen.add((answer.version_info, answer.nonce))
            ask(version_info=answer.version_info, response_nonce=answer.nonce)
            names = []
            for resource in answer.resources:
                cluster = cluster_pb2.Cluster()
                assert resource.Unpack(cluster)
                names.append(cluster.name)
            assert len(names) == len(set(names)), names
            if (CART in names) == present:
                return

    until(False)
    write(folder, cart=True, ready=True)
    until(True)
    write(folder, cart=False, ready=False)
    until(False)
    stream.close()


def without_certificate(address, root):
    """A client without a certificate receives no configuration."""
    credentials = grpc.ssl_channel_credentials(root_certificates=root)
    options = [("grpc.ssl_target_name_override", "anyam-control")]
    with grpc.secure_channel(address, credentials, options) as channel:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, resource_names_subscribe=["*"])
        request.node.id = "sidecar~10.77.1.2~envoy.shop~anyam.local"
        try:
            for answer in stub.DeltaAggregatedResources(iter([request]), timeout=PATIENCE):
                raise AssertionError(f"a client without a certificate received {answer}")
        except grpc.RpcError as error:
            refused = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE)
            assert error.code() in refused, error


def main():
    address, certificates, folder = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    read = lambda name: (certificates / name).read_bytes()
    credentials = grpc.ssl_channel_credentials(read("root.pem"), read("key.pem"), read("cert.pem"))
    request = discovery_pb2.DiscoveryRequest()
    request.node.id = "sidecar~10.77.1.2~envoy.shop~anyam.local"
    request.node.cluster = "envoy"
    request.node.metadata.update({
        "NAME": "envoy", "NAMESPACE": "shop", "SERVICE_ACCOUNT": "envoy",
        "TLS_CERT_CHAIN": "/cert.pem", "TLS_KEY": "/key.pem", "TLS_ROOT_CERT": "/root.pem",
    })
    without_certificate(address, read("root.pem"))
    options = [("grpc.ssl_target_name_override", "anyam-control")]
    with grpc.secure_channel(address, credentials, options) as channel:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        delta(stub, request.node, folder)
        print("delta")
        state_of_the_world(stub, request.node, folder)
        print("state of the world")


if __name__ == "__main__":
    main()
