// Verifies one signature with Node's own cryptography, for what the Standard Webhooks libraries do not do.
//
// Reads {scheme, key, token, signature, content} as JSON from standard input. Exits 0 when it verifies, 1 when not.
// "HS256", "RS256", "ES256", "EdDSA": a JSON Web Token, with the signer's key (text, or a private key in PEM, of which only the
// public half is used). "ed25519": a base64 signature over content, with the base64 public key.

import { createHmac, createPublicKey, timingSafeEqual, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';

const { scheme, key, token, signature, content } = JSON.parse(readFileSync(0, 'utf8'));

function good() {
  if (scheme === 'ed25519') {
    const x = Buffer.from(key, 'base64').toString('base64url');
    const known = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
    return verify(null, Buffer.from(content), known, Buffer.from(signature, 'base64'));
  }
  const [head, claims, tail] = token.split('.');
  if (JSON.parse(Buffer.from(head, 'base64url')).alg !== scheme) return false;
  const signed = Buffer.from(`${head}.${claims}`);
  const given = Buffer.from(tail, 'base64url');
  if (scheme === 'HS256') {
    const made = createHmac('sha256', key).update(signed).digest();
    return made.length === given.length && timingSafeEqual(made, given);
  }
  const known = createPublicKey(key);
  if (scheme === 'ES256') return verify('sha256', signed, { key: known, dsaEncoding: 'ieee-p1363' }, given);
  return verify(scheme === 'EdDSA' ? null : 'sha256', signed, known, given);
}

process.exit(good() ? 0 : 1);
