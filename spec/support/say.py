"""What servers with a thread for each connection print: whole lines, whatever the other threads do."""
import os


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())
