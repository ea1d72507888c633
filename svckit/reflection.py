"""Server reflection: the services of a server and their messages, told to generic clients. Both versions of the protocol are served.

v1 (`grpc.reflection.v1`) has the messages of v1alpha under another name, and clients ask for it first; grpcio-reflection has v1alpha
alone. So the one servicer answers under both names, with the same bytes.
"""

from collections.abc import Iterable

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

V1ALPHA = reflection.SERVICE_NAME
V1 = "grpc.reflection.v1.ServerReflection"


def add_to(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Answer reflection, in both versions, for the services with these full names, and for itself."""
    _describe_v1()
    servicer = reflection.aio.ReflectionServicer((*services, V1ALPHA, V1))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": handler}),))


def _describe_v1() -> None:
    """Add v1 to the descriptions that reflection can tell, if nothing else has: clients describe every service that is listed."""
    pool, file = descriptor_pool.Default(), descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.options.ClearField("deprecated")
    file = text_format.Parse(str(file).replace("v1alpha", "v1"), descriptor_pb2.FileDescriptorProto())
    try:
        pool.FindFileByName(file.name)
    except KeyError:
        pool.AddSerializedFile(file.SerializeToString())
