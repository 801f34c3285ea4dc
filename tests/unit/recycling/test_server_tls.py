"""TLS: its state lies in the process, so connections are not handed over but linger."""

from __future__ import annotations

import asyncio
import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.recycling.served import REQUEST, answer_of, serving, until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The path of a file with a certificate for localhost and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls(certificate):
    return {"ssl_certfile": certificate, "ssl_keyfile": certificate}


@pytest.fixture
def context(certificate):
    return ssl.create_default_context(cafile=certificate)


@pytest.fixture(autouse=True)
def short_handshakes(monkeypatch):
    monkeypatch.setattr("memguard_native.recycling.server._HANDSHAKE", 0.2)


def test_an_idle_connection_is_told_to_close_by_its_next_answer(tls, context):
    async def main():
        async with serving(**tls) as (served, task):
            reader, writer = await asyncio.open_connection("localhost", served.port, ssl=context)
            writer.write(REQUEST)
            assert b"connection:" not in await answer_of(reader)
            served.drain("handover")
            writer.write(REQUEST)
            assert b"\r\nconnection: close\r\n" in await answer_of(reader)
            await asyncio.wait_for(task, 10)
            server = served.server
            assert (server.tier, server.lingered, server.aborted) == ("linger", 1, 0)
            assert server.requests == 2
            writer.close()

    asyncio.run(main())


def test_a_handshake_that_is_not_done_when_the_drain_begins_is_waited_for(tls, context):
    async def main():
        async with serving(**tls) as (served, task):
            reader, writer = await served.connect()
            await until(lambda: served.server._accepted_at)
            served.drain("linger")
            await asyncio.sleep(0.06)  # three quiet ticks are 0.03
            assert not task.done()
            await writer.start_tls(context, server_hostname="localhost")
            writer.write(REQUEST)
            assert b"\r\nconnection: close\r\n" in await answer_of(reader)
            await asyncio.wait_for(task, 10)
            writer.close()

    asyncio.run(main())


def test_a_handshake_that_never_comes_holds_up_the_drain_for_its_time_only(tls):
    async def main():
        async with serving(**tls) as (served, task):
            _, writer = await served.connect()
            await until(lambda: served.server._accepted_at)
            served.drain("linger")
            await asyncio.wait_for(task, 2)
            writer.close()

    asyncio.run(main())
