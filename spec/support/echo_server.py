"""A TCP server on loopback that prints its port.  It sends back all it gets, then its count, and closes."""
import socket
import threading

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
print(listener.getsockname()[1], flush=True)


def serve(connection):
    with connection:
        count = 0
        while True:
            data = connection.recv(65536)
            if not data:
                break
            count += len(data)
            connection.sendall(data)
        connection.sendall(b"%d" % count)


while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
