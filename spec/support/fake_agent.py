"""fake_agent.py FILE SOCKET: answer each connection with what is in FILE then, whatever it says, and close it."""
import socket
import sys

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen()
while True:
    connection, _ = listener.accept()
    with connection:
        try:
            if not connection.recv(1):
                continue
            with open(sys.argv[1], "rb") as answer:
                connection.sendall(answer.read())
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError:
            pass
