"""A signed manifest (C2PA): who made the file, with what, and whether it was changed since."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING

import cv2
import numpy as np

import talkinghead
from talkinghead.errors import DependencyError, MediaError, UsageError
from talkinghead.media.atomic_file import atomic_path
from talkinghead.predict.output.provenance import Provenance

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

log = logging.getLogger(__name__)

# IPTC's word for it: the mouth is a model's, the rest of the picture the face's own.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_TRIAL_DAYS = 30


@dataclass(frozen=True)
class SignedProvenance(Provenance):
    """Adds a manifest of the Coalition for Content Provenance and Authenticity.

    A rehearsal at once, on a picture of one pixel, finds what is wrong with a certificate before an
    hour's video has been rendered.

    Args:
        metadata: as for `Provenance`.
        label: as for `Provenance`.
        certificate_path: PEM file of the signer's certificate and then those above it. Without it
            one is made up that nobody trusts: for trying out.
        key_path: PEM file of its private key, not encrypted: RSA, P-256, P-384, P-521 or Ed25519.
        timestamp_url: of a time-stamping authority, so that the signature outlives the certificate.

    Raises:
        DependencyError: c2pa-python is not installed.
        UsageError: a file cannot be read, is not what is expected, or the library does not sign
            with it.

    Paper:
        C2PA, Technical Specification 2.2, 2025.
    """

    certificate_path: str | Path | None = None
    key_path: str | Path | None = None
    timestamp_url: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_path is None) != (self.key_path is None):
            raise UsageError(
                "provenance=c2pa got a certificate or a key alone; give both "
                "provenance.certificate_path= and provenance.key_path=, or neither for a trial"
            )
        if self.certificate_path is None:
            log.warning(
                "provenance=c2pa: signed with a TEST certificate that nobody trusts; give "
                "provenance.certificate_path= and provenance.key_path= for one that is trusted"
            )
        pixel = cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes()
        self._sign("image/png", io.BytesIO(pixel), io.BytesIO())

    def seal(self, path: Path, target: Path) -> None:
        """Signs the finished file.

        Raises:
            MediaError: it cannot be signed or written.
        """
        try:
            with atomic_path(path) as signed, path.open("rb") as plain, signed.open("w+b") as file:
                self._sign("video/mp4", plain, file)
        except (UsageError, MediaError) as error:
            raise MediaError(f"{target}: {error}") from error

    def _sign(self, kind: str, source: IO[bytes], target: IO[bytes]) -> None:
        c2pa = _import_c2pa()
        certificates, key = self._credentials
        algorithm = _algorithm(key)
        try:
            info = c2pa.C2paSignerInfo(algorithm, certificates, key, self.timestamp_url)
            with c2pa.Signer.from_info(info) as signer:
                c2pa.Builder.from_json(_manifest()).sign(signer, kind, source, target)
        except c2pa.C2paError as error:
            raise UsageError(
                f"provenance=c2pa cannot sign ({error}); expected a certificate for signing with "
                "its chain, its own key, and room on the disk (docs/provenance.md)"
            ) from error

    @cached_property
    def _credentials(self) -> tuple[bytes, bytes]:
        """The certificates and the key, as PEM."""
        if self.certificate_path is None or self.key_path is None:
            return make_trial_certificate()
        return _read(self.certificate_path), _read(self.key_path)


def make_trial_certificate() -> tuple[bytes, bytes]:
    """A certificate for trying out, valid for a month, that no verifier trusts.

    Returns:
        PEM of it and of the authority above it, made up too, and PEM of its private key.
    """
    _import_c2pa()
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    root_key, key = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    chain = (
        _certificate("signer", key, "authority", root_key),
        _certificate("authority", root_key, "authority", root_key),
    )
    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
    return pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _certificate(
    name: str,
    key: EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: EllipticCurvePrivateKey,
) -> Certificate:
    """What C2PA's profile asks for; an authority's certificate where it is its own issuer."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def titled(role: str) -> x509.Name:
        text = {NameOID.ORGANIZATION_NAME: "talkinghead TEST", NameOID.COMMON_NAME: f"TEST {role}"}
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in text.items()])

    is_authority, now = name == issuer, datetime.now(UTC)
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment"), False)
    usage |= dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False)
    usage |= dict.fromkeys(("key_cert_sign", "crl_sign"), is_authority)
    builder = (
        x509.CertificateBuilder(titled(issuer), titled(name), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_TRIAL_DAYS))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=not is_authority, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if not is_authority:
        signing = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(signing, critical=False)
    return builder.sign(issuer_key, SHA256())


def _manifest() -> str:
    agent = {"name": "talkinghead", "version": talkinghead.__version__}
    created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": agent}
    actions = {"label": "c2pa.actions", "data": {"actions": [created]}}
    return json.dumps({"claim_generator_info": [agent], "assertions": [actions]})


def _algorithm(key: bytes) -> str:
    """C2PA's name of the signature that a private key makes."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise UsageError(
            "provenance.key_path names no private key that can be read "
            f"({' '.join(str(error).split())}); expected PEM, not encrypted"
        ) from error
    curves = {256: "es256", 384: "es384", 521: "es512"}
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.key_size in curves:
        return curves[private.key_size]
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise UsageError(
        f"provenance.key_path names a {type(private).__name__}; "
        "expected RSA, P-256, P-384, P-521 or Ed25519"
    )


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}); expected a PEM file"
        ) from error


def _import_c2pa() -> ModuleType:
    try:
        import c2pa
    except ImportError as error:
        raise DependencyError(
            "provenance=c2pa needs c2pa-python: pip install 'talkinghead[provenance]', or choose "
            "provenance=metadata"
        ) from error
    return c2pa
