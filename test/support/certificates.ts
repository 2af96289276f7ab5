// Makes certificates for tests: X.509 with keys of P-256, as few bytes of DER as TLS needs, so that no program and no package is needed.
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto"
import { isIP } from "node:net"

const der = (tag: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const content = Buffer.concat(parts)
  const { length } = content
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255]
  return Buffer.concat([Buffer.from([tag, ...size]), content])
}
const sequence = (...parts: ReadonlyArray<Uint8Array>) => der(0x30, ...parts)
const oid = (...bytes: ReadonlyArray<number>) => der(0x06, Buffer.from(bytes))
const octets = (content: Uint8Array) => der(0x04, content)
const yes = der(0x01, Buffer.from([0xff]))
const bits = (content: Uint8Array) => der(0x03, Buffer.from([0]), content)
const time = (ms: number) => der(0x18, Buffer.from(new Date(ms).toISOString().replaceAll(/[-:T]|\.\d+/g, "")))
const ecdsaWithSha256 = sequence(oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02))
const nameOf = (cn: string) => sequence(der(0x31, sequence(oid(0x55, 0x04, 0x03), der(0x0c, Buffer.from(cn)))))

const generalName = (san: string): Buffer => {
  const [kind = "", ...rest] = san.split(":")
  const value = rest.join(":")
  if (kind === "URI") return der(0x86, Buffer.from(value))
  return isIP(value) === 4 ? der(0x87, Buffer.from(value.split(".").map(Number))) : der(0x82, Buffer.from(value))
}

/** A certificate, its key, and what it signs further ones with. */
export interface TestCertificate {
  readonly cert: string
  readonly key: string
  readonly cn: string
  readonly privateKey: KeyObject
}
/** Makes a certificate. Without `by` it signs itself, as an authority does. Default: valid for a day, since a day. */
export const certificate = (
  cn: string,
  {
    by,
    from = Date.now() - 86_400_000,
    sans = [],
    until = Date.now() + 86_400_000
  }: {
    readonly by?: TestCertificate
    readonly sans?: ReadonlyArray<string>
    readonly from?: number
    readonly until?: number
  } = {}
): TestCertificate => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const serial = der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)]))
  const isAuthority = by === undefined
  const extensions = [
    sequence(oid(0x55, 0x1d, 0x13), yes, octets(isAuthority ? sequence(yes) : sequence())),
    ...(sans.length === 0 ? [] : [sequence(oid(0x55, 0x1d, 0x11), octets(sequence(...sans.map(generalName))))])
  ]
  const content = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    serial,
    ecdsaWithSha256,
    nameOf(by?.cn ?? cn),
    sequence(time(from), time(until)),
    nameOf(cn),
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(...extensions))
  )
  const signature = sign("sha256", content, by?.privateKey ?? privateKey)
  const text = sequence(content, ecdsaWithSha256, bits(signature)).toString("base64").replaceAll(/.{64}/g, "$&\n")
  return {
    cn,
    privateKey,
    cert: `-----BEGIN CERTIFICATE-----\n${text.trimEnd()}\n-----END CERTIFICATE-----\n`,
    key: String(privateKey.export({ type: "pkcs8", format: "pem" }))
  }
}
