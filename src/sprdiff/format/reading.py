"""How a parsed file becomes its exact latents."""

from __future__ import annotations

from sprdiff.format.container import ParsedFile, check_weights, is_whole, verify
from sprdiff.format.entropy import EntropyModel, Exact


def check_file(
    parsed: ParsedFile, data: bytes, weights_hash: bytes, preset_id: int, *, partial: bool
) -> bool:
    """Check a file against the available weights before anything is decoded; return whether it is whole.

    Args:
        parsed: ``parse_file(data)``.
        weights_hash, preset_id: those of the available weights.
        partial: accept a file that was cut off.

    Raises:
        ModelMismatchError: the file was made with other weights.
        BitstreamError: it is damaged, or was cut off and not `partial`.
    """
    if not partial:
        verify(parsed, data, weights_hash, preset_id)
        return True
    check_weights(parsed.header, weights_hash, preset_id)
    return is_whole(parsed, data, weights_hash)


def read_exact(parsed: ParsedFile, entropy: EntropyModel, *, whole: bool) -> Exact:
    """Return the exact latents of a checked file; a `Beginning` if the file is not `whole`.

    Raises:
        BitstreamError: no encoder can have made its stream.
    """
    header = parsed.header
    shape = header.latent_size(entropy.stride)
    decode = entropy.decode if whole else entropy.decode_beginning
    return decode(parsed.stream, shape, header.level)
