"""A receiver of OTLP that shares no code with mmwatch.

    receiver.py http|grpc PORT [CERTIFICATE KEY]

Takes what it is sent, holds it against the rules of OTLP, and does what it is told on
stdin, one command a line, each answered by one line of JSON on stdout:

    totals                what arrived until now
    answer WHAT [COUNT]   answers so from now on, or COUNT times: ok, partial N, or a
                          status of HTTP (of gRPC: UNAVAILABLE and so on)
    leave                 hangs up, and listens no more
    return                listens again
"""

import http.server
import json
import ssl
import sys
import threading
import time
from concurrent import futures

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.metrics.v1 import metrics_pb2

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
NO_VALUE = metrics_pb2.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return getattr(value, kind) if kind else None


class Totals:
    """What arrived, and what was wrong with it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests = self.points = self.ends = self.rejected = 0
        # Ends of series of which no point had come: right only where points were lost.
        self.unknown_ends = 0
        self.resource, self.headers = {}, {}
        self.metrics, self.records, self.complaints = {}, [], []

    def attributes(self, pairs):
        found = {pair.key: plain(pair.value) for pair in pairs}
        if len(found) != len(pairs):
            self.complaints.append(f"a key twice: {sorted(pair.key for pair in pairs)}")
        return found

    def take_metrics(self, request, reject):
        """Takes all points but the first `reject`; returns how many it rejected."""
        rejected = 0
        for resource in request.resource_metrics:
            self.resource = self.attributes(resource.resource.attributes)
            for scope in resource.scope_metrics:
                if not scope.scope.name:
                    self.complaints.append("a scope without a name")
                seen = set()
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    data = getattr(metric, kind)
                    for point in data.data_points:
                        if rejected < reject:
                            rejected += 1
                        else:
                            self.take_point(metric, kind, data, point, seen)
        self.rejected += rejected
        return rejected

    def take_point(self, metric, kind, data, point, seen):
        self.points += 1
        attributes = self.attributes(point.attributes)
        key = json.dumps(attributes, sort_keys=True)
        name = metric.name
        if (name, key) in seen:
            self.complaints.append(f"{name} {key} twice in a request")
        seen.add((name, key))
        monotonic = kind == "sum" and data.is_monotonic
        if kind == "sum" and data.aggregation_temporality != CUMULATIVE:
            self.complaints.append(f"{name} is not cumulative")
        if not 0 < point.start_time_unix_nano <= point.time_unix_nano:
            self.complaints.append(f"{name} {key} ends before it begins")
        known = self.metrics.setdefault(
            name, {"kind": kind, "unit": metric.unit, "monotonic": monotonic, "series": {}}
        )
        if (known["kind"], known["unit"], known["monotonic"]) != (kind, metric.unit, monotonic):
            self.complaints.append(f"{name} is of two kinds")
        if point.flags & NO_VALUE:
            self.ends += 1
            if point.WhichOneof("value"):
                self.complaints.append(f"{name} {key} has no value, and one")
            if key not in known["series"]:
                self.unknown_ends += 1
            known["series"].pop(key, None)
            return
        value = getattr(point, point.WhichOneof("value"))
        now = {
            "attributes": attributes,
            "value": value,
            "start": point.start_time_unix_nano,
            "time": point.time_unix_nano,
        }
        before = known["series"].get(key)
        if before and before["time"] >= now["time"]:
            self.complaints.append(f"{name} {key} comes late")
        if before and monotonic and before["start"] == now["start"] and before["value"] > value:
            self.complaints.append(f"{name} {key} falls from {before['value']} to {value}")
        known["series"][key] = now

    def take_logs(self, request, reject):
        rejected = 0
        for resource in request.resource_logs:
            self.resource = self.attributes(resource.resource.attributes)
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    if rejected < reject:
                        rejected += 1
                        continue
                    if not 0 < record.time_unix_nano <= record.observed_time_unix_nano:
                        self.complaints.append("an event was observed before it was")
                    self.records.append(
                        {
                            "name": record.event_name,
                            "severity": record.severity_number,
                            "severity_text": record.severity_text,
                            "body": plain(record.body),
                            "time": record.time_unix_nano,
                            "attributes": self.attributes(record.attributes),
                        }
                    )
        self.rejected += rejected
        return rejected

    def json(self):
        with self.lock:
            return {
                "requests": self.requests,
                "points": self.points,
                "ends": self.ends,
                "rejected": self.rejected,
                "resource": self.resource,
                "headers": self.headers,
                "metrics": {
                    name: {**metric, "series": list(metric["series"].values())}
                    for name, metric in self.metrics.items()
                },
                "records": self.records,
                "complaints": self.complaints,
                "unknown_ends": self.unknown_ends,
            }


class Mood:
    """How requests are answered."""

    def __init__(self):
        self.lock = threading.Lock()
        self.answer, self.left = "ok", None

    def set(self, answer, count):
        with self.lock:
            self.answer, self.left = answer, count

    def next(self):
        with self.lock:
            answer = self.answer
            if self.left is not None:
                self.left -= 1
                if self.left <= 0:
                    self.answer, self.left = "ok", None
            return answer


TOTALS, MOOD = Totals(), Mood()


def take(signal, request, headers, answer):
    """Takes a request, and returns the response to it."""
    with TOTALS.lock:
        TOTALS.requests += 1
        TOTALS.headers = headers
        reject = int(answer.split()[1]) if answer.startswith("partial") else 0
        if signal == "metrics":
            rejected = TOTALS.take_metrics(request, reject)
            response = metrics.ExportMetricsServiceResponse()
            if rejected:
                response.partial_success.rejected_data_points = rejected
        else:
            rejected = TOTALS.take_logs(request, reject)
            response = logs.ExportLogsServiceResponse()
            if rejected:
                response.partial_success.rejected_log_records = rejected
        if rejected:
            response.partial_success.error_message = "not these"
        return response


class Http:
    def __init__(self, port, certificate):
        self.port, self.certificate, self.server = port, certificate, None

    def listen(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.server is not self.server:
                    # Nobody is at home any more.
                    self.close_connection = True
                    return
                answer = MOOD.next()
                if answer.isdigit():
                    self.reply(int(answer), b"")
                    return
                signal = {"/v1/metrics": "metrics", "/v1/logs": "logs"}.get(self.path)
                if signal is None:
                    self.reply(404, b"")
                elif self.headers["Content-Type"] != "application/x-protobuf":
                    self.reply(415, b"")
                else:
                    kind = metrics.ExportMetricsServiceRequest
                    if signal == "logs":
                        kind = logs.ExportLogsServiceRequest
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    response = take(signal, kind.FromString(body), headers, answer)
                    self.reply(200, response.SerializeToString())

            def reply(self, status, body):
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(body)))
                if status == 429:
                    self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        server.block_on_close = False
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.server = server
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def leave(self):
        server, self.server = self.server, None
        server.shutdown()
        server.server_close()


class Metrics(metrics_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        return answered("metrics", request, context)


class Logs(logs_grpc.LogsServiceServicer):
    def Export(self, request, context):
        return answered("logs", request, context)


def answered(signal, request, context):
    answer = MOOD.next()
    if answer.isupper():
        context.abort(grpc.StatusCode[answer], "told to")
    return take(signal, request, dict(context.invocation_metadata()), answer)


class Grpc:
    def __init__(self, port, certificate):
        self.port, self.certificate, self.server = port, certificate, None

    def listen(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        metrics_grpc.add_MetricsServiceServicer_to_server(Metrics(), self.server)
        logs_grpc.add_LogsServiceServicer_to_server(Logs(), self.server)
        address = f"127.0.0.1:{self.port}"
        if self.certificate:
            certificate, key = (open(path, "rb").read() for path in self.certificate)
            credentials = grpc.ssl_server_credentials([(key, certificate)])
            self.server.add_secure_port(address, credentials)
        else:
            self.server.add_insecure_port(address)
        self.server.start()

    def leave(self):
        # What is under way is answered.
        self.server.stop(grace=10).wait()


def listen_again(server):
    """Listens where it did. A connection of somebody else's may have the port by now, for a while."""
    end = time.monotonic() + 60
    while True:
        try:
            return server.listen()
        except (OSError, RuntimeError):
            if time.monotonic() > end:
                raise
        time.sleep(0.1)


def main():
    kind, port, *certificate = sys.argv[1:]
    server = {"http": Http, "grpc": Grpc}[kind](int(port), certificate)
    server.listen()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        result = "done"
        if command == "totals":
            result = TOTALS.json()
        elif command == "answer":
            # The number of `partial` is a part of the answer.
            length = 2 if words[0] == "partial" else 1
            count = int(words[length]) if len(words) > length else None
            MOOD.set(" ".join(words[:length]), count)
        elif command == "leave":
            server.leave()
        elif command == "return":
            listen_again(server)
        else:
            sys.exit(f"no such command: {line}")
        print(json.dumps(result), flush=True)


main()
