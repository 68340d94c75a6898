"""Python values to JSON text and back, by their annotations. No pickle, ever.

What a step returns live is the recorded text converted back, exactly what replay gives: a value that is equal and of
the same type. A value that would come back as another one, or that JSON or PostgreSQL could not hold (NaN, naive
datetimes, NUL characters, lone surrogates), is refused, and the error says where it is.

    encode.py    values to JSON text
    decoding.py  JSON text to values, by pydantic
    exact.py     what comes back as it is by construction
    same.py      whether what came back is what was given
    stored_errors.py  exceptions to JSON text
"""

from pgflow.codec.decoding import decode, loads
from pgflow.codec.encode import OWN_TYPE, PAYLOAD_LIMIT, check_size, encode
from pgflow.codec.stored_errors import (
    class_name,
    decode_error,
    described,
    encode_error,
    encode_timeout,
    message_of,
    traceback_of,
)

__all__ = [
    "OWN_TYPE",
    "PAYLOAD_LIMIT",
    "check_size",
    "class_name",
    "decode",
    "decode_error",
    "described",
    "encode",
    "encode_error",
    "encode_timeout",
    "loads",
    "message_of",
    "traceback_of",
]
