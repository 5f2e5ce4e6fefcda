"""The calls over gRPC."""

import hmac
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from broker.apps.pubsub.protocol import (
    CALLS,
    STREAMING_PULL,
    Message,
    StreamingPullRequest,
    StreamingPullResponse,
)
from broker.apps.pubsub.refusals import Refusal, refusing
from broker.apps.pubsub.services import Services
from broker.config import Secret

# A streaming pull holds a thread as long as it lasts.
_THREADS = 512
_DETAILS = "grpc-status-details-bin"
# Publications of Google's largest size arrive; what a response has is up to us.
_OPTIONS = [
    ("grpc.max_receive_message_length", 24 * 2**20),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]


def make_server(services: Services, token: Secret) -> grpc.Server:
    """Make a gRPC server of the services, not yet on an address."""
    guards = [_Guard(token)] if token.reveal() else []
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="pubsub"),
        interceptors=guards,
        options=_OPTIONS,
    )
    handlers: dict[str, dict[str, Any]] = {}
    for call in CALLS:
        handlers.setdefault(call.service, {})[call.name] = grpc.unary_unary_rpc_method_handler(
            _unary(services.handler(call)),
            request_deserializer=call.request.FromString,
            response_serializer=call.response.SerializeToString,
        )
    service, name = STREAMING_PULL
    handlers[service][name] = grpc.stream_stream_rpc_method_handler(
        _streaming(services),
        request_deserializer=StreamingPullRequest.FromString,
        response_serializer=StreamingPullResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(*item) for item in handlers.items())
    )
    return server


def _unary(
    handler: Callable[[Message, Any], Message],
) -> Callable[[Message, grpc.ServicerContext], Message]:
    def serve(request: Message, context: grpc.ServicerContext) -> Message:
        try:
            return handler(request, context)
        except Refusal as refusal:
            _refuse(context, refusal)

    return serve


def _streaming(
    services: Services,
) -> Callable[[Iterator[Message], grpc.ServicerContext], Iterator[Message]]:
    def serve(requests: Iterator[Message], context: grpc.ServicerContext) -> Iterator[Message]:
        try:
            with refusing():
                yield from services.streaming.serve(requests, context)
        except Refusal as refusal:
            _refuse(context, refusal)
        if context.is_active():
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    return serve


def _refuse(context: grpc.ServicerContext, refusal: Refusal) -> Any:
    """End a call with Google's status, details included."""
    if refusal.reason:
        info = error_details_pb2.ErrorInfo(
            reason=refusal.reason, domain="pubsub.googleapis.com", metadata=refusal.metadata
        )
        detail = any_pb2.Any()
        detail.Pack(info)
        status = status_pb2.Status(
            code=code_pb2.Code.Value(refusal.code.name), message=refusal.words, details=[detail]
        )
        context.set_trailing_metadata(((_DETAILS, status.SerializeToString()),))
    context.abort(grpc.StatusCode[refusal.code.name], refusal.words)


class _Guard(grpc.ServerInterceptor):  # type: ignore[misc] # its types are unknown
    """Lets in those who know the token."""

    def __init__(self, token: Secret) -> None:
        self._expected = f"Bearer {token.reveal()}"
        self._refused = grpc.unary_unary_rpc_method_handler(_unauthenticated)

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: Any
    ) -> Any:
        """Return the handler of a call, or one that refuses it."""
        given = dict(details.invocation_metadata).get("authorization", "")
        if is_same(str(given), self._expected):
            return continuation(details)
        return self._refused


def _unauthenticated(request: Message, context: grpc.ServicerContext) -> None:  # noqa: ARG001
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "a valid token is needed: authorization: Bearer")


def is_same(given: str, expected: str) -> bool:
    """Compare secrets in a time that tells nothing about them."""
    return hmac.compare_digest(given.encode(), expected.encode())
