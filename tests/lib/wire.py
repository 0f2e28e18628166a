"""Protobuf wire format by hand, for messages that no library would make."""


def varint(n):
    out = bytearray()
    while True:
        out.append((n & 0x7f) | (0x80 if n > 0x7f else 0))
        n >>= 7
        if not n:
            return bytes(out)


def tag(number, kind):
    return varint(number << 3 | kind)


def field(number, payload):
    """A length-delimited field."""
    return tag(number, 2) + varint(len(payload)) + payload


def nested(number, depth, inner=b""):
    """`depth` messages inside one another, all in field `number`."""
    for _ in range(depth):
        inner = field(number, inner)
    return inner


def agent_frame(body):
    """A frame of the link between agent and router."""
    return len(body).to_bytes(4, "big") + body
