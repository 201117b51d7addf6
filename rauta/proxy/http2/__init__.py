"""HTTP/2 on the wire (RFC 9113): what heads mean, the library of frames, and the connections that use both."""
