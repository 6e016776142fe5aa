// Reads chains of PEM certificates, each file leaf first and root last, and prints as JSON what Node makes of them:
// node chains.mjs CHAIN.pem... Throws unless each is issued and signed by the next, and the last by itself.
import assert from "node:assert";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";

const chains = process.argv.slice(2).map((path) => {
  const blocks = readFileSync(path, "utf8").split(/(?<=-----END CERTIFICATE-----\n)/);
  const chain = blocks.map((block) => new X509Certificate(block));
  chain.forEach((certificate, index) => {
    const issuer = chain[index + 1] ?? certificate;
    assert(certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey), certificate.subject);
  });
  return {
    Subjects: chain.map((certificate) => certificate.subject.replace(/^CN=/, "")),
    URIs: chain.map((certificate) => certificate.subjectAltName.replace(/^URI:/, "")),
  };
});
console.log(JSON.stringify({ Node: process.version, Chains: chains }));
