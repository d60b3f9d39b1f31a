"""What is sealed opens where it was sealed, under its key, as it was, and in no other way."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.errors import DamagedError
from ledger.events import Payload, Progressed, Started
from ledger.records import Recorded, entry
from ledger.seals import KEY_BYTES, NONCE_BYTES, seal, unseal
from tests.builders import CREATED_US, SEAL_KEY, ident, sealed

CONTENT = '{"message":"a fjord at dawn, “blå”"}'.encode()
NONCE = bytes(range(100, 100 + NONCE_BYTES))
STREAM = ident(1)
SEALED = seal(CONTENT, key=SEAL_KEY, nonce=NONCE, stream=STREAM, version=3)


def test_what_was_sealed_opens_as_it_was() -> None:
    for content in (b"", b"{}", CONTENT, bytes(1_000_000)):
        stored = seal(content, key=SEAL_KEY, nonce=NONCE, stream=STREAM, version=1)
        assert unseal(stored, key=SEAL_KEY, stream=STREAM, version=1) == content
        assert len(stored) == 1 + NONCE_BYTES + len(content) + 16


def test_the_stored_bytes_are_what_they_have_been_since_the_first_release() -> None:
    assert SEALED.hex() == (
        "016465666768696a6b6c6d6e6f"  # how it is sealed, and the nonce
        "3339b3030a9a37f95b4065cabb450c972db0622aea18d316c6a6c264db4125d4f6858365ae92"
        "0626809339a3ce0bcc6d7e6386718d345e0b57"
    )
    opened = AESGCM(SEAL_KEY).decrypt(SEALED[1:13], SEALED[13:], STREAM + bytes(7) + b"\x03")
    assert opened == CONTENT


def test_nothing_of_the_text_is_in_the_sealed_bytes() -> None:
    assert not any(CONTENT[start : start + 4] in SEALED for start in range(len(CONTENT) - 3))


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_is_found(bit: int) -> None:
    for offset in range(len(SEALED)):
        changed = bytearray(SEALED)
        changed[offset] ^= 1 << bit
        with pytest.raises(DamagedError, match="content of event 3 of task 019b"):
            unseal(bytes(changed), key=SEAL_KEY, stream=STREAM, version=3)


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_in_the_key_is_found(bit: int) -> None:
    for offset in range(KEY_BYTES):
        key = bytearray(SEAL_KEY)
        key[offset] ^= 1 << bit
        with pytest.raises(DamagedError):
            unseal(SEALED, key=bytes(key), stream=STREAM, version=3)


def test_bytes_that_are_cut_off_or_go_on_do_not_open() -> None:
    for stored in [*(SEALED[:length] for length in range(len(SEALED))), SEALED + b"\x00"]:
        with pytest.raises(DamagedError):
            unseal(stored, key=SEAL_KEY, stream=STREAM, version=3)


ELSEWHERE = [  # key, stream, version
    (SEAL_KEY, STREAM, 2),
    (SEAL_KEY, STREAM, 4),
    (SEAL_KEY, STREAM, 3 + 2**32),
    (SEAL_KEY, STREAM, -3),
    (SEAL_KEY, STREAM, 2**70),
    (SEAL_KEY, ident(2), 3),
    (SEAL_KEY, STREAM[:15], 3),
    (SEAL_KEY, b"", 3),
    (SEAL_KEY[::-1], STREAM, 3),
    (SEAL_KEY[:16], STREAM, 3),
    (b"", STREAM, 3),
]


@pytest.mark.parametrize(("key", "stream", "version"), ELSEWHERE)
def test_it_opens_at_no_other_event_and_under_no_other_key(key: bytes, stream: bytes, version: int) -> None:
    with pytest.raises(DamagedError):
        unseal(SEALED, key=key, stream=stream, version=version)


def test_content_that_was_never_sealed_is_not_read_as_if_it_had_been() -> None:
    with pytest.raises(DamagedError):
        unseal(CONTENT, key=SEAL_KEY, stream=STREAM, version=3)


# A row of the log

SAID = Progressed(at_us=CREATED_US, percent=4, payload=Payload(message="frame 40"))


def recorded(told: Progressed | Started, *, key: bytes | None) -> Recorded:
    (one,) = sealed(1, [entry(told, actor="w", recorded_at_us=CREATED_US)])
    return Recorded(
        lane=0, position=9, stream=ident(1), version=1, account="acme", entry=one, hash=bytes(32), seal_key=key
    )


def test_a_row_with_its_key_tells_the_event_with_its_content() -> None:
    row = recorded(SAID, key=SEAL_KEY)
    assert (row.event, row.payload, row.is_erased) == (SAID, b'{"message":"frame 40"}', False)
    assert b"frame 40" not in (row.entry.payload or b"")


def test_a_row_whose_key_is_gone_tells_the_event_without_its_content() -> None:
    row = recorded(SAID, key=None)
    assert (row.event, row.payload, row.is_erased) == (Progressed(at_us=CREATED_US, percent=4), None, True)


@pytest.mark.parametrize("key", [None, SEAL_KEY])
def test_a_row_that_never_had_content_is_not_erased(key: bytes | None) -> None:
    row = recorded(Started(at_us=CREATED_US), key=key)
    assert (row.event, row.payload, row.is_erased) == (Started(at_us=CREATED_US), None, False)


def test_a_row_that_does_not_open_tells_nothing() -> None:
    row = recorded(SAID, key=bytes(KEY_BYTES))
    with pytest.raises(DamagedError):
        _ = row.event
