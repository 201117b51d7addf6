"""HTTP/1.1 on the wire (RFC 9112): a strict grammar without I/O, and the two connections that use it."""
