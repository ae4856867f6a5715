"""From a parsed file to its exact latents, with the weights at hand."""

from __future__ import annotations

from sprdiff.format.container import ParsedFile, check_weights, is_whole, verify
from sprdiff.format.entropy import EntropyModel, Exact


def read_exact(
    parsed: ParsedFile, data: bytes, entropy: EntropyModel, weights_hash: bytes, preset_id: int, *, partial: bool
) -> Exact:
    """What a file says exactly; a `Beginning` where it is not whole and may be `partial`.

    Args:
        parsed: ``parse_file(data)``.
        entropy, weights_hash, preset_id: of the weights at hand.

    Raises:
        ModelMismatchError: the file wants other weights.
        BitstreamError: it is damaged, or truncated and not `partial`.
    """
    shape = parsed.header.latent_size(entropy.stride)
    if partial:
        check_weights(parsed.header, weights_hash, preset_id)
        if not is_whole(parsed, data, weights_hash):
            return entropy.decode_beginning(parsed.stream, shape, parsed.header.level)
    else:
        verify(parsed, data, weights_hash, preset_id)
    return entropy.decode(parsed.stream, shape, parsed.header.level)
