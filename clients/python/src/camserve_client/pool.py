"""The descriptor pool of this package's messages.

Python's default pool takes each message once a process: another copy of the same protos, of another version or from a
service that has its own, would stop the import. In a pool of our own both are welcome.
"""

from __future__ import annotations

from google.api import httpbody_pb2
from google.protobuf import any_pb2, empty_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
for _module in (any_pb2, empty_pb2, struct_pb2, timestamp_pb2, httpbody_pb2):
    POOL.AddSerializedFile(_module.DESCRIPTOR.serialized_pb)
